"""A folder of images as a data set."""

from pathlib import Path

import torch
import torchvision
from torchvision.transforms.v2 import functional as transforms

from curricula.data.dataset import DataSet, Split, not_there
from curricula.data.torchvision_sets import COLOUR_BUDGETS, COLOUR_TRAINING
from curricula.errors import UserError

LARGEST_BYTES = 4 * 2**30  # held whole in memory


def folder(root: str, download: bool, size: int = 32, grey: bool = False) -> DataSet:
    """Your own images: ``root/train/CLASS/*`` and ``root/test/CLASS/*``, in any format that Pillow
    reads, resized (antialiased) so that they are ``size`` x ``size``, and held in memory.

    Budgets and training defaults are those of CIFAR.

    Args:
        root: the folder.
        download: unused: your images are on your disk.
        size: height and width, 8 or more.
        grey: one channel instead of three.

    Raises:
        UserError: no such folders, different classes in the two, images too many for memory.
    """
    if size < 8:
        raise UserError(f"folder: size must be 8 or more, not {size}")
    parts = {name: Path(root) / name for name in ("train", "test")}
    if not all(path.is_dir() for path in parts.values()):
        raise not_there("folder", root, " (it must hold train/CLASS/* and test/CLASS/*)")
    try:
        train, test = (torchvision.datasets.ImageFolder(str(path)) for path in parts.values())
    except FileNotFoundError as error:
        raise UserError(f"folder: {' '.join(str(error).split())}") from error
    if train.classes != test.classes:
        raise UserError(
            f"folder: the classes of train ({', '.join(train.classes)}) and of test "
            f"({', '.join(test.classes)}) differ; give both the same sub-folders"
        )
    needed = (len(train) + len(test)) * (1 if grey else 3) * size * size
    if needed > LARGEST_BYTES:
        raise UserError(
            f"folder: {len(train) + len(test):,} images at {size}x{size} need "
            f"{needed / 2**30:.1f} GiB, more than {LARGEST_BYTES / 2**30:g}; give a smaller size"
        )

    def split(loaded: torchvision.datasets.ImageFolder) -> Split:
        try:
            pixels = torch.stack([_pixels(image, size, grey) for image, _ in loaded])
        except OSError as error:  # Pillow's word for an image that it cannot read
            raise UserError(f"folder: {error}") from error
        return Split(pixels=pixels, labels=torch.tensor(loaded.targets))

    return DataSet(
        name="folder",
        train=split(train),
        test=split(test),
        classes=tuple(train.classes),
        image_size=size,
        budgets=COLOUR_BUDGETS,
        attack={"steps": "10"},
        training=COLOUR_TRAINING,
    )


def _pixels(image: object, size: int, grey: bool) -> torch.Tensor:
    pixels: torch.Tensor = transforms.pil_to_tensor(image)
    if grey:
        pixels = transforms.rgb_to_grayscale(pixels)
    resized: torch.Tensor = transforms.resize(pixels, [size, size], antialias=True)
    return resized
