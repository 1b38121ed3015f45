"""Attacks of torchattacks 3.5.1 that fail on some image sizes, made to work on all.

Where the package's own class works, these do what it does; the tests show where it does not.
"""

import math
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor


class Pixle(torchattacks.Pixle):
    """torchattacks' Pixle gives the places that pixels move to as (column, row) and reads them as
    (row, column), which are out of range where height and width differ; and with
    ``update_each_iteration`` it takes single images alone."""

    def get_pixel_mapping(self, *args: Any, **keywords: Any) -> list[tuple[int, int]]:
        places = super().get_pixel_mapping(*args, **keywords)
        return [(row, column) for column, row in places]

    def iterative_forward(self, images: Tensor, labels: Tensor) -> Tensor:
        one = super().iterative_forward
        return torch.cat([one(images[[n]], labels[[n]]) for n in range(len(images))])


class Square(torchattacks.Square):
    """torchattacks' l-2 Square attack lays tiles and windows that fit some sizes alone: not
    12 x 12, nor many where height and width differ. Other images get a frame, on their right and
    below, up to the next square that fits; the model does not see it."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        height, width = images.shape[2:]
        self.seen = (height, width)
        if self.norm == "Linf" or (height == width and _fits(height, self.p_init)):
            return super().forward(images, labels)
        side = next(side for side in count(max(height, width)) if _fits(side, self.p_init))
        framed = F.pad(images, (0, side - width, 0, side - height), value=0.5)
        return super().forward(framed, labels)[:, :, :height, :width]

    def get_logits(self, inputs: Tensor, *args: Any, **keywords: Any) -> Tensor:
        height, width = self.seen
        return super().get_logits(inputs[:, :, :height, :width], *args, **keywords)


def _fits(side: int, p_init: float) -> bool:
    """Whether a square image takes the l-2 attack's tiles and its largest window."""
    tile = side // 5
    if tile == 0:
        return False
    start = (side - 5 * tile) // 2
    window = max(round(math.sqrt(p_init * side * side)), 3)
    window += window % 2 == 0
    # A tile of one pixel that lies outside is empty, and an empty one takes any single value.
    return (tile == 1 or start + side // tile * tile <= side) and window <= side
