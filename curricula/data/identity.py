"""Fingerprints of a data set, which show whether its files have changed since a run was trained on
them."""

import hashlib
from typing import Any

import attrs
import torch
from attrs.validators import ge, le, optional

from curricula.data.dataset import DataSet, Split, SplitLike
from curricula.data.lazy_split import LazySplit
from curricula.data.spec import ImageSpec, height_width
from curricula.errors import printable, shown
from curricula.runtime.values import check_printable

SAMPLED = 64  # images hashed of a split that is not in memory


def _is_size(identity: Any, field: "attrs.Attribute[Any]", value: tuple[int, ...]) -> None:
    if len(value) != 2 or min(value) < 1:
        raise ValueError(f"image_size must be a height and a width, 1 or more, not {shown(value)}")


@attrs.frozen(kw_only=True)
class DataIdentity:
    """Class names and hashes of a data set's images, which show whether the data set has changed.

    Attributes:
        classes: class names, by label.
        train: fingerprint of the training images; held-out validation images are among them.
        test: fingerprint of the test images.
        validation: fingerprint of the data set's own validation images; None if it has none.
        name: name of the data set.
        channels: number of channels of each image.
        image_size: (height, width) in pixels of the images that networks receive.
        max_value: stored uint8 value that means 1.0.
    """

    classes: tuple[str, ...]
    train: str
    test: str
    validation: str | None = None
    # Runs of earlier versions lack these fields.
    name: str | None = attrs.field(default=None, validator=optional(check_printable))
    channels: int | None = attrs.field(default=None, validator=optional(ge(1)))
    image_size: tuple[int, ...] | None = attrs.field(default=None, validator=optional(_is_size))
    max_value: int | None = attrs.field(default=None, validator=optional([ge(1), le(255)]))

    @property
    def spec(self) -> ImageSpec | None:
        """Classes and shape of the images, to build a network for; None in an older run."""
        if self.channels is None or self.image_size is None:
            return None
        height, width = self.image_size
        return ImageSpec(classes=self.classes, channels=self.channels, image_size=(height, width))


def identity_of(data: DataSet) -> DataIdentity:
    """Return the class names of a data set, the shape of its images, and the hashes of its
    training images (with the held-out validation images), test images and own validation images."""
    return DataIdentity(
        classes=data.classes,
        train=fingerprint(data.train),
        test=fingerprint(data.test),
        validation=None if data.validation is None else fingerprint(data.validation),
        name=printable(data.name),
        channels=data.in_channels,
        image_size=height_width(data.image_size),
        max_value=data.max_value,
    )


def fingerprint(split: SplitLike) -> str:
    """Return a hash of a split's labels and images as text, the same on every device.

    Of a split in memory all pixels count. Of a split that is read when needed, all labels, the
    pixels of 64 images spread evenly, and each file's name and size if its reader tells them.

    >>> split = Split(pixels=torch.zeros(5, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(5))
    >>> len(fingerprint(split)), fingerprint(split) == fingerprint(split[torch.arange(5)])
    (32, True)
    >>> fingerprint(split) == fingerprint(split[torch.tensor([0, 1, 2, 4, 3])])
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((len(split), split.shape)).encode())
    digest.update(split.labels.cpu().numpy().tobytes())
    if isinstance(split, LazySplit) and split.reader.stamp is not None:
        for number in split.numbers.tolist():
            digest.update(split.reader.stamp(number).encode(errors="surrogatepass") + b"\0")
    if isinstance(split, Split):
        pixels = split.pixels
    else:
        count = min(SAMPLED, len(split))
        pixels = split[torch.arange(count) * len(split) // max(count, 1)].load().pixels
    digest.update(pixels.cpu().contiguous().view(torch.uint8).numpy().data)  # of any type
    return digest.hexdigest()
