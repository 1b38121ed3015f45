"""Residual networks for small images: with a 3x3 stem of stride 1, without the first pooling."""

from collections.abc import Callable

import torchvision
from torch import Tensor, nn

from curricula.data.spec import ImageSize
from curricula.models.checks import check_image_size
from curricula.models.dropout import Dropout
from curricula.models.he import he_initialise
from curricula.models.normalise import Normalise

MIN_IMAGE_SIZE = 8  # pixels; three stages halve the feature map


def resnet18(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build ResNet-18 (He et al. 2016a, table 1) for 32x32 images, as robustness papers use it:
    with a 3x3 stem of stride 1 and without the first pooling."""
    return resnet(torchvision.models.resnet18, num_classes, in_channels, image_size)


def resnet34(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build ResNet-34 (He et al. 2016a, table 1) for 32x32 images, with a 3x3 stem of stride 1 and
    without the first pooling."""
    return resnet(torchvision.models.resnet34, num_classes, in_channels, image_size)


def resnet50(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build ResNet-50 (He et al. 2016a, table 1) for 32x32 images, with a 3x3 stem of stride 1 and
    without the first pooling.

    Its blocks are torchvision's, which halve the feature map in the 3x3 convolution; the paper's
    halve it in the first 1x1 convolution.
    """
    return resnet(torchvision.models.resnet50, num_classes, in_channels, image_size)


def resnet(
    build: Callable[..., nn.Module], num_classes: int, in_channels: int, image_size: ImageSize
) -> nn.Module:
    """Build one of torchvision's residual networks with a 3x3 stem of stride 1 and without the
    pooling before the first block.

    Args:
        build: torchvision's builder, which takes ``num_classes``.
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 8 or more.

    Raises:
        UserError: a smaller image.
    """
    check_image_size(build.__name__, image_size, at_least=MIN_IMAGE_SIZE)
    network = build(num_classes=num_classes)
    network.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(), network)


def preact_resnet18(num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module:
    """Build ResNet-18 with the pre-activation blocks of He et al. (2016b), for 32x32 images, with a
    3x3 stem of stride 1 and without the first pooling.

    As in the paper, batch norm and ReLU follow the last block: 11,172,170 parameters for colour
    images and 10 classes. (Some implementations leave these two out and have 11,171,146.)

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels, 8 or more.

    Raises:
        UserError: a smaller image.
    """
    check_image_size("preact-resnet18", image_size, at_least=MIN_IMAGE_SIZE)
    return pre_activation(num_classes, in_channels, stem=64, widths=(64, 128, 256, 512), blocks=2)


class PreActivationBlock(nn.Module):
    """A residual block that adds two 3x3 convolutions, each after batch norm and ReLU, to its input
    (He et al. 2016b, figure 1b).

    If the shape changes, a 1x1 convolution of the first ReLU's output replaces the input.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        stride: stride of the first convolution.
        dropout: probability in [0, 1) before the second convolution (Zagoruyko and Komodakis 2016,
            section 2.4).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.projection = (
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        activated = self.activation(x_NCHW)
        shortcut = x_NCHW if self.projection is None else self.projection(activated)
        out: Tensor = self.residual(activated) + shortcut
        return out


def pre_activation(
    num_classes: int,
    in_channels: int,
    *,
    stem: int,
    widths: tuple[int, ...],
    blocks: int,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a network of pre-activation blocks: a 3x3 convolution, stages of blocks, batch norm,
    ReLU, global average pooling, and a linear layer.

    Each stage except the first halves the feature map.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        stem: number of channels of the first convolution.
        widths: number of channels of each stage.
        blocks: number of blocks in each stage.
        dropout: probability in [0, 1) of the dropout in every block.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)]
    channels = stem
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(PreActivationBlock(channels, width, stride, dropout))
            channels = width
    layers += [
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, num_classes),
    ]
    return nn.Sequential(Normalise(), he_initialise(nn.Sequential(*layers)))
