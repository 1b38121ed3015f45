import functools
import gc
import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
from fixtures.quick import leave_figures_blank, shorten_attacks, shorten_audits

from curricula.data import digits
from curricula.plugins import registry
from curricula.runtime import compile as compilation

TINY = Path(__file__).parent / "fixtures" / "tiny.py"
EPOCHS = 8  # of the robust model's training
FULL_ATTACKS = {"evaluation", "test_docs.py", "test_docstrings.py"}
"""Folders and files whose tests are about the standard attacks, or print them."""
FIGURES = {
    "plugins",
    "reporting",
    "test_docs.py",
    "test_docstrings.py",
    "test_robustness_profile.py",
}
"""Folders and files whose tests look at figures."""

# A full collection visits every object of torch and the other modules, which are never garbage: by
# default a tenth of the tests' processor time.
gc.set_threshold(10_000, 10, 100)

# A slow machine is no fault of the code: property tests have no deadline.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A shell's background job ignores Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

_scan = registry._entry_points


@functools.cache
def _scan_once(path, changed):
    return _scan()


def _entry_points():
    """Return the installed plugins, read from the disk again only if the path or a folder on it has
    changed."""
    path = tuple(sys.path)
    changed = (os.stat(folder or ".").st_mtime_ns for folder in path if os.path.exists(folder))
    return list(_scan_once(path, tuple(changed)))


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch):
    """Start every test from the installed plugins, without the caller's environment variables."""
    for name in [name for name in os.environ if name.startswith("CURRICULA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(registry, "_current", None)
    monkeypatch.setattr(registry, "_entry_points", _entry_points)


@pytest.fixture(autouse=True, scope="session")
def _auto_means_the_cpu():
    """Let ``device=auto`` choose the CPU, whose numbers tests compare, on a machine with a GPU too;
    tests of a GPU name it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = torch.accelerator.current_accelerator
        monkeypatch.setattr(
            torch.accelerator,
            "current_accelerator",
            lambda check_available=False: None if check_available else found(),
        )
        yield


@pytest.fixture(autouse=True, scope="session")
def _digits_are_read_once():
    """Keep the rows of digits, which hundreds of tests load."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(digits, "_rows", functools.cache(digits._rows))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_fsync():
    """Let no test wait for the disk: only a power failure would show whether it was flushed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def _short_attacks(request):
    """Let trainings measure with few steps of PGD: most of their time, and tested elsewhere."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if FULL_ATTACKS.isdisjoint(request.path.parts):
            shorten_attacks(monkeypatch)
        yield


@pytest.fixture(autouse=True, scope="module")
def _blank_figures(request):
    """Let trainings and measurements write blank figures: to draw a page takes longer than what it
    shows, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if FIGURES.isdisjoint(request.path.parts):
            leave_figures_blank(monkeypatch)
        yield


@pytest.fixture
def tiny():
    """Register the tiny data set, model and schedule."""
    registry.use(registry.build_registry([TINY]))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def robust_digits():
    """Return (model, data): a small network trained on digits with pgd, well enough for attacks to
    be partly successful."""
    from fixtures.training import train_under
    from torch import nn

    from curricula import load_data
    from curricula.models import Normalise
    from curricula.training.optimizers import AdamW

    data = load_data("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            Normalise(),
            nn.Conv2d(1, 16, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 25, len(data.classes)),
        )
    optimizer = AdamW(model.parameters(), lr=3e-3)
    train_under(model, data, "pgd(0.1, steps=3)", optimizer=optimizer, epochs=EPOCHS)
    return model, data


@pytest.fixture
def no_compiler(monkeypatch):
    """Make every compiled network fail at its first call, and forget earlier warnings."""

    def broken(network, **settings):
        def run(x):
            raise RuntimeError("no compiler here\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compilation, "_warned", set())


@pytest.fixture
def quick_audit(monkeypatch):
    """Let audits take few steps and queries, for tests of what is done with their results."""
    shorten_audits(monkeypatch)
