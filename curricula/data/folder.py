"""A data set from a folder of images."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
import torchvision.datasets

from curricula.data.conventions import COLOUR_BUDGETS, COLOUR_TRAINING
from curricula.data.dataset import DataSet, missing_data_error
from curricula.data.lazy_split import LazySplit, Reader
from curricula.data.photos import read_image
from curricula.errors import UserError, shown
from curricula.runtime.memory import check_fits
from curricula.runtime.values import check_whole

MAX_SIZE = 4096  # pixels of a side of the images as they are used
MAX_BYTES = 4 * 2**30  # bytes of pixels that ``keep=auto`` holds in memory


def folder(
    root: str,
    download: bool,
    size: int = 32,
    grey: bool = False,
    keep: Literal["auto", "memory", "disk"] = "auto",
) -> DataSet:
    """Load your own images from ``root/train/CLASS/*`` and ``root/test/CLASS/*`` (JPEG, PNG, PPM,
    BMP, TIFF or WebP), resized with antialiasing to ``size`` x ``size``.

    Budgets and training defaults are those of CIFAR.

    Args:
        root: the folder.
        download: unused: the images are on your disk.
        size: height and width in pixels, 8 to 4,096.
        grey: one channel instead of three.
        keep: where the pixels are kept. ``memory`` reads all images once and holds them on the
            device; ``disk`` reads each batch from the files when it is needed; ``auto`` means
            ``memory`` for up to 4 GiB of pixels (350,000 colour images of 64x64). The results are
            the same.

    Raises:
        UserError: the folders are missing or have different classes, an image cannot be read, or
            the images to hold do not fit into memory.
    """
    check_whole("folder: size", size, 8, MAX_SIZE)
    parts = {name: Path(root) / name for name in ("train", "test")}
    if not all(path.is_dir() for path in parts.values()):
        raise missing_data_error("folder", root, " (it must hold train/CLASS/* and test/CLASS/*)")
    for path in parts.values():
        _check_links(path)
    try:
        train, test = (torchvision.datasets.ImageFolder(str(path)) for path in parts.values())
    except OSError as error:
        raise UserError(f"folder: {' '.join(str(error).split())}") from error
    if train.classes != test.classes:
        raise UserError(
            f"folder: the classes of train ({', '.join(train.classes)}) and of test "
            f"({', '.join(test.classes)}) differ; give both the same sub-folders"
        )
    for name in train.classes:
        if not name.isprintable():
            raise UserError(f"folder: the name of class {shown(name)} cannot be shown; rename it")
    paths = [os.fsencode(path) for path, _ in (*train.samples, *test.samples)]
    read = ReadFile(paths=np.array(paths), size=size, grey=grey)
    reader = Reader(read=read, stamp=read.stamp)
    shape = (1 if grey else 3, size, size)
    whole = LazySplit(
        reader=reader,
        numbers=torch.arange(len(paths)),
        labels=torch.tensor([*train.targets, *test.targets]),
        shape=shape,
    )
    num_bytes = len(paths) * math.prod(shape)
    hold = keep == "memory" or (keep == "auto" and num_bytes <= MAX_BYTES)
    if hold:
        fix = "lower size, or write keep=disk"
        check_fits(f"folder(size={size}): its {len(paths):,} images", num_bytes, fix=fix)
    splits = (whole[slice(len(train))], whole[slice(len(train), None)])
    return DataSet(
        name="folder",
        train=splits[0].load() if hold else splits[0],
        test=splits[1].load() if hold else splits[1],
        classes=tuple(train.classes),
        image_size=size,
        budgets=COLOUR_BUDGETS,
        attack_defaults={"steps": "10"},
        training_defaults=COLOUR_TRAINING,
    )


def _check_links(folder: Path) -> None:
    """Check that no link leads to a folder a second time, because reading the images might then
    never end.

    Raises:
        UserError: the folder that is found again, or cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    left = [str(folder)]
    while left:
        path = left.pop()
        try:
            status = os.stat(path)
            below = [entry.path for entry in os.scandir(path) if entry.is_dir()]
        except OSError as error:
            raise UserError(f"folder: {path} cannot be read ({error.strerror})") from error
        if (status.st_dev, status.st_ino) in seen:
            raise UserError(
                f"folder: {path} is a link to a folder that is there already; delete the link"
            )
        seen.add((status.st_dev, status.st_ino))
        left += below


@attrs.frozen(kw_only=True, eq=False)
class ReadFile:
    """Reads the image of a given number from its file, as pixels_CHW, uint8, resized to ``size`` x
    ``size``.

    Attributes:
        paths: paths of the files, as bytes, in an array: if they were Python strings, each worker
            process would copy them all by counting references.
        size: height and width in pixels.
        grey: one channel instead of three.
    """

    paths: "np.ndarray[Any, Any]"
    size: int
    grey: bool

    def __call__(self, number: int) -> torch.Tensor:
        path = os.fsdecode(self.paths[number])
        try:
            return read_image(path, self.size, self.grey)
        except UserError as error:
            raise UserError(f"folder: {error}") from error

    def stamp(self, number: int) -> str:
        """Return the class folder, the name and the size in bytes of the file of image ``number``,
        as text."""
        path = Path(os.fsdecode(self.paths[number]))
        return f"{path.parent.name}/{path.name} {path.stat().st_size}"
