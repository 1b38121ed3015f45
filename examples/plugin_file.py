"""A plugin file with a perturbation, a model and a schedule.

Name the file before the command to use them:

    curricula --plugin examples/plugin_file.py plugins
    curricula --plugin examples/plugin_file.py train --model halfcnn \
        --perturb veil+rot+pgd --schedule linear --schedule 'veil=sawtooth(teeth=4)'

Check the perturbation against its contract:

    python examples/plugin_file.py
"""

from collections.abc import Callable, Iterable
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from curricula import Progress, Record, hookimpl
from curricula.interfaces import NormBound, PerturbationKind, ScheduleState, Strength, Victim
from curricula.models import Normalise


@attrs.frozen(kw_only=True)
class Veil:
    """`veil`: blend each image with white, x + share (1 - x); the share of each image is uniform in
    [0, budget times the strength].

    Args:
        budget: the largest share, from 0 (none) to 1 (all white).
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "share"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(
        default=0.5, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
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
        drawn_N = torch.rand(len(x_NCHW), generator=generator, device=generator.device)
        share_N111 = (drawn_N * strength * self.budget)[:, None, None, None]
        return (x_NCHW + share_N111 * (1 - x_NCHW)).clamp(0, 1).detach()


def halfcnn(num_classes: int, in_channels: int, image_size: int, width: int = 16) -> nn.Module:
    """Return two convolutions that read the image at half its size.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        image_size: height and width in pixels, 10 or more.
        width: channels of the first convolution, 1 or more.
    """
    if image_size < 10:
        raise ValueError(f"image_size must be 10 or more, not {image_size}")
    if width < 1:
        raise ValueError(f"width must be 1 or more, not {width}")
    side = (image_size // 2 - 2 - 3) // 2 + 1
    return nn.Sequential(
        Normalise(),
        nn.AvgPool2d(2),
        nn.Conv2d(in_channels, width, 3),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * side * side, num_classes),
    )


def sawtooth(teeth: int = 3) -> Callable[[Progress, ScheduleState], float]:
    """Return a schedule that rises from 0 towards 1 in a straight line, several times.

    Args:
        teeth: number of rises, 1 or more.
    """
    if teeth < 1:
        raise ValueError(f"teeth must be 1 or more, not {teeth}")
    return lambda progress, state: progress.fraction * teeth % 1


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    yield Record(name="veil", factory=Veil, summary="random white veil, budget a share of white")


@hookimpl
def curricula_models() -> Iterable[Record]:
    yield Record(name="halfcnn", factory=halfcnn, summary="two convolutions at half the size")


@hookimpl
def curricula_schedules() -> Iterable[Record]:
    yield Record(name="sawtooth", factory=sawtooth, summary="rises several times, like saw teeth")


def main() -> None:
    from curricula.testing import PERTURBATION_CLAUSES, check_perturbation

    broken = check_perturbation(Veil())
    for clause in PERTURBATION_CLAUSES:
        print(f"{clause.__name__:<36} {broken.get(clause.__name__, 'kept')}")
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
