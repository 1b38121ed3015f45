"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, in the file formats and folders of torchvision.

Each loader imports torchvision itself: the import takes seconds. CIFAR's files are pickles, which
torchvision reads only if their check sums are those of the published ones.
"""

import math
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curricula.data.conventions import (
    COLOUR_BUDGETS,
    COLOUR_TRAINING,
    GREY_BUDGETS,
    GREY_TRAINING,
)
from curricula.data.dataset import DataSet, Split, first_training, missing_data_error
from curricula.errors import UserError
from curricula.runtime.files import read_file

FOLDERS = {
    "MNIST": "MNIST",
    "FashionMNIST": "FashionMNIST",
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
}
"""Folder of each torchvision data set, below the root."""
FETCH = ", or fetch it by download (--download)"
UINT8 = 8  # the type of numbers in idx format
GREY_SIZE, NUM_GREY_CLASSES = 28, 10


def mnist(root: str, download: bool, images: int | None = None) -> DataSet:
    """Load MNIST (LeCun et al. 1998) from ``root/MNIST/raw``; standard eps 0.3.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: number of training images, the first ones, 10 or more; None for all.

    Raises:
        UserError: missing files, or more images than the data set has.
    """
    return _grey("mnist", "MNIST", root, download, images)


def fashion_mnist(root: str, download: bool, images: int | None = None) -> DataSet:
    """Load Fashion-MNIST (Xiao et al. 2017) from ``root/FashionMNIST/raw``; standard eps 0.3.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: number of training images, the first ones, 10 or more; None for all.

    Raises:
        UserError: missing files, or more images than the data set has.
    """
    return _grey("fashion-mnist", "FashionMNIST", root, download, images)


def cifar10(root: str, download: bool, images: int | None = None) -> DataSet:
    """Load CIFAR-10 (Krizhevsky 2009) from ``root/cifar-10-batches-py``; standard eps 8/255.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: number of training images, the first ones, 10 or more; None for all.

    Raises:
        UserError: missing files, or more images than the data set has.
    """
    return _colour("cifar10", "CIFAR10", root, download, images)


def cifar100(root: str, download: bool, images: int | None = None) -> DataSet:
    """Load CIFAR-100 (Krizhevsky 2009) from ``root/cifar-100-python``; standard eps 8/255.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: number of training images, the first ones, 10 or more; None for all.

    Raises:
        UserError: missing files, or more images than the data set has.
    """
    return _colour("cifar100", "CIFAR100", root, download, images)


def _fetch(name: str, loader: str, root: str) -> None:
    """Download the missing files of a data set into the folder ``root``; if that fails, remove the
    folders that it made and left empty.

    Raises:
        UserError: a failed download.
    """
    import torchvision.datasets

    folder = Path(root, FOLDERS[loader])
    made = [path for path in (folder / "raw", folder, *folder.parents) if not path.exists()]
    try:
        getattr(torchvision.datasets, loader)(root, download=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{name} could not be fetched into {root!r}: {error}") from error
    finally:
        for path in made:  # the innermost first
            with suppress(OSError):  # there is something in it
                path.rmdir()


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 tensor in a file of MNIST's idx format, after checking that it has
    ``dimensions`` dimensions.

    torchvision would read pickles of its earlier versions in their place.

    Raises:
        OSError: the file is missing, or cannot be read.
        ValueError: it is damaged.
    """
    content = read_file(path)
    begin = 4 * (1 + dimensions)
    if len(content) < begin or content[:4] != bytes((0, 0, UINT8, dimensions)):
        raise ValueError(f"{path.name} is not a file of {dimensions} dimensions in idx format")
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    if len(content) - begin != math.prod(shape) or not len(content) - begin:
        raise ValueError(f"{path.name} is empty, cut off or too long")
    return torch.frombuffer(bytearray(content[begin:]), dtype=torch.uint8).view(*shape)


def _read_grey(raw: Path, part: str) -> Split:
    """Return the 28x28 grey images and labels of one part, ``train`` or ``t10k``, as a split.

    Raises:
        OSError: a file is missing, or cannot be read.
        ValueError: one is damaged.
    """
    pixels = _read_idx(raw / f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(raw / f"{part}-labels-idx1-ubyte", 1).long()
    if len(pixels) != len(labels):
        raise ValueError(f"{part} has {len(pixels)} images and {len(labels)} labels")
    if int(labels.max()) >= NUM_GREY_CLASSES:
        raise ValueError(f"{part} has a label of {int(labels.max())}, above 9")
    if pixels.shape[1:] != (GREY_SIZE, GREY_SIZE):
        raise ValueError(f"{part} has images of {tuple(pixels.shape[1:])} pixels, not of 28 x 28")
    return Split(pixels=pixels.unsqueeze(1), labels=labels)


def _grey(name: str, loader: str, root: str, download: bool, images: int | None) -> DataSet:
    if download:
        _fetch(name, loader, root)
    raw = Path(root, FOLDERS[loader], "raw")
    try:
        train, test = (_read_grey(raw, part) for part in ("train", "t10k"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_data_error(name, root, FETCH) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name} in {root!r} is damaged ({error}): delete {raw}, and fetch it by download "
            "(--download)"
        ) from error

    import torchvision.datasets

    data = DataSet(
        name=name,
        train=train,
        test=test,
        classes=tuple(getattr(torchvision.datasets, loader).classes),
        image_size=GREY_SIZE,
        budgets=GREY_BUDGETS,
        attack_defaults={"steps": "5"},
        training_defaults=GREY_TRAINING,
    )
    return data if images is None else first_training(data, images)


def _load(name: str, loader: str, root: str, download: bool) -> tuple[Any, Any]:
    """Return torchvision's data sets of the training images and of the test images.

    Raises:
        UserError: missing or damaged files, or a failed download.
    """
    if not download and not os.path.exists(os.path.join(root, FOLDERS[loader])):
        raise missing_data_error(name, root, FETCH)

    import torchvision.datasets

    source = getattr(torchvision.datasets, loader)
    if download:
        _fetch(name, loader, root)
    try:
        train, test = (source(root, train=part) for part in (True, False))
    except (RuntimeError, OSError, ValueError) as error:
        raise missing_data_error(name, root, FETCH) from error
    return train, test


def _colour(name: str, loader: str, root: str, download: bool, images: int | None) -> DataSet:
    train, test = _load(name, loader, root, download)

    def split(loaded: Any) -> Split:
        pixels = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
        return Split(pixels=pixels, labels=torch.tensor(loaded.targets))

    data = DataSet(
        name=name,
        train=split(train),
        test=split(test),
        classes=tuple(train.classes),
        image_size=train.data.shape[1],
        budgets=COLOUR_BUDGETS,
        attack_defaults={"steps": "10"},
        training_defaults=COLOUR_TRAINING,
    )
    return data if images is None else first_training(data, images)
