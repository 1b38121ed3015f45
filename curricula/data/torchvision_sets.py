"""Data sets in the file formats and folders of torchvision, read by its loaders.

Each loader imports torchvision itself: the import takes seconds.
"""

import os
from typing import Any

import torch

from curricula.data.conventions import (
    COLOUR_BUDGETS,
    COLOUR_TRAINING,
    GREY_BUDGETS,
    GREY_TRAINING,
)
from curricula.data.dataset import DataSet, Split, missing_data_error
from curricula.errors import UserError
from curricula.runtime.values import check_whole

FOLDERS = {
    "MNIST": "MNIST",
    "FashionMNIST": "FashionMNIST",
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
}
"""Folder of each torchvision data set, below the root."""


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


def _load(name: str, loader: str, root: str, download: bool) -> tuple[Any, Any]:
    """Return the training and test images as torchvision reads them.

    Raises:
        UserError: missing or damaged files, or a failed download.
    """
    if not download and not os.path.exists(os.path.join(root, FOLDERS[loader])):
        raise missing_data_error(name, root, ", or fetch it by download (--download)")

    import torchvision.datasets

    source = getattr(torchvision.datasets, loader)
    try:
        train, test = (source(root, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError, ValueError) as error:
        if download:
            raise UserError(f"{name} could not be fetched into {root!r}: {error}") from error
        raise missing_data_error(name, root, ", or fetch it by download (--download)") from error
    return train, test


def _first(name: str, whole: Split, images: int | None) -> Split:
    """Return the first images of a split.

    Raises:
        UserError: fewer than 10, or more than there are.
    """
    if images is None:
        return whole
    check_whole(f"{name}: images", images, 10, len(whole))
    return whole[slice(images)]


def _grey(name: str, loader: str, root: str, download: bool, images: int | None) -> DataSet:
    train, test = _load(name, loader, root, download)
    return DataSet(
        name=name,
        train=_first(
            name, Split(pixels=train.data.unsqueeze(1), labels=train.targets.long()), images
        ),
        test=Split(pixels=test.data.unsqueeze(1), labels=test.targets.long()),
        classes=tuple(train.classes),
        image_size=train.data.shape[-1],
        budgets=GREY_BUDGETS,
        attack_defaults={"steps": "5"},
        training_defaults=GREY_TRAINING,
    )


def _colour(name: str, loader: str, root: str, download: bool, images: int | None) -> DataSet:
    train, test = _load(name, loader, root, download)

    def split(loaded: Any) -> Split:
        pixels = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
        return Split(pixels=pixels, labels=torch.tensor(loaded.targets))

    return DataSet(
        name=name,
        train=_first(name, split(train), images),
        test=split(test),
        classes=tuple(train.classes),
        image_size=train.data.shape[1],
        budgets=COLOUR_BUDGETS,
        attack_defaults={"steps": "10"},
        training_defaults=COLOUR_TRAINING,
    )
