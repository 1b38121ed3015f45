import os
from pathlib import Path

import pytest
import torch

from curricula import registry

TINY = Path(__file__).parent / "fixtures" / "tiny.py"


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch):
    """Every test starts from the installed plugins, and from no environment of the caller's."""
    for name in [name for name in os.environ if name.startswith("CURRICULA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(registry, "_current", None)


@pytest.fixture
def tiny():
    """The tiny data set, model and schedule are registered."""
    registry.use(registry.build_registry([TINY]))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def robust_digits():
    """(model, data): smallcnn trained on digits with pgd, well enough for an attack to be partly
    successful."""
    from curricula.training.loop import _begin, _updates
    from curricula.training.plan import AtPrecision, make_plan
    from curricula.victim import ModelVictim

    plan = make_plan({"perturb": "pgd:0.1", "epochs": 6})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = _begin(plan)
        victim = ModelVictim(state.model, precision=plan.precision)
        running = AtPrecision(state.model, plan.precision)
        steps = len(plan.data.train) // plan.config.batch_size
        for epoch in range(plan.config.epochs):
            for _ in _updates(plan, state, running, victim, steps, epoch):
                pass
    return state.model.eval(), plan.data
