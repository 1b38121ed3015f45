"""A data set from a folder of images."""

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch

from curricula.data.arrays import DARKEST, note
from curricula.data.class_folders import Search, composed, listed
from curricula.data.conventions import COLOUR_BUDGETS, COLOUR_TRAINING
from curricula.data.dataset import DataSet, SplitLike, missing_data_error
from curricula.data.lazy_split import LazySplit, Reader
from curricula.data.photos import Ground, read_image
from curricula.data.spec import ImageSize
from curricula.errors import UserError
from curricula.runtime.memory import check_fits
from curricula.runtime.values import check_whole

MIN_SIZE, MAX_SIZE = 8, 4096  # pixels of a side of the images as they are used
MAX_BYTES = 4 * 2**30  # bytes of pixels that ``keep=auto`` holds in memory

NUM_LOOKED_AT = 64  # images of a split whose brightness is checked, until one is bright

LAYOUT = "it must hold train/CLASS/* and test/CLASS/*, or CLASS/* with split=80:20"

SplitFolder = Literal["train", "validation", "test"]
SPLIT_FOLDERS: Mapping[str, SplitFolder] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""The splits by the names of their folders, in lower case."""

Classes = Mapping[str, list[str]]
"""The paths of the images of each class, by the name of the class."""


def folder(
    root: str,
    download: bool,
    size: int | tuple[float, float] = 32,
    grey: bool = False,
    keep: Literal["auto", "memory", "disk"] = "auto",
    ground: Ground = "white",
    split: tuple[float, float] | None = None,
    split_seed: int = 0,
) -> DataSet:
    """Load your own images from ``root/train/CLASS/*`` and ``root/test/CLASS/*``, with or without
    ``root/val/CLASS/*``, resized with antialiasing to ``size``.

    Without ``test``, the images of ``val`` are the test images. A folder without these splits,
    ``root/CLASS/*``, is split as ``split`` says. All formats of photos that Pillow reads are
    recognised by their content; photos are turned upright. What is passed over, such as hidden
    files, is counted in a `curricula.errors.DataWarning`.

    Budgets and training defaults are those of CIFAR.

    Args:
        root: the folder.
        download: unused: the images are on your disk.
        size: height and width in pixels, 8 to 4,096, as one number or as ``HEIGHT:WIDTH``; the
            proportions of an image are not kept.
        grey: one channel instead of three.
        keep: where the pixels are kept. ``memory`` reads all images once and holds them on the
            device; ``disk`` reads each batch from the files when it is needed; ``auto`` means
            ``memory`` for up to 4 GiB of pixels (350,000 colour images of 64x64). The results are
            the same.
        ground: colour behind transparent pixels: ``white``, ``grey`` (128 of 255) or ``black``.
        split: shares ``TRAIN:TEST`` of the images of each class, such as ``80:20``, for a folder
            of classes. The same names of files give the same split.
        split_seed: seed of that split, 0 or more.

    Raises:
        UserError: the folders are missing or have different classes, there is only one class, an
            image cannot be read, all images are nearly black, or the images to hold do not fit into
            memory.
    """
    height, width = _height_width(size)
    check_whole("folder: split_seed", split_seed, 0)
    if not os.path.isdir(root):
        raise missing_data_error("folder", root, f" ({LAYOUT})")
    try:
        splits, notes = _find(root, split, split_seed)
    except UserError as error:
        raise UserError(f"folder: {error}") from error
    if notes:
        note(f"folder {root}: {'; '.join(notes)}")
    images = [
        (os.fsencode(path), label)
        for classes in splits.values()
        for label, paths in enumerate(classes.values())
        for path in paths
    ]
    paths, labels = zip(*images, strict=True)
    read = ReadFile(paths=np.array(paths), size=(height, width), grey=grey, ground=ground)
    shape = (1 if grey else 3, height, width)
    whole = LazySplit(
        reader=Reader(read=read, stamp=read.stamp),
        numbers=torch.arange(len(paths)),
        labels=torch.tensor(labels),
        shape=shape,
    )
    num_bytes = len(paths) * math.prod(shape)
    hold = keep == "memory" or (keep == "auto" and num_bytes <= MAX_BYTES)
    if hold:
        fix = "lower size, or write keep=disk"
        written = f"{height}" if height == width else f"{height}:{width}"
        check_fits(f"folder(size={written}): its {len(paths):,} images", num_bytes, fix=fix)
    loaded: dict[SplitFolder, SplitLike] = {}
    begin = 0
    for part, classes in splits.items():
        end = begin + sum(map(len, classes.values()))
        loaded[part] = whole[slice(begin, end)].load() if hold else whole[slice(begin, end)]
        begin = end
    _check_brightness(root, loaded)
    return DataSet(
        name="folder",
        train=loaded["train"],
        test=loaded["test"],
        validation=loaded.get("validation"),
        classes=tuple(splits["train"]),
        image_size=(height, width),
        budgets=COLOUR_BUDGETS,
        attack_defaults={"steps": "10"},
        training_defaults=COLOUR_TRAINING,
    )


def _check_brightness(root: str, splits: Mapping[SplitFolder, SplitLike]) -> None:
    """Check that the images are not all nearly black, as those of 12 bits in files of 16 bits are.

    Raises:
        UserError: in each split, none of up to 64 images has a pixel above 16 of 255.
    """
    highest = 0
    for part in splits.values():
        spread = torch.linspace(0, len(part) - 1, min(len(part), NUM_LOOKED_AT)).long()
        for one in spread[:, None]:
            try:
                highest = max(highest, int(part[one].load().pixels.max()))
            except UserError:  # with keep=disk, a damaged file is reported where it is used
                return
            if highest > DARKEST:  # mostly the first image, so that few files are read
                return
    if highest:
        raise UserError(
            f"folder {root}: no image has a pixel above {highest} of 255, so that white is not the "
            "highest value of these files: scale their levels, such as 12 bits in files of 16 "
            "bits, up to 65,535"
        )


def _height_width(size: int | tuple[float, float]) -> tuple[int, int]:
    """Return the height and the width of a size as it is written in an expression.

    Raises:
        UserError: one is not a whole number from 8 to 4,096.
    """
    sides = size if isinstance(size, tuple) else (size, size)
    for side in sides:
        whole = int(side) if isinstance(side, float) and side.is_integer() else side
        check_whole("folder: size", whole, MIN_SIZE, MAX_SIZE)
    return int(sides[0]), int(sides[1])


def _find(
    root: str, shares: tuple[float, float] | None, seed: int
) -> tuple[dict[SplitFolder, Classes], list[str]]:
    """Return the images of each split, the training images first, and what to tell the user.

    Raises:
        UserError: as `folder` does.
    """
    search, notes = Search(), []
    names = search.folders(root)
    if not names:
        raise UserError(f"{root} has no folders; {LAYOUT}")
    named: dict[SplitFolder, str] = {}
    for name in names:
        part = SPLIT_FOLDERS.get(name.lower())
        if part in named:
            raise UserError(f"{root} has both {named[part]} and {name}; keep one of them")
        if part is not None:
            named[part] = name
    # A folder train without folders may be the class of trains.
    if "train" not in named or not Search().folders(os.path.join(root, named["train"])):
        if shares is None:
            raise UserError(
                f"{root} has no folder train with a folder for each class, but {listed(names)}; if "
                "these are the classes, write split=80:20, the shares of training and test images"
            )
        search = Search()
        splits = _divided(search.classes(root), root, shares, seed)
    else:
        train = os.path.join(root, named["train"])
        if shares is not None:
            raise UserError(
                f"{root} has a folder {named['train']}; leave split out, or name {train} in "
                "data_root (--data-root) to split its images alone"
            )
        if len(named) == 1:
            raise UserError(
                f"{root} has {named['train']}, but neither test nor val; add one, or name {train} "
                "in data_root (--data-root) and write split=80:20"
            )
        if "test" not in named:
            named["test"] = named.pop("validation")
            notes.append(f"{named['test']} holds the test images, since there is no folder test")
        splits = {
            part: search.classes(os.path.join(root, named[part]))
            for part in ("train", "validation", "test")
            if part in named
        }
        for part, classes in splits.items():
            _check_same(splits["train"], classes, named["train"], named[part])
        if others := [name for name in names if name not in named.values()]:
            notes.append(f"passed over other folders ({listed(others)})")
    if over := search.passed_over():
        notes.append(f"passed over {', '.join(over)}")
    return splits, notes


def _check_same(train: Classes, other: Classes, train_name: str, other_name: str) -> None:
    """Check that two splits have the same classes.

    Raises:
        UserError: they have not; the message has the names.
    """
    missing = [name for name in train if name not in other]
    added = [name for name in other if name not in train]
    if missing or added:
        lacks = [
            f"{folder} has no images of {listed(names)}"
            for folder, names in ((other_name, missing), (train_name, added))
            if names
        ]
        raise UserError(
            f"the classes of {train_name} and of {other_name} differ: {' and '.join(lacks)}; give "
            "both the same folders"
        )


def _divided(
    classes: Classes, root: str, shares: tuple[float, float], seed: int
) -> dict[SplitFolder, Classes]:
    """Return the images of each class as training and test images in the given shares.

    The order in which they are drawn follows from the hash of each file's name and the seed, so
    that it does not depend on the other files.

    Raises:
        UserError: a share is not above 0, or a class has a single image.
    """
    if not all(share > 0 and math.isfinite(share) for share in shares):
        raise UserError(
            f"split must be two numbers above 0, the shares TRAIN:TEST, such as 80:20, not "
            f"{shares[0]:g}:{shares[1]:g}"
        )
    train, test = {}, {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise UserError(f"class {name} has a single image; a class to split needs two or more")

        def drawn(path: str) -> bytes:
            inner = composed(os.path.relpath(path, root)).replace(os.sep, "/")
            text = f"{seed} {inner}".encode(errors="surrogatepass")
            return hashlib.blake2b(text, digest_size=16).digest()

        count = round(len(paths) / (1 + shares[1] / shares[0]))
        chosen = set(sorted(paths, key=drawn)[: min(max(count, 1), len(paths) - 1)])
        train[name] = [path for path in paths if path in chosen]
        test[name] = [path for path in paths if path not in chosen]
    return {"train": train, "test": test}


@attrs.frozen(kw_only=True, eq=False)
class ReadFile:
    """Reads the image of a given number from its file, as pixels_CHW, uint8.

    Attributes:
        paths: paths of the files, as bytes, in an array: if they were Python strings, each worker
            process would copy them all by counting references.
        size: height and width in pixels, as for `read_image`.
        grey: one channel instead of three.
        ground: colour behind transparent pixels.
    """

    paths: "np.ndarray[Any, Any]"
    size: ImageSize
    grey: bool
    ground: Ground = "white"

    def __call__(self, number: int) -> torch.Tensor:
        path = os.fsdecode(self.paths[number])
        try:
            return read_image(path, self.size, self.grey, self.ground)
        except UserError as error:
            raise UserError(f"folder: {error}") from error

    def stamp(self, number: int) -> str:
        """Return the class folder, the name and the size in bytes of the file of image ``number``,
        as text.

        Raises:
            UserError: the file is gone.
        """
        path = Path(os.fsdecode(self.paths[number]))
        try:
            num_bytes = path.stat().st_size
        except OSError as error:
            raise UserError(
                f"folder: {path} cannot be read as an image: {error.strerror}"
            ) from error
        return f"{composed(path.parent.name)}/{composed(path.name)} {num_bytes}"
