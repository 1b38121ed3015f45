"""The global random states of torch, Python and NumPy: seeded for a block, saved and restored."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

TWISTER_NUMBERS = 624  # numbers in a state of the Mersenne Twister


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random states inside the block, and restore them afterwards.

    Args:
        seed: the seed, from 0; NumPy uses it modulo 2**32.
        device: the device whose state counts beside the CPU's.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        reseed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def reseed(seed: int) -> None:
    """Seed the global random states.

    Args:
        seed: the seed, from 0 below 2**63; NumPy uses it modulo 2**32.
    """
    seed_torch(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_torch(seed: int) -> None:
    """Seed the global random states of torch alone, as ``torch.manual_seed`` does.

    Args:
        seed: the seed, from 0 below 2**63.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # manual_seed would format the stack three times, to note where accelerators were seeded
        torch.default_generator.manual_seed(seed)


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """Return the global random states of torch, Python and NumPy as tensors, by name.

    >>> device = torch.device("cpu")
    >>> state = random_tensors(device)
    >>> drawn = random.random(), np.random.rand(), torch.rand(()).item()
    >>> set_random_tensors(state, device)
    >>> drawn == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    numpy: Any = np.random.get_state(legacy=False)
    twister = numpy["state"]
    version, numbers, next_gauss = random.getstate()
    assert version == 3  # of Python's Mersenne Twister, since Python 3.2
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*twister["key"].tolist(), twister["pos"], numpy["has_gauss"]]),
        "numpy-gauss": torch.tensor(numpy["gauss"], dtype=torch.float64),
        "python": torch.tensor(numbers),
        "python-gauss": torch.tensor([] if next_gauss is None else [next_gauss]).double(),
    }
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_generator(generator: torch.Generator, state: Tensor) -> None:
    """Set a generator's state to a tensor from its ``get_state``.

    Raises:
        RuntimeError, TypeError, ValueError: the tensor is damaged.
    """
    if generator.device.type == "cpu":
        _check_twister(state)
    generator.set_state(state)


def _check_twister(state: Tensor) -> None:
    """Raise a ValueError if a state of torch's CPU generator points past the end of its numbers.

    torch checks the count of numbers left and the position of the next one, but not their sum, and
    would read past the end of the numbers.
    """
    content = bytes(state[:24].tolist())
    left, position = (int.from_bytes(content[a:b], "little") for a, b in ((8, 12), (16, 24)))
    if left + position > TWISTER_NUMBERS + 1:
        raise ValueError(
            f"torch's random state is at position {position}, with {left} numbers left"
        )


def set_random_tensors(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the global random states of torch, Python and NumPy to tensors from `random_tensors`.

    Raises:
        ArithmeticError, KeyError, RuntimeError, TypeError, ValueError: the tensors are damaged.
    """
    _check_twister(states["torch"])
    torch.set_rng_state(states["torch"])
    *keys, position, has_gauss = states["numpy"].tolist()
    if not 0 <= position <= TWISTER_NUMBERS:  # NumPy would read past the end of the numbers
        raise ValueError(f"NumPy's random state is at position {position}")
    if not all(0 <= key < 2**32 for key in keys):
        raise ValueError("NumPy's random state has numbers of more than 32 bits")
    gauss: Any = float(states["numpy-gauss"])
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    next_gauss = states["python-gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), next_gauss[0] if next_gauss else None))
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
