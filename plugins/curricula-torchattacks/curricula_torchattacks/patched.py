"""Attacks of torchattacks 3.5.1 that fail on some image sizes or logits, patched to work on all.

If the package's own class works, these classes give the same results; the tests show when it fails.
"""

import math
import warnings
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor

from curricula.errors import Notice
from curricula.perturbations.attacks.square import margin

PADDED = (
    "torchattacks-square in l-2 pads images of {height}x{width}, and a part of its radius is spent "
    "on the padding: square(norm=l2) is stronger on them"
)


class CW(torchattacks.CW):
    """torchattacks' CW, for logits of any sign.

    The original takes 0 in place of a logit below 0, so that it has no gradient where all logits
    are negative, as log-probabilities are.
    """

    def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return margin(outputs, labels).clamp(min=-self.kappa)


class UPGD(torchattacks.UPGD):
    """torchattacks' UPGD, whose margin loss takes logits of any sign.

    The original takes 0 in place of a logit below 0, as CW does, and leaves images where they are
    whose largest logit is negative.
    """

    def margin_loss(self, images: Tensor, labels: Tensor, target_labels: None) -> Tensor:
        return -margin(self.get_logits(images), labels).sum()


class Pixle(torchattacks.Pixle):
    """torchattacks' Pixle, for images of any shape and batches of any size.

    The original returns the places that pixels move to as (column, row) and reads them as (row,
    column), which is out of range if height and width differ. With ``update_each_iteration`` it
    works only on single images.
    """

    def get_pixel_mapping(self, *args: Any, **keywords: Any) -> list[tuple[int, int]]:
        places = super().get_pixel_mapping(*args, **keywords)
        return [(row, column) for column, row in places]

    def iterative_forward(self, images: Tensor, labels: Tensor) -> Tensor:
        attack_one = super().iterative_forward
        return torch.cat([attack_one(images[[n]], labels[[n]]) for n in range(len(images))])


class Square(torchattacks.Square):
    """torchattacks' Square attack, for images of any size.

    The original's l-2 attack uses tiles and windows that fit only some sizes: not 12 x 12, and not
    many sizes whose height and width differ. Other images are padded at the right and the bottom to
    the next square that fits; the model does not see the padding, on which a part of the radius is
    spent.
    """

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        height, width = images.shape[2:]
        self.unpadded = (height, width)
        if self.norm == "Linf" or (height == width and _fits(height, self.p_init)):
            return super().forward(images, labels)
        warnings.warn(Notice(PADDED.format(height=height, width=width)), stacklevel=2)
        side = next(side for side in count(max(height, width)) if _fits(side, self.p_init))
        padded = F.pad(images, (0, side - width, 0, side - height), value=0.5)
        return super().forward(padded, labels)[:, :, :height, :width]

    def get_logits(self, inputs: Tensor, *args: Any, **keywords: Any) -> Tensor:
        height, width = self.unpadded
        return super().get_logits(inputs[:, :, :height, :width], *args, **keywords)


def _fits(side: int, p_init: float) -> bool:
    """Return whether the l-2 attack's tiles and its largest window fit a square image with this
    side in pixels.

    >>> [side for side in range(8, 14) if _fits(side, p_init=0.8)]
    [8, 9, 10, 11, 13]
    """
    tile = side // 5
    if tile == 0:
        return False
    start = (side - 5 * tile) // 2
    window = max(round(math.sqrt(p_init * side * side)), 3)
    window += window % 2 == 0
    # A one-pixel tile outside the image is empty, and any single value can be assigned to it.
    return (tile == 1 or start + side // tile * tile <= side) and window <= side
