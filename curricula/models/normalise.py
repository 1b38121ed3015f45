"""A layer that normalises images, the first of every model, so that budgets are in [0, 1] pixel
units."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """A layer that returns (x - mean) / std, with one mean and std for all channels; by default it
    maps [0, 1] to [-1, 1].

    Args:
        mean: value to subtract from every pixel.
        std: value to divide the difference by, above 0.

    Example:
        >>> Normalise()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.,  0.,  1.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float = 0.5, std: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return (x_NCHW - self.mean) / self.std
