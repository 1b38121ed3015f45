"""A random network as an attack should see it: gradients and logits averaged over its draws.

Shape suffixes: N images, M images of several draws or subsets, K classes, B batches of copies.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import TypeVar

import attrs
import torch
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.runtime.random_state import seeded
from curricula.victim.wrapped import WrappedVictim

ROUNDING = 1e-3  # largest difference of equal logits of two passes, as a share of the largest
PROBED = 64  # images on which it is looked whether a network is random; it may draw rarely
SAME = 1e-4  # largest difference of equal logits, as a share of the largest; the rest is rounding
COPIES = 8  # of one image in each of 8 batches, on which it is looked how a network draws
MAX_RATIO = 4  # of variances; a network that draws by image exceeds it once in a thousand times
PIXELS_AT_ONCE = 2**18
"""Pixels (images x H x W) of the draws that run together: 256 images of 32x32. If one draw of the
whole batch has more, draws run one at a time."""

T = TypeVar("T")


def is_random(logits: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> bool:
    """Return whether the logits of two passes of the first images differ by more than rounding."""
    x = x_NCHW[:PROBED]
    with torch.no_grad():
        return differ(logits(x), logits(x))


def depends_on_batch(logits: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> bool:
    """Return whether the logits of the first image differ by more than rounding between a pass of
    all images and a pass of this image alone."""
    with torch.no_grad():
        return differ(logits(x_NCHW)[:1], logits(x_NCHW[:1]))


def differ(one_NK: Tensor, other_NK: Tensor) -> bool:
    """Return whether the logits of two passes differ by more than rounding."""
    return bool((one_NK - other_NK).abs().max() > ROUNDING * one_NK.abs().max())


def averaged(victim: Victim, draws: int) -> Victim:
    """Return a victim whose losses, gradients and logits are averages over some draws of a random
    network: expectation over transformation (EOT, Athalye et al. 2018, "Synthesizing robust
    adversarial examples").

    Args:
        victim: the network; its forward pass draws random numbers.
        draws: passes that are averaged, 1 or more; 1 returns the victim itself.
    """
    if draws == 1:
        return victim
    if isinstance(victim, _AveragedVictim):
        return attrs.evolve(victim, gradients=draws, draws=max(draws, victim.draws))
    return _AveragedVictim(victim, draws=draws, gradients=draws)


def with_averaged_logits(victim: Victim, draws: int) -> Victim:
    """Return a victim whose logits are averages over some draws of a random network, and whose
    gradients are those of one draw.

    Searches, unions and restarts choose by logits: by those of one draw they would choose what was
    lucky once.

    Args:
        victim: the network; its forward pass draws random numbers.
        draws: passes that are averaged, 1 or more.
    """
    return _AveragedVictim(victim, draws=draws, gradients=1)


@attrs.frozen
class _AveragedVictim(WrappedVictim):
    """A victim whose logits are averages over ``draws`` passes of another one, and whose losses and
    gradients are averages over ``gradients`` passes.

    The logits are those of the mean probabilities, so that their largest is the class that the
    averaged classifier predicts.
    """

    draws: int
    gradients: int
    found: list[bool] = attrs.field(factory=list)  # shared by subsets; empty until it is known

    def logits(self, x_NCHW: Tensor) -> Tensor:
        def run(index: Tensor) -> Tensor:
            logits = self.victim.subset(index).logits(x_NCHW[index])
            return _by_draw(logits.log_softmax(1), len(x_NCHW)).logsumexp(0)

        return torch.stack(self._parts(x_NCHW, self.draws, run)).logsumexp(0) - math.log(self.draws)

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.gradients == 1:
            return self.victim.gradient(x_NCHW, y_N, loss)
        n = len(x_NCHW)

        def run(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            some, each = self.victim.subset(index), loss and _draw_by_draw(loss, n)
            gradient, loss_M, logits = some.gradient(x_NCHW[index], y_N[index], each)
            return (
                _by_draw(gradient, n).sum(0),
                _by_draw(loss_M, n).sum(0),
                _by_draw(logits.softmax(1), n).sum(0),
            )

        gradient, loss_N, shares_NK = (
            reduce(torch.add, each) / self.gradients
            for each in zip(*self._parts(x_NCHW, self.gradients, run), strict=True)
        )
        return gradient, loss_N, shares_NK.clamp_min(torch.finfo(shares_NK.dtype).tiny).log()

    def _parts(self, x_NCHW: Tensor, draws: int, run: Callable[[Tensor], T]) -> list[T]:
        """Return what ``run`` returns for the indices of several draws at once, draw by draw, until
        all draws are done."""
        n, _, height, width = x_NCHW.shape
        images = torch.arange(n, device=x_NCHW.device)
        at_once = max(1, PIXELS_AT_ONCE // max(1, n * height * width))
        if at_once > 1 and not self._draws_by_image(x_NCHW):
            at_once = 1
        counts = [at_once] * (draws // at_once)
        rest = draws % at_once
        return [run(images.repeat(count)) for count in [*counts, *([rest] if rest else [])]]

    def _draws_by_image(self, x_NCHW: Tensor) -> bool:
        """Return whether the network draws all its numbers for each image of a batch. One that
        draws some once for the whole batch, such as a random size, gives them to all copies of an
        image.

        The copies of an image in several batches tell: the variance of a batch's mean is that of a
        copy divided by their number, unless they share a draw.
        """
        if not self.found:
            copies = torch.zeros(COPIES, dtype=torch.long, device=x_NCHW.device)
            # Seeded: the draws that follow must not depend on whether this was known before.
            with torch.no_grad(), seeded(0, x_NCHW.device):
                logits_BMK = torch.stack(
                    [self.victim.subset(copies).logits(x_NCHW[copies]) for _ in range(COPIES)]
                )
            within = float(logits_BMK.var(1).mean(0).sum())
            between = COPIES * float(logits_BMK.mean(1).var(0).sum())
            rounding = (SAME * float(logits_BMK.abs().max())) ** 2
            self.found.append(within > rounding and between < MAX_RATIO * within)
        return self.found[0]


def _draw_by_draw(loss: AttackLoss, images: int) -> AttackLoss:
    """Return a loss of the rows of several draws of N images, each of which the given loss sees
    alone: it may hold values of the N images, such as their target classes."""

    def each(logits_MK: Tensor, y_M: Tensor, reference: Callable[[], Tensor]) -> Tensor:
        draws = zip(torch.split(logits_MK, images), torch.split(y_M, images), strict=True)
        return torch.cat([loss(*draw, lambda: reference()[:images]) for draw in draws])

    return each


def _by_draw(values_M: Tensor, images: int) -> Tensor:
    """Return the rows of several draws of N images, which follow each other, as (draws, N, ...)."""
    return values_M.reshape(-1, images, *values_M.shape[1:])
