"""The channels-last memory format, in which convolutions are fastest on a CPU."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Convert the filters of a network to channels last in place, and return the network.

    This includes filters of one channel. torch does not convert these, because both formats store
    them in the same order, and then treats the feature maps that they produce as channels first.
    """
    network = network.to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = as_channels_last(layer.weight.data)
    return network


def as_channels_last(x_NCHW: Tensor) -> Tensor:
    """Return images NCHW in channels-last memory format, with the same values and unambiguous
    strides.

    Example:
        >>> as_channels_last(torch.zeros(2, 1, 4, 4)).stride()
        (16, 1, 4, 1)
    """
    n, c, h, w = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).contiguous()
    # A tensor of one channel is contiguous in both formats, so its strides do not tell them apart.
    return rows.as_strided((n, c, h, w), (h * w * c, 1, w * c, c))
