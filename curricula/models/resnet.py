"""Residual networks in the form for small images."""

import torchvision
from torch import nn

from curricula.errors import UserError
from curricula.models.normalise import Normalise


def resnet18(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """ResNet-18 (He et al. 2016) as the robustness literature takes it for 32x32 images: a 3x3
    stem of stride 1 and no pooling before the first block; torchvision's in all else.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width, 8 or more.

    Raises:
        UserError: for a smaller image.
    """
    if image_size < 8:
        raise UserError(f"resnet18 takes images of 8x8 or more, not {image_size}x{image_size}")
    network = torchvision.models.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(), network)
