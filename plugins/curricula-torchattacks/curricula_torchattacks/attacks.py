"""torchattacks' attacks behind the victim: it gets a frozen module and seeded random state."""

from typing import ClassVar

import attrs
import torch
import torchattacks
from torch import Tensor

from curricula.interfaces import Guarantee, PerturbationKind, Strength, Victim


@attrs.frozen(kw_only=True)
class TorchattacksPGD:
    """`torchattacks-pgd`: torchattacks.PGD (Madry et al. 2018), in the l-inf ball.

    torchattacks takes one eps for a whole batch, so images are grouped by strength, and it draws
    from torch's global random state, which is seeded from the generator and put back.

    Args:
        budget: eps, in [0, 1] pixel units, 0 or more.
        steps: gradient steps, 1 or more.
        rel_step: length of a step as a share of the present eps; by default 2.5 / steps.
        random_start: start at a random image of the ball.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=[attrs.validators.ge(0), attrs.validators.le(1e6)])
    steps: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    rel_step: float = attrs.field(validator=attrs.validators.gt(0))
    random_start: bool = True

    @rel_step.default
    def _rel_step_default(self) -> float:
        return 2.5 / max(self.steps, 1)

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(norm="linf", radius=self.budget)

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        strength_N = torch.as_tensor(strength, device=x_NCHW.device).float().expand(len(x_NCHW))
        result = x_NCHW.detach().clone()
        devices = [x_NCHW.device] if x_NCHW.device.type == "cuda" else []
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(int(seed))
            for value in strength_N.unique().tolist():
                eps = value * self.budget
                if eps == 0:
                    continue
                group = (strength_N == value).nonzero().squeeze(1)
                attack = torchattacks.PGD(
                    victim.subset(group).as_module(),
                    eps=eps,
                    alpha=eps * self.rel_step,
                    steps=self.steps,
                    random_start=self.random_start,
                )
                result[group] = attack(x_NCHW[group].detach(), y_N[group]).detach()
        return result
