"""The shipped recipes beside the published settings, which are written here independently."""

import pytest

from curricula.curriculum import Curriculum
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import Progress
from curricula.recipes import find_sweep, read_config, recipes
from curricula.training.learning_rate import parse_learning_rate
from curricula.training.plan import make_plan

STEPS = 10  # updates in an epoch
# Epochs as the paper counts them, from 1, with the learning rate, eps in 255ths, and degrees.
PGD_FORM = [
    (1, 0.1, 2, 120),
    (74, 0.1, 2, 120),
    (75, 0.01, 4, 150),
    (89, 0.01, 4, 150),
    (90, 0.001, 8, 180),
    (99, 0.001, 8, 180),
    (100, 0.0001, 8, 180),
    (120, 0.0001, 8, 180),
]
TRADES_FORM = [
    (1, 0.1, 2, 120),
    (74, 0.1, 2, 120),
    (75, 0.01, 4, 120),
    (89, 0.01, 4, 120),
    (90, 0.001, 8, 180),
    (99, 0.001, 8, 180),
    (100, 0.0001, 8, 180),
    (120, 0.0001, 8, 180),
]
# The stages, the step of the attack, and the beta of TRADES.
FORMS = {
    "cusp": (PGD_FORM, 2 / 255, None),
    "cusp-faithful": (PGD_FORM, 2 / 255, None),
    "cusp-trades": (PGD_FORM, 2 / 255, 5),
    "cusp-trades-faithful": (TRADES_FORM, 0.007, 5),
}
UNCORRECTED = {"shuffle": False, "normalise": "none", "precision": "float32"}


def at(epoch, epochs):
    """Return the progress at the start of an epoch, counted from 1."""
    return Progress(
        step=(epoch - 1) * STEPS, total_steps=epochs * STEPS, epoch=epoch - 1, total_epochs=epochs
    )


def ranges(values, epoch):
    """Return the budget times the strength of each perturbation at an epoch, by label."""
    curriculum = Curriculum.parse(values["perturb"], values["schedule"])
    strengths = curriculum.strengths(at(epoch, values["epochs"]))
    return {
        label: leaf.perturbation.budget * strengths[label]
        for label, leaf in curriculum.tree.leaves.items()
    }


def rate(values, epoch):
    schedule = parse_learning_rate(values["lr_schedule"]).value
    return values["lr"] * schedule(at(epoch, values["epochs"]))


@pytest.mark.parametrize("name", FORMS)
def test_cusp_has_the_published_stages(name):
    values, (form, step, beta) = read_config(name), FORMS[name]
    found = []
    for epoch, *_ in form:
        current = ranges(values, epoch)
        found.append((epoch, rate(values, epoch), current["pgd"] * 255, current["rot"]))
    assert found == [pytest.approx(stage) for stage in form]

    attack = Curriculum.parse(values["perturb"], values["schedule"]).tree.leaves["pgd"].perturbation
    assert (attack.steps, attack.step, attack.random_start) == (10, pytest.approx(step), True)
    objective = factories.build("objective", parse_call(values["objective"]))
    assert getattr(objective.value, "beta", None) == beta


def test_the_forms_of_cusp_differ_in_nothing_else():
    cusp, trades, published, published_trades = (
        read_config(name)
        for name in ("cusp", "cusp-trades", "cusp-faithful", "cusp-trades-faithful")
    )
    assert trades == cusp | {"objective": trades["objective"]}
    nearest = cusp["perturb"].replace("rot:180", "rot(180, interpolation=nearest)")
    assert published == cusp | UNCORRECTED | {"perturb": nearest}
    of_trades = ("perturb", "schedule", "objective")
    assert published_trades == published | {name: published_trades[name] for name in of_trades}
    assert published_trades["perturb"].startswith("rot(180, interpolation=nearest)+")


def test_the_paper_s_sweep_has_the_four_forms():
    forms = {
        "pgd, corrected": "cusp",
        "pgd, published": "cusp-faithful",
        "trades, corrected": "cusp-trades",
        "trades, published": "cusp-trades-faithful",
    }
    sweep = find_sweep("paper-cifar10-vgg16")
    assert list(sweep.axes["form"]) == list(forms)
    for cell in sweep.cells:
        values = {"objective": "at", **cell.values}
        beside = {"seed": values["seed"], "precision": "float32"}
        assert values == read_config(forms[cell.labels["form"]]) | beside


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_has_a_plan(name):
    values = read_config(name)
    images = {"data": "random(images=160)", "model": "smallcnn", "device": "cpu"}
    plan = make_plan(values | images)
    assert (plan.config.epochs, plan.config.batch_size) == (values["epochs"], 128)
    assert plan.total_steps == values["epochs"]
    printed = {"perturb": plan.config.perturb, "schedule": plan.config.schedule}
    for epoch in (1, values["epochs"]):
        assert ranges({**values, **printed}, epoch) == ranges(values, epoch)
