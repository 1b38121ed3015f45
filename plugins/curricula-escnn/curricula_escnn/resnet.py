"""ResNet-18 over a group, in the form for small images."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from curricula.models.resnet import resnet18
from curricula_escnn.equivariant import (
    FieldNorm,
    GroupConv,
    GroupMax,
    InvariantNetwork,
    matched_width,
)
from curricula_escnn.padding import pad_and_normalise

STAGES = (1, 2, 4, 8)  # widths of the stages, with two blocks each
MIN_IMAGE_SIZE = 8  # pixels


def gcnn_resnet18(
    num_classes: int,
    in_channels: int,
    image_size: int,
    group: str = "c4",
    width: int | None = None,
) -> nn.Module:
    """Build a `resnet18` whose layers are equivariant and whose logits are invariant to a group:
    ResNet-18 (He et al. 2016) with a 3x3 stem of stride 1.

    Instead of resnet18's convolutions of stride 2, which favour one corner of the feature map, this
    network averages 2x2 pixels before the block. A black border pads the image to the next multiple
    of 8, so that all three poolings get feature maps of even size. The last ones are reduced to
    their maximum over the group, then to their mean.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, even and 8 or more.
        group: cN (N rotations) or dN (with reflections too), N one of 1, 2, 4, 8.
        width: number of fields of the first stage, 1 or more (the last stage has eight times as
            many); None for about the parameter count of resnet18.

    Raises:
        UserError: an argument out of range.
    """
    first = pad_and_normalise(
        "gcnn-resnet18", image_size, at_least=MIN_IMAGE_SIZE, multiple=2 ** (len(STAGES) - 1)
    )
    build = partial(_network, first, num_classes, in_channels, group)
    twin = partial(resnet18, num_classes, in_channels, image_size)
    return build(matched_width(width, build, twin))


class Residual(nn.Module):
    """A residual block: compute relu(branch(x) + shortcut(x))."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.relu(self.branch(x_NCHW) + self.shortcut(x_NCHW), inplace=True)


def _block(group: str, before: int, fields: int) -> Residual:
    branch = nn.Sequential(
        GroupConv(group, before, fields, 3, padding=1),
        FieldNorm(group, fields),
        nn.ReLU(inplace=True),
        GroupConv(group, fields, fields, 3, padding=1),
        FieldNorm(group, fields),
    )
    if before == fields:
        return Residual(branch, nn.Identity())
    shortcut = nn.Sequential(GroupConv(group, before, fields, 1), FieldNorm(group, fields))
    return Residual(branch, shortcut)


def _network(
    first: list[nn.Module], num_classes: int, in_channels: int, group: str, width: int
) -> InvariantNetwork:
    layers: list[nn.Module] = [
        GroupConv(group, in_channels, width, 3, padding=1, of_image=True),
        FieldNorm(group, width),
        nn.ReLU(inplace=True),
    ]
    before = width
    for multiple in STAGES:
        fields = multiple * width
        if fields != before:
            layers.append(nn.AvgPool2d(2))
        layers += [_block(group, before, fields), _block(group, fields, fields)]
        before = fields
    head = [GroupMax(group), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    return InvariantNetwork(*first, *layers, *head, width=width)
