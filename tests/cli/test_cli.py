"""The command line as a user meets it; in a subprocess where that matters."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from curricula.cli.main import main, program
from curricula.plugins import registry
from curricula.reporting.report import report
from curricula.training.config import FIELDS

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"


def run(*arguments, plugin=TINY):
    """Invoke the program in this process."""
    named = ["--plugin", str(plugin)] if plugin else []
    return CliRunner().invoke(program, [*named, *map(str, arguments)])


def run_in_subprocess(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "curricula", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_signal_ends_the_program_with_its_status_and_the_command_that_continues(tmp_path):
    arguments = ["train", "--epochs", "1000", "-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "curricula", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.strip().splitlines() == [
        f"Error: interrupted; continue with: curricula train --resume {tmp_path / 'run'}"
    ]
    refused = run("train", "--resume", tmp_path / "run", "--epochs", "3")
    assert refused.exit_code == 2
    assert "leave out --epochs, or start a new run with --config" in refused.stderr


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = {arguments!r}
from curricula.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("words", "name", "fix"),
    [
        ("evaluate run", "click", ""),
        ("profile run", "pluggy", ""),
        ("audit run", "curricula.api.measuring", ""),
        ("bench", "torch", ""),
        ("sweep tradeoff-spatial-mnist -o sweep", "torch", "; start it again to continue"),
    ],
)
def test_ctrl_c_is_one_line_whenever_it_comes(words, name, fix, tmp_path):
    code = INTERRUPTED.format(name=name, arguments=words.split())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.strip()) == (130, f"Error: interrupted{fix}")


def test_a_reader_that_goes_away_does_not_end_a_training(tmp_path):
    values = ["--data", "tiny", "--epochs", "1", "-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "curricula", "--plugin", str(TINY), "train", *values],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (tmp_path / "run" / "evaluation.json").exists(), errors
    assert "standard output: cannot be written (Broken pipe); the work goes on" in errors
    assert process.returncode == 0
    assert (tmp_path / "run" / "report.html").exists()
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("command", "fix"),
    [
        ("recipes", ""),
        ("bench", ""),
        ("sweep", "; start it again to continue"),
        ("search", "; start it again to continue"),
    ],
)
def test_sigterm_is_one_line_and_its_status(command, fix, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    loaded = registry.current().find("command", command).load()
    monkeypatch.setattr(loaded, "invoke", lambda context: signal.raise_signal(signal.SIGTERM))
    words = ["x"] if command in ("sweep", "search") else []
    result = run(command, *words)
    assert (result.exit_code, result.stderr.strip()) == (143, f"Error: terminated{fix}")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def program_into(monkeypatch, tmp_path):
    """Return a function that runs the program, with standard output in a file, and returns its
    status and standard error."""

    def started(output, *arguments, into="errors"):
        errors = tmp_path / into
        with open(errors, "w") as stream, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", output)
            patched.setattr(sys, "stderr", stream)
            patched.setattr(sys, "argv", ["curricula", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        return ended.value.code, errors.read_text().strip() if errors.is_file() else ""

    return started


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


@needs_dev_full
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["plugins"], ["recipes"], "compare"])
def test_a_full_disk_behind_standard_output_is_one_line(words, program_into, trained):
    if words == "compare":  # it prints through rich
        words = ["compare", trained[0]]
    with open("/dev/full", "w") as full:
        status, errors = program_into(full, *words)
    assert (status, errors) == (
        2,
        "Error: standard output: cannot be written (No space left on device)",
    )


@needs_dev_full
def test_a_training_outlasts_a_full_disk_behind_standard_output(program_into, no_report, tmp_path):
    values = ["--data", "tiny", "--epochs", "1", "-o", tmp_path / "run"]
    with open("/dev/full", "w") as full:
        status, errors = program_into(full, "--plugin", TINY, "train", *values)
    assert (tmp_path / "run" / "evaluation.json").exists()
    assert (status, errors) == (
        0,
        "Warning: standard output: cannot be written (No space left on device); the work goes on",
    )


@needs_dev_full
def test_a_training_outlasts_a_full_disk_behind_both_streams(program_into, no_report, tmp_path):
    values = ["--data", "tiny", "--epochs", "1", "-o", tmp_path / "run"]
    with open("/dev/full", "w") as full:
        ended = program_into(full, "--plugin", TINY, "train", *values, into="/dev/full")
    assert ended == (0, "")
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_a_reader_that_has_read_enough_leaves_the_status_at_zero(program_into):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        assert program_into(gone, "plugins") == (0, "")


def test_an_ascii_terminal_gets_every_table(trained):
    folder, _ = trained
    done = run_in_subprocess("compare", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "clean" in done.stdout


@pytest.fixture
def no_report(monkeypatch):
    """Commands that end with a report draw none."""
    monkeypatch.setattr("curricula.reporting.report.report", lambda folder, **_: folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "joint"
    result = run(
        "train",
        "--data",
        "tiny",
        "--perturb",
        "rot+pgd",
        "--schedule",
        "linear",
        "--output",
        folder,
    )
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_train_prints_values_epochs_table_and_run_folder(trained):
    folder, output = trained
    settings = [line for line in output.splitlines() if line.startswith("  ")][: len(FIELDS)]
    value = len("  ") + max(map(len, FIELDS)) + 1  # one column of values, whatever the names
    assert {line[:value].strip(): line[value:] for line in settings}["epochs"] == "2"
    assert not any(line[value:].startswith(" ") for line in settings)
    assert "epoch   2/2" in output
    for threat in ("clean", "spatial", "adversarial", "joint"):
        assert threat in output
    assert "95 % interval" in output
    assert f"run folder: {folder}" in output
    assert f"curricula --plugin {TINY} evaluate {folder}" in output


def test_evaluate_prints_a_table_or_json(trained):
    folder, _ = trained
    result = run("evaluate", folder, "--limit", "20")
    assert result.exit_code == 0
    assert "20 images" in result.output
    result = run("evaluate", folder, "--threat", "clean", "--threat", "trans:2", "--format", "json")
    rows = json.loads(result.output)
    assert [row["name"] for row in rows] == ["clean", "trans:2"]
    assert rows[0]["n"] == 60
    low, high = rows[0]["interval_95"]
    assert low <= rows[0]["accuracy"] <= high


def test_evaluate_counts_by_class(trained):
    folder, _ = trained
    words = ("evaluate", folder, "--threat", "clean", "--threat", "rot:30", "--per-class")
    result = run(*words, "--format", "json")
    rows = json.loads(result.output)
    for row in rows:
        assert sum(each["correct"] for each in row["classes"]) == row["correct"]
        assert sum(each["n"] for each in row["classes"]) == row["n"] == 60
    result = run(*words)
    assert result.exit_code == 0
    (line,) = (line for line in result.output.splitlines() if line.startswith("│ 3 "))
    third = [row["classes"][3] for row in rows]
    assert line.split("│")[2].strip() == str(third[0]["n"])
    for cell, found in zip(line.split("│")[3:], third, strict=False):
        assert cell.strip().startswith(f"{100 * found['accuracy']:.1f} (")


def test_evaluate_writes_the_prediction_of_every_image(trained, tmp_path):
    folder, _ = trained
    words = ("evaluate", folder, "--threat", "clean", "--threat", "rot:30", "--format", "json")
    for suffix in ("npz", "csv"):
        result = run(*words, "--save-predictions", tmp_path / f"found.{suffix}")
        assert result.exit_code == 0, result.output
    correct = [row["correct"] for row in json.loads(result.output)]
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        assert found["threat"].tolist() == ["clean", "rot:30"]
        assert found["class"].tolist() == [str(digit) for digit in range(10)]
        assert found["index"].tolist() == list(range(60))
        right_NT = found["prediction"] == found["label"][:, None]
        assert right_NT.sum(0).tolist() == correct
        labels, predicted = found["label"].tolist(), found["prediction"][:, 1].tolist()
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [int(line["label"]) for line in lines] == labels
    assert [int(line["rot:30"]) for line in lines] == predicted
    assert [line["rot:30_name"] for line in lines] == [str(label) for label in predicted]
    result = run(*words, "--save-predictions", tmp_path / "found.json")
    assert result.exit_code == 2
    assert "its name must end in .npz or .csv" in result.output


def test_config_starts_from_a_run_and_flags_win(trained, tmp_path, no_report):
    folder, _ = trained
    result = run(
        "train", "--config", folder / "config.toml", "--epochs", "1", "--output", tmp_path / "again"
    )
    assert result.exit_code == 0, result.output
    assert "epoch   1/1" in result.output


def test_baseline_adds_a_column(tmp_path, no_report):
    result = run(
        "train", "--data", "tiny", "--perturb", "rot", "--epochs", "1", "--baseline",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "baseline" in result.output
    joint = re.findall(r"^joint in validation: (.*); \* marks", result.output, re.MULTILINE)
    assert joint == ["rot(30, interpolation=bilinear, padding=zeros)", "clean"]


def test_recipes_are_listed():
    result = run("recipes")
    assert "  cusp  " in result.output
    assert "  cusp-vs-baselines-mnist  " in result.output
    from curricula.recipes import find_sweep, recipes

    assert recipes()["cusp"].startswith("CuSP")
    for name in recipes("sweep"):
        assert find_sweep(name).cells


def test_an_adaptive_schedule_that_never_moved_is_reported(tmp_path, no_report):
    schedules = ["--schedule", "rot=gated(updates=2, threshold=0)", "--schedule", "pgd=gated"]
    train = ["train", "--data", "tiny", "--epochs", "1", "--perturb", "rot+pgd", *schedules]
    result = run(*train, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "pgd stayed at strength 0: gated(" in said
    assert "rot stayed" not in said


BAD_INPUT = [
    (["--perturb", "rott"], "unknown perturbation 'rott': did you mean rot"),
    (["--model", "smalcnn"], "unknown model 'smalcnn': did you mean smallcnn"),
    (["--perturb", "rot", "--schedule", "liner"], "unknown schedule 'liner': did you mean linear"),
    (["--data", "mnits"], "unknown dataset 'mnits': did you mean mnist"),
    (["--perturb", "pgd+rot"], "write rot+pgd"),
    (["--perturb", "pgd:-1"], "budget must be 0 or more"),
    (["--perturb", "pgd:8/0"], "division by zero"),
    (["--perturb", "rot:nan"], "expected a number"),
    (["--perturb", "rot(30, foo=1)"], "unknown argument 'foo'"),
    (["--perturb", "rot:30,foo=1"], "commas are allowed only inside parentheses"),
    (["--perturb", ""], "the expression is empty"),
    (["--perturb", "rot++pgd"], "character 5"),
    (["--perturb", "(rot+pgd"], "character 1 is not closed"),
    (["--perturb", "rot+pgd", "--schedule", "pdg=linear"], "no perturbation is called 'pdg'"),
    (["--epochs", "0"], "epochs must be 1 or more, not 0"),
    (["--epochs", "many"], "'many' is not a valid integer"),
    (["--batch-size", "2000"], "larger than the 1168 training images of digits"),
    (["--data", "mnist", "--data-root", "nowhere"], "mnist is not in 'nowhere'"),
    (["--device", "cuda:7"], "device 'cuda:7' is not available"),
    (["--config", "cups"], "no such recipe or file; did you mean cusp"),
    (["--config", "absent.toml"], "'absent.toml': no such recipe or file"),
    (["--config", "broken.toml"], "broken.toml: not TOML"),
    (["--config", "key.toml"], "unknown key 'epoch'; did you mean epochs"),
    (["--config", "type.toml"], "epochs must be a whole number, not 'ten'"),
    (["--config", "sweep.toml"], "sweep.toml: it holds a sweep; run curricula sweep sweep.toml"),
    (["--output", "taken"], "already holds a run: choose another output (--output), or delete it"),
    (["--output", ""], "the path is empty"),
    (["--precision", "fp8"], "precision must be"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("epochs = = 3")
    Path("key.toml").write_text("epoch = 3")
    Path("sweep.toml").write_text("[base]\nepochs = 3\n[axes]\nseed = [1]\n")
    Path("type.toml").write_text("epochs = 'ten'")
    Path("taken").mkdir()
    Path("taken/config.toml").write_text("")
    before = sorted(Path().rglob("*"))
    result = run("train", *arguments, plugin=None)
    assert result.exit_code == 2, result.output
    error = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    assert message in error[0]
    assert "Traceback" not in result.output
    assert sorted(Path().rglob("*")) == before


def test_bad_input_to_evaluate(trained, tmp_path):
    folder, _ = trained
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    weights = damaged / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    for arguments, message in [
        ([tmp_path / "absent"], "is not a run folder"),
        ([damaged], "best.safetensors: damaged"),
        ([folder, "--limit", "0"], "limit must lie from 1 to 1,000,000,000, not 0"),
        ([folder, "--threat", "rto"], "unknown perturbation 'rto'"),
        ([folder, "--device", "cuda:7"], "is not available"),
    ]:
        result = run("evaluate", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_run_that_is_not_there_gets_the_name_of_a_similar_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/haze", "elsewhere/third"):
        Path(name).mkdir(parents=True)
        Path(name, "config.toml").touch()
    for typed, expected in [
        ("runs/frist", "there is no such folder; did you mean runs/first?"),
        ("frist", "there is no such folder; did you mean runs/first?"),
        (tmp_path / "elsewhere" / "thrid", f"did you mean {tmp_path}/elsewhere/third?"),
        ("runs/zzzz", "runs/zzzz is not a run folder: there is no such folder"),
        (
            "runs/haze/config.toml",
            "config.toml is not a run folder: it is a file; did you mean runs/haze?",
        ),
        ("runs", "runs is not a run folder: it has no config.toml; name a run in it, such as"),
    ]:
        result = run("evaluate", typed)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert expected in result.stderr
        assert ("did you mean" in result.stderr) == ("did you mean" in expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--plugin hzae.py plugins", "plugin file hzae.py: no such file; did you mean haze.py?"),
        ("train --config miin.toml", "no such recipe or file; did you mean mine.toml?"),
        ("train --config runs/frist.toml", "no such recipe or file; did you mean runs/first.toml?"),
        ("train --config cups.toml", "'cups.toml': no such recipe or file; did you mean cusp?"),
        ("train --config cups", "'cups': no such recipe or file; did you mean cusp?"),
        ("sweep miin.toml", "no such recipe or file; did you mean mine.toml?"),
        ("train --config runs", "(not a regular file); name a file, such as runs/config.toml"),
    ],
)
def test_a_file_that_is_not_there_gets_the_name_of_a_similar_one(
    words, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("haze.py", "mine.toml", "dup.txt", "runs/first.toml"):
        Path(name).touch()
    result = run(*words.split(), plugin=None)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "evaluate --plugin x.py runs/a",
            "comes before the command: write curricula --plugin FILE",
        ),
        ("train --version", "--version comes before the command: write curricula --version"),
        ("train --patience 3", "No such option '--patience'; did you mean --stop-after?"),
        ("evaluate runs/a --attack rot", "No such option '--attack'; did you mean --threat?"),
        ("train --weights a.pt", "No such option '--weights'; did you mean --init?"),
        ("evaluate --init a.pt", "No such option '--init'; did you mean --weights?"),
        ("train -z", "No such option '-z'; curricula train --help lists all"),
        (f"train --epochs {'9' * 5000}", "99' is not a valid integer"),
        (f"train --lr {'x' * 5000}", "xx' is not a valid float"),
        (f"evaluate a --split {'x' * 5000}", "is not one of 'test', 'validation'"),
    ],
    ids=lambda value: value[:30],
)
def test_a_wrong_flag_is_a_short_line_with_its_fix(words, expected):
    result = run(*words.split(), plugin=None)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert expected in result.stderr
    assert len(result.stderr) < 350


def test_an_unknown_command_suggests_a_similar_one():
    result = run("trian")
    assert result.exit_code == 2
    assert "unknown command 'trian': did you mean train" in result.stderr


def test_a_user_error_prints_no_traceback():
    done = run_in_subprocess("train", "--perturb", "rott")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: unknown perturbation 'rott': did you mean rot")
    assert done.stderr.count("\n") == 1


PLUGIN = """
    import attrs
    import torch
    from torch import nn
    from curricula.models import Normalise
    from curricula.interfaces import NormBound

    @attrs.frozen(kw_only=True)
    class Veil:
        budget: float
        kind = "intensity"
        unit = "share"
        norm_bound = None
        channels = None
        training_only = False

        def __call__(self, x, y, *, strength, victim, generator):
            drawn = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device)
            share = torch.as_tensor(strength, device=x.device).reshape(-1, 1, 1, 1) * self.budget
            return torch.lerp(x, torch.ones_like(x), drawn * share)

    def mlp(num_classes, in_channels, image_size, hidden=16):
        return nn.Sequential(
            Normalise(),
            nn.Flatten(),
            nn.Linear(in_channels * image_size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def sawtooth(teeth=3):
        return lambda progress, state: (progress.fraction * teeth) % 1
"""
HOOKS = """
    from curricula import Record, hookimpl

    @hookimpl
    def curricula_perturbations():
        yield Record(name="veil", factory={veil}, summary="white veil")

    @hookimpl
    def curricula_models():
        yield Record(name="mlp", factory={mlp}, summary="two layers")

    @hookimpl
    def curricula_schedules():
        yield Record(name="sawtooth", factory={sawtooth}, summary="teeth")
"""
TRAIN_WITH_PLUGIN = [
    "train", "--data", "tiny", "--perturb", "veil:0.5+pgd", "--model", "mlp(hidden=8)",
    "--schedule", "constant", "--schedule", "veil=sawtooth(teeth=2)", "--epochs", "1",
]  # fmt: skip


def test_an_installed_plugin_package_is_listed_and_trains(tmp_path, monkeypatch, no_report):
    package = tmp_path / "source" / "veil_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "things.py").write_text(textwrap.dedent(PLUGIN))
    names = {name: f'"veil_plugin.things:{name}"' for name in ("mlp", "sawtooth")}
    hooks = HOOKS.format(veil='"veil_plugin.things:Veil"', **names)
    (package / "plugin.py").write_text(textwrap.dedent(hooks))
    (package.parent / "pyproject.toml").write_text(
        textwrap.dedent("""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "veil-plugin"
        version = "4.2"

        [project.entry-points.curricula]
        veil = "veil_plugin.plugin"
    """)
    )
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps",
         "--disable-pip-version-check", "--target", site, package.parent],
        check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    listed = run_in_subprocess("plugins", PYTHONPATH=str(site))
    assert listed.returncode == 0, listed.stderr
    for name in ("veil", "mlp", "sawtooth"):
        (line,) = [line for line in listed.stdout.splitlines() if line.split()[:1] == [name]]
        assert "veil-plugin 4.2" in line
    monkeypatch.syspath_prepend(site)
    done = run(*TRAIN_WITH_PLUGIN, "--output", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "joint" in done.output
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert "veil-plugin 4.2" in environment["providers"]


def test_a_plugin_file_is_listed_and_trains(tmp_path, no_report):
    path = tmp_path / "mine.py"
    hooks = HOOKS.format(veil="Veil", mlp="mlp", sawtooth="sawtooth")
    path.write_text(textwrap.dedent(PLUGIN) + textwrap.dedent(hooks))
    result = CliRunner().invoke(
        program,
        ["--plugin", str(path), "--plugin", str(TINY), *TRAIN_WITH_PLUGIN,
         "--output", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    listed = CliRunner().invoke(program, ["--plugin", str(path), "plugins"])
    (line,) = [line for line in listed.output.splitlines() if line.split()[:1] == ["veil"]]
    assert str(path) in line


def test_a_plugin_that_raises_at_import_leaves_every_command_working(
    tmp_path, monkeypatch, quick_audit
):
    (tmp_path / "rotten.py").write_text("raise RuntimeError('spoilt')")
    info = tmp_path / "rotten-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rotten\nVersion: 9\n")
    (info / "entry_points.txt").write_text("[curricula]\nrotten = rotten\n")
    sweep = tmp_path / "few.toml"
    sweep.write_text('[base]\ndata = "tiny"\nepochs = 1\n[axes]\nseed = [0]\n')
    search = tmp_path / "ranges.toml"
    search.write_text(
        '[base]\ndata = "tiny"\nepochs = 1\n[ranges]\nlr = [0.01, 0.1]\n[search]\ntrials = 1\n'
    )
    photo = tmp_path / "photo.png"
    Image.new("L", (8, 8)).save(photo)
    folder = tmp_path / "run"
    runs = {
        "train": ["--data", "tiny", "--epochs", "1", "--output", folder],
        "evaluate": [folder, "--limit", "5"],
        "profile": [folder, "--limit", "1"],
        "audit": [folder, "--limit", "1"],
        "certify": [folder, "--limit", "1", "--draws", "20"],
        "predict": [folder, photo],
        "export": [folder, "-o", tmp_path / "net.pt2", "--limit", "1"],
        "sweep": [sweep, "--output", tmp_path / "sweep"],
        "search": [search, "--output", tmp_path / "search"],
        "compare": [tmp_path / "sweep"],
        "report": [folder],
        "bench": ["--data", "tiny", "--perturb", "clean", "--rounds", "1"],
        "preview": ["--perturb", "rot", "--images", "1", "-o", tmp_path / "p.png"],
        "schedule": ["linear", "-o", tmp_path / "s.png"],
    }
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("curricula.benchmark.measure.ROUND_SECONDS", 0.01)
    monkeypatch.setattr(
        "curricula.reporting.report.report",
        lambda folder, **settings: report(folder, **settings) if name == "report" else folder,
    )
    for name in registry.build_registry(entry_points=False).records("command"):
        done = run(name, *runs.get(name, []))
        assert done.exit_code == 0 or (name == "audit" and done.exit_code == 1), done.output
        warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
        assert warnings == ["Warning: plugin rotten 9 failed to load: RuntimeError: spoilt"]
    strict = run_in_subprocess("plugins", PYTHONPATH=str(tmp_path), CURRICULA_STRICT_PLUGINS="1")
    assert strict.returncode == 2
    assert strict.stderr.splitlines() == [
        "Error: plugin rotten 9 failed to load: RuntimeError: spoilt"
    ]


COMMANDS = [
    "train", "evaluate", "profile", "audit", "certify", "predict", "export", "sweep", "search",
    "compare", "report", "bench", "preview", "schedule", "plugins", "recipes",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command):
    result = run(command, "--help", plugin=None)
    assert result.exit_code == 0
    assert f"Example: curricula {command}" in result.output


def test_the_commands_with_help_are_all_commands():
    known = set(registry.build_registry(entry_points=False).records("command"))
    assert known == set(COMMANDS)
