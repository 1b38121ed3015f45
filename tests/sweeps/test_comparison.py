"""Compared runs: means over seeds, the frontier and its hypervolume against brute force."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import mean, stdev

import attrs
import numpy as np
import pytest
import tomli_w
from cli.test_cli import TINY, run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

import curricula
from curricula.errors import UserError
from curricula.evaluation.intervals import seeds_interval, wilson_interval
from curricula.evaluation.pareto import dominates, hypervolume, on_frontier
from curricula.evaluation.results import ThreatResult
from curricula.plugins import registry
from curricula.reporting.figures import write_figure
from curricula.reporting.pareto_figure import draw_frontier
from curricula.runtime.records import to_json
from curricula.sweeps import collect
from curricula.sweeps.comparison import Comparison, Outcome, Row
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep

TENTHS = st.integers(0, 10)
POINTS = st.lists(st.tuples(TENTHS, TENTHS), max_size=8)


@given(POINTS, st.tuples(TENTHS, TENTHS))
def test_the_hypervolume_is_the_area_that_the_points_dominate(tenths, corner):
    covered = sum(
        any(x > column and y > row for x, y in tenths)
        for column in range(corner[0], 10)
        for row in range(corner[1], 10)
    )
    points = [(x / 10, y / 10) for x, y in tenths]
    reference = (corner[0] / 10, corner[1] / 10)
    assert hypervolume(points, reference) == pytest.approx(covered / 100)


@given(POINTS)
def test_the_frontier_is_the_points_that_no_other_dominates(points):
    for point, on in zip(points, on_frontier(points), strict=True):
        better = [
            other
            for other in points
            if other[0] >= point[0] and other[1] >= point[1] and other != point
        ]
        assert on == (not better)
    if points:
        assert any(on_frontier(points))


def test_equal_points_do_not_dominate_each_other():
    assert not dominates((0.5, 0.5), (0.5, 0.5))
    assert dominates((0.5, 0.6), (0.5, 0.5))
    assert not dominates((0.4, 0.9), (0.5, 0.5))


def outcome(seed, spatial, adversarial, *, passes=1_000_000, seconds=60.0):
    shares = {"spatial": spatial, "adversarial": adversarial}
    return Outcome(
        folder=Path("run"),
        seed=seed,
        configuration="{}",
        images="test images of digits",
        results={
            name: ThreatResult(
                name=name, threat=name, correct=round(1000 * share), fooled=0, n=1000
            )
            for name, share in shares.items()
        },
        passes=passes,
        seconds=seconds,
    )


COMPARED = Comparison(
    rows=(
        Row(label="spatial one", outcomes=(outcome(0, 0.9, 0.1), outcome(1, 0.94, 0.2))),
        Row(label="both", outcomes=(outcome(0, 0.7, 0.7, passes=9_000_000, seconds=600.0),)),
        Row(label="worse", outcomes=(outcome(0, 0.6, 0.5),)),
    ),
    failed=(Row(label="broken", failures={"broken": "the loss is no longer finite"}),),
    threats={"spatial": "rot:30", "adversarial": "pgd:0.1"},
    axes=("spatial", "adversarial"),
)


def test_means_and_deviations_are_over_seeds():
    row = COMPARED.rows[0]
    assert row.mean("adversarial") == pytest.approx(mean([0.1, 0.2]))
    assert row.deviation("adversarial") == pytest.approx(stdev([0.1, 0.2]))
    assert COMPARED.rows[1].deviation("spatial") is None
    assert row.interval("adversarial") == seeds_interval([100, 200], 1000)
    assert COMPARED.rows[1].interval("spatial") == wilson_interval(700, 1000)


def test_a_comparison_names_the_rows_that_dominate_a_row():
    assert COMPARED.on_frontier == [True, True, False]
    assert COMPARED.dominated_by(COMPARED.rows[2]) == ["both"]
    assert COMPARED.hypervolume == pytest.approx(0.7 * 0.7 + (0.92 - 0.7) * 0.15)
    assert [row.label for row in COMPARED.sorted("adversarial").rows] == [
        "both", "worse", "spatial one",
    ]  # fmt: skip
    assert [row.label for row in COMPARED.sorted("minutes").rows][-1] == "both"
    with pytest.raises(UserError, match="no column 'joint'; there is label, passes, minutes"):
        COMPARED.sorted("joint")


def test_csv_and_json_hold_the_same_values():
    records = to_json(COMPARED)["rows"]
    lines = list(csv.DictReader(io.StringIO(COMPARED.as_csv())))
    assert [line["label"] for line in lines] == [record["label"] for record in records]
    for line, record in zip(lines, records, strict=True):
        assert float(line["spatial"]) == record["spatial"]
        assert line["frontier"] == str(record["frontier"])
    assert records[0]["seeds"] == "0 1"
    assert json.loads(json.dumps(to_json(COMPARED)))["failed"][0]["label"] == "broken"


def test_the_figure_has_every_row_and_the_frontier_under_them():
    figure = draw_frontier(COMPARED)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["spatial one", "both", "worse"]
    assert [text.get_weight() for text in axes.texts] == ["bold", "bold", "normal"]  # the frontier
    assert axes.get_xlabel() == "spatial accuracy, %"
    corners = [xy for line in axes.lines for xy in line.get_xydata().round(6).tolist()]
    for corner in ([70, 70], [70, 15], [92, 15]):
        assert corner in corners


def test_the_figure_of_rows_that_learned_nothing_has_axes_of_accuracies():
    nothing = outcome(0, 0.5, 0.0), outcome(1, 0.5, 0.0)
    rows = tuple(Row(label=name, outcomes=nothing) for name in "ab")
    (axes,) = draw_frontier(attrs.evolve(COMPARED, rows=rows)).axes
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert low >= -2
        assert high - low > 4.9


@pytest.mark.parametrize("rows", [3, 48])
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.15])
def test_every_row_is_named_once_in_the_figure_and_no_name_covers_another(rows, apart):
    many = tuple(
        Row(label=f"row {i}", outcomes=(outcome(0, 0.3 + apart * (i % 4), apart * (i // 4 % 6)),))
        for i in range(rows)
    )
    figure = draw_frontier(attrs.evolve(COMPARED, rows=many))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    in_legend = [text for legend in figure.legends for text in legend.get_texts()]
    texts = [*figure.axes[0].texts, *in_legend]
    assert sorted(text.get_text() for text in texts) == sorted(row.label for row in many)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    for number, box in enumerate(boxes):
        assert figure.bbox.count_contains(box.corners()) == 4
        assert not any(box.overlaps(other) for other in boxes[:number])
    (axes,) = figure.axes
    shares = np.array([COMPARED.point(row) for row in many])
    for box in boxes[: len(axes.texts)]:
        assert not box.count_contains(axes.transData.transform(100 * shares))


def test_equal_means_compare_equal():
    seeds = [(0.1, 0.25), (0.075, 0.275)]
    first, second = (
        Row(label=label, outcomes=tuple(outcome(seed, spatial, x) for seed, x in enumerate(pair)))
        for label, spatial, pair in zip("ab", (0.4, 0.3), seeds, strict=True)
    )
    assert sum(seeds[0]) / 2 != sum(seeds[1]) / 2  # as floats
    compared = attrs.evolve(COMPARED, rows=(first, second))
    assert first.mean("adversarial") == second.mean("adversarial")
    assert compared.on_frontier == [True, False]
    assert compared.dominated_by(second) == ["a"]


def test_the_figure_bars_are_deviations_and_the_interval_of_one_seed():
    (axes,) = draw_frontier(COMPARED).axes
    bars = [path.vertices for bars in axes.collections[:6] for path in bars.get_paths()]
    deviation = 100 * COMPARED.rows[0].deviation("spatial")
    assert bars[0][:, 0] == pytest.approx([92 - deviation, 92 + deviation])
    low, high = COMPARED.rows[1].interval("adversarial")
    assert bars[3][:, 1] == pytest.approx([100 * low, 100 * high])


@pytest.mark.parametrize(("count", "with_bars"), [(20, 20), (21, 2)])
def test_of_many_rows_only_those_on_the_frontier_have_bars(count, with_bars):
    best = (0.9, 0.5), (0.5, 0.9)
    points = [*best, *((0.01 * number, 0.3) for number in range(count - 2))]
    rows = tuple(Row(label=str(n), outcomes=(outcome(0, *at),)) for n, at in enumerate(points))
    (axes,) = draw_frontier(attrs.evolve(COMPARED, rows=rows)).axes
    bars = [each for each in axes.collections if isinstance(each, LineCollection)]
    assert len(bars) == 2 * with_bars


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two rows of two seeds, and a separate run with a third seed of the first row."""
    registry.use(registry.build_registry([TINY]))
    folder = tmp_path_factory.mktemp("compared")
    base = '[base]\ndata = "tiny"\nepochs = 1\nperturb = "rot+pgd"\ncompile = "off"\n'
    axes = '[axes]\nseed = [0, 1]\nobjective = ["at", "trades"]\n'
    run_sweep(parse_sweep(base + axes), folder / "sweep")
    for name, objective in (("third", "at"), ("other", "mart")):
        curricula.train(
            data="tiny", epochs=1, perturb="rot+pgd", seed=2, objective=objective, compile="off",
            output=folder / name,
        )  # fmt: skip
    return folder


def test_seeds_share_a_row_whichever_folder_they_are_in(tiny, swept):
    compared = curricula.compare([swept / "sweep", swept / "third", swept / "other"])
    assert [(row.label, [o.seed for o in row.outcomes]) for row in compared.rows] == [
        ("objective=at", [0, 1, 2]),
        ("objective=trades", [0, 1]),
        (str(swept / "other"), [2]),
    ]
    files = [
        swept / "sweep" / "cells" / f"seed={seed},objective=at" / "evaluation.json"
        for seed in (0, 1)
    ] + [swept / "third" / "evaluation.json"]
    joint = [json.loads(file.read_text())[3]["accuracy"] for file in files]
    assert compared.rows[0].accuracies("joint") == joint
    first = compared.rows[0].outcomes[0]
    assert {name: int(of_N.sum()) for name, of_N in first.images_correct.items()} == {
        name: result.correct for name, result in first.results.items()
    }
    correct = [outcome.results["joint"].correct for outcome in compared.rows[0].outcomes]
    low, high = compared.rows[0].interval("joint")
    widest = seeds_interval(correct, first.results["joint"].n)
    assert widest[0] < low < compared.rows[0].mean("joint") < high < widest[1]
    # 9 batches of 20; one training pass and two steps of pgd, none at strength 0 in the first.
    assert compared.rows[0].passes == 9 * 20 + 8 * 2 * 20
    alone = curricula.compare(str(swept / "third"))
    assert alone == curricula.compare([swept / "third"])
    again = curricula.compare([swept / "third", swept / "third"])
    assert [o.seed for o in again.rows[0].outcomes] == [2]


def test_seeds_of_a_row_that_ran_on_different_machines_stay_one_row(swept, tmp_path):
    """``auto`` resolved to a different precision on each machine."""
    shutil.copytree(swept / "sweep", tmp_path / "sweep")
    file = tmp_path / "sweep" / "cells" / "seed=1,objective=at" / "config.toml"
    config = tomllib.loads(file.read_text())
    other = "float32" if config["precision"] == "bf16" else "bf16"
    file.write_text(tomli_w.dumps({**config, "precision": other}))
    rows = curricula.compare([tmp_path / "sweep"]).rows
    assert [len(row.outcomes) for row in rows] == [2, 2]


ROWS = """
[base]
data = "tiny"
epochs = 1
perturb = "rot"
compile = "off"
[axes]
seed = [0, 1]
[axes.rate]
x = {{ lr = {} }}
y = {{ lr = 0.01 }}
"""
CHEAP = '[evaluation]\nlimit = 20\nthreats = { clean = "clean", turned = "rot" }\n'


def test_one_name_in_two_sweeps_is_two_rows_each_with_its_own_failure(tiny, tmp_path):
    for name, rate in (("good", "0.02"), ("bad", "1e30")):
        run_sweep(parse_sweep(ROWS.format(rate) + CHEAP), tmp_path / name)
    compared = curricula.compare([tmp_path / "bad", tmp_path / "good"])
    assert [row.label for row in compared.rows] == ["y", f"x ({tmp_path / 'good'})"]
    assert [row.label for row in compared.failed] == [f"x ({tmp_path / 'bad'})"]
    assert [row.failures for row in compared.rows] == [{}, {}]
    assert list(compared.failed[0].failures) == ["seed=0,rate=x", "seed=1,rate=x"]
    stderr = run("compare", tmp_path / "bad", "--format", "csv").stderr
    assert [line.split(" failed: ")[0] for line in stderr.splitlines()] == [
        "seed=0,rate=x",
        "seed=1,rate=x",
    ]


def test_a_threat_may_have_any_name(tiny, tmp_path):
    text = ROWS.format("0.02").replace("[0, 1]", "[0]") + "[evaluation]\n"
    names = "'a [bold] | b' = 'clean'\nc = 'rot'\n"
    front = "frontier = ['c', 'a [bold] | b']\n[evaluation.threats]\n"
    run_sweep(parse_sweep(text + front + names), tmp_path / "out")
    assert "a [bold] | b" in run("compare", tmp_path / "out").output.splitlines()[3]
    markdown = run("compare", tmp_path / "out", "--format", "markdown").output.splitlines()
    assert r"| a [bold] \| b |" in markdown[0]
    assert len({line.replace(r"\|", "").count("|") for line in markdown}) == 1


def test_two_names_of_one_configuration_in_a_sweep_are_two_rows(tiny, tmp_path):
    run_sweep(parse_sweep(ROWS.format("0.01") + CHEAP), tmp_path / "same")
    compared = curricula.compare([tmp_path / "same"])
    assert [(row.label, len(row.outcomes)) for row in compared.rows] == [("x", 2), ("y", 2)]


def test_compare_prints_a_table_and_writes_a_figure(swept, tmp_path):
    both = [swept / "sweep", swept / "other"]
    table = run("compare", *both, "--sort", "joint", "-o", tmp_path / "f.svg")
    assert table.exit_code == 0, table.output
    assert "objective=trades" in table.output
    assert "The hypervolume, 0." in table.output
    assert "is the area between (0, 0) and this frontier" in table.output
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")
    markdown = run("compare", *both, "--format", "markdown").output.splitlines()
    assert len(markdown) == 2 + 3
    assert len({line.count("|") for line in markdown}) == 1
    found = json.loads(run("compare", *both, "--format", "json").output)
    assert [row["label"] for row in found["rows"]][:2] == ["objective=at", "objective=trades"]
    assert found["pending"] == 0
    lines = run("compare", *both, "--format", "csv").output.splitlines()
    assert len(lines) == 4


def test_runs_measured_under_different_threats_are_refused(tiny, swept, tmp_path):
    curricula.train(
        data="tiny", epochs=1, perturb="rot:10+pgd", compile="off", output=tmp_path / "other"
    )
    with pytest.raises(UserError) as caught:
        curricula.compare([swept / "third", tmp_path / "other"])
    message = str(caught.value).replace(str(tmp_path), "T").replace(str(swept), "S")
    text, advice = message.split(" under one threat: ")
    assert "spatial is rot(30, interpolation=bilinear, padding=zeros) in S/third and rot(10" in text
    assert text.count("pgd") == 0
    assert len(message) < 500
    assert "in T/other (also: joint): train both in one sweep" in text
    # The advice works, also without the plugin file that the runs need.
    words = shlex.split(advice.replace("T/", f"{tmp_path}/"))
    assert "--plugin" in words
    result = run(*words[1:], plugin=None)
    assert result.exit_code == 0, result.output
    assert "rot(30, interpolation=bilinear, padding=zeros)" in result.output


def test_the_advice_names_the_file_of_a_measured_network(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = curricula.load_data("tiny")
    shape = f"{data.in_channels * data.image_size**2}, {len(data.classes)}"
    Path("net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        f"        super().__init__(nn.Flatten(), nn.Linear({shape}))\n"
    )
    code = "import torch, net; torch.save(net.Net().state_dict(), 'net.pt')"
    subprocess.run([sys.executable, "-c", code], check=True)
    network = ["--model", "net.py:Net", "--weights", "net.pt", "--normalise", "none"]
    for folder, threat in (("first", "rot:10"), ("second", "rot:20")):
        measured = run(
            "evaluate", *network, "--data", "tiny", "--threat", threat, "--limit", 4, "-o", folder
        )
        assert measured.exit_code == 0, measured.output
    refused = run("compare", "first", "second", plugin=None)
    assert refused.exit_code == 2, refused.output
    text, advice = refused.stderr.split(" under one threat: ")
    assert "measure both under the same threats" in text
    done = run(*shlex.split(advice)[1:], plugin=None)
    assert done.exit_code == 0, done.output


def test_runs_measured_on_different_images_are_refused(tiny, swept, tmp_path):
    """Equally many validation images, or images of a different data set."""
    base = '[base]\ndata = "tiny"\nepochs = 1\ncompile = "off"\n[axes]\nseed = [5]\n'
    threats = 'threats = { clean = "clean", turned = "rot" }\n'
    for split in ("test", "validation"):
        text = base + f'[evaluation]\nlimit = 20\nsplit = "{split}"\n' + threats
        run_sweep(parse_sweep(text), tmp_path / split)
    with pytest.raises(UserError, match=r"on 20 validation images of tiny, run .* test images"):
        curricula.compare([tmp_path / "test", tmp_path / "validation"])
    shutil.copytree(swept / "third", tmp_path / "third")
    config = tmp_path / "third" / "config.toml"
    config.write_text(config.read_text().replace('data = "tiny"', 'data = "digits"'))
    with pytest.raises(UserError, match=r"on 60 test images of digits, run .* images of tiny"):
        curricula.compare([swept / "other", tmp_path / "third"])


def test_the_number_of_training_images_does_not_change_the_test_images(swept, tmp_path):
    for images in ("1000", "2000"):
        shutil.copytree(swept / "third", tmp_path / images)
        config = tmp_path / images / "config.toml"
        text = config.read_text().replace('data = "tiny"', f'data = "mnist(images={images})"')
        config.write_text(text)
    rows = curricula.compare([tmp_path / "1000", tmp_path / "2000"]).rows
    assert [row.label for row in rows] == [str(tmp_path / "1000"), str(tmp_path / "2000")]


@pytest.mark.parametrize(
    ("split", "rows"), [("test", None), ("validation", 2), ("train", 2), ("name", 1)]
)
def test_data_of_one_name_in_other_files_are_distinguished(swept, tmp_path, split, rows):
    """As of the same --data npz with another --data-root."""
    shutil.copytree(swept / "third", tmp_path / "other")
    file = tmp_path / "other" / "data.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {split: "of other files"}))
    folders = [swept / "third", tmp_path / "other"]
    if rows:
        assert len(curricula.compare(folders).rows) == rows
    else:
        with pytest.raises(UserError, match="not measured on the same 60 test images of tiny"):
            curricula.compare(folders)


def test_other_results_of_one_seed_are_another_row():
    """As of functions or files of one name that differ: none of them may vanish."""
    one, other = Row(label="a", outcomes=(outcome(0, 0.9, 0.1),)), outcome(0, 0.8, 0.1)
    for second, count in [(other, 2), (one.outcomes[0], 1), (attrs.evolve(other, seed=1), 1)]:
        row = Row(label="b", outcomes=(second,))
        found = {(Path("a"), "a"): one, (Path("b"), "b"): row}
        assert len(collect._merged(found)) == count


@pytest.mark.parametrize("label", ["$\\foo$", "_hidden", "50 $"])
def test_a_figure_shows_each_letter_of_a_name(label, tmp_path):
    rows = tuple(attrs.evolve(row, label=label) for row in COMPARED.rows[:1])
    figure = draw_frontier(attrs.evolve(COMPARED, rows=rows))
    write_figure(figure, tmp_path / "f.png")
    write_figure(figure, tmp_path / "f.svg")
    (text,) = figure.axes[0].texts
    assert text.get_text().strip().replace(r"\$", "$") == label


def test_bad_input_to_compare(swept, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.toml").write_text('model = "tinycnn"\n')
    for arguments, message in [
        ([tmp_path / "absent"], "is not a run folder"),
        ([tmp_path / (300 * "a")], "cannot be read"),
        ([tmp_path / "unfinished"], "was not measured; let its training finish"),
        ([swept / "third", "--axes", "spatial", "nothing"], "no threat is called 'nothing'"),
        ([swept / "third", "--sort", "cost"], "no column 'cost'"),
        ([swept / "third", "-o", "figure.gif"], "its name must end in"),
    ]:
        result = run("compare", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("evaluation.json", '[{"name": "clean"}]'),
        ("evaluation.json", "3"),
        ("metrics.jsonl", '{"passes": 3}'),
        ("timing.jsonl", '{"epoch": 1}'),
    ],
)
def test_a_file_of_another_shape_is_named(swept, tmp_path, file, text):
    copy = tmp_path / "copy"
    shutil.copytree(swept / "third", copy)
    (copy / file).write_text(text)
    result = run("compare", copy)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"Error: {copy / file}: not of the shape that curricula writes")
    assert re.search("restore it, or train again$|its sweep will measure again$", result.stderr)
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_cut_off_is_named_once(swept, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(swept / "third", copy)
    (copy / "evaluation.json").write_text('[{"name": "cle')
    result = run("compare", copy)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"Error: {copy / 'evaluation.json'}: cannot be read (")
    assert result.stderr.count("evaluation.json") == 1
    assert result.stderr.endswith(
        "(Unterminated string starting at: column 11 (char 10)); delete it, and train --resume or "
        "its sweep will measure again\n"
    )


def test_a_line_that_is_cut_off_is_numbered(swept, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(swept / "third", copy)
    whole = (copy / "metrics.jsonl").read_text()
    (copy / "metrics.jsonl").write_text(whole + whole[:20] + "\n")
    result = run("compare", copy)
    assert result.exit_code == 2, result.output
    assert f"{copy / 'metrics.jsonl'}: cannot be read in line 2 (" in result.stderr
    assert result.stderr.count("\n") == 1


def test_sweep_on_the_command_line(swept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("curricula.reporting.report.report", lambda folder: folder)
    file = tmp_path / "mine.toml"
    file.write_text(
        '[base]\ndata = "tiny"\nepochs = 1\n[axes]\nlr = [0.01, 1e30]\n[evaluation]\nlimit = 10\n'
    )
    result = run("sweep", file)
    assert result.exit_code == 1, result.output  # one cell failed
    assert "lr=1e+30 failed: the loss is no longer finite" in result.output
    assert (tmp_path / "runs" / "mine" / "study.db").exists()
    assert run("compare", "runs/mine").exit_code == 0
    file.write_text("[base]\nlearning_rate = 1\n[axes]\nseed = [0]\n")
    for arguments, message in [
        ([file], "unknown key 'learning_rate'"),
        (["absent.toml"], "no such recipe or file"),
        (["cusp"], "'cusp' is one run: use curricula train --config cusp"),
    ]:
        result = run("sweep", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    result = run("train", "--config", "cusp-vs-baselines-mnist")
    assert "is a sweep: use curricula sweep cusp-vs-baselines-mnist" in result.stderr


def test_comparing_imports_no_torch(swept):
    code = f"""
import sys
from curricula.runtime.records import to_json
from curricula.sweeps.collect import compare
found = compare([{str(swept / "sweep")!r}, {str(swept / "third")!r}])
found.records(), found.as_csv(), to_json(found), found.lines
heavy = {{"torch", "optuna", "torchvision", "sklearn", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
