"""The shipped recipes beside the published settings, which are written here independently."""

import pytest
import torch
from torchvision.transforms import functional

from curricula.curriculum import Curriculum, Threat
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import Progress
from curricula.recipes import find_sweep, read_config, recipes
from curricula.schedules.adaptive import SelfPaced
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
SHARES = [(30, 1 / 6), (60, 1 / 3), (90, 1 / 2), (120, 2 / 3), (150, 5 / 6), (180, 1)]


def at(epoch, epochs):
    """Return the progress at the start of an epoch, counted from 1."""
    return Progress(
        step=(epoch - 1) * STEPS, total_steps=epochs * STEPS, epoch=epoch - 1, total_epochs=epochs
    )


def ranges(values, epoch):
    """Return the budget times the strength of each perturbation at an epoch, by label; that of
    adaptive schedules at the beginning."""
    curriculum = Curriculum.parse(values["perturb"], values["schedule"])
    strengths = curriculum.strengths(at(epoch, values["epochs"]), states=curriculum.start(1))
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


@pytest.mark.parametrize(
    ("name", "size", "pairs"),
    [("tradeoff-spatial-cifar10", 32, SHARES), ("tradeoff-spatial-mnist", 28, SHARES[1::2])],
)
def test_trade_off_a_has_rotations_shifts_and_both_of_growing_range(name, size, pairs):
    published = [{}]
    published += [{"rot": degrees} for degrees, _ in pairs]
    published += [{"trans": share * size} for _, share in pairs]
    published += [{"rot": degrees, "trans": share * size} for degrees, share in pairs]
    sweep = find_sweep(name)
    rows = [{**sweep.base, **change} for change in sweep.axes["augmentation"].values()]
    for epoch in (1, sweep.base["epochs"]):  # constant throughout
        found = [ranges(values, epoch) for values in rows]
        assert found == [pytest.approx(each) for each in published]
    moved = [values["perturb"] for values in rows[1 + len(pairs) :]]
    assert all(text.endswith(", interpolation=nearest)") for text in moved)  # whole pixels
    spatial = [text for text in sweep.threats.values() if "pgd" not in text]
    assert set(spatial) <= {values["perturb"] for values in rows}
    assert {len(Threat.parse(text).tree.leaves) for text in spatial} == {0, 1, 2}


def test_trade_off_a_on_cifar10_trains_as_published():
    sweep = find_sweep("tradeoff-spatial-cifar10")
    stated = {"batch_size": 128, "momentum": 0.9, "weight_decay": 5e-4, "augmentation": "clean"}
    rates = {1: 0.1, 50: 0.1, 51: 0.01, 100: 0.01, 101: 0.001, 120: 0.001}
    assert stated.items() <= sweep.base.items()
    assert (sweep.base["optimizer"], sweep.base["epochs"]) == ("sgd", 120)
    assert {epoch: rate(sweep.base, epoch) for epoch in rates} == pytest.approx(rates)
    # The published eps are of images divided by a standard deviation of about 0.2.
    for eps in (2, 4, 8):
        assert f"pgd({0.2 * eps:g}/255, steps=40, rel_step=1/10)" in sweep.threats.values()


def test_shifts_by_nearest_neighbour_are_those_of_random_affine():
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shift = Curriculum.parse("trans(32, interpolation=nearest)").tree.leaves["trans"].perturbation
    drawn = shift.sample(8, 1.0, torch.Generator().manual_seed(1))
    # RandomAffine rounds what it draws within its share of the size to whole pixels.
    expected = [
        functional.affine(image, angle=0, translate=pair.round().int().tolist(), scale=1, shear=[0])
        for image, pair in zip(x, drawn, strict=True)
    ]
    assert torch.equal(shift.apply(x, drawn), torch.stack(expected))


@pytest.mark.parametrize(
    ("name", "sweep", "row"),
    [
        ("fastest-mnist", "speedrun-mnist", "two long steps, 3 epochs"),
        (
            "fastest-cifar10",
            "speedrun-cifar10",
            "nfgsm within 1.2 eps, self-paced, 10 epochs, averaged, flips",
        ),
    ],
)
def test_the_fastest_training_is_a_row_of_the_speedrun(name, sweep, row):
    cells = find_sweep(sweep).cells
    (cell,) = [cell for cell in cells if dict(cell.labels) == {"seed": "0", "recipe": row}]
    # The sweep never compiles, so that its passes take equally long on equal machines.
    assert {**read_config(name), "compile": "off", "seed": 0} == dict(cell.values)


FIXED = [name for name in recipes() if name != "self-paced"]  # settings of one data set


@pytest.mark.parametrize("name", [*FIXED, "tradeoff-spatial-cifar10", "tradeoff-spatial-mnist"])
def test_a_recipe_has_a_plan(name):
    values = find_sweep(name).cells[-1].values if "tradeoff" in name else read_config(name)
    images = {"data": "random(images=160)", "model": "smallcnn", "device": "cpu"}
    plan = make_plan(dict(values) | images)
    batch_size = values.get("batch_size", 128)
    assert (plan.config.epochs, plan.config.batch_size) == (values["epochs"], batch_size)
    assert plan.total_steps == values["epochs"] * (144 // batch_size)
    printed = {"perturb": plan.config.perturb, "schedule": plan.config.schedule}
    for epoch in (1, values["epochs"]):
        assert ranges({**values, **printed}, epoch) == ranges(dict(values), epoch)


@pytest.mark.parametrize(
    ("data", "budgets", "epochs"),
    [("digits", (30, 0.1), 30), ("random(images=160)", (30, 8 / 255), 120)],
)
def test_self_paced_takes_all_else_from_the_data(data, budgets, epochs):
    values = dict(read_config("self-paced"))
    plan = make_plan(values | {"data": data, "model": "smallcnn", "device": "cpu"})
    leaves = plan.curriculum.tree.leaves
    assert tuple(leaf.perturbation.budget for leaf in leaves.values()) == budgets
    assert leaves["pgd"].perturbation.passes == 5
    assert plan.config.epochs == epochs
    assert set(plan.curriculum.schedules.values()) == {SelfPaced()}
