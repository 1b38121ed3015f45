"""The networks of Simonyan and Zisserman in the form for small images."""

from torch import nn

from curricula.errors import UserError
from curricula.models.he import he_initialise
from curricula.models.normalise import Normalise

WIDTHS = (64, 128, 256, 512, 512)
SMALLEST = 17  # 17, 9, 5, 3, 2, 1: below it the fifth pooling would see a single pixel


def vgg11(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Configuration A of Simonyan and Zisserman (2015, table 1); see `vgg`."""
    return vgg("vgg11", (1, 1, 2, 2, 2), num_classes, in_channels, image_size)


def vgg13(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Configuration B of Simonyan and Zisserman (2015, table 1); see `vgg`."""
    return vgg("vgg13", (2, 2, 2, 2, 2), num_classes, in_channels, image_size)


def vgg16(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Configuration D of Simonyan and Zisserman (2015, table 1); see `vgg`."""
    return vgg("vgg16", (2, 2, 3, 3, 3), num_classes, in_channels, image_size)


def vgg19(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Configuration E of Simonyan and Zisserman (2015, table 1); see `vgg`."""
    return vgg("vgg19", (2, 2, 4, 4, 4), num_classes, in_channels, image_size)


def vgg(
    name: str,
    convolutions: tuple[int, ...],
    num_classes: int,
    in_channels: int,
    image_size: int,
) -> nn.Module:
    """Five blocks of 3x3 convolutions with batch norm and ReLU, each block ending in a 2x2 max
    pooling; then one linear layer of 512 inputs in place of the paper's three layers: the form that
    is customary for 32x32 images.

    A map of odd size is pooled to the next whole size, so that 28x28 images go through five
    poolings (28, 14, 7, 4, 2, 1) as 32x32 images do. What is left of larger images is averaged.

    Args:
        name: what messages call the network.
        convolutions: how many each block has.
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 17 or more.

    Raises:
        UserError: for a smaller image.
    """
    if image_size < SMALLEST:
        raise UserError(
            f"{name} takes images of {SMALLEST}x{SMALLEST} or more, not {image_size}x{image_size}"
        )
    layers: list[nn.Module] = []
    channels = in_channels
    for repeats, width in zip(convolutions, WIDTHS, strict=True):
        for _ in range(repeats):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(Normalise(), he_initialise(nn.Sequential(*layers)))
