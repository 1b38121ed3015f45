"""The classes and the shape of the images of a data set, for which networks are built."""

from collections.abc import Sequence
from typing import Any

import attrs

from curricula.errors import UserError, shown

ImageSize = int | tuple[int, int]
"""Height and width in pixels: one number for square images, or ``(height, width)``."""


def as_image_size(value: Any) -> ImageSize:
    """Return an image size as one number if height and width are equal, else as a pair.

    Raises:
        UserError: it is neither a whole number nor a pair of them, or is below 1.

    Example:
        >>> as_image_size((28, 28)), as_image_size([24, 32])
        (28, (24, 32))
    """
    pair = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    whole = all(type(side) is int and side >= 1 for side in pair)
    if len(pair) != 2 or not whole:
        raise UserError(
            "image_size must be a whole number of pixels, 1 or more, or a pair (height, width), "
            f"not {shown(value)}"
        )
    height, width = pair
    return height if height == width else (height, width)


def height_width(image_size: ImageSize) -> tuple[int, int]:
    """Return the height and the width of an image size.

    >>> height_width(28), height_width((24, 32))
    ((28, 28), (24, 32))
    """
    return image_size if isinstance(image_size, tuple) else (image_size, image_size)


@attrs.frozen(kw_only=True)
class ImageSpec:
    """The classes, channels and size of a data set's images, for which a network can be built
    without the data.

    >>> spec = ImageSpec(classes=("cat", "dog"), channels=3, image_size=(24, 32))
    >>> spec.num_classes, spec.in_channels, spec.image_size
    (2, 3, (24, 32))

    Attributes:
        classes: class names, by label.
        channels: number of channels of each image.
        image_size: height and width in pixels; ``(height, width)`` if they differ.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: ImageSize = attrs.field(converter=as_image_size)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Number of channels of each image."""
        return self.channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        return self.channels, *height_width(self.image_size)
