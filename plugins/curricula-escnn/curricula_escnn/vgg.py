"""VGG16 over a group, in the form for small images."""

from functools import partial

from torch import nn

from curricula.models.vgg import vgg16
from curricula_escnn.equivariant import (
    FieldNorm,
    GroupConv,
    GroupMax,
    InvariantNetwork,
    matched_width,
    parameter_count,
)
from curricula_escnn.padding import framed

STAGES = (1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)  # in widths, one number a convolution
SMALLEST = 18


def gcnn_vgg16(
    num_classes: int,
    in_channels: int,
    image_size: int,
    group: str = "c4",
    width: int | None = None,
) -> nn.Module:
    """The form of `vgg16` that is equivariant to a group, and whose logits are invariant to it:
    VGG16 with batch norm (Simonyan and Zisserman 2015, configuration D) and one linear layer.

    The image is framed in black to the next multiple of 32, so that all five poolings are of even
    maps. The last maps are reduced to their largest value over the group, then to their mean.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 18 or more, and even.
        group: cN (N rotations) or dN (with reflections too), N one of 1, 2, 4, 8.
        width: fields of the first layer, an eighth of those of the last, 1 or more; None for about
            the parameter count of vgg16.

    Raises:
        UserError: an argument out of range.
    """
    first = framed("gcnn-vgg16", image_size, smallest=SMALLEST, multiple=2 ** len(STAGES))
    build = partial(_network, first, num_classes, in_channels, group)
    twin = parameter_count(partial(vgg16, num_classes, in_channels, 32))
    return build(matched_width(width, build, twin))


def _network(
    first: list[nn.Module], num_classes: int, in_channels: int, group: str, width: int
) -> InvariantNetwork:
    layers: list[nn.Module] = []
    before = in_channels
    for stage in STAGES:
        for multiple in stage:
            fields = multiple * width
            layers += [
                GroupConv(group, before, fields, 3, padding=1, of_image=not layers),
                FieldNorm(group, fields),
                nn.ReLU(inplace=True),
            ]
            before = fields
        layers.append(nn.MaxPool2d(2))
    head = [GroupMax(group), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    return InvariantNetwork(*first, *layers, *head, width=width)
