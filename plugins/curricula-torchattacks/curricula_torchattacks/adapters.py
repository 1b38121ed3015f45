"""Adapters for torchattacks: seeded global random state, and a module with a device."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from curricula.interfaces import Strength
from curricula.runtime.random_state import reseed


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[int]:
    """Seed inside the block every random state that an attack may use, and restore it afterwards:
    torch's on the CPU and on every GPU, NumPy's global one and Python's.

    Yields:
        The seed, drawn from the generator, for attacks that take one.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # Some attacks call torch.manual_seed, which seeds every GPU as well.
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(gpus):
            reseed(seed)
            yield seed
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def groups(strength: Strength, x_NCHW: Tensor) -> list[tuple[float, Tensor]]:
    """Return pairs of a strength above 0 and the indices of the images that have it, one pair for
    each different strength.

    >>> groups(torch.tensor([0.5, 0.0, 1.0, 0.5]), torch.zeros(4, 1, 2, 2))
    [(0.5, tensor([0, 3])), (1.0, tensor([2]))]
    """
    if not isinstance(strength, Tensor) or strength.ndim == 0:
        value = float(strength)
        return [(value, torch.arange(len(x_NCHW), device=x_NCHW.device))] if value > 0 else []
    strength_N = strength.to(x_NCHW.device)
    return [
        (value, (strength_N == value).nonzero().squeeze(1))
        for value in strength_N.unique().tolist()
        if value > 0
    ]


class DeviceTagged(nn.Module):
    """A wrapper of a victim's module in the form that torchattacks needs.

    It has a parameter, from which torchattacks reads the model's device (without one it prints a
    warning), and its gradients are contiguous, because some attacks call `view` on them.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.device_tag = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.module = module
        self.eval()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.requires_grad:
            x_NCHW = x_NCHW.view_as(x_NCHW)
            x_NCHW.register_hook(torch.Tensor.contiguous)
        logits: Tensor = self.module(x_NCHW)
        return logits
