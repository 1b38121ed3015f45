"""Our attacks are as strong as those of torchattacks and foolbox at equal settings.

The comparison is the one of examples/attacks_against_others.py, on its small network and 500
digits.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

import curricula
from curricula.perturbations.attacks.mim import MIM
from curricula.victim.model_victim import ModelVictim

EXAMPLE = Path(__file__).parents[2] / "examples" / "attacks_against_others.py"
NUM_IMAGES = 500
SETTINGS = {"linf": 0.1, "l2": 1.5, "l1": 10.0, "steps": 10, "apgd_steps": 10, "queries": 300}
ROWS = (
    "pgd linf", "pgd l2", "pgd l1", "apgd linf ce", "apgd linf dlr", "apgd l2 ce", "apgd l2 dlr",
    "fgsm", "rfgsm", "mim", "square",
)  # fmt: skip
DETERMINISTIC = ("fgsm", "mim")  # these give the same images


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("attacks_against_others", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(example):
    data = curricula.load_data("digits")
    with torch.random.fork_rng():
        return example.small_model(data), data


def test_the_rows_are_those_of_the_example(example, trained):
    assert tuple(row.name for row in example.rows(trained[0], **SETTINGS)) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_an_attack_is_as_strong_as_the_others(name, example, trained):
    model, data = trained
    row = next(row for row in example.rows(model, **SETTINGS) if row.name == name)
    before = torch.get_rng_state()
    found = example.compare(row, model, data, data.train[slice(NUM_IMAGES)])
    assert torch.equal(before, torch.get_rng_state())
    ours = found.pop("curricula")
    assert found
    assert 0.3 < ours < 0.95  # neither saturated nor untouched
    for library, accuracy in found.items():
        assert ours <= accuracy + (0.001 if name in DETERMINISTIC else 0.01), library


def test_mim_equals_that_of_torchattacks_pixel_by_pixel(example, trained, generator):
    model, data = trained
    row = next(row for row in example.rows(model, **SETTINGS) if row.name == "mim")
    batch = data.test[slice(200)]
    x, y = data.images(batch.pixels), batch.labels
    victim = ModelVictim(model)
    ours = MIM(budget=0.1, steps=10)(x, y, strength=1.0, victim=victim, generator=generator)
    apart = (ours - row.torchattacks(x, y)).abs() > 1e-6
    assert float(apart.float().mean()) < 1e-3  # where a sum of gradients is 0 up to rounding


def test_apgd_is_at_least_as_strong_as_pgd(trained):
    """At equal cost, as in table 1 of Croce and Hein 2020."""
    model, data = trained
    threats = {
        text: curricula.Threat.parse(text)
        for text in ("apgd(0.1, steps=30)", "pgd(0.1, steps=30)", "fgsm:0.1", "clean")
    }
    results = curricula.evaluation.evaluate_threats(
        model, data, data.train[slice(NUM_IMAGES)], threats
    )
    apgd, pgd, fgsm, clean = (result.accuracy for result in results)
    assert apgd <= pgd + 0.002
    assert pgd < fgsm < clean
