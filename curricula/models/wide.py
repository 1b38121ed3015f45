"""Wide residual networks."""

from torch import nn

from curricula.data.spec import ImageSize
from curricula.errors import UserError, shown
from curricula.models.checks import (
    check_dropout,
    check_image_size,
    check_weights,
    check_width,
)
from curricula.models.resnet import pre_activation

MAX_DEPTH = 1000  # layers
MIN_IMAGE_SIZE = 4  # pixels; two stages halve the feature map


def wrn_28_10(
    num_classes: int, in_channels: int, image_size: ImageSize, dropout: float = 0.0
) -> nn.Module:
    """Build WRN-28-10, the wide residual network of depth 28 and width 10, the best of Zagoruyko
    and Komodakis (2016).

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 4 or more.
        dropout: probability in [0, 1) of the dropout between the convolutions of every block.
    """
    return wrn(num_classes, in_channels, image_size, depth=28, width=10, dropout=dropout)


def wrn_34_10(
    num_classes: int, in_channels: int, image_size: ImageSize, dropout: float = 0.0
) -> nn.Module:
    """Build WRN-34-10, the wide residual network of depth 34 and width 10 of TRADES (Zhang et al.
    2019) and many later papers.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 4 or more.
        dropout: probability in [0, 1) of the dropout between the convolutions of every block.
    """
    return wrn(num_classes, in_channels, image_size, depth=34, width=10, dropout=dropout)


def wrn(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    depth: int,
    width: int,
    dropout: float = 0.0,
) -> nn.Module:
    """Build the wide residual network WRN-depth-width of Zagoruyko and Komodakis (2016, table 1):
    three stages of pre-activation blocks with 16, 32 and 64 times ``width`` channels.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 4 or more.
        depth: 6n + 4 for n blocks per stage: 10, 16, 22, 28, 34, 40... up to 1,000.
        width: widening factor, 1 to 10,000.
        dropout: probability in [0, 1) of the dropout between the convolutions of every block.

    Raises:
        UserError: a smaller image, or a keyword out of range.
    """
    check_image_size("wrn", image_size, at_least=MIN_IMAGE_SIZE)
    if not 10 <= depth <= MAX_DEPTH or depth % 6 != 4:
        raise UserError(
            f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40...), at most {MAX_DEPTH:,}, not "
            f"{shown(depth)}"
        )
    check_width(width)
    check_dropout(dropout)
    widths, blocks = (16 * width, 32 * width, 64 * width), (depth - 4) // 6
    check_weights("wrn", sum(9 * (2 * blocks - 1) * channels**2 for channels in widths))
    return pre_activation(
        num_classes,
        in_channels,
        stem=16,
        widths=widths,
        blocks=blocks,
        dropout=dropout,
    )
