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
)
from curricula_escnn.padding import pad_and_normalise

STAGES = (1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)  # widths of the convolutions
MIN_IMAGE_SIZE = 18  # pixels


def gcnn_vgg16(
    num_classes: int,
    in_channels: int,
    image_size: int,
    group: str = "c4",
    width: int | None = None,
) -> nn.Module:
    """Build a `vgg16` whose layers are equivariant and whose logits are invariant to a group: VGG16
    with batch norm (Simonyan and Zisserman 2015, configuration D) and one linear layer.

    A black border pads the image to the next multiple of 32, so that all five poolings get feature
    maps of even size. The last ones are reduced to their maximum over the group, then to their
    mean.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, even and 18 or more.
        group: cN (N rotations) or dN (with reflections too), N one of 1, 2, 4, 8.
        width: number of fields of the first layer, 1 or more (the last layer has eight times as
            many); None for about the parameter count of vgg16.

    Raises:
        UserError: an argument out of range.
    """
    first = pad_and_normalise(
        "gcnn-vgg16", image_size, at_least=MIN_IMAGE_SIZE, multiple=2 ** len(STAGES)
    )
    build = partial(_network, first, num_classes, in_channels, group)
    twin = partial(vgg16, num_classes, in_channels, 32)
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
