"""In which precision a GPU multiplies."""

from contextlib import AbstractContextManager

import torch


def no_tf32() -> AbstractContextManager[None]:
    """Within it, convolutions on a GPU are in float32 proper, not TF32."""
    cudnn = torch.backends.cudnn
    context: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return context
