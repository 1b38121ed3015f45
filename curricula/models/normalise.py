"""Normalisation, the first layer of every model, so that budgets are in [0, 1] pixel units."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std, one value for all channels. By default [0, 1] becomes [-1, 1].

    Args:
        mean: subtracted from every pixel.
        std: what the difference is divided by, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float = 0.5, std: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return (x_NCHW - self.mean) / self.std
