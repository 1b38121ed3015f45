"""Adversarial weight perturbation (Wu et al. 2020): the loss is descended at worse weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def adversarial_weight_perturbation(
    model: nn.Module, size: float, loss: Callable[[], Tensor]
) -> Iterator[None]:
    """Within it the model's weights are worse for a loss (algorithm 1, a single step).

    Each tensor of two dimensions or more moves along the gradient of the loss by ``size`` times
    its own norm. Afterwards weights and buffers are exactly what they were before, but for what the
    body does to the buffers.

    Args:
        model: whose weights.
        size: in units of a tensor's norm, 0 or more; 0 moves nothing and computes nothing.
        loss: computed once.
    """
    if not size:
        yield
        return
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    weights = [weight for weight in model.parameters() if weight.ndim > 1 and weight.requires_grad]
    gradients = torch.autograd.grad(loss(), weights, materialize_grads=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        for weight, gradient in zip(weights, gradients, strict=True):
            norm = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
            weight.add_(gradient * (size * weight.norm() / norm))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](weights), before)
