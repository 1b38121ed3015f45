"""The standard AutoAttack with the published parameters, composed of the attacks of torchattacks
and of curricula."""

from collections.abc import Sequence
from typing import ClassVar, get_args

import attrs
import torch
from attrs.validators import in_
from torch import Tensor

from curricula.interfaces import Norm, NormBound, Perturbation, PerturbationKind, Strength, Victim
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.square import Square
from curricula.perturbations.validators import valid_budget
from curricula_torchattacks.attacks import CLASSES, MAX_TARGETS
from curricula_torchattacks.fab_l1 import FABL1

MIN_CLASSES = 4  # classes of the model; the targeted DLR loss compares four logits


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
    """Run the standard AutoAttack (Croce and Hein 2020, section 6), which has no parameters.

    It consists of APGD on cross-entropy, APGD on the targeted DLR loss, targeted FAB (100 steps and
    one run each, the targeted ones towards up to nine other classes) and the Square attack with
    5,000 queries. Each attacks the images that the earlier ones did not fool. Images that are
    misclassified from the start, or that no attack fools, are returned unchanged.

    In l-1, APGD on cross-entropy runs five times, and targeted APGD towards five classes (Croce and
    Hein 2021). With two or three classes the DLR losses compare more logits than there are;
    targeted APGD then ascends the difference of the logits of target and label.

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf``, ``l2`` or ``l1``.

    Example:
        >>> [type(part).__name__ for part in AutoAttack(budget=8 / 255).parts]
        ['APGD', 'APGDT', 'FAB', 'Square']
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=valid_budget)
    norm: Norm = attrs.field(default="linf", validator=in_(get_args(Norm)))

    @property
    def passes(self) -> int:
        """Number of passes of an image that is not fooled."""
        return sum(part.passes for part in self.parts)

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
            CLASSES["Square"](
                **ball,
                n_queries=5000,
                n_restarts=1,
                p_init=0.8,
                loss="margin",
                resc_schedule=False,
            ),
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
