"""Sweeps: their files, and that an interrupted sweep ends like an uninterrupted one."""

import base64
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from fixtures.sweeping import run_and_report

import curricula
from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.evaluation.names import STANDARD
from curricula.evaluation.threats import standard_threats
from curricula.expressions import factories
from curricula.expressions.binding import bind
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.recipes import find_sweep, recipes
from curricula.runtime.records import to_json
from curricula.runtime.signals import Interrupted
from curricula.sweeps import runner
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep
from curricula.training.run import Run

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"

SWEEP = """
[base]
data = "tiny"
epochs = 1
perturb = "rot+pgd"
compile = "off"

[axes]
seed = [0, 1]

[axes.curriculum]
constant = { schedule = ["constant"] }
ramp = { schedule = ["linear"], objective = "trades" }

[evaluation]
limit = 20
"""
# The same cells; no attack is run.
QUICK = SWEEP.replace("rot+pgd", "rot") + 'threats = { clean = "clean", turned = "rot" }\n'
TWO_CELLS = QUICK.replace("[0, 1]", "[0]")


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.2)


def collector():
    lines = []
    return lines, lines.append


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, messages) of the sweep, run once without an interruption; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    out = tmp_path_factory.mktemp("sweeps") / "out"
    lines, on_message = collector()
    run_sweep(parse_sweep(SWEEP), out, on_message=on_message)
    return out, lines


@pytest.fixture
def out(tiny, finished, tmp_path):
    """Return a copy of the finished sweep, to be changed."""
    return Path(shutil.copytree(finished[0], tmp_path / "out"))


def test_cells_are_all_combinations_the_last_axis_fastest():
    sweep = parse_sweep(SWEEP)
    assert [cell.name for cell in sweep.cells] == [
        "seed=0,curriculum=constant",
        "seed=0,curriculum=ramp",
        "seed=1,curriculum=constant",
        "seed=1,curriculum=ramp",
    ]
    last = sweep.cells[-1].values
    assert last["seed"] == 1
    assert last["objective"] == "trades"
    assert last["epochs"] == 1
    assert sweep.row(sweep.cells[-1]) == "ramp"


def test_a_later_axis_overrides_an_earlier_one_and_the_base():
    sweep = parse_sweep(
        "[base]\nlr = 0.1\n[axes]\nlr = [0.2, 0.3]\n[axes.other]\nsame = {}\nhigh = {lr = 9.0}\n"
    )
    assert [cell.values["lr"] for cell in sweep.cells] == [0.2, 9.0, 0.3, 9.0]
    assert [sweep.row(cell) for cell in sweep.cells][:2] == ["lr=0.2, same", "lr=0.2, high"]


def test_a_row_is_labelled_by_the_name_of_a_change_or_by_axis_and_value():
    sweep = parse_sweep(
        "[axes]\nlr = [0.2, 0.3]\n[axes.model]\n"
        + 'smallcnn = {model = "smallcnn"}\nsmooth = {model = "stdcnn(dropout=0)"}\n'
    )
    assert [sweep.row(cell) for cell in sweep.cells] == [
        "lr=0.2, smallcnn",
        "lr=0.2, smooth",
        "lr=0.3, smallcnn",
        "lr=0.3, smooth",
    ]


def test_cells_with_names_that_no_folder_can_have_get_different_folders():
    sweep = parse_sweep("[axes]\nperturb = ['rot:1', 'rot(1)', 'rot', '" + 200 * "rot+" + "pgd']\n")
    names = [cell.name for cell in sweep.cells]
    assert len(set(names)) == 4
    assert names[2] == "perturb=rot"
    assert all(len(name) < 140 and not set("/:()") & set(name) for name in names)


def test_a_sweep_is_written_and_read_back():
    sweep = parse_sweep(
        SWEEP
        + 'frontier = ["clean", "turned"]\n'
        + '[evaluation.threats]\nclean = "clean"\nturned = "rot:45"\n'
    )
    assert parse_sweep(sweep.as_toml()) == sweep
    assert parse_sweep(parse_sweep("[axes]\nseed = [1]\n").as_toml()).limit is None


STUDIES = sorted((Path(__file__).parents[2] / "examples" / "studies").glob("*.toml"))


@pytest.mark.parametrize("name", [*recipes("sweep"), *map(str, STUDIES)])
def test_every_shipped_sweep_and_study_can_be_run(name):
    sweep = find_sweep(name)
    labels = {sweep.row(cell) for cell in sweep.cells}
    assert len(sweep.cells) == len(sweep.axes["seed"]) * len(labels)
    budgets = {"degrees": "30", "pixels": "3", "linf": "8/255"}
    for cell in sweep.cells:
        Curriculum.parse(cell.values["perturb"], cell.values.get("schedule", ()), budgets=budgets)
        factories.build("objective", parse_call(cell.values.get("objective", "at")))
        registry.current().find("model", parse_call(cell.values["model"]).name)
        registry.current().find("dataset", parse_call(cell.values["data"]).name)
    for text in sweep.threats.values():
        assert str(Threat.parse(text))
    assert len({str(Threat.parse(text)) for text in sweep.threats.values()}) == len(sweep.threats)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[axes]\nsede = [1]\n",
            "axis 'sede': a list must hold values of a field; did you mean seed",
        ),
        (
            "[axes]\nseed = []\n",
            "axis 'seed' is empty: give it one or more values, or leave it out",
        ),
        ("[axes.seed]\n", "axis 'seed' is empty: give it one or more values, or leave it out"),
        ("[axes]\nseed = 3\n", "axis 'seed' must be a list of values or a table of changes, not 3"),
        ("[base]\nepochs = 1\n", r"\[axes\] is empty: name a field and its values"),
        ("[base]\nepoch = 1\n[axes]\nseed = [1]\n", "unknown key 'epoch'; did you mean epochs"),
        ("[axes.a]\nb = { lr = 'x' }\n", "axis 'a', b: configuration: lr must be a number"),
        ("[axes.a]\nb = 3\n", "axis 'a', b must be a table, not 3"),
        ("[axes]\nseed = [1, 1]\n", "axis 'seed' has a value twice"),
        ("[axes]\nseed = ['a']\n", "axis 'seed', a: configuration: seed must be a whole number"),
        ("[axis]\nseed = [1]\n", "unknown section 'axis'; did you mean axes"),
        ("[axes]\nseed = [1]\n[evaluation]\nlimits = 3\n", "'limits'; did you mean limit"),
        (
            "[axes]\nseed = [1]\n[evaluation]\nlimit = 0\n",
            "limit must lie from 1 to 1,000,000,000",
        ),
        ("[axes]\nseed = [1]\n[evaluation]\nsplit = 'train'\n", "split must be test or validation"),
        (
            "[axes]\nseed = [1]\n[evaluation]\nfrontier = ['clean', 'a_sd']\n"
            "threats = {clean = 'clean', a_sd = 'rot'}\n",
            "threat 'a_sd' would have the name of a column",
        ),
        (
            "[axes]\nseed = [1]\n[evaluation.threats]\npasses = 'rot'\n",
            "'passes' would have the name",
        ),
        (
            "[axes]\nseed = [1]\n[evaluation]\nfrontier = ['spatial', 'spatial']\n",
            "two of the threats",
        ),
        (
            "[axes]\nseed = [1]\n[evaluation]\nfrontier = ['a', 'b']\n"
            "threats = {a = 'clean', c = 'rot'}\n",
            r"frontier must be a list of two of the threats \(a, c\), not \['a', 'b'\]",
        ),
        (
            "[axes]\nseed = [1]\n[evaluation.threats]\na = 'rot'\n",
            r"a sweep compares two of its threats or more, not \['a'\]",
        ),
        ("[axes]\nseed = [1]\n[evaluation.threats]\na = 1\n", "threat 'a' must be text"),
        (
            "[axes]\nseed = [1]\n[evaluation]\nsuite = 3\n",
            r"evaluation: suite must be a list of texts, such as \['corruptions'\], not 3",
        ),
        (
            "[axes]\nseed = [1]\n[evaluation]\nsuite = 'spatial'\n",
            "with a suite, frontier must be a list of two of its threats, .* not None",
        ),
        ("[axes.a]\n'b c' = {}\nb_c = {}\n", "would share the folder a=b_c; give one of them"),
        ("[axes\n", "not TOML"),
    ],
)
def test_a_wrong_sweep_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_sweep(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[axes]\nperturb = ["rot:1", "rot(1"]\n', "cell perturb=rot_1-.*: .*rot"),
        ('[axes]\nmodel = ["tinycnn", "nothing"]\n', "cell model=nothing: unknown model"),
        (
            '[axes]\nseed = [0]\n[evaluation.threats]\nadversarial = "pgd"\nspatial = "hue:0.1"\n',
            "threat spatial: hue works on images of 3 channels; those of tiny have 1",
        ),
        (
            '[axes]\ndata = ["tiny", "digits"]\n[evaluation.threats]\na = "clean"\nb = "rot"\n',
            "different images .test images of digits and test images of tiny.*a sweep of each",
        ),
        (
            '[axes]\nseed = [0]\n[evaluation]\nsuite = "spatia"\nfrontier = ["a", "b"]\n',
            r"\[evaluation\]: unknown suite 'spatia': did you mean spatial",
        ),
        (
            '[axes]\nseed = [0]\n[evaluation]\nsuite = "spatial"\n'
            'frontier = ["clean", "rotation girds"]\n',
            "no threat is called 'rotation girds'; did you mean rotation grid",
        ),
        (
            '[axes]\nperturb = ["rot:1", "rot:2"]\n',
            "measured under different threats .spatial: .*name them under .evaluation.threats.",
        ),
    ],
)
def test_a_cell_that_cannot_be_planned_is_refused_before_writing(tiny, text, message, tmp_path):
    sweep = parse_sweep('[base]\ndata = "tiny"\n' + text)
    with pytest.raises(UserError, match=message) as caught:
        run_sweep(sweep, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def outcomes(out):
    """Return the files that the runs of a sweep repeat bit for bit, by name."""
    names = ("config.toml", "metrics.jsonl", "evaluation.json")
    return {
        str(path.relative_to(out)): path.read_text()
        for path in sorted(out.rglob("*"))
        if path.name in names
    }


def test_a_sweep_runs_every_cell_and_does_nothing_when_started_again(out, finished, tmp_path):
    lines, on_message = collector()
    folder = out / "cells" / "seed=1,curriculum=ramp"
    config = Run.open(folder).config
    assert (config.seed, config.objective) == (1, "trades(beta=6)")
    results = json.loads((folder / "evaluation.json").read_text())
    assert {result["n"] for result in results} == {20}
    trained = curricula.train(
        data="tiny", epochs=1, perturb="rot+pgd", schedule=["linear"], objective="trades", seed=1,
        compile="off", output=tmp_path / "alone",
    )  # fmt: skip
    assert (folder / "metrics.jsonl").read_text() == (
        trained.run.path / "metrics.jsonl"
    ).read_text()
    assert sum("begins" in line for line in finished[1]) == 4
    before = outcomes(out)
    run_sweep(parse_sweep(SWEEP), out, on_message=on_message)
    assert lines[-1].endswith("4 cells, 0 of them to run")
    assert outcomes(out) == before


def test_finished_cells_are_neither_locked_nor_claimed(tiny, tmp_path, monkeypatch):
    tried = []
    locked = runner._Worker._locked
    monkeypatch.setattr(
        runner._Worker, "_locked", lambda self, name: tried.append(name) or locked(self, name)
    )
    sweep = parse_sweep(TWO_CELLS)
    run_sweep(sweep, tmp_path / "out")
    assert tried == [cell.name for cell in sweep.cells]
    tried.clear()
    run_sweep(sweep, tmp_path / "out")
    assert tried == []


def test_the_database_has_the_results_of_each_cell(out):
    with contextlib.closing(sqlite3.connect(out / "study.db")) as database:
        rows = database.execute("SELECT cell, state, token, results FROM curricula_cells")
        found = {cell: (state, token, json.loads(text)) for cell, state, token, text in rows}
    assert set(found) == {cell.name for cell in parse_sweep(SWEEP).cells}
    for name, (state, token, results) in found.items():
        assert (state, token) == ("done", 1)
        assert {"evaluation.json", "metrics.jsonl", "config.toml"} < set(results["files"])
        for file, text in results["files"].items():
            content = (out / "cells" / name / file).read_bytes()
            if file.endswith(".safetensors"):
                assert base64.b64decode(text) == content
            else:
                assert text == content.decode()


def test_a_cell_that_fails_is_kept_with_its_reason_and_the_rest_is_run(tiny, tmp_path):
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nepochs = 1\nperturb = "rot+pgd"\n'
        "[axes]\nlr = [1e30, 0.01]\n[evaluation]\nlimit = 20\n"
    )
    lines, on_message = collector()
    run_sweep(sweep, tmp_path / "out", on_message=on_message)
    assert any("lr=1e+30: failed: the loss is no longer finite" in line for line in lines)
    compared = curricula.compare([tmp_path / "out"])
    assert [row.label for row in compared.rows] == ["lr=0.01"]
    assert [row.label for row in compared.failed] == ["lr=1e+30"]
    assert "no longer finite in epoch 1" in compared.failed[0].failures["lr=1e+30"]
    assert to_json(compared)["failed"][0]["cell"] == "lr=1e+30"
    lines.clear()
    run_sweep(sweep, tmp_path / "out", on_message=on_message)
    assert [line for line in lines if "begins" in line] == []
    run_sweep(sweep, tmp_path / "out", on_message=on_message, retry=True)
    assert [line for line in lines if "begins" in line] == ["lr=1e+30: begins"]


def test_an_on_message_that_fails_ends_the_sweep_and_loses_no_result(tiny, tmp_path):
    def closed(line):
        if "clean" in line:
            raise BrokenPipeError("the reader has gone")

    with pytest.raises(BrokenPipeError):
        run_sweep(parse_sweep(TWO_CELLS), tmp_path / "out", on_message=closed)
    first = outcomes(tmp_path / "out")
    assert len(first) == 3  # files of one cell
    run_sweep(parse_sweep(TWO_CELLS), tmp_path / "out")
    assert first.items() <= outcomes(tmp_path / "out").items()
    assert curricula.compare([tmp_path / "out"]).pending == 0


def test_a_lost_study_is_rebuilt_from_the_results_of_its_cells(out):
    before = outcomes(out)
    (out / "study.db").write_text("this is no database, and long enough not to be empty")
    with pytest.raises(UserError, match=r"cannot be opened .*; move it away: what its cells have"):
        run_sweep(parse_sweep(SWEEP), out)
    (out / "study.db").unlink()
    cell = out / "cells" / "seed=0,curriculum=ramp"
    results = json.loads((cell / "evaluation.json").read_text())
    (cell / "evaluation.json").write_text(json.dumps(results[:3]))
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("best.safetensors")}
    assert len(stamps) == 4
    lines, on_message = collector()
    run_sweep(parse_sweep(SWEEP), out, on_message=on_message)
    assert any(
        "ramp: failed: " in line and "measured under clean, spatial, adversarial, not the" in line
        for line in lines
    )
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (cell / "evaluation.json").unlink()
    run_sweep(parse_sweep(SWEEP), out, retry=True)
    assert outcomes(out) == before


def test_results_of_different_values_are_not_taken_for_a_cells_results(tiny, tmp_path):
    """Not even if the study that recorded them is lost."""
    out = tmp_path / "out"
    text = (
        '[base]\ndata = "tiny"\nepochs = 1\n[axes.rate]\na = {{ lr = {} }}\n'
        "[evaluation]\nlimit = 20\n"
    )
    run_sweep(parse_sweep(text.format(0.01)), out)
    (out / "study.db").unlink()
    before = outcomes(out)
    with pytest.raises(UserError, match=r"holds another sweep: cell rate=a \(lr\) has changed"):
        run_sweep(parse_sweep(text.format(0.02)), out)
    lines, on_message = collector()
    run_sweep(parse_sweep(text.format(0.01)), out, on_message=on_message)
    assert outcomes(out) == before
    assert lines[-1].startswith("rate=a: clean ")


def test_a_process_that_runs_other_values_meanwhile_is_noticed(tiny, tmp_path, monkeypatch):
    """While this process runs x, another one runs y with other values."""
    text = (
        '[base]\ndata = "tiny"\nepochs = 1\n[axes.rate]\nx = {{ lr = 0.01 }}\ny = {{ lr = {} }}\n'
        "[evaluation]\nlimit = 20\n"
    )
    out = tmp_path / "out"

    def between(line):
        if line == "rate=x: begins":
            lines = text.format(0.03).replace("x = { lr = 0.01 }\n", "")
            run_sweep(parse_sweep(lines), out)

    with pytest.raises(UserError, match=r"holds another sweep: cell rate=y \(lr\) has changed"):
        run_sweep(parse_sweep(text.format(0.02)), out, on_message=between)


@pytest.mark.parametrize(
    ("axis", "seeds"),
    [
        ("a = { lr = 0.01 }\nb = { lr = 0.01 }\n", [0, 0]),
        ("a = { seed = 1 }\nb = {}\n", [1, 0]),
        ("a = {}\nb = { seed = 3 }\n", [0, 3]),
    ],
)
def test_cells_that_differ_only_in_the_seed_or_not_at_all(tiny, axis, seeds):
    sweep = parse_sweep(f'[base]\ndata = "tiny"\nepochs = 1\n[axes.m]\n{axis}')
    configs = runner.check_cells(sweep).configs
    assert [config.seed for config in configs.values()] == seeds
    assert [run.lr for run in configs.values()] == [0.01, 0.01]


def test_an_interrupted_retry_continues_when_started_again(tiny, tmp_path, monkeypatch):
    """The sweep has two failing cells; the retry is interrupted in the first of them."""
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nepochs = 1\n[axes]\nlr = [1e30, 1e31]\n[evaluation]\nlimit = 20\n'
    )
    out = tmp_path / "out"
    run_sweep(sweep, out)
    with monkeypatch.context() as patched:
        patched.setattr(runner, "train_plan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, out, retry=True)
    lines, on_message = collector()
    run_sweep(sweep, out, on_message=on_message)
    assert lines[0].endswith("2 cells, 2 of them to run")
    assert sorted(line for line in lines if "begins" in line) == [
        "lr=1e+30: begins",
        "lr=1e+31: begins",
    ]
    assert len(curricula.compare([out]).failed) == 2


def interrupted(*arguments, **keywords):
    raise KeyboardInterrupt


def test_axes_may_grow_and_nothing_else_may_change(tiny, tmp_path):
    run_sweep(parse_sweep(TWO_CELLS), tmp_path / "out")
    lines, on_message = collector()
    run_sweep(parse_sweep(QUICK), tmp_path / "out", on_message=on_message)
    assert sum("begins" in line for line in lines) == 2
    for changed, what in [
        (QUICK.replace("epochs = 1", "epochs = 2"), r"\[base\] has changed"),
        (QUICK.replace("limit = 20", "limit = 30"), r"\[evaluation\] has changed"),
    ]:
        with pytest.raises(
            UserError, match=rf"holds another sweep: {what}; choose another output \(--output\)"
        ):
            run_sweep(parse_sweep(changed), tmp_path / "out")


def test_a_run_and_a_sweep_do_not_share_a_folder(tiny, tmp_path):
    curricula.train(data="tiny", epochs=1, output=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(UserError, match=r"run holds a run: choose another output .--output."):
        run_sweep(parse_sweep(QUICK), tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    run_sweep(parse_sweep(TWO_CELLS), tmp_path / "sweep")
    with pytest.raises(
        UserError, match=r"sweep already holds a sweep: choose another output .--output."
    ):
        curricula.train(data="tiny", epochs=1, output=tmp_path / "sweep")
    assert not (tmp_path / "sweep" / "config.toml").exists()


def test_the_values_run_under_a_name_are_remembered_while_an_axis_shrinks_and_grows(tiny, tmp_path):
    axes = "[axes.rate]\n{}\n[evaluation]\nlimit = 20\n"
    base = '[base]\ndata = "tiny"\nepochs = 1\nperturb = "rot"\n'
    for axis in ("a = { lr = 0.01 }", "b = { lr = 0.02 }", "a = { lr = 0.01 }"):
        run_sweep(parse_sweep(base + axes.format(axis)), tmp_path / "out")
    with pytest.raises(UserError, match=r"holds another sweep: cell rate=a \(lr\) has changed"):
        run_sweep(parse_sweep(base + axes.format("a = { lr = 0.03 }")), tmp_path / "out")
    with pytest.raises(UserError, match=r"holds another sweep: \[axes\] has changed"):
        run_sweep(parse_sweep(base + "[axes]\nlr = [0.01]\n"), tmp_path / "out")


def test_the_frontier_is_of_two_measured_threats():
    axes = "[axes]\nseed = [1]\n"
    assert parse_sweep(axes).frontier_of == ("spatial", "adversarial")
    assert (
        tuple(standard_threats(bind("rot:30"), curricula.load_data("digits").budgets)) == STANDARD
    )
    assert parse_sweep(axes + "[evaluation]\nfrontier = ['clean', 'joint']\n").frontier_of == (
        "clean",
        "joint",
    )
    named = "[evaluation.threats]\na = 'rot'\nb = 'pgd'\nc = 'clean'\n"
    assert parse_sweep(axes + named).frontier_of == ("a", "b")


def test_an_axis_may_have_any_name(tiny, tmp_path):
    """Even that of something that the study stores of each cell."""
    base = '[base]\ndata = "tiny"\nepochs = 1\nperturb = "rot"\n'
    axes = "".join(f"[axes.{name}]\na = {{}}\n" for name in ("cell", "reason", "values"))
    lines, on_message = collector()
    sweep = parse_sweep(base + axes + "[evaluation]\nlimit = 20\n")
    run_sweep(sweep, tmp_path / "out", on_message=on_message)
    assert [line for line in lines if "begins" in line] == ["cell=a,reason=a,values=a: begins"]
    assert len(curricula.compare([tmp_path / "out"]).rows) == 1


def test_finished_cells_without_their_database_are_not_said_to_run(out, tmp_path):
    """As in a clone of a repository that keeps the small files of finished cells."""
    for file in [*out.glob("study.db*"), *out.glob("cells/*/*.safetensors")]:
        file.unlink()
    cells = sorted(path.name for path in (out / "cells").iterdir() if path.is_dir())
    shutil.rmtree(out / "cells" / cells[0])
    lines, on_message = collector()
    run_sweep(parse_sweep(SWEEP), out, on_message=on_message)
    assert lines[0].endswith("4 cells, 1 of them to run, 3 measured before")
    assert [line for line in lines if "begins" in line] == [f"{cells[0]}: begins"]
    kept = [line.split(": ")[0] for line in lines if line.endswith("% measured before")]
    assert sorted(kept) == cells[1:]
    (ran,) = [line for line in lines if line.endswith(" min")]
    assert ran.startswith(f"{cells[0]}: clean ")


def test_a_folder_may_be_renamed_and_its_data_may_move(out, tmp_path):
    out.rename(tmp_path / "moved")
    lines, on_message = collector()
    run_sweep(
        parse_sweep(SWEEP).with_base(data_root="there"), tmp_path / "moved", on_message=on_message
    )
    assert lines == [f"{tmp_path / 'moved'}: 4 cells, 0 of them to run"]


def test_a_cell_whose_results_are_gone_is_run_again(out):
    shutil.rmtree(out / "cells" / "seed=0,curriculum=ramp")
    assert curricula.compare([out]).unfinished == ["1 cell has not been run yet"]
    lines, on_message = collector()
    run_sweep(parse_sweep(SWEEP), out, on_message=on_message)
    assert [line for line in lines if "begins" in line] == ["seed=0,curriculum=ramp: begins"]
    assert curricula.compare([out]).pending == 0


def test_folders_of_one_name_share_a_database_and_no_study(tiny, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    for folder, limit in (("one", 20), ("other", 10)):
        sweep = parse_sweep(TWO_CELLS.replace("limit = 20", f"limit = {limit}"))
        run_sweep(sweep, tmp_path / folder / "z", storage=url)
        compared = curricula.compare([tmp_path / folder / "z"])
        assert [len(row.outcomes) for row in compared.rows] == [1, 1]


def test_a_seed_out_of_range_is_refused_before_anything_is_trained(tiny, tmp_path):
    with pytest.raises(UserError, match=r"cell seed=-1,curriculum=constant: .*seed.* -1"):
        run_sweep(parse_sweep(SWEEP.replace("[0, 1]", "[0, -1]")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sweep_can_measure_on_the_validation_images(tiny, tmp_path):
    sweep = parse_sweep(
        SWEEP.replace("limit = 20", 'split = "validation"').replace("[0, 1]", "[0]")
    )
    run_sweep(sweep, tmp_path / "out")
    folder = tmp_path / "out" / "cells" / "seed=0,curriculum=ramp"
    assert not (folder / "evaluation.json").exists()
    found = json.loads((folder / "validation.json").read_text())
    measured = curricula.evaluate(folder, split="validation")
    assert to_json(measured) == found
    assert found[0]["n"] == 20  # a tenth of 200


# Processes are forked from one that has imported what a sweep needs, and has run nothing.
PROCESSES = multiprocessing.get_context("forkserver")


def started(out, *, pausing=False):
    """Return a process that runs the sweep, and the connection to it.

    The connection yields the sweep's messages. If `pausing`, the process waits after each training
    for something to be sent.
    """
    # Modules of the tests themselves cannot be preloaded: the server lacks pytest's sys.path.
    PROCESSES.set_forkserver_preload(
        ["sqlalchemy", "torch", "curricula.api.training", "curricula.sweeps.runner"]
    )
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=run_and_report, args=(TINY, SWEEP, out, theirs, pausing))
    process.start()
    theirs.close()
    return process, ours


def messages(connection):
    """Yield the messages of a process until it ends."""
    while True:
        try:
            yield connection.recv()
        except EOFError:
            return


def wait_for(path, process):
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.02)


def test_a_killed_sweep_that_is_started_again_gives_the_same_table(tiny, finished, tmp_path):
    never = finished[0]
    killed = tmp_path / "killed"
    process, _connection = started(killed, pausing=True)
    cell = killed / "cells" / ".seed=0,curriculum=constant.1"  # the folder of its first attempt
    wait_for(cell / "metrics.jsonl", process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (cell / "evaluation.json").unlink(missing_ok=True)  # as if killed a moment before
    assert (cell / "config.toml").exists()
    run_sweep(parse_sweep(SWEEP), killed)
    assert outcomes(killed) == outcomes(never)
    assert len(outcomes(never)) == 12
    tables = [curricula.compare([out]).records() for out in (killed, never)]
    for records in tables:
        for record in records:
            record.pop("minutes")
    assert tables[0] == tables[1]


def test_a_process_that_is_stopped_keeps_its_cell(tiny, tmp_path):
    """It can stop on a stalled network; another process waits and does not run its cell too."""
    out = tmp_path / "out"
    stopped, connection = started(out, pausing=True)
    other = None
    try:
        line = next(line for line in messages(connection) if "begins" in line)
        mine = out / "cells" / line.partition(":")[0]
        wait_for(out / "cells" / f".{mine.name}.1" / "metrics.jsonl", stopped)
        os.kill(stopped.pid, signal.SIGSTOP)
        other, second_connection = started(out)
        assert any("waiting for cells" in line for line in messages(second_connection))
        os.kill(stopped.pid, signal.SIGCONT)
        connection.send("go on")
        for process in (stopped, other):
            process.join(timeout=300)
            assert process.exitcode == 0
    finally:
        for process in filter(None, (stopped, other)):
            process.kill()
    assert [len(row.outcomes) for row in curricula.compare([out]).rows] == [2, 2]
    metrics = (mine / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1]


def test_two_processes_share_the_cells_and_run_none_twice(tiny, tmp_path):
    out = tmp_path / "out"
    both = [started(out), started(out)]
    begun = [line for _, connection in both for line in messages(connection) if "begins" in line]
    for process, _ in both:
        process.join(timeout=300)
        assert process.exitcode == 0
    assert len(begun) == len(set(begun)) == 4
    assert len(outcomes(out)) == 12


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    """(parent, url, messages of the second): one sweep in two folders that share a database; the
    second has run one cell of two. Not to be changed."""
    registry.use(registry.build_registry([TINY]))
    parent = tmp_path_factory.mktemp("separate")
    url = f"sqlite:///{parent / 'shared.db'}"
    lines, on_message = collector()
    second = parent / "second" / "out"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runner, "POLL_SECONDS", 0.2)
        patched.setattr(runner, "EXTENSIONS", 1e9)  # take over at once what has expired
        train = runner.train_plan

        def once(*arguments, **keywords):
            """End the first worker at its second cell."""
            if runs:
                raise KeyboardInterrupt
            runs.append(True)
            return train(*arguments, **keywords)

        runs = []
        patched.setattr(runner, "train_plan", once)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(parse_sweep(TWO_CELLS), parent / "first" / "out", storage=url)
        with contextlib.closing(sqlite3.connect(parent / "shared.db")) as database:
            patched.setattr(runner, "train_plan", train)
            database.execute("UPDATE curricula_cells SET expires = 0 WHERE state = 'running'")
            database.commit()
        run_sweep(parse_sweep(TWO_CELLS), second, storage=url, on_message=on_message)
    return parent, url, lines


@pytest.fixture
def two_folders(separate, tmp_path, tiny):
    """Return copies of the folders, and a copy of their database, to be changed."""
    parent, _, lines = separate
    shutil.copytree(parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "first" / "out", tmp_path / "second" / "out", tmp_path / "shared.db", lines


def change(path, statement, *values):
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute(statement, values).rowcount
        database.commit()


FIRST, SECOND = "seed=0,curriculum=constant", "seed=0,curriculum=ramp"


def test_folders_that_share_a_database_share_the_cells_and_end_with_all_results(two_folders):
    first, second, path, lines = two_folders
    assert [line for line in lines if "begins" in line] == [f"{SECOND}: begins"]
    assert "results of other workers' cells were added; their weights are in" in lines[-1]
    assert str(first.parent.name) in lines[-1]
    assert (second / "cells" / SECOND / "best.safetensors").exists()
    assert not (second / "cells" / FIRST / "best.safetensors").exists()
    again, on_message = collector()
    run_sweep(parse_sweep(TWO_CELLS), first, storage=f"sqlite:///{path}", on_message=on_message)
    assert not [line for line in again if "begins" in line]
    assert outcomes(first) == outcomes(second)
    tables = [curricula.compare(folder).records() for folder in (first, second)]
    assert tables[0] == tables[1]
    assert curricula.compare(first).pending == 0
    left = sorted(path.name for path in (first / "cells").iterdir())
    assert left == [f".{FIRST}.lock", f".{SECOND}.lock", FIRST, SECOND]


def test_a_command_that_needs_weights_says_where_they_are(two_folders):
    _, second, _, _ = two_folders
    with pytest.raises(UserError, match=r"no such file; it is on .*first/out/cells/seed=0") as one:
        curricula.evaluate(second / "cells" / FIRST)
    assert "\n" not in str(one.value)
    assert curricula.evaluate(second / "cells" / SECOND, threats=["clean"], limit=5)


def stored(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        (text,) = database.execute(
            "SELECT results FROM curricula_cells WHERE cell = ?", (FIRST,)
        ).fetchone()
    return json.loads(text)["files"]


DAMAGES = {
    "a path": (lambda files: {**files, "../../../evil": "x"}, "is not a file of a cell's results"),
    "a checkpoint": (lambda files: {**files, "best.safetensors": "x"}, "is not a file of a cell"),
    "no metrics": (lambda files: {**files, "metrics.jsonl": ""}, "metrics, times or environment"),
    "no results": (lambda files: {**files, "evaluation.json": "[]"}, "there are no results"),
    "another type": (lambda files: {**files, "evaluation.json": "3"}, "must be a list"),
    "no data": (lambda files: {k: v for k, v in files.items() if k != "data.json"}, "is missing"),
    "other values": (
        lambda files: {
            **files, "config.toml": files["config.toml"].replace("epochs = 1", "epochs = 3"),
        },
        "its epochs is not that of the sweep",
    ),
    "nothing": (lambda files: {}, "is missing|no such file|cannot be read"),
    "a number": (lambda files: {**files, "metrics.jsonl": 3}, "must be text"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_results_in_the_database_are_checked_like_files_of_someone_else(two_folders, name):
    first, second, path, _ = two_folders
    damage, message = DAMAGES[name]
    text = json.dumps({"files": damage(stored(path))})
    change(path, "UPDATE curricula_cells SET results = ? WHERE cell = ?", text, FIRST)
    shutil.rmtree(second / "cells" / FIRST)
    before = {each for each in first.parents[1].rglob("*") if "cells/." not in str(each)}
    with pytest.raises(UserError, match=message) as caught:
        run_sweep(parse_sweep(TWO_CELLS), second, storage=f"sqlite:///{path}")
    assert "\n" not in str(caught.value)
    after = {each for each in first.parents[1].rglob("*") if "cells/." not in str(each)}
    assert after == before


def test_the_failure_of_a_cell_reaches_other_folders_and_is_retried_from_them(tiny, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nepochs = 1\nperturb = "rot+pgd"\n'
        "[axes]\nlr = [1e30, 0.01]\n[evaluation]\nlimit = 20\n"
    )
    folders = [tmp_path / name / "out" for name in "ab"]
    lines, on_message = collector()
    for folder in folders:
        run_sweep(sweep, folder, storage=url, on_message=on_message)
    assert sum("begins" in line for line in lines) == 2
    failures = [curricula.compare(folder).failed[0].failures for folder in folders]
    assert failures[0] == failures[1]
    lines.clear()
    run_sweep(sweep, folders[1], storage=url, retry=True, on_message=on_message)
    assert [line for line in lines if "begins" in line] == ["lr=1e+30: begins"]
    assert (folders[1] / "cells" / "lr=1e+30" / "metrics.jsonl").exists() is False
    assert (folders[1] / "cells" / "lr=1e+30" / "config.toml").exists()


def test_other_values_or_other_data_under_one_name_are_noticed(two_folders, monkeypatch):
    _, second, path, _ = two_folders
    url = f"sqlite:///{path}"
    changed = TWO_CELLS.replace('objective = "trades"', 'objective = "mart"')
    with pytest.raises(UserError, match=r"cell seed=0,curriculum=ramp \(objective\) has changed"):
        run_sweep(parse_sweep(changed), second.parent.with_name("third") / "out", storage=url)
    definition = json.dumps(
        {"values": parse_sweep(TWO_CELLS).cells[0].values | {"epochs": 1}, "data": {}}
    )
    change(path, "UPDATE curricula_cells SET definition = ? WHERE cell = ?", definition, FIRST)
    with pytest.raises(UserError, match=r"constant \(its images\) has changed"):
        run_sweep(parse_sweep(TWO_CELLS), second, storage=url)


def test_an_attempt_with_other_values_is_noticed_without_its_database(two_folders, tmp_path):
    first, _, _, _ = two_folders
    folder = tmp_path / "out"
    shutil.copytree(first, folder)
    (folder / "cells" / FIRST).rename(folder / "cells" / f".{FIRST}.3")
    changed = TWO_CELLS.replace('schedule = ["constant"]', 'schedule = ["constant:0.5"]')
    (folder / "sweep.toml").write_text(parse_sweep(changed).as_toml())
    with pytest.raises(UserError, match=r"curriculum=constant \(schedule\) has changed"):
        run_sweep(parse_sweep(changed), folder)


def test_a_worker_that_ended_between_acceptance_and_publication_is_healed(two_folders):
    first, _, path, _ = two_folders
    (first / "cells" / FIRST).rename(first / "cells" / f".{FIRST}.1")
    lines, on_message = collector()
    run_sweep(parse_sweep(TWO_CELLS), first, storage=f"sqlite:///{path}", on_message=on_message)
    assert not [line for line in lines if "begins" in line]
    assert (first / "cells" / FIRST / "best.safetensors").exists()


def test_a_worker_whose_lease_is_lost_says_so_and_takes_the_next_cell(tiny, tmp_path, monkeypatch):
    """While the first worker trains, its lease ends and another one, elsewhere, runs all cells."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    lines, on_message = collector()
    first, second = (tmp_path / name / "out" for name in ("first", "second"))
    train = runner.train_plan
    ended = []

    def slow(*arguments, **keywords):
        if not ended:
            ended.append(True)
            change(tmp_path / "shared.db", "UPDATE curricula_cells SET expires = 0 WHERE token = 1")
            run_sweep(parse_sweep(TWO_CELLS), second, storage=url)
        return train(*arguments, **keywords)

    monkeypatch.setattr(runner, "train_plan", slow)
    monkeypatch.setattr(runner, "EXTENSIONS", 1e9)  # take over at once what has expired
    run_sweep(parse_sweep(TWO_CELLS), first, storage=url, on_message=on_message)
    assert [line for line in lines if "begins" in line] == [f"{FIRST}: begins"]
    assert f"{FIRST}: another worker has taken it over, since" in lines[2]
    assert outcomes(first) == outcomes(second)
    assert not (first / "cells" / FIRST / "best.safetensors").exists()
    assert (second / "cells" / FIRST / "best.safetensors").exists()
    left = sorted(path.name for path in (first / "cells").iterdir())
    assert left == [f".{FIRST}.lock", FIRST, SECOND]


def test_an_expired_lease_is_taken_once_it_was_seen_so_for_a_third_of_its_time(
    tiny, tmp_path, monkeypatch
):
    """After an outage of the database all leases have expired, and are extended in a moment."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with monkeypatch.context() as patched:
        patched.setattr(runner, "train_plan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(parse_sweep(TWO_CELLS), tmp_path / "first" / "out", storage=url)
    change(tmp_path / "shared.db", "UPDATE curricula_cells SET expires = 0 WHERE token = 1")
    now, seen = [100.0], []

    def sleep(seconds):
        with contextlib.closing(sqlite3.connect(tmp_path / "shared.db")) as database:
            (row,) = database.execute("SELECT token FROM curricula_cells WHERE token > 0 LIMIT 1")
        seen.append((now[0], row[0]))
        now[0] += 4

    monkeypatch.setattr(runner.time, "sleep", sleep)
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    run_sweep(parse_sweep(TWO_CELLS), tmp_path / "second" / "out", storage=url)
    assert seen == [(100 + 4 * count, 1) for count in range(5)]


def test_a_signal_ends_a_sweep_with_how_to_continue_it(tiny, tmp_path, monkeypatch):
    def ended(*arguments, **keywords):
        raise Interrupted("interrupted; continue with: curricula train --resume", signal.SIGTERM)

    monkeypatch.setattr(runner, "train_plan", ended)
    with pytest.raises(Interrupted, match="interrupted; start the sweep again to") as caught:
        run_sweep(parse_sweep(TWO_CELLS), tmp_path / "out")
    assert caught.value.status == 143


def test_a_password_is_neither_printed_nor_stored(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["curricula", "sweep", "--storage", "pg://me:secret@there/db"])
    lines, on_message = collector()
    run_sweep(parse_sweep(TWO_CELLS), tmp_path / "out", on_message=on_message)
    assert "secret" not in "".join(lines)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()
    assert Run(tmp_path / "out" / "cells" / FIRST).environment.command[-1].endswith("***@there/db")


def test_a_database_that_cannot_be_opened_is_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="cannot be opened") as caught:
        run_sweep(parse_sweep(SWEEP), tmp_path / "out", storage="sqlite:////nowhere/study.db")
    assert "\n" not in str(caught.value)
    url = "unknown://me:secret@there/db"
    with pytest.raises(UserError, match=r"storage unknown://me:\*\*\*@there/db: cannot") as caught:
        run_sweep(parse_sweep(SWEEP), tmp_path / "other", storage=url)
    assert "secret" not in str(caught.value)
