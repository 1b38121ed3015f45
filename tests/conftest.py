import os
from pathlib import Path

import pytest
import torch

from curricula.plugins import registry
from curricula.runtime import compile as compilation

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
    from curricula import Curriculum, ModelVictim, batches, build_model, load_data
    from curricula.runtime.devices import resolve_precision

    data = load_data("digits")
    victim_precision = resolve_precision("auto", torch.device("cpu"))
    attack = Curriculum.parse("pgd(0.1, steps=5)", ["constant"])
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("smallcnn", data).to(memory_format=torch.channels_last)
    victim = ModelVictim(model, precision=victim_precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(8):
        strength = min(1.0, epoch / 4)
        for _, batch in batches(data.train, 64, generator=draws):
            views = attack(
                data.images(batch.pixels),
                batch.labels,
                strengths={"pgd": strength},
                victim=victim,
                generator=draws,
            )
            loss = torch.nn.functional.cross_entropy(model(views.perturbed), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), data


@pytest.fixture
def no_compiler(monkeypatch):
    """Whatever is compiled fails when it is first run; nothing has been warned of yet."""

    def broken(network, **settings):
        def run(x):
            raise RuntimeError("no compiler here\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compilation, "_warned", set())
