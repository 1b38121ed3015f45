"""Data sets that torchvision reads, in its layout and through its loaders."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision.datasets

from curricula.data.dataset import DataSet, Split, not_there
from curricula.errors import UserError

GREY_BUDGETS = {"degrees": "30", "pixels": "3", "linf": "0.3", "l2": "2"}
COLOUR_BUDGETS = {"degrees": "30", "pixels": "3", "linf": "8/255", "l2": "0.5"}

GREY_TRAINING = {
    "model": "smallcnn",
    "epochs": 10,
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.0001,
    "lr_schedule": "one-cycle",
    "augmentation": "clean",
}
COLOUR_TRAINING = {
    "model": "resnet18",
    "epochs": 120,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 0.0005,
    "lr_schedule": "step(0:1, 74/120:0.1, 89/120:0.01, 99/120:0.001)",
    "augmentation": "crop+flip",
}


def mnist(root: str, download: bool, images: int | None = None) -> DataSet:
    """MNIST (LeCun et al. 1998), in ``root/MNIST/raw``; standard eps 0.3.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: the first so many training images, 10 or more, for a smaller study; None for all.

    Raises:
        UserError: files that are not there, more images than there are.
    """
    return _grey("mnist", torchvision.datasets.MNIST, root, download, images)


def fashion_mnist(root: str, download: bool, images: int | None = None) -> DataSet:
    """Fashion-MNIST (Xiao et al. 2017), in ``root/FashionMNIST/raw``; standard eps 0.3.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: the first so many training images, 10 or more, for a smaller study; None for all.

    Raises:
        UserError: files that are not there, more images than there are.
    """
    return _grey("fashion-mnist", torchvision.datasets.FashionMNIST, root, download, images)


def cifar10(root: str, download: bool, images: int | None = None) -> DataSet:
    """CIFAR-10 (Krizhevsky 2009), in ``root/cifar-10-batches-py``; standard eps 8/255.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: the first so many training images, 10 or more, for a smaller study; None for all.

    Raises:
        UserError: files that are not there, more images than there are.
    """
    return _colour("cifar10", torchvision.datasets.CIFAR10, root, download, images)


def cifar100(root: str, download: bool, images: int | None = None) -> DataSet:
    """CIFAR-100 (Krizhevsky 2009), in ``root/cifar-100-python``; standard eps 8/255.

    Args:
        root: folder of the files.
        download: fetch missing files.
        images: the first so many training images, 10 or more, for a smaller study; None for all.

    Raises:
        UserError: files that are not there, more images than there are.
    """
    return _colour("cifar100", torchvision.datasets.CIFAR100, root, download, images)


def _load(name: str, source: Callable[..., Any], root: str, download: bool) -> tuple[Any, Any]:
    try:
        train, test = (source(root, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError, ValueError) as error:  # absent, damaged, out of reach
        if download:
            raise UserError(f"{name} could not be fetched into {root!r}: {error}") from error
        raise not_there(name, root, " or fetch it with --download") from error
    return train, test


def _first(name: str, whole: Split, images: int | None) -> Split:
    if images is None:
        return whole
    if not 10 <= images <= len(whole):
        raise UserError(f"{name}: images must lie from 10 to {len(whole):,}, not {images}")
    return whole[slice(images)]


def _grey(
    name: str, source: Callable[..., Any], root: str, download: bool, images: int | None
) -> DataSet:
    train, test = _load(name, source, root, download)
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


def _colour(
    name: str, source: Callable[..., Any], root: str, download: bool, images: int | None
) -> DataSet:
    train, test = _load(name, source, root, download)

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
