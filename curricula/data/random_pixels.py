"""A data set of random pixels in any shape, to measure the speed of training on."""

import torch

from curricula.data.conventions import (
    COLOUR_BUDGETS,
    COLOUR_TRAINING,
    GREY_BUDGETS,
    GREY_TRAINING,
)
from curricula.data.dataset import DataSet, Split
from curricula.runtime.memory import check_fits
from curricula.runtime.values import check_whole

SEED = 0  # seed of all pixels and labels
NUM_TEST = 256  # test images


def random_pixels(
    root: str,
    download: bool,
    size: int = 32,
    channels: int = 3,
    classes: int = 10,
    images: int = 2560,
) -> DataSet:
    """Draw uniformly random pixels and labels, the same every time, so that `curricula bench` can
    train on any shape without files.

    Budgets and training defaults are those of MNIST for one channel, else those of CIFAR, without
    augmentation.

    Args:
        root, download: unused: the images are drawn.
        size: height and width in pixels, 1 to 1024.
        channels: number of channels, 1 to 64.
        classes: number of classes, 2 to 100,000.
        images: number of training images, 10 to 1,000,000; there are 256 test images as well.

    Raises:
        UserError: an argument is out of range, or the images do not fit into memory.
    """
    for name, value, low, high in (
        ("size", size, 1, 1024),
        ("channels", channels, 1, 64),
        ("classes", classes, 2, 100_000),
        ("images", images, 10, 1_000_000),
    ):
        check_whole(f"random: {name}", value, low, high)
    check_fits(
        f"random(size={size}, channels={channels}, images={images})",
        (NUM_TEST + images) * channels * size**2,
        fix="lower size, channels or images",
    )
    generator = torch.Generator().manual_seed(SEED)

    def split(n: int) -> Split:
        shape = (n, channels, size, size)
        return Split(
            pixels=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
            labels=torch.randint(classes, (n,), generator=generator),
        )

    # The test images are drawn first, so that they do not depend on the number of others.
    test, train = split(NUM_TEST), split(images)
    grey = channels == 1
    return DataSet(
        name="random",
        train=train,
        test=test,
        classes=tuple(map(str, range(classes))),
        image_size=size,
        budgets=GREY_BUDGETS if grey else COLOUR_BUDGETS,
        attack_defaults={"steps": "10"},
        training_defaults={**(GREY_TRAINING if grey else COLOUR_TRAINING), "augmentation": "clean"},
    )
