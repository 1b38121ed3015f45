"""Adversarial weight perturbation (Wu et al. 2020): descend the loss at perturbed weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def adversarial_weight_perturbation(
    model: nn.Module, size: float, gradients_of: Callable[[Sequence[Tensor]], Sequence[Tensor]]
) -> Iterator[None]:
    """Perturb the model's weights inside the block along the gradient of a loss, so that the loss
    increases (algorithm 1); restore them afterwards.

    In a single step, each tensor of two or more dimensions moves along the gradient of the loss by
    ``size`` times its norm. On exit the weights are exactly what they were before; the buffers are
    too, except for changes that the body makes.

    Args:
        model: the network.
        size: length of the step relative to a tensor's norm, 0 or more; 0 does nothing.
        gradients_of: returns the gradients of the loss in the given weights; called once.
    """
    weights = [weight for weight in model.parameters() if weight.ndim > 1 and weight.requires_grad]
    if not size or not weights:
        yield
        return
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients = gradients_of(weights)
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
