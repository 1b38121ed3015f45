"""A data set from one file of NumPy arrays, such as those of MedMNIST."""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from curricula.data.arrays import Layout
from curricula.data.conventions import PARTS
from curricula.data.dataset import DataSet, first_training, from_parts
from curricula.errors import UserError, shortened
from curricula.runtime.memory import check_fits

IMAGE_KEY = re.compile(r"([a-z]+)_images|x_([a-z]+)")
LABEL_KEY = re.compile(r"([a-z]+)_labels|y_([a-z]+)")
CLASSES = ("classes", "class_names", "label_names")
REQUIRED = "train_images, train_labels, test_images and test_labels (or x_train, y_train, ...)"


def npz(
    root: str,
    download: bool,
    images: int | None = None,
    layout: Literal["auto", "NCHW", "NHWC"] = "auto",
) -> DataSet:
    """Load images and labels from a file of NumPy arrays, ``--data-root FILE.npz``, or from the
    only one in the folder ``root``.

    Its keys are those of MedMNIST (Yang et al. 2023), ``train_images``, ``train_labels``,
    ``val_images``, ``val_labels``, ``test_images`` and ``test_labels``, or ``x_train``,
    ``y_train``, ``x_val``, ``y_val``, ``x_test`` and ``y_test``, in lower or upper case. Without
    validation images, a part of the training images is held out; test images alone are enough to
    measure a model. ``classes``, ``class_names`` or
    ``label_names`` may hold the class names, by label. Images are integers from 0 to 255 or
    floating-point numbers from 0 to 1, of any height and width; labels are whole numbers from 0,
    of shape (N,) or (N, 1), or one-hot. Arrays of Python objects, which are pickles, are not read.

    Budgets and training defaults are those of MNIST for one channel, else those of CIFAR.

    Args:
        root: the file, or a folder that holds it and no other of its kind.
        download: unused: the file is on your disk.
        images: number of training images, the first ones, 10 or more; None for all.
        layout: order of the axes of the images, with channels first or last; ``auto`` recognises
            it where the number of channels is 1 to 4.

    Raises:
        UserError: no such file, a damaged one, other keys, or images or labels that are not as
            `DataSet.from_arrays` takes them.
    """
    path = _path(root)
    order: Layout | None = None if layout == "auto" else layout
    with _one_line(path), _open(path) as file:
        keys = _keys(list(file))
        check_fits(
            f"npz {path}: its images",
            sum(
                info.file_size
                for info in file.zip.infolist()
                if info.filename.removesuffix(".npy") in keys.values()
            ),
            fix="use a smaller file",
        )
        arrays = {name: _array(file, key) for name, key in keys.items()}
        classes = arrays.get("classes")
        data = from_parts(
            {
                part: (arrays[f"{part} images"], arrays[f"{part} labels"])
                for part in dict.fromkeys(PARTS.values())
                if f"{part} images" in arrays
            },
            classes=None if classes is None else classes.tolist(),
            layout=order,
            name="npz",
        )
        return data if images is None else first_training(data, images)


def _path(root: str) -> Path:
    """Return the path of the file that a path names, which may be the folder of a single one.

    Raises:
        UserError: there is none, or several.
    """
    path = Path(root)
    if not path.is_dir():
        if not path.exists():
            raise UserError(
                f"npz: there is no file {root!r}; name it in data_root (--data-root FILE.npz)"
            )
        return path
    found = sorted(path.glob("*.npz"))
    if len(found) != 1:
        names = f", such as {found[0]}" if found else ""
        raise UserError(
            f"npz: the folder {root!r} holds {len(found)} files of the name *.npz; name one in "
            f"data_root (--data-root FILE.npz){names}"
        )
    return found[0]


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn errors about the file into a UserError with its path."""
    try:
        yield
    except UserError as error:
        raise UserError(f"npz {path}: {error}") from error
    # On damaged bytes, zipfile and NumPy raise many types.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"npz {path}: cannot be read ({shortened(reason)})") from error


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a file of arrays, and close it after the block.

    Raises:
        UserError: it is a file of another kind.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError("not a regular file")
    if not zipfile.is_zipfile(path):
        raise UserError("not a file of numpy.savez or numpy.savez_compressed, or damaged")
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        yield file


def _keys(found: list[str]) -> dict[str, str]:
    """Return the file's keys, by what they hold: ``training images``, ``classes``.

    Raises:
        UserError: keys are missing, or two hold the same.
    """
    listed = shortened(", ".join(found)) or "none"
    keys: dict[str, str] = {}
    for key in found:
        name = key.lower()
        for kind, pattern in (("images", IMAGE_KEY), ("labels", LABEL_KEY)):
            match = pattern.fullmatch(name)
            if match and (part := PARTS.get(match[1] or match[2])):
                held = f"{part} {kind}"
                if held in keys:
                    raise UserError(f"{keys[held]} and {key} both hold the {held}; leave out one")
                keys[held] = key
        if name in CLASSES:
            keys.setdefault("classes", key)
    parts = {key.partition(" ")[0] for key in keys if key != "classes"}
    needed = {"test"} if parts == {"test"} else {"training", "test", *parts}
    for part in (part for part in dict.fromkeys(PARTS.values()) if part in needed):
        for kind in ("images", "labels"):
            if f"{part} {kind}" not in keys:
                raise UserError(f"no {part} {kind} among its keys ({listed}); it needs {REQUIRED}")
    return keys


def _array(file: Any, key: str) -> "np.ndarray[Any, Any]":
    """Return the array of a key.

    Raises:
        UserError: it is one of Python objects.
    """
    try:
        array = file[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{key} is an array of Python objects, which are not read; save it as numbers, or "
                "as text with dtype str"
            ) from error
        raise
    if not isinstance(array, np.ndarray):
        raise UserError(f"{key} is not a file of numpy.save")
    return array
