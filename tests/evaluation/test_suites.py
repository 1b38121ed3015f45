"""Suites: named lists of threats, their tables, and the mean errors of corruptions."""

import json
import shutil
import warnings
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fixtures.suites import RETURNED
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

import curricula
from curricula import Record, hookimpl
from curricula.cli.main import program
from curricula.errors import Notice, UserError
from curricula.evaluation.suite_tables import SuiteTable, tables_of
from curricula.evaluation.suites import suite_threats
from curricula.plugins import registry
from curricula.plugins.registry import Provider
from curricula.reporting import report
from curricula.reporting.page import Section
from curricula.reporting.suite_figure import suite_figure
from curricula.runtime.records import from_json, to_json
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep
from curricula.testing import SUITE_CLAUSES, check_suite
from curricula.training import stored_suites
from curricula.training.run import Run
from curricula.training.stored_suites import StoredSuite, read_suites, write_suites

CONTEXT = {
    "curriculum": "clean",
    "budgets": {"degrees": "30", "pixels": "3", "linf": "0.1"},
    "in_channels": 1,
    "data": "made",
}
SUITES = Path(__file__).parents[1] / "fixtures" / "suites.py"
TINY = SUITES.with_name("tiny.py")


def offer(names, file="mine.py"):
    """Register suites of a loose plugin file that return what their names stand for."""

    class Plugin:
        @hookimpl
        def curricula_suites(self):
            for name in names:
                yield Record(name=name, factory=lambda name=name: RETURNED[name], summary=name)

    registry.current().add(Plugin(), Provider(name=file, source="file"))


@pytest.fixture
def suites():
    registry.current().add_file(SUITES)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand((40, 1, 8, 8), generator=generator), torch.arange(40) % 3


def network(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


def named(*texts):
    return {name: str(threat) for name, threat in suite_threats(texts, **CONTEXT).items()}


def test_threats_are_named_by_their_suite_and_come_once(suites):
    weather = named("weather")
    assert [*weather] == ["clean", "rain 1", "rain 2", "sun 1", "sun 2"]
    assert weather["rain 2"].startswith("gaussian:0.3")
    assert [*named("weather", "turns", "weather")] == [*weather, "turns/clean", "turns/rain 1"]
    assert named("both") == named("weather", "turns")
    # A table is complete, although another one has an equal threat.
    assert [*named("weather", "again")] == [*weather, "again/rain 1"]
    assert named("turns")["clean"].startswith("rot(30")


@pytest.mark.filterwarnings("ignore::curricula.errors.Notice")
def test_all_is_every_other_suite():
    offer(["weather"])
    everything = named("all")
    for name in ("standard", "spatial", "weather"):
        assert {str(each) for each in named(name).values()} <= set(everything.values())
    assert not {"number", "all"} & {*everything}


def test_the_spatial_suite_is_that_of_engstrom():
    found = named("spatial")
    assert len(found) == 10
    assert found["rotation, translation grid"].endswith(", rot=31, trans=5)")
    assert found["translation worst of 10"].endswith(", k=10)")


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("wether", "unknown suite 'wether': did you mean weather"),
        ("standard(2)", "too many arguments; suite 'standard' takes no arguments"),
        ("wrong-text", "suite wrong-text: threat fog: unknown perturbation 'nofog'"),
        ("wrong-value", r"suite wrong-value returned \{'fog': 2\}; it must return expressions"),
        ("wrong-name", "suite wrong-name returned"),
        ("no-columns", "suite no-columns returned"),
        ("nothing", "suite nothing returned"),
        ("twice", "suite twice: two different threats are named 'twice/a 1'"),
        ("number", "suite number returned 5; it must return"),
        ("lost", "unknown suite 'wether'"),
        ("only-colours", "suite only-colours has no threat for made, whose images have 1 channels"),
        ("", "the expression is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore::curricula.errors.Notice")
def test_a_wrong_suite_is_one_line(suites, suite, message):
    with pytest.raises(UserError, match=message) as raised:
        suite_threats([suite], **CONTEXT)
    assert "\n" not in str(raised.value)


def test_a_name_of_two_plugins_needs_the_plugin():
    offer(["weather"])
    offer(["weather"], "yours.py")
    with pytest.raises(UserError, match=r"registered by mine\.py and by yours\.py: write mine/w"):
        named("weather")
    assert len(named("yours/weather")) == 5


def test_perturbations_for_other_images_are_left_out_with_a_notice(suites):
    with pytest.warns(Notice, match="suite colours: without hue, odd, as hue works on .* 3 chan"):
        assert [*named("colours")] == ["clean"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suite_threats(["colours"], **{**CONTEXT, "in_channels": 3})


def test_errors_are_those_of_the_predictions(suites, images):
    found = curricula.evaluate(network(), images, suite="weather")
    (table,) = found.tables
    errors = {
        name: np.mean([found.predictions[f"{name} {each}"] != found.labels for each in (1, 2)])
        for name in ("rain", "sun")
    }
    assert {name: table.error(name) for name in table.rows} == pytest.approx(errors)
    assert table.mean_error == pytest.approx(np.mean([*errors.values()]))
    low, high = table.interval
    assert low < table.mean_error < high
    assert table.normalised_mean_error is None
    alone = curricula.evaluate(network(), images, ["clean", "gaussian:0.3"])
    assert found["rain 2"].correct == alone["gaussian:0.3"].correct
    by_row = found.to_pandas("row")
    assert [*by_row] == ["suite", "row", "1", "2", "error", "normalised_error"]
    assert by_row["1"][0] == found["rain 1"].accuracy
    by_threat = found.to_pandas()
    assert [*by_threat["column"]][1:] == ["1", "2", "1", "2"]


def test_a_random_network_is_said_to_be_measured_by_its_majority(suites, images):
    class Noisy(nn.Module):
        def forward(self, x):
            return (x + torch.randn_like(x)).flatten(1)[:, :3]

    (table,) = curricula.evaluate(Noisy(), images, suite="weather", draws=3).tables
    assert table.measure == "accuracy in %, majority of 3 draws"


def test_suites_come_before_the_threats_that_are_named(suites, images):
    found = curricula.evaluate(network(), images, ["rot:5", "clean"], suite="weather")
    assert [result.name for result in found][-2:] == ["sun 2", "rot:5"]
    with pytest.raises(UserError, match=r"'clean' is 'rot.*a suite has a different one"):
        curricula.evaluate(network(), images, {"clean": "rot:5"}, suite=["weather"])
    for wrong in (5, [5], {"weather": 1}, None):
        with pytest.raises(UserError, match="suite must be a name, such as standard, or a list"):
            curricula.evaluate(network(), images, suite=wrong)


def result(suite="s", row="fog", column="1", correct=5):
    return SimpleNamespace(
        accuracy=correct / 10, interval=(0.0, 1.0), n=10, draws=None,
        position=SimpleNamespace(suite=suite, row=row, column=column),
    )  # fmt: skip


def table(baseline=(), **rows):
    def grid(correct):
        return {
            name: {str(1 + i): result(row=name, correct=each) for i, each in enumerate(values)}
            for name, values in correct.items()
        }

    return SuiteTable(suite="s", rows=grid(rows), baseline=grid(dict(baseline)))


def test_the_normalised_error_is_a_mean_of_quotients_of_sums():
    found = table({"fog": [9, 7], "snow": [5, 5]}, fog=[8, 4], snow=[10, 5])
    assert found.normalised_error("fog") == pytest.approx((0.2 + 0.6) / (0.1 + 0.3))
    assert found.normalised_error("snow") == pytest.approx(0.5)
    assert found.normalised_mean_error == pytest.approx(1.25)
    assert found.mean_error == pytest.approx((0.4 + 0.25) / 2)
    assert "(mCE, Hendrycks and Dietterich 2019): 125.0 %" in found.findings[1]


@pytest.mark.parametrize(
    "baseline", [{"fog": [10, 10], "snow": [5, 5]}, {"fog": [5], "snow": [5, 5]}, {"snow": [5, 5]}]
)
def test_without_an_error_to_divide_by_nothing_is_normalised(baseline):
    found = table(baseline, fog=[8, 4], snow=[10, 5])
    assert found.normalised_error("fog") is None
    assert found.normalised_error("snow") == pytest.approx(0.5)
    assert found.normalised_mean_error is None
    assert "undefined" in found.findings[1]


def test_columns_with_other_names_have_no_mean():
    rows = {"turn": {"random": result(), "grid": result()}}
    found = SuiteTable(suite="s", rows=rows)
    assert not found.findings
    assert [*found.as_rows()[0]] == ["suite", "row", "random", "grid"]


def test_no_two_texts_of_a_heat_map_overlap():
    names = {f"name-number-{i}": [i % 11, 10, 3, 4, 5] for i in range(19)}
    figure = suite_figure(table(**names))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    texts = [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels(), axes.xaxis.label]
    assert len(texts) == 20 * 6 + 20 + 6 + 1
    extents = [each.get_window_extent(canvas.get_renderer()) for each in texts]
    low, high = (np.array([getattr(each, end) for each in extents]) for end in ("min", "max"))
    apart = (low[:, None] >= high[None]) | (high[:, None] <= low[None])
    assert (apart.any(2) | np.eye(len(texts), dtype=bool)).all()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with two runs of small networks; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    registry.use(registry.build_registry([TINY]))
    for number in (0, 1):
        torch.manual_seed(number)
        values = {"data": "tiny", "model": "tinycnn", "epochs": 1, "seed": number}
        values |= {"perturb": "clean", "compile": "off"}
        curricula.train(**values, output=folder / str(number))
    return folder


def run_program(*words):
    words = ("--plugin", SUITES, "--plugin", TINY, *words)
    return CliRunner().invoke(program, [str(word) for word in words])


def test_a_run_beside_a_baseline(tiny, suites, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    run, other = tmp_path / "runs" / "0", tmp_path / "runs" / "1"
    # The draws are equal: beside itself, every quotient is 1.
    same = curricula.evaluate(run, suite=["weather", "turns"], limit=30, baseline=run)
    assert [table.normalised_mean_error for table in same.tables] == [1.0, 1.0]
    assert [*same.baseline] == [*same]
    found = curricula.evaluate(run, suite="weather", limit=30, baseline=other)
    (table,) = found.tables
    alone = curricula.evaluate(other, suite="weather", limit=30)
    assert [*found.baseline] == [*alone]
    (alone,) = alone.tables
    assert table.normalised_error("rain") == pytest.approx(
        table.error("rain") / alone.error("rain")
    )
    assert [*found.to_pandas()["baseline"]] == [each.accuracy for each in found.baseline]
    # The folder keeps the last results of each suite.
    stored = read_suites(Run.open(run))
    assert [(name, each.baseline) for name, each in stored.items()] == [
        ("weather", str(other)),
        ("turns", str(run)),
    ]
    assert stored["weather"].tables == found.tables
    assert stored["weather"].weights == Run.open(run).digest("best.safetensors") != ""
    assert stored["weather"].baseline_weights == Run.open(other).digest("best.safetensors") != ""
    # The page says where the weights of the baseline are no longer those that were measured.
    sections = {each.title: each for each in report._suites(Run.open(run))}
    assert all(report.CHANGED_BASELINE not in each.missing for each in sections.values())
    baseline = Run.open(other)
    tensors, texts = baseline.load("best.safetensors")
    baseline.save("best.safetensors", {key: -value for key, value in tensors.items()}, texts)
    (changed,) = [each for each in report._suites(Run.open(run)) if each.missing]
    ((note, (command,)),) = changed.missing.items()
    assert note == report.CHANGED_BASELINE
    assert command.endswith(f" evaluate --suite weather --baseline {other} {run}")


def test_two_processes_keep_the_results_of_both(tiny, suites, runs, tmp_path, monkeypatch):
    """The second reads the file while the first is between reading and writing it."""
    run = tmp_path / "run"
    shutil.copytree(runs / "0", run, ignore=shutil.ignore_patterns("predictions.*"))
    first, second = (curricula.evaluate(run, suite=name, limit=1) for name in ("weather", "turns"))
    (run / "suites.json").unlink()
    keywords = {"checkpoint": "best", "seed": 0, "beside": None}
    other = Thread(target=write_suites, args=(Run.open(run), second), kwargs=keywords)

    def read(run):
        found = read_suites(run)
        if other.ident is None:
            other.start()
            other.join(0.1)
        return found

    monkeypatch.setattr(stored_suites, "read_suites", read)
    write_suites(Run.open(run), first, **keywords)
    other.join()
    assert {*read_suites(Run.open(run))} == {"weather", "turns"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("position", {"suite": "s", "row": "fog", "column": "2"}, "have the same position"),
        ("n", 7, "equally many images and draws"),
        ("draws", {"count": 2, "correct": 0, "squares": 0, "mean": 0, "n": 10}, "images and draws"),
        ("draws", {"count": 2, "correct": 0, "squares": 0, "mean": 0, "n": 9}, "draws must be of"),
    ],
)
def test_stored_results_that_make_no_table_are_refused(name, value, message):
    results = [
        {"name": f"fog {column}", "threat": "fog", "correct": 0, "fooled": 0, "n": 10}
        | {"position": {"suite": "s", "row": "fog", "column": column}}
        for column in ("1", "2")
    ]
    written = {"checkpoint": "best", "seed": 0, "results": results}
    assert from_json(StoredSuite, written).tables
    results[0][name] = value
    with pytest.raises(ValueError, match=message):
        from_json(StoredSuite, written)


def page_of_other_weights(run):
    """Return the page of a run whose file of weights has changed since a suite was measured."""
    found = Run(run)
    tensors, texts = found.load("best.safetensors")
    found.save("best.safetensors", tensors, texts | {"note": "other"})
    return report.report(run).read_text()


def test_the_command_prints_and_draws_the_table(tiny, suites, runs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(runs / "0", run, ignore=shutil.ignore_patterns("predictions.*"))
    monkeypatch.setattr(report, "_example_images", lambda *_: Section(title="Images"))
    words = ("evaluate", run, "--suite", "weather", "--limit", 30, "--baseline", runs / "1")
    shown = run_program(*words)
    assert shown.exit_code == 0, shown.output
    (table,) = curricula.evaluate(run, suite="weather", limit=30, baseline=runs / "1").tables
    error = f"{100 * table.mean_error:.1f}"
    assert f"mean error, unnormalised: {error} (" in shown.stdout
    assert f"2019): {100 * table.normalised_mean_error:.1f} %; that of" in shown.stdout
    page = (run / "report.html").read_text()
    for text in ("Suite weather", f"Mean error, unnormalised: {error} (", str(runs / "1")):
        assert text in page
    assert (run / "figures" / "suite-weather.png").is_file()
    again = f"evaluate --suite weather --baseline {runs / '1'} {run}</code>"
    assert again not in page
    assert again in page_of_other_weights(run)
    (run / "suites.json").write_text('{"suites": {"weather": {"results": []}}}')
    wrong = run_program(*words)
    assert wrong.exit_code == 2
    assert "suites.json" in wrong.stderr.splitlines()[-1]
    monkeypatch.setattr(report, "report", lambda *_, **keywords: "")
    (run / "suites.json").unlink()
    written = json.loads(run_program(*words, "--format", "json").stdout)
    assert written["suites"] == [to_json(table)]
    assert len(written["threats"]) == len(written["baseline"]) == 5


def test_the_standard_suite_is_that_of_an_evaluation_without_threats(tiny, runs):
    run = runs / "0"
    assert curricula.evaluate(run, limit=10) == curricula.evaluate(run, suite="standard", limit=10)
    assert not (run / "suites.json").exists()


def test_a_sweep_takes_a_suite(tiny, suites, tmp_path):
    sweep = parse_sweep(
        "[base]\ndata = 'tiny'\nepochs = 1\ncompile = 'off'\n[axes]\nseed = [0, 1]\n"
        "[evaluation]\nsuite = 'weather'\nlimit = 20\nfrontier = ['clean', 'sun 2']\n"
        "[evaluation.threats]\nturned = 'rot'\n"
    )
    assert parse_sweep(sweep.as_toml()) == sweep
    run_sweep(sweep, tmp_path)
    compared = curricula.compare(tmp_path)
    assert compared.axes == ("clean", "sun 2")
    header = ["", "seeds", "clean", "sun 2", "turned", "weather, mean", "passes, M", "min"]
    assert compared.header == header
    (row,) = compared.rows
    four = ("rain 1", "rain 2", "sun 1", "sun 2")
    expected = 100 * np.mean([row.mean(name) for name in four])
    assert float(compared.lines[0][5].partition(" ± ")[0]) == pytest.approx(expected, abs=0.051)
    assert {*four} <= {*compared.records()[0]}
    (table,) = tables_of(row.outcomes[0].results.values())
    assert table.suite == "weather"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--suite", "wether"), "did you mean weather?"),
        (("--baseline", "absent"), "absent is not a run folder"),
        (("--baseline", "damaged"), "baseline: checkpoint damaged"),
        (("--suite", "number"), "it must return expressions by name"),
    ],
)
def test_a_mistake_at_the_command_line_is_one_line(
    tiny, suites, runs, words, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "1", "damaged")
    Path("damaged/best.safetensors").write_bytes(b"{}")
    found = run_program("evaluate", runs / "0", *words)
    assert found.exit_code == 2
    assert message in found.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["weather", "turns", "again", "colours"])
@pytest.mark.parametrize("clause", SUITE_CLAUSES)
def test_a_suite_keeps_the_contract(clause, name):
    clause(RETURNED[name])


@pytest.mark.parametrize(
    ("suite", "clause", "message"),
    [
        ({"fog": 2}, "names_threats_or_suites", "it must return"),
        (["nosuite"], "names_threats_or_suites", "unknown suite 'nosuite'"),
        ({"fog": "nofog"}, "expressions_are_threats", "fog : unknown perturbation"),
        ({"fog": {"1": "nfgsm"}}, "expressions_are_threats", "fog 1: nfgsm"),
    ],
)
def test_a_broken_clause_is_named(suite, clause, message):
    assert message in check_suite(suite)[clause]
