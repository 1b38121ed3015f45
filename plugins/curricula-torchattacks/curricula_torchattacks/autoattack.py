"""AutoAttack with the published parameters, composed of the attacks of torchattacks and of
curricula."""

import warnings
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import attrs
import torch
from attrs.validators import in_
from torch import Tensor

from curricula.errors import Notice
from curricula.interfaces import Norm, NormBound, Perturbation, PerturbationKind, Strength, Victim
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.restarts import worst_of
from curricula.perturbations.attacks.square import Square
from curricula.perturbations.validators import valid_budget, valid_eot
from curricula.victim.averaged import averaged, is_random
from curricula_torchattacks.attacks import CLASSES, MAX_TARGETS
from curricula_torchattacks.fab_l1 import FABL1

MIN_CLASSES = 4  # classes of the model; the targeted DLR loss compares four logits
EOT = 20  # draws in each gradient of version=rand, as published

RANDOM = (
    "autoattack in its version standard follows single draws of a network that draws random "
    "numbers, so that it looks more robust than it is: give version=rand, as in "
    "autoattack(8/255, version=rand)"
)

Version = Literal["standard", "rand"]


def run_in_sequence(
    parts: Sequence[Perturbation],
    x_NCHW: Tensor,
    y_N: Tensor,
    *,
    strength: Strength,
    victim: Victim,
    generator: torch.Generator,
) -> Tensor:
    """Run attacks one after another, each on the images that are still classified correctly, and
    return the adversarial images NCHW."""
    result = x_NCHW.detach().clone(memory_format=torch.contiguous_format)
    strength_N = torch.as_tensor(strength, device=x_NCHW.device).expand(len(x_NCHW))
    with torch.no_grad():
        active_N = victim.logits(x_NCHW).argmax(1) == y_N
        for part in parts:
            index = active_N.nonzero().squeeze(1)
            if len(index) == 0:
                break
            victim_of_active = victim.subset(index)
            adversarial = part(
                x_NCHW[index],
                y_N[index],
                strength=strength_N[index],
                victim=victim_of_active,
                generator=generator,
            )
            fooled = victim_of_active.logits(adversarial).argmax(1) != y_N[index]
            result[index[fooled]] = adversarial[fooled]
            active_N[index[fooled]] = False
    return result


@attrs.frozen(kw_only=True)
class AutoAttack:
    """Run AutoAttack (Croce and Hein 2020, section 6) in one of its published versions.

    The version ``standard`` consists of APGD on cross-entropy, APGD on the targeted DLR loss,
    targeted FAB (100 steps and one run each, the targeted ones towards up to nine other classes)
    and the Square attack with 5,000 queries. Each attacks the images that the earlier ones did not
    fool. Images that are misclassified from the start, or that no attack fools, are returned
    unchanged.

    In l-1, APGD on cross-entropy runs five times, and targeted APGD towards five classes (Croce and
    Hein 2021). With two or three classes the DLR losses compare more logits than there are;
    targeted APGD then ascends the difference of the logits of target and label.

    The version ``rand`` is for networks that draw random numbers in their forward pass. It consists
    of APGD on cross-entropy and APGD on the DLR loss, whose gradients are averages over ``eot``
    draws. Each attacks all images, and an image keeps the result that is worst for the mean
    probabilities of ``eot`` draws. With two classes the difference of the two logits replaces the
    DLR loss.

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf``, ``l2`` or ``l1``.
        version: ``standard``, or ``rand`` for random networks.
        eot: with ``version=rand``, draws in each gradient, 1 to 10,000; 20 by default.

    Raises:
        ValueError: a value out of range; ``eot`` with ``version=standard``.

    Example:
        >>> [type(part).__name__ for part in AutoAttack(budget=8 / 255).parts]
        ['APGD', 'APGDT', 'FAB', 'Square']
        >>> [(part.loss, part.eot) for part in AutoAttack(budget=8 / 255, version="rand").parts]
        [('ce', 20), ('dlr', 20)]
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=valid_budget)
    norm: Norm = attrs.field(default="linf", validator=in_(get_args(Norm)))
    version: Version = attrs.field(default="standard", validator=in_(get_args(Version)))
    eot: int | None = attrs.field(validator=valid_eot)

    @eot.default
    def _eot_default(self) -> int | None:
        return EOT if self.version == "rand" else None

    def __attrs_post_init__(self) -> None:
        if self.eot is not None and self.version != "rand":
            raise ValueError(f"eot is for version=rand, not {self.version}; add version=rand")

    @property
    def passes(self) -> int:
        """Number of passes of an image that is not fooled."""
        parts = self.parts
        return sum(part.passes for part in parts) + len(parts) * (self.eot or 0)

    @property
    def unit(self) -> str:
        return self.norm

    @property
    def norm_bound(self) -> NormBound:
        return NormBound(norm=self.norm, radius=self.budget)

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """The published attacks, in the order in which they run. The APGD of curricula makes both
        the runs on cross-entropy and those towards other classes."""
        ball = {"budget": self.budget, "norm": self.norm}
        if self.version == "rand":
            return tuple(APGD(**ball, loss=loss, eot=self.eot) for loss in ("ce", "dlr"))
        if self.norm == "l1":
            return (
                APGD(**ball, restarts=5, targets=5),
                FABL1(budget=self.budget, targets=MAX_TARGETS),
                Square(**ball, queries=5000),
            )
        return (
            *self._ascents,
            CLASSES["FAB"](
                **ball,
                multi_targeted=True,
                max_steps=100,
                n_restarts=1,
                alpha_max=0.1,
                eta=1.05,
                beta=0.9,
            ),
            self._search,
        )

    @property
    def _ascents(self) -> tuple[Perturbation, ...]:
        """APGD in l-inf and l-2. In l-2 that of torchattacks gives all images of a batch the step
        length of the first one."""
        ball = {"budget": self.budget, "norm": self.norm}
        if self.norm == "l2":
            return (APGD(**ball, targets=MAX_TARGETS),)
        return (
            CLASSES["APGD"](**ball, loss="ce", steps=100, n_restarts=1, rho=0.75),
            CLASSES["APGDT"](**ball, steps=100, n_restarts=1, rho=0.75),
        )

    @property
    def _search(self) -> Perturbation:
        """The Square attack in l-inf and l-2. In l-2 that of torchattacks spends a part of the
        radius on padding where its tiles do not fit the images."""
        ball = {"budget": self.budget, "norm": self.norm}
        if self.norm == "l2":
            return Square(**ball, queries=5000)
        return CLASSES["Square"](
            **ball,
            n_queries=5000,
            n_restarts=1,
            p_init=0.8,
            loss="margin",
            resc_schedule=False,
        )

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        with torch.no_grad():
            classes = victim.logits(x_NCHW[:1]).shape[1]
            if self.version == "rand":
                return self._with_draws(classes, x_NCHW, y_N, strength, victim, generator)
            if is_random(victim.logits, x_NCHW):
                warnings.warn(Notice(RANDOM), stacklevel=2)
        parts = self.parts
        if classes < MIN_CLASSES and self.norm == "linf":
            parts = (APGD(budget=self.budget, targets=MAX_TARGETS), *parts[2:])
        return run_in_sequence(
            parts,
            x_NCHW,
            y_N,
            strength=strength,
            victim=victim,
            generator=generator,
        )

    def _with_draws(
        self,
        classes: int,
        x_NCHW: Tensor,
        y_N: Tensor,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """Return each image's worst result of the version ``rand``, NCHW."""
        parts = self.parts
        if classes == 2:
            parts = (APGD(budget=self.budget, norm=self.norm, targets=1, eot=self.eot),)
        strength_N = torch.as_tensor(strength, device=x_NCHW.device).expand(len(x_NCHW))
        following = iter(parts)

        def run(index: Tensor, start: Tensor) -> Tensor:
            return next(following)(
                start,
                y_N[index],
                strength=strength_N[index],
                victim=victim.subset(index),
                generator=generator,
            )

        return worst_of(lambda: x_NCHW, run, len(parts), y_N, averaged(victim, self.eot or 1))
