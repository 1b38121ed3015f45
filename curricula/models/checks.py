"""Check arguments that several models share."""

from curricula.errors import UserError, amount
from curricula.runtime.memory import check_fits
from curricula.runtime.values import check_whole

BYTES_PER_WEIGHT = 16  # the weight, its gradient and two moments of AdamW, in float32
MAX_WIDTH = 10_000  # channels, or a factor of them; the weights must fit into memory as well


def check_image_size(
    name: str, image_size: int, *, at_least: int, at_most: int | None = None, even: bool = False
) -> None:
    """Check that an image size, in pixels, is within a model's limits, and even if the model
    requires it.

    Args:
        name: name of the model in the message.
        image_size: height and width in pixels.
        at_least: smallest size in pixels.
        at_most: largest size in pixels; None for no limit.
        even: allow only even sizes.

    Raises:
        UserError: the model does not take this size.

    Example:
        >>> check_image_size("smallcnn", 28, at_least=16)
        >>> check_image_size("smallcnn", 8, at_least=16)
        Traceback (most recent call last):
        curricula.errors.UserError: smallcnn takes images of 16x16 or more, not 8x8
    """
    too_large = at_most is not None and image_size > at_most
    if image_size < at_least or too_large or (even and image_size % 2):
        raise image_size_error(name, image_size, at_least=at_least, at_most=at_most, even=even)


def image_size_error(
    name: str, image_size: int, *, at_least: int, at_most: int | None = None, even: bool = False
) -> UserError:
    """Return a UserError that states which image sizes a model takes and which it was given."""
    least = f"{'an even size of ' if even else ''}{at_least}x{at_least} or more"
    most = "" if at_most is None else f", up to {at_most}x{at_most}"
    return UserError(f"{name} takes images of {least}{most}, not {image_size}x{image_size}")


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
