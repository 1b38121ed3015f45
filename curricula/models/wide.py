"""Wide residual networks."""

from torch import nn

from curricula.errors import UserError
from curricula.models.resnet import pre_activation

SMALLEST = 4  # two stages halve the map


def wrn_28_10(
    num_classes: int, in_channels: int, image_size: int, dropout: float = 0.0
) -> nn.Module:
    """WRN-28-10, the network of Zagoruyko and Komodakis's (2016) best results; see `wrn`.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 4 or more.
        dropout: probability in [0, 1), between the two convolutions of every block.
    """
    return wrn(num_classes, in_channels, image_size, depth=28, width=10, dropout=dropout)


def wrn_34_10(
    num_classes: int, in_channels: int, image_size: int, dropout: float = 0.0
) -> nn.Module:
    """WRN-34-10, the network of TRADES (Zhang et al. 2019) and of much that followed; see `wrn`.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 4 or more.
        dropout: probability in [0, 1), between the two convolutions of every block.
    """
    return wrn(num_classes, in_channels, image_size, depth=34, width=10, dropout=dropout)


def wrn(
    num_classes: int,
    in_channels: int,
    image_size: int,
    depth: int,
    width: int,
    dropout: float = 0.0,
) -> nn.Module:
    """The wide residual network WRN-depth-width of Zagoruyko and Komodakis (2016, table 1): three
    stages of pre-activation blocks with 16, 32 and 64 times ``width`` channels.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 4 or more.
        depth: 6n + 4, for n blocks a stage: 10, 16, 22, 28, 34, 40...
        width: the widening factor, 1 or more.
        dropout: probability in [0, 1), between the two convolutions of every block.

    Raises:
        UserError: for a smaller image, or a keyword out of range.
    """
    if image_size < SMALLEST:
        raise UserError(
            f"wrn takes images of {SMALLEST}x{SMALLEST} or more, not {image_size}x{image_size}"
        )
    if depth < 10 or depth % 6 != 4:
        raise UserError(f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40...), not {depth}")
    if width < 1:
        raise UserError(f"width must be 1 or more, not {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie from 0 to below 1, not {dropout:g}")
    return pre_activation(
        num_classes,
        in_channels,
        stem=16,
        widths=(16 * width, 32 * width, 64 * width),
        blocks=(depth - 4) // 6,
        dropout=dropout,
    )
