"""Small convolutional networks for MNIST-like images."""

import math

from torch import nn

from curricula.data.spec import ImageSize, height_width
from curricula.models.checks import (
    check_dropout,
    check_image_size,
    check_weights,
    check_width,
)
from curricula.models.dropout import Dropout
from curricula.models.normalise import Normalise


def smallcnn(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build four 3x3 convolutions and three linear layers: the MNIST network of TRADES (Zhang et
    al. 2019) and of Carlini and Wagner (2017).

    It has 312,202 parameters at 28x28 with 10 classes.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 16 or more.

    Raises:
        UserError: a smaller image.
    """
    check_image_size("smallcnn", image_size, at_least=16)
    # Two unpadded convolutions and a pooling, twice.
    area = math.prod(((side - 4) // 2 - 4) // 2 for side in height_width(image_size))
    check_weights("smallcnn", 64 * area * 200)
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(in_channels, 32, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * area, 200),
        nn.ReLU(inplace=True),
        nn.Linear(200, 200),
        nn.ReLU(inplace=True),
        nn.Linear(200, num_classes),
    )


def lenet(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build LeNet-5 (LeCun et al. 1998, section II.B) in its modern form: the paper's widths (6,
    16, 120, 84) and 5x5 filters, with ReLU, max pooling and linear outputs.

    The first convolution pads by 2, as LeCun et al. padded 28x28 digits to 32x32. The network has
    61,706 parameters at 28x28 with 10 classes.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 12 or more.

    Raises:
        UserError: a smaller image.
    """
    check_image_size("lenet", image_size, at_least=12)
    area = math.prod((side // 2 - 4) // 2 for side in height_width(image_size))
    check_weights("lenet", 16 * area * 120)
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(in_channels, 6, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * area, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, num_classes),
    )


def madry_mnist(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build the MNIST network of Madry et al. (2018) and of their MNIST challenge: 5x5 convolutions
    of 32 and 64 channels, each padded and followed by 2x2 max pooling, and 1,024 hidden units.

    It has 3,274,634 parameters at 28x28 with 10 classes. The initial weights are torch's, not the
    challenge's (standard deviation 0.1 everywhere), which are too large for normalised images: 10
    epochs of rot+pgd on the embedded digits ended at 14 % joint accuracy with the challenge's, at
    67 % with torch's.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 3 or more; feature maps of odd size are pooled to
            the next whole size, as TensorFlow's padding does.

    Raises:
        UserError: a smaller image.
    """
    check_image_size("madry-mnist", image_size, at_least=3)
    area = math.prod(math.ceil(side / 4) for side in height_width(image_size))
    check_weights("madry-mnist", 64 * area * 1024)
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(in_channels, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * area, 1024),
        nn.ReLU(inplace=True),
        nn.Linear(1024, num_classes),
    )


def stdcnn(
    num_classes: int, in_channels: int, image_size: ImageSize, width: int = 20, dropout: float = 0.3
) -> nn.Module:
    """Build StdCNN, the Z2CNN of Cohen and Welling (2016, section 8.1): seven convolutions of 20
    channels with batch norm and dropout, and max pooling after the second.

    Filters are 3x3; those of the last layer are as large as the feature map (4x4 at 28x28).

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 22 or more.
        width: number of channels of each layer, 1 to 10,000.
        dropout: probability in [0, 1) of the dropout after every layer except the last.

    Raises:
        UserError: a smaller image, a width or a dropout out of range.
    """
    check_image_size("stdcnn", image_size, at_least=22)
    check_width(width)
    check_dropout(dropout)
    # Two unpadded convolutions, a pooling, four more convolutions.
    height, breadth = ((side - 4) // 2 - 8 for side in height_width(image_size))
    check_weights("stdcnn", 9 * 5 * width**2 + width * num_classes * height * breadth)
    layers: list[nn.Module] = [Normalise()]
    channels = in_channels
    for number in range(1, 7):
        layers += [
            nn.Conv2d(channels, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Dropout(dropout),
        ]
        if number == 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(width, num_classes, (height, breadth)), nn.Flatten())
