"""Small convolutional networks for MNIST-like images."""

from torch import nn

from curricula.errors import UserError
from curricula.models.normalise import Normalise


def smallcnn(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Four 3x3 convolutions and three linear layers: the MNIST network of TRADES (Zhang et al.
    2019) and of Carlini and Wagner (2017). 312,202 parameters at 28x28 with 10 classes.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 16 or more.

    Raises:
        UserError: for a smaller image.
    """
    side = ((image_size - 4) // 2 - 4) // 2  # two unpadded convolutions, a pooling; twice
    if side < 1:
        raise UserError(f"smallcnn takes images of 16x16 or more, not {image_size}x{image_size}")
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
        nn.Linear(64 * side * side, 200),
        nn.ReLU(inplace=True),
        nn.Linear(200, 200),
        nn.ReLU(inplace=True),
        nn.Linear(200, num_classes),
    )


def stdcnn(
    num_classes: int, in_channels: int, image_size: int, width: int = 20, dropout: float = 0.3
) -> nn.Module:
    """StdCNN: seven convolutional layers of 20 channels, 3x3 and in the last layer as large as the
    map (4x4 at 28x28), with batch norm, dropout, and max pooling after the second: the Z2CNN of
    Cohen and Welling (2016, section 8.1).

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 22 or more.
        width: channels of each layer, 1 or more.
        dropout: probability in [0, 1), after every layer but the last.

    Raises:
        UserError: for a smaller image, a width or a dropout out of range.
    """
    side = (image_size - 4) // 2 - 8  # two unpadded convolutions, pooling, four more
    if side < 1:
        raise UserError(f"stdcnn takes images of 22x22 or more, not {image_size}x{image_size}")
    if width < 1:
        raise UserError(f"width must be 1 or more, not {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie from 0 to below 1, not {dropout:g}")
    layers: list[nn.Module] = [Normalise()]
    channels = in_channels
    for number in range(1, 7):
        layers += [
            nn.Conv2d(channels, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        ]
        if number == 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(width, num_classes, side), nn.Flatten())
