"""Filters and maps with their channels last in memory, where convolutions are fastest on a CPU."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network with its filters laid out channels last.

    Filters of one channel too: torch leaves them as they are, since both layouts have them in the
    same order, and then takes the maps that they make for channels first.
    """
    network = network.to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = as_channels_last(layer.weight.data)
    return network


def as_channels_last(x_NCHW: Tensor) -> Tensor:
    """The same values, channels last, and with the strides that say so."""
    n, c, h, w = x_NCHW.shape
    rows = x_NCHW.permute(0, 2, 3, 1).contiguous()
    # Of one channel it is contiguous as it is, with strides that do not tell.
    return rows.as_strided((n, c, h, w), (h * w * c, 1, w * c, c))
