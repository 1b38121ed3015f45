"""Names of the parts of data, and standard budgets and training settings for grey and for colour
images."""

from collections.abc import Mapping

PARTS: Mapping[str, str] = {
    "train": "training",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Parts of a data set, by their names in keys."""

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
