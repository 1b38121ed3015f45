"""The digits that scikit-learn ships: nothing to download."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from curricula.data.dataset import DataSet, Split

TEST_IMAGES = 500
SPLIT_SEED = 0


def digits(root: str, download: bool) -> DataSet:
    """1,797 handwritten digits of 8x8 pixels and 17 grey levels (the test part of UCI's optdigits),
    enlarged bilinearly to 28x28.

    The stored pixels are the original 0..16, so nothing is rounded. 500 images, drawn once and for
    all, are the test split.

    Args:
        root: unused: the images come with scikit-learn.
        download: unused.
    """
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(loaded.target.astype(np.int64))
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    whole = Split(pixels=pixels, labels=labels)[torch.randperm(len(labels), generator=generator)]
    return DataSet(
        name="digits",
        train=whole[slice(TEST_IMAGES, None)],
        test=whole[slice(TEST_IMAGES)],
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
