"""Dropout that a CPU can afford."""

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**15
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


class Dropout(nn.Dropout):
    """torch's dropout, with cheaper random numbers on a CPU.

    There torch draws a number for each value, one after the other, which takes up to half of the
    training pass of a small network. Here a 64-bit number decides over four values, and what falls
    is masked by its bits. The probability is rounded to a multiple of 2^-15, and what is left is
    scaled by the rounded one, so that the expectation is kept. Draws are from torch's global random
    state.

    Args:
        p: the probability of each value to be dropped, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * LEVELS)
        if (
            not self.training
            or not 0 < dropped < LEVELS
            or x.device.type != "cpu"
            or x.dtype not in BITS
            or torch.compiler.is_compiling()
        ):
            return super().forward(x)
        out: Tensor = _Drop.apply(x, dropped)
        return out


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, dropped: int) -> Tensor:
        # Without gaps in memory; in which order the dimensions lie there does not matter to a mask.
        if not (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous()
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = draws.view(torch.int16)[: x.numel()].bitwise_and_(LEVELS - 1)
        # All ones where the level is ``dropped`` or more, all zeros below: the sign, spread out.
        kept = (dropped - 1 - levels).bitwise_right_shift_(15).as_strided(x.shape, x.stride())
        context.save_for_backward(kept)
        context.scale = LEVELS / (LEVELS - dropped)
        return _masked(x, kept, context.scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = context.saved_tensors
        return _masked(gradient, kept, context.scale), None


def _masked(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    bits = BITS[x.dtype]
    return (x.view(bits) & kept.to(bits)).view(x.dtype).mul_(scale)
