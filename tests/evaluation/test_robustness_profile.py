"""The robustness profile: what each number is, its figures, and `curricula profile`."""

import inspect
import json
from itertools import pairwise
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from reporting.test_figures import assert_no_text_is_cut
from torch import nn

import curricula
from curricula.cli.main import program
from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, Split
from curricula.errors import UserError
from curricula.evaluation.accuracy import evaluate_threats
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.robustness_profile import (
    RobustnessProfile,
    measure_profile,
    profile_budgets,
)
from curricula.expressions.binding import bind
from curricula.expressions.random_streams import Streams
from curricula.plugins import registry
from curricula.reporting.profiles import joint_figure, profile_figure
from curricula.runtime.records import from_json, to_json
from curricula.training.plan import make_plan
from curricula.training.run import BEST, Run, prefixed
from curricula.victim.forms import Choice
from curricula.victim.model_victim import ModelVictim

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"
N = 40
GRADIENTS, FORWARDS = 1400, 257


class Counted(nn.Module):
    """A model that counts the images that it sees with a gradient and without; deep copies share
    the counts."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, _Shared()

    def forward(self, x):
        self.seen.images[torch.is_grad_enabled()] += len(x)
        return self.model(x)


class _Shared:
    def __init__(self):
        self.images = {True: 0, False: 0}

    def __deepcopy__(self, memo):
        return self


@pytest.fixture(autouse=True)
def _untried(monkeypatch):
    """Count the passes of attacks only, without those that try the frozen copy or its gradient."""
    monkeypatch.setattr("curricula.evaluation.accuracy._check_gradient", lambda *_: None)
    monkeypatch.setattr("curricula.evaluation.accuracy._is_random", lambda *_: False)
    monkeypatch.setattr("curricula.evaluation.accuracy._notices", lambda *_, **__: ())
    monkeypatch.setattr("curricula.victim.frozen.outputs_match", lambda form, network, x: True)
    monkeypatch.setattr(
        "curricula.victim.frozen.choose_form", lambda network, x, least: Choice(form=least)
    )


def linear(weight_KD, side=8):
    """A linear classifier of grey images."""
    layer = nn.Linear(side * side, len(weight_KD), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight_KD)
    return nn.Sequential(nn.Flatten(), layer)


def of_pixels(x_NCHW, y_N, *, classes=4, **budgets):
    """A data set of such images, stored as they are."""
    split = Split(pixels=x_NCHW, labels=y_N)
    return DataSet(
        name="points", train=split, test=split, classes=tuple("abcd"[:classes]), image_size=8,
        max_value=1, budgets={"degrees": "45", "pixels": "3/2", "linf": "4/255", **budgets},
        attack_defaults={}, training_defaults={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene():
    """A linear model that is right about most of some blurred images, and those."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn((4, 64), generator=draws)
    weight = nn.functional.avg_pool2d(weight.reshape(4, 1, 8, 8), 3, 1, 1).flatten(1)
    weight -= weight.mean(1, keepdim=True)
    y = torch.arange(N) % 4
    x = (0.5 + 0.2 * weight[y] + 0.2 * torch.randn((N, 64), generator=draws)).clamp(0, 1)
    data = of_pixels(x.reshape(N, 1, 8, 8), y)
    return data, linear(weight)


@pytest.fixture(scope="module")
def found(scene):
    data, model = scene
    return measure_profile(model, data, data.test, seed=3, name="a line")


def made(scene, threat, *, seed=3, number=None):
    """The images of a threat as `evaluate_threats` draws them; with `number`, of that candidate."""
    data, model = scene
    images = torch.arange(N)
    streams = Streams.of(seed, images)
    if number is not None:
        streams = streams.split().fold_in(images, torch.full((N,), number))
    return Threat.parse(threat, budgets=data.budgets)(
        data.test.pixels, data.test.labels, victim=ModelVictim(model),
        generator=torch.Generator(), streams=streams,
    )  # fmt: skip


def predicted(scene, x):
    with torch.no_grad():
        return scene[1](x).argmax(1)


def series(found, unit, name):
    (one,) = [line for line in found.of_unit(unit) if line.name == name]
    return one


def counts(line):
    return [(cell.correct, cell.fooled) for cell in line]


def test_the_fooling_rate_is_the_share_whose_predicted_class_differs(scene):
    data, _ = scene
    clean = predicted(scene, data.test.pixels)
    right = clean == data.test.labels
    assert 0.1 * N < (~right).sum() < 0.5 * N  # some are wrong from the start
    threats = {text: Threat.parse(text) for text in ("rot:90", "pgd:0.05", "clean", "trans:2")}
    for result in evaluate_threats(scene[1], data, data.test, threats, seed=3):
        after = predicted(scene, made(scene, result.name))
        assert result.fooled == int((after != clean).sum())
        assert result.fooling_rate == result.fooled / N == to_json(result)["fooling_rate"]
        fooled = int((right & (after != data.test.labels)).sum())
        if result.name == "clean":
            assert result.fooled == 0
        else:
            assert fooled < result.fooled  # some go from a wrong class to another


def test_predictions_on_the_clean_images_are_made_once(scene):
    data, model = scene
    counted, began = Counted(model), []
    threats = {str(i): Threat.parse(f"rot:{i + 1}") for i in range(5)}
    threats["clean"] = Threat.parse("clean", strength=0.5)
    evaluate_threats(
        counted, data, data.test, threats, batch_size=N // 2,
        began=lambda threat, batches: began.append((str(threat).partition("(")[0], batches)),
    )  # fmt: skip
    assert counted.seen.images == {True: 0, False: 6 * N}
    assert began == [("clean", 2), *[("rot", 2)] * 5]


def test_an_image_that_is_correct_when_clean_is_fooled_exactly_when_it_is_misclassified(
    scene, found
):
    data, _ = scene
    split = data.test
    right = predicted(scene, split.pixels) == split.labels
    split = split[right.nonzero().squeeze(1)]
    every = measure_profile(scene[1], data, split)
    cells = [
        *(cell for line in every.series for cell in line.measured),
        *(cell for row in every.joint.rows for cell in row),
        *every.combined,
    ]
    assert all(cell.fooled == cell.n - cell.correct for cell in cells)
    assert len({cell.correct for cell in cells}) > 10


def test_range_0_is_the_clean_image_and_fools_no_image(scene, found):
    data, _ = scene
    right = int((predicted(scene, data.test.pixels) == data.test.labels).sum())
    starts = [line.measured[0] for line in found.series] + [found.joint.rows[0][0], found.clean]
    assert counts(starts) == [(right, 0)] * 7
    assert all(line.values[0] == 0 for line in found.series)


def test_the_axes(found):
    rotations = series(found, "degrees", "random")
    assert rotations.values == tuple(range(0, 181, 15))
    assert rotations.values == series(found, "degrees", "worst of 10").values
    shifts = series(found, "pixels", "random").values
    assert shifts == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])
    radii = [255 * eps for eps in series(found, "linf", "PGD-40").values]
    assert radii == pytest.approx([0, 1, 2, 3, 4, 5, 6])
    assert found.joint.degrees == (0, 30, 60, 90, 120, 150, 180)
    assert [255 * eps for eps in found.joint.linf] == pytest.approx([0, 2, 4, 6])
    names = [cell.name for line in found.series for cell in line.measured[1:2]]
    assert names == [
        "random, 15 degrees", "worst of 10, 15 degrees", "random, 0.5 px", "worst of 10, 0.5 px",
        "PGD-40, eps 1/255",
    ]  # fmt: skip
    assert series(found, "linf", "PGD-40").measured[4].threat.startswith("pgd(4/255, norm=linf,")


def test_the_edges_of_the_joint_grid_are_points_of_the_series(found):
    joint = found.joint
    assert counts(joint.rows[0]) == counts(series(found, "degrees", "random").measured[::2])
    column = [row[0] for row in joint.rows]
    assert counts(column) == counts(series(found, "linf", "PGD-40").measured[::2])
    for row, eps in zip(joint.rows[1:], (2, 4, 6), strict=True):
        assert row[3].threat.startswith("rot(90, ")
        assert f"+pgd({eps}/255, " in row[3].threat


def test_each_number_is_its_threats_by_brute_force(scene, found):
    data, _ = scene
    clean = predicted(scene, data.test.pixels)
    cells = [
        series(found, "degrees", "random").measured[5],
        series(found, "pixels", "random").measured[6],
        found.joint.rows[2][4],
    ]
    for cell in cells:
        after = predicted(scene, made(scene, cell.threat))
        assert cell.correct == int((after == data.test.labels).sum())
        assert cell.fooled == int((after != clean).sum())


@pytest.mark.parametrize("unit", ["degrees", "pixels"])
def test_the_worst_of_10_is_at_least_as_bad_as_each_of_them(scene, found, unit):
    labels = scene[0].test.labels
    worst, random = series(found, unit, "worst of 10"), series(found, unit, "random")
    for cell, alone in list(zip(worst.measured, random.measured, strict=True))[1:]:
        robust = torch.stack(
            [predicted(scene, made(scene, alone.threat, number=i)) == labels for i in range(10)]
        )
        assert cell.correct == int(robust.all(0).sum()) <= int(robust.sum(1).min())
        assert cell.correct <= alone.correct
        assert cell.threat == f"worst({alone.threat}, k=10)"


def test_what_is_combined_at_the_budgets(scene, found):
    data, _ = scene
    labels = data.test.labels
    rotation, attack, both, worst, union = found.combined
    assert counts([rotation]) == counts(series(found, "degrees", "random").measured[3:4])
    assert counts([attack]) == counts(series(found, "linf", "PGD-40").measured[4:5])
    assert both.threat == f"{rotation.threat}+{attack.threat}"
    assert worst.threat == f"worst({both.threat}, k=10)"
    assert union.threat == f"{rotation.threat}|{attack.threat}"
    # An image counts that is robust to both, under the draws of the two above.
    alone = [predicted(scene, made(scene, threat.threat)) for threat in (rotation, attack)]
    robust = [found_N == labels for found_N in alone]
    assert union.correct == int((robust[0] & robust[1]).sum()) < min(map(int, map(sum, robust)))
    worse = torch.where(robust[0], alone[1], alone[0])
    assert union.fooled == int((worse != predicted(scene, data.test.pixels)).sum())
    # The attack comes after every candidate.
    each = [predicted(scene, made(scene, both.threat, number=i)) == labels for i in range(10)]
    assert worst.correct == int(torch.stack(each).all(0).sum()) < both.correct


def test_the_average_is_of_two_accuracies_on_the_same_images(found):
    rotation, attack = found.combined[:2]
    average = found.average
    assert average.accuracy == pytest.approx((rotation.correct + attack.correct) / 2 / N)
    assert average.fooling_rate == pytest.approx((rotation.fooled + attack.fooled) / 2 / N)
    assert average.interval == wilson_interval((rotation.correct + attack.correct) / 2, N)


def test_an_attack_on_a_linear_model_reaches_its_closed_form(generator):
    """For two classes the worst image moves each pixel by eps against the margin, in [0, 1]."""
    weight, x = (
        torch.randn((2, 64), generator=generator),
        torch.rand((200, 64), generator=generator),
    )
    margin = weight[1] - weight[0]
    y = (x @ margin > 0).long()
    data = of_pixels(x.reshape(-1, 1, 8, 8), y, classes=2, linf="0.02")
    line = series(measure_profile(linear(weight), data, data.test), "linf", "PGD-40")
    expected = []
    for eps in line.values:
        away = (2 * y[:, None] - 1) * margin.sign()
        worst = (x - eps * away).clamp(0, 1)
        expected.append(int((((worst @ margin) > 0).long() == y).sum()))
    assert [cell.correct for cell in line.measured] == expected
    assert expected[0] == 200
    assert all(after < before for before, after in pairwise(expected))


class AlwaysRight(nn.Module):
    """A model that answers class 0."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return torch.stack([1 + self.shift + 0 * x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)


def test_a_model_that_is_never_fooled_takes_the_documented_passes():
    data = of_pixels(torch.rand((2, 1, 8, 8)), torch.zeros(2, dtype=torch.long), classes=2)
    counted, shares = Counted(AlwaysRight()), []
    found = measure_profile(
        counted, data, data.test, budgets={"degrees": "20"}, grid=True, progress=shares.append
    )
    assert counted.seen.images[True] == 2 * GRADIENTS
    # 775 candidates and what comes out of them; 10 and what comes out of them.
    forwards = counted.seen.images[False] / 2 - (775 + 1 + 10 + 1)
    assert 0.98 * FORWARDS < forwards <= FORWARDS
    documented = " ".join(measure_profile.__doc__.split())
    assert f"{GRADIENTS:,} gradients and {FORWARDS} forward passes, 787 more" in documented
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert {cell.accuracy for line in found.series for cell in line.measured} == {1.0}
    worst, grid = found.combined[-2:]
    assert worst.threat.startswith("worst(rot(30, ")
    assert "rot=31, trans=5" in grid.threat


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clean", 1),
        ("rot:30", 1),
        ("rot:30+pgd(0.1, steps=40)", 41),
        ("worst(rot:30, k=10)", 11),
        ("worst(rot:30+pgd(0.1, steps=40), k=10)", 411),
        ("rot:30|pgd(0.1, steps=40)", 43),
        ("grid(rot:30+trans:3)", 776),
        ("square(0.1, queries=500)", 501),
        ("pgd(0.1, steps=40, restarts=5)", 206),
    ],
)
def test_passes_are_counted_for_the_progress(text, expected):
    clean, threat = Threat.parse("clean"), Threat.parse(text)
    assert EvaluationProgress([threat], print).total == expected + (threat != clean)


def test_a_profile_survives_json(found):
    text = json.dumps(to_json(found))
    assert from_json(RobustnessProfile, json.loads(text)) == found
    value = json.loads(text)
    assert value["average"]["accuracy"] == found.average.accuracy
    assert value["joint"]["rows"][1][2]["interval_95"] == list(found.joint.rows[1][2].interval)


@pytest.mark.parametrize(
    ("perturb", "expected"),
    [
        ("clean", {"degrees": "30", "pixels": "3", "linf": "0.1"}),
        ("rot:60+pgd:12/255", {"degrees": "60", "pixels": "3", "linf": "12/255"}),
        ("worst(rot:10|trans:2, k=3)+fgsm:0.2", {"degrees": "10", "pixels": "2", "linf": "0.2"}),
        ("rot:0+rot:20+pgd(0.5, norm=l2)", {"degrees": "20", "pixels": "3", "linf": "0.1"}),
        ("shear:20", {"degrees": "30", "pixels": "3", "linf": "0.1"}),
    ],
)
def test_budgets_are_the_curriculums_or_the_data_sets(perturb, expected):
    stated = {"degrees": "30", "pixels": "3", "linf": "0.1", "l2": "1"}
    found = profile_budgets(bind(perturb, budgets=stated), stated)
    assert {unit: found[unit] for unit in expected} == expected


def test_a_budget_that_is_missing_or_0_is_one_line(scene):
    data, model = scene
    bare = attrs.evolve(data, budgets={"degrees": "30", "linf": "0.1"})
    with pytest.raises(UserError, match="a budget in pixels, and points states none: give one"):
        measure_profile(model, bare, data.test)
    with pytest.raises(UserError, match="the budget in linf must be above 0, not 0/255"):
        measure_profile(model, data, data.test, budgets={"linf": "0/255"})
    with pytest.raises(
        UserError, match="the budget in linf must be at most 2/3, not 8: the profil"
    ):
        measure_profile(model, data, data.test, budgets={"linf": "8"})


def test_the_curves_and_their_bands_are_the_numbers(found):
    figure = profile_figure(found)
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in above] == [
        "(a) rotation", "(b) translation", "(c) adversarial pixels",
    ]  # fmt: skip
    for unit, accuracy, fooling in zip(("degrees", "pixels", "linf"), above, below, strict=True):
        lines = found.of_unit(unit)
        for axes, attribute in ((accuracy, "accuracy"), (fooling, "fooling_rate")):
            *curves, budget = axes.lines
            assert [curve.get_label() for curve in curves] == [line.name for line in lines]
            for curve, line in zip(curves, lines, strict=True):
                x, y = curve.get_data()
                np.testing.assert_array_equal(x, line.values)
                expected = [100 * getattr(cell, attribute) for cell in line.measured]
                np.testing.assert_allclose(y, expected)
            assert set(budget.get_xdata()) == {found.budget(unit)}
        for band, line in zip(accuracy.collections, lines, strict=True):
            ends = {round(float(y), 6) for y in band.get_paths()[0].vertices[:, 1]}
            assert {round(100 * end, 6) for c in line.measured for end in c.interval} == ends
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in above[0].lines}
    assert len(looks) == 3
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["random", "worst of 10", "PGD-40", "budget"]
    assert [tick.get_text() for tick in below[2].get_xticklabels()][1] == "1/255"


def test_the_heat_map_has_the_numbers_in_its_cells(found):
    figure = joint_figure(found)
    axes, _ = figure.axes
    shares = np.array([[cell.accuracy for cell in row] for row in found.joint.rows])
    np.testing.assert_array_equal(axes.images[0].get_array(), shares)
    numbers = [text.get_text() for text in axes.texts[::2]]
    assert numbers == [f"{100 * share:.1f}" for share in shares.flatten()]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "0/255",
        "2/255",
        "4/255",
        "6/255",
    ]
    # Within 45 degrees and 4/255: two columns, three rows.
    frame = axes.lines[-1]
    assert (max(frame.get_xdata()), max(frame.get_ydata())) == (1.5, 2.5)


@pytest.mark.parametrize("degrees", ["45", "180"])
def test_no_text_of_the_figures_is_cut(found, degrees):
    long = attrs.evolve(
        found, model="a long name " * 9, budgets={**found.budgets, "degrees": degrees}
    )
    for figure in (profile_figure(long), joint_figure(long)):
        assert_no_text_is_cut(figure)


def run(*arguments):
    return CliRunner().invoke(program, ["--plugin", str(TINY), *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a curriculum that was never trained."""
    registry.use(registry.build_registry([TINY]))
    plan = make_plan({"data": "tiny", "perturb": "rot:45+pgd:0.05"})
    path = tmp_path_factory.mktemp("run")
    run = Run.create(path, plan.config, plan.identity)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = curricula.build_model(plan.config.model, plan.data)
    run.save(BEST, prefixed("model", model.state_dict()))
    return run.path


def test_the_command_writes_the_profile_into_the_run_and_prints_it(trained, monkeypatch):
    monkeypatch.setattr("curricula.runtime.progress.QUIET_SECONDS", 0.0)
    result = run("profile", trained, "--limit", "20")
    assert result.exit_code == 0, result.output
    found = from_json(RobustnessProfile, json.loads((trained / "profile.json").read_text()))
    assert (found.n, found.seed, found.data) == (20, 0, "tiny")
    assert {u: found.budgets[u] for u in ("degrees", "linf")} == {"degrees": "45", "linf": "0.05"}
    assert f"best checkpoint of {trained}" in found.model
    for path in (f"{name}.{form}" for name in ("profile", "joint") for form in ("png", "svg")):
        assert (trained / "figures" / path).stat().st_size > 1000
    for text in (
        "rotation, ± degrees; budget 45",
        "worst of 10, each attacked",
        "average",
        "union",
    ):
        assert text in result.stdout
    assert "…" not in result.stdout  # nothing is cut at 80 columns
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[-1].startswith("profile: 100 % after ")
    # It is what evaluate itself finds.
    threats = {"spatial": "rot:45", "joint": found.combined[2].threat}
    again = curricula.evaluate(trained, threats=threats, limit=20)
    assert counts(again) == counts([found.combined[0], found.combined[2]])
    row = found.combined[0]
    low, high = row.interval
    assert f"{100 * row.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})" in result.stdout


def test_json_is_all_that_is_on_standard_output(trained, found, monkeypatch):
    asked = {}

    def canned(model, data, split, **setting):
        asked.update(setting, n=len(split))
        return found

    monkeypatch.setattr("curricula.evaluation.robustness_profile.measure_profile", canned)
    monkeypatch.setattr("curricula.reporting.report.report", lambda *_, **__: None)
    result = run("profile", trained, "--format", "json", "--grid", "--seed", "5")
    assert result.exit_code == 0, result.output
    assert from_json(RobustnessProfile, json.loads(result.stdout)) == found
    assert json.loads((trained / "profile.json").read_text()) == json.loads(result.stdout)
    assert (asked["grid"], asked["seed"], asked["n"]) == (True, 5, 60)
    run("profile", trained, "--limit", "7")
    assert asked["n"] == 7
    assert inspect.signature(curricula.robustness_profile).parameters["limit"].default == 1000


def test_bad_input_is_one_line(trained, tmp_path):
    for arguments, message in [
        ([trained, "--threat", "rot"], "No such option '--threat'"),
        ([trained, "--limit", "0"], "limit must lie from 1 to 1,000,000,000, not 0"),
        ([trained, "--seed", "-1"], "seed must lie from 0"),
        ([tmp_path], "is not a run folder"),
    ]:
        result = run("profile", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_found_before_the_work(trained, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written; choose another place"):
        curricula.robustness_profile(trained)
