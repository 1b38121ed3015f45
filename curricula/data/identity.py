"""Fingerprints of a data set, which show whether its files have changed since a run was trained on
them."""

import hashlib

import attrs
import torch

from curricula.data.dataset import DataSet, Split, SplitLike
from curricula.data.lazy_split import LazySplit

SAMPLED = 64  # images hashed of a split that is not in memory


@attrs.frozen(kw_only=True)
class DataIdentity:
    """Class names and hashes of a data set's images, which show whether the data set has changed.

    Attributes:
        classes: class names, by label.
        train: fingerprint of the training images, the validation images among them.
        test: fingerprint of the test images.
    """

    classes: tuple[str, ...]
    train: str
    test: str


def identity_of(data: DataSet) -> DataIdentity:
    """Return the class names of a data set, and the hashes of its training images (with the
    validation images) and test images."""
    return DataIdentity(
        classes=data.classes, train=fingerprint(data.train), test=fingerprint(data.test)
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
    digest.update(pixels.cpu().contiguous().numpy().data)
    return digest.hexdigest()
