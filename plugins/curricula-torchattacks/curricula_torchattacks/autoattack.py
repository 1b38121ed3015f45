"""The standard AutoAttack, composed of torchattacks' attacks with the published parameters."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import in_
from torch import Tensor

from curricula.errors import UserError
from curricula.interfaces import NormBound, Perturbation, PerturbationKind, Strength, Victim
from curricula.perturbations.validators import valid_budget
from curricula_torchattacks.attacks import CLASSES

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

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf`` or ``l2``.

    Example:
        >>> [type(part).__name__ for part in AutoAttack(budget=8 / 255).parts]
        ['APGD', 'APGDT', 'FAB', 'Square']
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False
    passes: ClassVar[int] = 100 + 9 * 100 + 9 * 100 + 5000

    budget: float = attrs.field(validator=valid_budget)
    norm: Literal["linf", "l2"] = attrs.field(default="linf", validator=in_(("linf", "l2")))

    @property
    def unit(self) -> str:
        return self.norm

    @property
    def norm_bound(self) -> NormBound:
        return NormBound(norm=self.norm, radius=self.budget)

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """The four published attacks, in the order in which they run."""
        ball = {"budget": self.budget, "norm": self.norm}
        return (
            CLASSES["APGD"](**ball, loss="ce", steps=100, n_restarts=1, rho=0.75),
            CLASSES["APGDT"](**ball, steps=100, n_restarts=1, rho=0.75),
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
        if classes < MIN_CLASSES:
            raise UserError(
                f"autoattack needs {MIN_CLASSES} classes or more, not {classes}: its targeted "
                "loss compares that many logits; write torchattacks-apgd(steps=100)"
                "|torchattacks-fab(max_steps=100)|torchattacks-square(resc_schedule=false)"
            )
        return run_in_sequence(
            self.parts,
            x_NCHW,
            y_N,
            strength=strength,
            victim=victim,
            generator=generator,
        )
