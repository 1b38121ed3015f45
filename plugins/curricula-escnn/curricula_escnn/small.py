"""StdCNN over a group, for MNIST-like images: P4CNN, P4MCNN and similar networks."""

from functools import partial

from torch import nn

from curricula.models.checks import check_dropout, check_image_size
from curricula.models.dropout import Dropout
from curricula.models.normalise import Normalise
from curricula.models.small import stdcnn
from curricula_escnn.equivariant import (
    FieldNorm,
    GroupConv,
    GroupMax,
    InvariantNetwork,
    matched_width,
)

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 22, 64  # pixels


def gcnn_stdcnn(
    num_classes: int,
    in_channels: int,
    image_size: int,
    group: str = "c4",
    width: int | None = None,
    dropout: float = 0.3,
) -> nn.Module:
    """Build a `stdcnn` whose layers are equivariant and whose logits are invariant to a group; over
    c4 it is the P4CNN of Cohen and Welling (2016, section 8.1).

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, even and 22 to 64: pooling a feature map of odd size
            would not be equivariant, and the last filters are as large as the feature map.
        group: cN (N rotations) or dN (with reflections too), N one of 1, 2, 4, 8.
        width: number of fields of each layer, 1 to 10,000; None for about the parameter count of
            stdcnn.
        dropout: probability in [0, 1) of the dropout after every layer except the last.

    Raises:
        UserError: an argument out of range.
    """
    check_image_size(
        "stdcnn over a group",
        image_size,
        at_least=MIN_IMAGE_SIZE,
        at_most=MAX_IMAGE_SIZE,
        even=True,
        square=True,
    )
    check_dropout(dropout)
    build = partial(_network, num_classes, in_channels, image_size, group, dropout)
    twin = partial(stdcnn, num_classes, in_channels, image_size)
    return build(matched_width(width, build, twin))


def p4cnn(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: int | None = None,
    dropout: float = 0.3,
) -> nn.Module:
    """Build `gcnn_stdcnn` over c4, the rotations by 90 degrees: P4CNN of Cohen and Welling (2016).

    Args:
        num_classes, in_channels, image_size: as for `gcnn_stdcnn`.
        width: number of fields of each layer, 1 to 10,000; None for about the parameter count of
            stdcnn.
        dropout: probability in [0, 1) of the dropout after every layer except the last.

    Raises:
        UserError: an argument out of range.
    """
    return gcnn_stdcnn(num_classes, in_channels, image_size, "c4", width, dropout)


def p4mcnn(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: int | None = None,
    dropout: float = 0.3,
) -> nn.Module:
    """Build `gcnn_stdcnn` over d4, the rotations by 90 degrees and the reflections.

    Args:
        num_classes, in_channels, image_size: as for `gcnn_stdcnn`.
        width: number of fields of each layer, 1 to 10,000; None for about the parameter count of
            stdcnn.
        dropout: probability in [0, 1) of the dropout after every layer except the last.

    Raises:
        UserError: an argument out of range.
    """
    return gcnn_stdcnn(num_classes, in_channels, image_size, "d4", width, dropout)


def _network(
    num_classes: int, in_channels: int, image_size: int, group: str, dropout: float, width: int
) -> InvariantNetwork:
    layers: list[nn.Module] = []
    before = in_channels
    for number in range(1, 7):
        layers += [
            GroupConv(group, before, width, 3, of_image=not layers),
            FieldNorm(group, width),
            nn.ReLU(inplace=True),
            Dropout(dropout),
        ]
        if number == 2:
            layers.append(nn.MaxPool2d(2))
        before = width
    side = (image_size - 4) // 2 - 8  # as in stdcnn
    head = [GroupConv(group, width, num_classes, side, bias=True), GroupMax(group), nn.Flatten()]
    return InvariantNetwork(Normalise(), *layers, *head, width=width)
