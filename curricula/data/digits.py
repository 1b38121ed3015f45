"""The handwritten digits that scikit-learn ships, which need no download."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricula.data.dataset import DataSet, Split

NUM_TEST = 500  # test images
SPLIT_SEED = 0  # seed of the test split


def digits(root: str, download: bool) -> DataSet:
    """Load 1,797 handwritten digits of 8x8 pixels and 17 grey levels (the test part of UCI's
    optdigits), enlarged bilinearly to 28x28.

    The stored pixels are the original 0 to 16, so nothing is rounded. 500 images, drawn once with a
    fixed seed, are the test split.

    Args:
        root: unused: the images come with scikit-learn.
        download: unused.
    """
    rows = _rows()
    pixels = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8))
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    whole = Split(pixels=pixels, labels=labels)[torch.randperm(len(labels), generator=generator)]
    return DataSet(
        name="digits",
        train=whole[slice(NUM_TEST, None)],
        test=whole[slice(NUM_TEST)],
        classes=tuple(map(str, range(10))),
        image_size=28,
        max_value=16,
        budgets={"degrees": "30", "pixels": "3", "linf": "0.1", "l2": "1"},
        attack_defaults={"steps": "5"},
        training_defaults={
            "model": "smallcnn",
            "epochs": 30,
            "batch_size": 64,
            "optimizer": "adamw",
            "lr": 0.001,
            "weight_decay": 0.0001,
            "lr_schedule": "one-cycle",
            "augmentation": "clean",
        },
    )


def _rows() -> "np.ndarray[Any, Any]":
    """Return scikit-learn's digits, (1797, 65): 64 pixels and the label of each image.

    The file is read directly, because importing scikit-learn takes seconds.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.exists():
            return np.loadtxt(path, delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits  # a release that keeps the file elsewhere

    found = load_digits()
    return np.column_stack([found.data, found.target])
