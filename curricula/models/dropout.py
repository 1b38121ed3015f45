"""Dropout with cheaper random numbers on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

NUM_LEVELS = 2**15  # values of one random number; probabilities are multiples of 1 / NUM_LEVELS
INTEGER_TYPES = {  # integer type of the same width, by floating type
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
}


class Dropout(nn.Dropout):
    """torch's dropout with cheaper random numbers on a CPU.

    On a CPU torch draws one random number for each value, which takes up to half of a small
    network's training pass. This class draws one 64-bit number for every four values and masks them
    by its bits. The probability is rounded to a multiple of 2^-15, and kept values are scaled for
    the rounded one, so that the expectation is exact. Random numbers come from torch's global
    random state.

    Args:
        p: probability of dropping each value, in [0, 1).

    Example:
        >>> Dropout(0.5).eval()(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        num_dropped = round(self.p * NUM_LEVELS)
        if (
            not self.training
            or not 0 < num_dropped < NUM_LEVELS
            or x.device.type != "cpu"
            or x.dtype not in INTEGER_TYPES
            or torch.compiler.is_compiling()
        ):
            return super().forward(x)
        out: Tensor = _Drop.apply(x, num_dropped)
        return out


class _Drop(torch.autograd.Function):
    """Set each value to zero with probability ``num_dropped / NUM_LEVELS``, and scale the others so
    that the expectation does not change."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_dropped: int) -> Tensor:
        # A dense tensor; the order of its dimensions in memory does not matter to a mask.
        if not (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous()
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = draws.view(torch.int16)[: x.numel()].bitwise_and_(NUM_LEVELS - 1)
        # The sign bit, spread over all bits: ones where the level is num_dropped or more.
        kept = (num_dropped - 1 - levels).bitwise_right_shift_(15).as_strided(x.shape, x.stride())
        ctx.save_for_backward(kept)
        ctx.scale = NUM_LEVELS / (NUM_LEVELS - num_dropped)
        return _masked(x, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None


def _masked(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    integer = INTEGER_TYPES[x.dtype]
    return (x.view(integer) & kept.to(integer)).view(x.dtype).mul_(scale)
