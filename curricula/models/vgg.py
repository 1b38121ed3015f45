"""The VGG networks of Simonyan and Zisserman (2015) in the form for small images."""

from torch import nn

from curricula.data.spec import ImageSize
from curricula.models.checks import check_image_size
from curricula.models.he import he_initialise
from curricula.models.normalise import Normalise

WIDTHS = (64, 128, 256, 512, 512)  # channels of each block
MIN_IMAGE_SIZE = 17  # pixels; poolings leave 9, 5, 3, 2 and 1


def vgg11(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build VGG-11, configuration A of Simonyan and Zisserman (2015, table 1), with batch norm and
    a single linear layer, for small images."""
    return vgg("vgg11", (1, 1, 2, 2, 2), num_classes, in_channels, image_size)


def vgg13(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build VGG-13, configuration B of Simonyan and Zisserman (2015, table 1), with batch norm and
    a single linear layer, for small images."""
    return vgg("vgg13", (2, 2, 2, 2, 2), num_classes, in_channels, image_size)


def vgg16(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build VGG-16, configuration D of Simonyan and Zisserman (2015, table 1), with batch norm and
    a single linear layer, for small images."""
    return vgg("vgg16", (2, 2, 3, 3, 3), num_classes, in_channels, image_size)


def vgg19(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build VGG-19, configuration E of Simonyan and Zisserman (2015, table 1), with batch norm and
    a single linear layer, for small images."""
    return vgg("vgg19", (2, 2, 4, 4, 4), num_classes, in_channels, image_size)


def vgg(
    name: str,
    convolutions: tuple[int, ...],
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
) -> nn.Module:
    """Build five blocks of 3x3 convolutions with batch norm and ReLU, each followed by 2x2 max
    pooling, and one linear layer.

    The paper has three linear layers; one of 512 inputs is the usual form for 32x32 images.

    Feature maps of odd size are pooled to the next whole size, so that 28x28 images pass five
    poolings (28, 14, 7, 4, 2, 1) as 32x32 images do. The last maps of larger images are averaged.

    Args:
        name: name of the network in messages.
        convolutions: number of convolutions in each block.
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 17 or more.

    Raises:
        UserError: a smaller image.
    """
    check_image_size(name, image_size, at_least=MIN_IMAGE_SIZE)
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
