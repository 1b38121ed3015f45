import random
import traceback

import numpy as np
import pytest
import torch

from curricula.runtime.random_state import seeded

CPU = torch.device("cpu")


def drawn():
    return torch.rand(()).item(), random.random(), np.random.rand()


def test_a_seed_determines_the_draws_of_a_block_and_nothing_after_it():
    with seeded(1, CPU):
        with seeded(3, CPU):
            first = drawn()
        after = drawn()
    with seeded(3, CPU):
        assert drawn() == first
    with seeded(1, CPU):
        assert drawn() == after
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        assert torch.rand(()).item() == first[0]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="seeds an accelerator")
def test_seeding_a_cpu_formats_no_stack(monkeypatch):
    """Each update of a training seeds, and torch.manual_seed takes 0.3 ms for that."""
    monkeypatch.setattr(traceback, "format_stack", lambda *_: pytest.fail("a stack was formatted"))
    with seeded(0, CPU):
        pass
