"""What an attack of torchattacks needs around it: seeded random state, a module with a place."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from curricula.interfaces import Strength


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[int]:
    """Every random state that an attack may draw from, seeded from the generator and put back:
    torch's on the CPU and on every GPU, NumPy's global one and Python's.

    Yields:
        The seed, for attacks that want one.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # torch.manual_seed, which some attacks call themselves, seeds every GPU as well.
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(gpus):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield seed
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def groups(strength: Strength, x_NCHW: Tensor) -> list[tuple[float, Tensor]]:
    """Each strength above 0, with the indices of the images that have it."""
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
    """A victim's module as torchattacks needs it: with a parameter, whose device it takes for the
    model's (it prints a complaint where there is none), and with contiguous gradients, which some
    attacks look at through `view`."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.module = module
        self.eval()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.requires_grad:
            x_NCHW = x_NCHW.view_as(x_NCHW)
            x_NCHW.register_hook(torch.Tensor.contiguous)
        logits: Tensor = self.module(x_NCHW)
        return logits
