"""Check arguments that several models share."""

from curricula.data.spec import ImageSize, height_width
from curricula.errors import UserError, amount
from curricula.runtime.memory import check_fits
from curricula.runtime.values import check_whole

BYTES_PER_WEIGHT = 16  # the weight, its gradient and two moments of AdamW, in float32
MAX_WIDTH = 10_000  # channels, or a factor of them; the weights must fit into memory as well


def check_image_size(
    name: str,
    image_size: ImageSize,
    *,
    at_least: int,
    at_most: int | None = None,
    even: bool = False,
    square: bool = False,
) -> None:
    """Check that height and width of images, in pixels, are within a model's limits, and even or
    equal if the model requires it.

    Args:
        name: name of the model in the message.
        image_size: height and width in pixels.
        at_least: smallest height and width in pixels.
        at_most: largest height and width in pixels; None for no limit.
        even: allow only even sizes.
        square: allow only square images.

    Raises:
        UserError: the model does not take this size.

    Example:
        >>> check_image_size("smallcnn", (20, 28), at_least=16)
        >>> check_image_size("smallcnn", 8, at_least=16)
        Traceback (most recent call last):
        curricula.errors.UserError: smallcnn takes images of 16x16 or more, not 8x8
    """
    height, width = height_width(image_size)
    not_square = square and height != width
    too_large = at_most is not None and max(height, width) > at_most
    odd = even and (height % 2 or width % 2)
    if min(height, width) >= at_least and not (not_square or too_large or odd):
        return
    least = f"{'an even size of ' if even else ''}{at_least}x{at_least} or more"
    most = "" if at_most is None else f", up to {at_most}x{at_most}"
    kind = "square images" if not_square else "images"
    raise UserError(f"{name} takes {kind} of {least}{most}, not {height}x{width}")


def check_dropout(dropout: float) -> None:
    """Check that a dropout probability is in [0, 1).

    Raises:
        UserError: it is not.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie from 0 to below 1, not {dropout:g}")


def check_weights(
    name: str, count: int, *, fix: str = "give it a lower width or depth, or smaller images"
) -> None:
    """Check that training a model of ``count`` weights fits into memory, before they are allocated.

    Args:
        name: name of the model in the message.
        count: number of its weights, at least of its largest layers.
        fix: what to do instead, for the message.

    Raises:
        UserError: it does not fit.
    """
    size = BYTES_PER_WEIGHT * count
    check_fits(f"training {name} of {amount(count)} weights", size, fix=fix)


def check_width(width: int) -> None:
    """Check that a model's width is a whole number from 1 to 10,000.

    Raises:
        UserError: it is not.
    """
    check_whole("width", width, 1, MAX_WIDTH)
