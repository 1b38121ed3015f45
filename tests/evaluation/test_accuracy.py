"""Accuracies, their intervals, and the standard threats of a run."""

import contextlib
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

import curricula
from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, Split, load_data
from curricula.errors import Notice, UserError
from curricula.evaluation.accuracy import evaluate_threats, fastest_batch
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.threats import standard_threats, validation_threats
from curricula.expressions.binding import bind
from curricula.perturbations.geometric.affine import Rotation
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.runtime.records import to_json

NANS = Path(__file__).parents[1] / "fixtures" / "nans.py"
BUDGETS = {"degrees": "30", "pixels": "3", "linf": "0.1", "l2": "1"}


@given(st.integers(1, 2000), st.data())
def test_the_interval_is_scipys_wilson_interval(n, data):
    correct = data.draw(st.integers(0, n))
    theirs = binomtest(correct, n).proportion_ci(0.95, "wilson")
    assert wilson_interval(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def explicit(threats):
    return {name: str(threat) for name, threat in threats.items()}


def test_the_standard_threats_follow_the_curriculum():
    found = explicit(standard_threats(bind("rot:45+trans:2+pgd:0.2"), BUDGETS))
    spatial = "rot(45, interpolation=bilinear, padding=zeros)+trans(2, interpolation=bilinear"
    assert found["clean"] == "clean"
    assert found["spatial"].startswith(spatial)
    assert found["adversarial"].startswith("pgd(0.2, norm=linf, steps=40, rel_step=1/10, random")
    assert found["joint"] == f"{found['spatial']}+{found['adversarial']}"


def test_the_standard_attack_has_converged(robust_digits):
    """Three times the steps fool at most one image in a hundred more; a quarter fool fewer."""
    model, data = robust_digits
    threats = {
        "standard": standard_threats(bind("pgd:0.1"), BUDGETS)["adversarial"],
        "longer": Threat.parse("pgd(0.1, steps=120, rel_step=0.05)"),
        "short steps": Threat.parse("pgd(0.1, steps=40, rel_step=0.005)"),
    }
    found = {
        r.name: r.correct for r in evaluate_threats(model, data, data.test[slice(100)], threats)
    }
    assert found["standard"] - found["longer"] <= 1
    assert found["short steps"] > found["standard"]


@pytest.mark.parametrize(
    ("expression", "spatial", "attack"),
    [
        ("clean", "rot(30,", "pgd(0.1, norm=linf"),
        (
            "pgd(0.5, norm=l2)",
            "rot(30,",
            "apgd(0.5, norm=l2, steps=100, loss=ce, restarts=1, targets=3, wide_start=true",
        ),
        (
            "rot:9+pgd(5, norm=l1)",
            "rot(9,",
            "apgd(5, norm=l1, steps=100, loss=ce, restarts=5, targets=5, wide_start=true",
        ),
        ("trans:2", "trans(2,", "pgd(0.1, norm=linf"),
        ("worst(rot:9, k=3)+fgsm:0.2", "rot(9,", "pgd(0.2, norm=linf"),
        ("worst(rot:9|trans:1+pgd:0.1, k=3)", "rot(9, ", "pgd(0.1, norm=linf"),
        ("grid(rot:9+pgd:0.1, rot=3)", "rot(9, ", "pgd(0.1, norm=linf"),
        ("rot:9|pgd:0.2|clean", "rot(9,", "pgd(0.2, norm=linf"),
        ("torchattacks-pgd:0.2", "rot(30,", "pgd(0.2, norm=linf"),
    ],
)
def test_missing_budgets_come_from_the_data_set(expression, spatial, attack):
    found = explicit(standard_threats(bind(expression), BUDGETS))
    assert found["spatial"].startswith(spatial)
    assert found["adversarial"].startswith(attack)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("worst(rot:9|trans:1+pgd:0.1, k=3)+fgsm:0.1", "rot:9|trans:1"),
        ("(rot:9|clean)+trans:1+pgd:0.1", "rot:9+trans:1"),
        ("pgd:0.1|(rot:9|trans:1)+rot:8", "(rot:9|trans:1)+rot:8"),
    ],
)
def test_the_part_without_attacks_keeps_the_shape_of_the_expression(expression, expected):
    assert str(bind(expression).without_attacks()) == str(bind(expected))
    assert bind("pgd:0.1|clean").without_attacks() is None


def test_the_part_without_attacks_has_no_training_only_link():
    class ForTraining(Rotation):
        training_only = True

    loaded = registry.build_registry()
    module = SimpleNamespace(
        curricula_perturbations=hookimpl(
            lambda: [Record(name="odd", factory=ForTraining, summary="odd")],
            specname="curricula_perturbations",
        )
    )
    loaded.add(module, registry.Provider(name="third-party", source="file"))
    registry.use(loaded)
    assert str(bind("odd:9+trans:1|odd:5|pgd:0.1").without_attacks()) == str(bind("trans:1"))
    assert bind("odd:9+pgd:0.1").without_attacks() is None


def test_a_checkpoint_is_picked_by_the_goal_of_the_curriculum():
    def joint(expression):
        return str(validation_threats(bind(expression), BUDGETS)["joint"])

    assert joint("clean") == "clean"
    assert joint("rot:20").startswith("rot(20,")
    assert "+" not in joint("rot:20")
    assert joint("rot:20+pgd:0.2").startswith("rot(20, interpolation=bilinear, padding=zeros)+pgd(")
    assert "steps=10" in joint("pgd:0.2")


class KnowsTheFirstPixel(nn.Module):
    """Right where the top left pixel is dark."""

    def __init__(self, labels):
        super().__init__()
        self.shown = nn.Parameter(torch.zeros(()))
        self.labels = labels

    def forward(self, x):
        two = x[:, 0, 0, :1] * torch.tensor([[-1.0, 1.0]]) + torch.tensor([[0.5, -0.5]])
        return F.pad(two, (0, 8), value=-9.0)


def test_accuracy_counts_every_image_at_any_batch_size():
    data = load_data("digits")
    split = data.test[slice(103)]
    data.images(split.pixels)
    labels = torch.arange(103) % 3  # a third each of 0, 1, 2
    split = type(split)(pixels=split.pixels * 0, labels=labels)
    model = KnowsTheFirstPixel(labels)
    for batch_size in (7, 103, 500):
        (found,) = evaluate_threats(
            model, data, split, {"clean": Threat.parse("clean")}, batch_size=batch_size
        )
        assert (found.correct, found.n) == (int((labels == 0).sum()), 103)
        assert to_json(found)["accuracy"] == found.correct / 103


def test_a_threats_figure_does_not_depend_on_the_other_threats(robust_digits):
    model, data = robust_digits
    threats = {"a": Threat.parse("rot:60"), "b": Threat.parse("rot:90|clean")}
    split = data.test[slice(60)]
    both = {found.name: found for found in evaluate_threats(model, data, split, threats)}
    for name, threat in threats.items():
        assert evaluate_threats(model, data, split, {name: threat}) == [both[name]]


def paying(monkeypatch, seconds, *, images=10_000, device="meta"):
    """Return the batch size found if a gradient takes seconds(n), and the sizes tried."""
    split = Split(
        pixels=torch.empty((images, 1, 8, 8), dtype=torch.uint8, device=device),
        labels=torch.zeros(images, dtype=torch.long, device=device),
    )
    data = DataSet(
        name="",
        train=split,
        test=split,
        classes=("a", "b"),
        image_size=8,
        budgets={},
        attack_defaults={},
        training_defaults={},
    )
    tried = []

    def timed(victim, x, y):
        tried.append(len(x))
        return seconds(len(x))

    monkeypatch.setattr("curricula.evaluation.accuracy._gradient_seconds", timed)
    return fastest_batch(None, data, split), tried


def test_the_batch_grows_as_long_as_that_is_faster(monkeypatch):
    # A fixed cost of 500 images: 4,000 are 8/9 of the highest rate, 8,000 only 16/17.
    found, tried = paying(monkeypatch, lambda n: 500 + n)
    assert found == 4000
    assert tried == [250, 500, 1000, 2000, 4000, 8000]


def test_the_batch_is_no_larger_than_the_split_needs(monkeypatch):
    assert paying(monkeypatch, lambda n: 1, images=700) == (1000, [250, 500, 700])
    assert paying(monkeypatch, lambda n: 1, images=40) == (250, [])


@pytest.mark.parametrize(("fits", "found"), [(3000, 1000), (300, 125), (100, 125)])
def test_memory_limits_the_batch_and_half_stays_free(monkeypatch, fits, found):
    def seconds(n):
        if n > fits:
            raise torch.OutOfMemoryError
        return 1

    assert paying(monkeypatch, seconds)[0] == found


def test_no_size_is_tried_on_a_cpu(monkeypatch):
    assert paying(monkeypatch, lambda n: 1, device="cpu") == (250, [])


def test_nan_logits_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        model[1].bias.fill_(float("nan"))
    data = load_data("digits")
    with pytest.raises(
        UserError,
        match=r"logits under clean are NaN; look for .* in its layers, or for NaN in its weights",
    ):
        evaluate_threats(model, data, data.test[slice(20)], {"clean": Threat.parse("clean")})


def test_a_perturbation_that_makes_nan_is_named():
    registry.use(registry.build_registry([NANS]))
    data = load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(UserError, match=r"^rot\(9.*nans.* made an image with NaN, although"):
        evaluate_threats(model, data, data.test[slice(20)], {"x": Threat.parse("rot:9+nans")})


class Overflows(nn.Module):
    """Returns an infinite logit where the sum of the pixels is above a limit."""

    def __init__(self, limit, value):
        super().__init__()
        self.linear, self.limit, self.value = nn.Linear(784, 10), limit, value

    def forward(self, x):
        large = x.flatten(1).sum(1, keepdim=True) > self.limit
        return self.linear(x.flatten(1)).masked_fill(large, self.value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
@pytest.mark.parametrize("threat", ["clean", "brightness(0.5, ascent=1)"])
def test_infinite_logits_are_refused_and_the_threat_is_named(threat, value):
    data = load_data("digits")
    clean = data.images(data.test[slice(20)].pixels).flatten(1).sum(1)
    model = Overflows(float(clean[8:].median() if threat == "clean" else clean.max() + 1), value)
    with pytest.raises(UserError, match=rf"logits under {threat[:5]}.* are infinite; look for"):
        evaluate_threats(model, data, data.test[slice(20)], {"it": Threat.parse(threat)})


@pytest.mark.parametrize("classes", [5, 1000])
def test_another_number_of_outputs_is_refused(classes):
    data = load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
    with pytest.raises(UserError, match=f"has {classes} outputs .* digits has 10 classes; give"):
        evaluate_threats(model, data, data.test[slice(20)], {"clean": Threat.parse("clean")})
    with pytest.raises(UserError, match=f"has {classes} outputs .* data have 10 classes; give"):
        curricula.evaluate(model, data=data, threats=["clean"], limit=20)


class Before(nn.Module):
    """A network behind a function of its images or before one of its logits."""

    def __init__(self, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # two nearly equal logits would not saturate a softmax
            self.body = nn.Linear(784, 10)
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(self.body(self.before(x.flatten(1))))


class Swallows:
    """A third-party attack that calls the network itself, and catches what that raises."""

    kind, unit, norm_bound, channels, training_only = "pixel", "linf", None, None, False
    budget = 0.1

    def __call__(self, x, y, *, strength, victim, generator):
        images = x.clone().requires_grad_()
        with contextlib.suppress(Exception):
            logits = victim.as_module()(images)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), images)
            return (x + 0.1 * gradient.sign()).clamp(0, 1)
        return x.clone()


MASKED = {
    "sign": Before(torch.sign),
    "rounded": Before(lambda x: (4 * x).round()),
    "argmax": Before(after=lambda logits: F.one_hot(logits.argmax(1), 10) + 0.0 * logits),
    "detached": Before(torch.detach),
    "softmax": Before(after=lambda logits: (1e6 * logits).softmax(1)),
}
SOUND = {
    "plain": Before(),
    "sure": Before(after=lambda logits: 1e6 * logits),
    "tiny": Before(after=lambda logits: 1e-30 * logits),
    "partly": Before(lambda x: torch.where(x.sum(1, keepdim=True) > 90, x, x.detach())),
}


@pytest.fixture
def swallows():
    loaded = registry.build_registry()
    module = SimpleNamespace(
        curricula_perturbations=hookimpl(
            lambda: [Record(name="swallows", factory=Swallows, summary="odd")],
            specname="curricula_perturbations",
        )
    )
    loaded.add(module, registry.Provider(name="third-party", source="file"))
    registry.use(loaded)


@pytest.mark.parametrize("name", [*MASKED, *SOUND])
def test_a_gradient_of_zero_is_said_once_whatever_the_attack(swallows, name):
    torch.manual_seed(0)
    data = load_data("digits")
    threats = {text: Threat.parse(text) for text in ("swallows", "fgsm(0.1)", "pgd(0.1, steps=1)")}
    if name == "detached":
        threats = {"swallows": threats["swallows"]}  # the others raise an error
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        evaluate_threats({**MASKED, **SOUND}[name], data, data.test[slice(40)], threats)
        assert len(found) == (name in MASKED)
        assert all("exactly zero" in str(each.message) for each in found)
        query = {"square": Threat.parse("square(0.1, queries=2)")}
        evaluate_threats({**MASKED, **SOUND}[name], data, data.test[slice(4)], query)
        assert len(found) == (name in MASKED)


class OfBatch(nn.Module):
    """A network whose logits for an image depend on the rest of its batch: by the mean, by the
    number of images, or by the place of the image in it."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.kind = nn.Linear(784, 10), kind

    def forward(self, x):
        x = x.flatten(1)
        if self.kind == "mean":
            return self.linear(x - x.mean(0))
        if self.kind == "count":
            return self.linear(x) * (1 + len(x))
        return self.linear(x) + x.sort(0).values[:, :10]


@pytest.mark.parametrize("kind", ["mean", "count", "sort"])
def test_a_network_that_looks_at_its_whole_batch_is_said(kind):
    data = load_data("digits")
    with pytest.warns(Notice, match=r"depend on the other images of its batch.*--batch-size"):
        evaluate_threats(OfBatch(kind), data, data.test[:20], {"clean": Threat.parse("clean")})
