"""Start-up: which modules each command leaves unimported. Two processes run all commands, since a
module that is imported stays.
"""

import json
import subprocess
import sys
import textwrap

import pytest

from curricula import build_model, load_data
from curricula.data.identity import DataIdentity, identity_of
from curricula.evaluation.results import ThreatResult
from curricula.runtime.records import to_json
from curricula.training.config import merge
from curricula.training.metrics import EpochMetrics, PassCounts
from curricula.training.run import BEST, Run, prefixed

HEAVY = (
    "torch", "torch._dynamo", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "optuna",
    "sqlalchemy", "safetensors", "pandas",
)  # fmt: skip

RUN = """
    import json, sys
    from click.testing import CliRunner
    import curricula
    from curricula.cli.main import program

    HEAVY, commands = json.loads(sys.argv[1])

    def imported():
        return [name for name in HEAVY if name in sys.modules]

    found = [("import curricula", 0, "", imported())]
    for command in commands:
        done = CliRunner().invoke(program, command)
        found.append((" ".join(command), done.exit_code, done.output, imported()))
    print(json.dumps(found))
"""
WITH_TORCH = """
    import json, sys
    from click.testing import CliRunner
    from curricula.cli.main import program
    from curricula.cli.progress import Terminal
    from curricula.runtime.progress import ProgressBar
    from torch.optim.optimizer import _global_optimizer_post_hooks
    import curricula.api.measuring, curricula.api.training, curricula.victim.frozen

    hooks = [len(_global_optimizer_post_hooks)]
    _, commands = json.loads(sys.argv[1])
    found = []

    def stop(*_):
        found.append(list(sys.modules))
        raise KeyboardInterrupt

    Terminal.on_step_end = ProgressBar.progress = stop
    for command in commands:
        done = CliRunner().invoke(program, command)
        if done.exit_code == 0:
            found.append(list(sys.modules))
        else:
            assert done.exit_code == 130, done.output
    hooks.append(len(_global_optimizer_post_hooks))
    print(json.dumps([found, hooks]))
"""


def python(script, commands, folder):
    """Run a script on commands in a subprocess, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), json.dumps([HEAVY, commands])],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def write_run(folder, seed):
    """A run folder with measurements, but without a checkpoint."""
    values = {"model": "smallcnn", "epochs": 1, "batch_size": 64, "optimizer": "adamw", "lr": 0.001}
    values |= {"weight_decay": 0.0, "lr_schedule": "cosine", "augmentation": "clean", "seed": seed}
    folder.mkdir()
    identity = DataIdentity(classes=("a", "b"), train="0", test="0")
    run = Run.create(folder, merge(values), identity)
    metrics = EpochMetrics(
        epoch=1,
        loss=0.5,
        train_accuracy=0.5,
        validation={"clean": 0.5, "joint": 0.5},
        strength={},
        lr=0.001,
        passes=PassCounts(gradient=10, forward=5, training=10),
        best=True,
    )
    run.append("metrics.jsonl", to_json(metrics))
    run.append("timing.jsonl", {"epoch": 1, "training_seconds": 60.0, "validation_seconds": 1.0})
    results = [
        ThreatResult(name=name, threat=name, correct=30 + seed, fooled=5, n=60)
        for name in ("clean", "spatial", "adversarial", "joint")
    ]
    run.write_json("evaluation.json", to_json(results))


OK, WRONG = 0, 2
COMMANDS = [
    (["--help"], OK, "train"),
    *(
        ([command, "--help"], OK, f"Example: curricula {command}")
        for command in (
            "train", "evaluate", "profile", "audit", "certify", "sweep", "search", "compare",
            "report", "bench", "preview", "schedule", "plugins", "recipes", "theory",
        )
    ),
    (["plugins"], OK, "rot"),
    (["plugins", "new", "haze"], OK, "curricula-haze is written"),
    (["recipes"], OK, "cusp"),
    (["compare", "first", "second"], OK, "spatial"),
    (["compare", "first", "--format", "json"], OK, "hypervolume"),
    (["compare", "first", "--sort", "cost"], WRONG, "no column 'cost'"),
    (["compare", "absent"], WRONG, "is not a run folder"),
    (["compare", "first", "-o", "x.gif"], WRONG, "its name must end in"),
    (["train", "--perturb", "rott"], WRONG, "unknown perturbation 'rott'"),
    (["train", "--perturb", "worst(rott, k=3)"], WRONG, "unknown perturbation 'rott'"),
    (["train", "--perturb", "rot++pgd"], WRONG, "character 5"),
    (["train", "--perturb", "rot", "--schedule", "liner"], WRONG, "unknown schedule 'liner'"),
    (["train", "--perturb", "rot", "--schedule", "pgd=linear"], WRONG, "is called 'pgd'"),
    (["train", "--model", "smalcnn"], WRONG, "unknown model 'smalcnn'"),
    (["train", "--model", "squeezenet1_1"], WRONG, "did you mean torchvision(squeezenet1_1)?"),
    (["train", "--data", "mnits"], WRONG, "unknown dataset 'mnits'"),
    (["train", "--objective", "tradse"], WRONG, "unknown objective 'tradse'"),
    (["train", "--lr-schedule", "cosin"], WRONG, "'cosin'"),
    (["train", "--average", "emma"], WRONG, "'emma'"),
    (["train", "--epochs", "0"], WRONG, "epochs must be 1 or more"),
    (["train", "--device", "cdua"], WRONG, "'cdua'"),
    (["train", "--precision", "fp8"], WRONG, "precision must be"),
    (["train", "--config", "cups"], WRONG, "did you mean cusp"),
    (["train", "--output", "first"], WRONG, "already holds a run"),
    (["train", "-o", "file/x"], WRONG, "output file/x: file is a file, not a folder"),
    (["train", "-o", "file"], WRONG, "output file: there is a file of that name"),
    (["sweep", "few.toml", "-o", "file/a/b"], WRONG, "file/a/b: file is a file, not a folder"),
    (["preview", "--perturb", "rot", "-o", "file/x.png"], WRONG, "file is a file, not a folder"),
    (["schedule", "linear", "-o", "file/x.png"], WRONG, "file is a file, not a folder"),
    (["compare", "first", "-o", "file/x.png"], WRONG, "file is a file, not a folder"),
    (["bench", "-o", "file/x.json"], WRONG, "file is a file, not a folder"),
    (["theory", "-o", "file/x"], WRONG, "file is a file, not a folder"),
    (["theory", "-o", "absent/x"], WRONG, "there is no folder absent; make it first"),
    (["plugins", "new", "smoke", "-o", "file/x"], WRONG, "file is a file, not a folder"),
    (["report", "crowded"], WRONG, "output crowded/figures: there is a file of that name"),
    (["profile", "crowded"], WRONG, "output crowded/figures: there is a file of that name"),
    (["audit", "crowded"], WRONG, "output crowded/figures: there is a file of that name"),
    (["train", "--resume", "crowded"], WRONG, "output crowded/figures: there is a file of that"),
    (["train", "--resume", "absent"], WRONG, "is not a run folder"),
    (["train", "-o", "titled"], WRONG, "output titled/report.html: there is a folder of that name"),
    (["sweep", "few.toml", "-o", "titled"], WRONG, "titled/report.html: there is a folder of that"),
    (["search", "few-ranges.toml", "-o", "titled"], WRONG, "titled/report.html: there is a folder"),
    (["evaluate", "absent"], WRONG, "is not a run folder"),
    (["evaluate", "first"], WRONG, "no such file; let its training finish"),
    (["evaluate", "first", "--threat", "rott"], WRONG, ""),
    (["evaluate", "first", "--limit", "0"], WRONG, "limit must lie from 1"),
    (["profile", "absent"], WRONG, "is not a run folder"),
    (["certify", "absent"], WRONG, "is not a run folder"),
    (["certify", "first", "--noise", "gausian:1"], WRONG, "did you mean gaussian"),
    (["certify", "first", "--radius", "-1"], WRONG, "radius must be 0 or more, not -1"),
    (["audit", "absent"], WRONG, "is not a run folder"),
    (["audit", "first", "--seed", "-1"], WRONG, "seed must lie from 0"),
    (["report", "absent"], WRONG, "is not a run folder"),
    (["sweep", "absent"], WRONG, "no such recipe or file"),
    (["search", "absent"], WRONG, "no such recipe or file"),
    (["search", "ramps-digits"], WRONG, "is a sweep: use curricula sweep ramps-digits"),
    (["sweep", "search-digits"], WRONG, "is a search: use curricula search search-digits"),
    (["train", "--config", "search-digits"], WRONG, "is a search: use curricula search"),
    (["train", "--config", "ranges.toml"], WRONG, "it holds a search; run curricula search"),
    (["search", "ranges.toml"], WRONG, "range 'lrr' is not used"),
    (["search", "high.toml"], WRONG, "end=2.0: linear(until=2): until must be at most 1"),
    (["search", "high.toml", "-o", "first"], WRONG, "holds a run: choose another output"),
    (["search", "high.toml", "-o", "file/x"], WRONG, "file is a file, not a folder"),
    (["sweep", "wrong.toml"], WRONG, "unknown perturbation 'rott'"),
    (["bench", "--perturb", "rott"], WRONG, "unknown perturbation 'rott'"),
    (["bench", "--rounds", "0"], WRONG, "0 is not in the range"),
    (["bench", "--against", "advertorch"], WRONG, "is not one of"),
    (["preview", "--perturb", "rott", "-o", "x.png"], WRONG, "unknown perturbation 'rott'"),
    (["preview", "--perturb", "rot", "--images", "0", "-o", "x.png"], WRONG, "not in the range"),
    (["preview", "--perturb", "rot", "-o", "x.gif"], WRONG, "its name must end in"),
    (["schedule", "liner", "-o", "x.png"], WRONG, "unknown schedule 'liner'"),
    (["schedule", "linear", "-o", "x.gif"], WRONG, "its name must end in"),
    (["schedule", "linear(until=2)", "-o", "x.png"], WRONG, "until must be at most 1, not 2"),
    (["train", "--schedule", "linear(until=2)"], WRONG, "until must be at most 1, not 2"),
    (["train", "--average", "ema(decay=2)"], WRONG, "decay must be below 1, not 2"),
    (["train", "--lr-schedule", "one-cycle(warmup=2)"], WRONG, "warmup must be above 0 and"),
    (["sweep", "late.toml"], WRONG, "cell seed=0: linear(until=2): until must be at most 1"),
    (["preview", "--perturb", "rot", "--strengths", "2", "-o", "x.png"], WRONG, "from 0 to 1, not"),
    (["preview", "--perturb", "rot", "--seed", "-1", "-o", "x.png"], WRONG, "seed must lie from 0"),
]  # fmt: skip


def test_help_listings_comparisons_and_mistakes_import_nothing_heavy(tmp_path):
    write_run(tmp_path / "first", 0)
    write_run(tmp_path / "second", 1)
    (tmp_path / "wrong.toml").write_text('[base]\nperturb = "rott"\n[axes]\nseed = [0]\n')
    late = '[base]\nschedule = "linear(until=2)"\n[axes]\nseed = [0]\n'
    (tmp_path / "late.toml").write_text(late)
    (tmp_path / "few.toml").write_text("[axes]\nseed = [0]\n")
    (tmp_path / "ranges.toml").write_text("[base]\n[ranges]\nlrr = [0.1, 0.2]\n")
    high = '[base]\nschedule = ["linear(until={end})"]\n[ranges]\nend = { low = 0.1, high = 2.0 }\n'
    (tmp_path / "high.toml").write_text(high)
    (tmp_path / "file").touch()
    write_run(tmp_path / "crowded", 0)
    (tmp_path / "crowded" / "figures").touch()
    (tmp_path / "titled" / "report.html").mkdir(parents=True)
    (tmp_path / "few-ranges.toml").write_text("[base]\n[ranges]\nlr = [0.1, 0.2]\n")
    found = python(RUN, [command for command, _, _ in COMMANDS], tmp_path)
    assert found[0] == ["import curricula", OK, "", []]
    for (_, status, text), (command, exit_code, output, imported) in zip(
        COMMANDS, found[1:], strict=True
    ):
        assert imported == [], command
        assert exit_code == status, output
        assert text in output, command


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory):
    """Run commands that need torch, one after another. Return the modules imported by an evaluation
    and two trainings at their first batch, and by two commands that write a figure; and the number
    of hooks on all optimisers, before and after."""
    folder = tmp_path_factory.mktemp("startup")
    write_run(folder / "run", 0)
    data = load_data("digits")
    model = build_model("smallcnn", data)
    Run(folder / "run").write_json("data.json", to_json(identity_of(data)))
    Run(folder / "run").save(BEST, prefixed("model", model.state_dict()))
    commands = [
        ["evaluate", "run", "--limit", "5", "--threat", "rot"],
        ["train", "--epochs", "1"],
        ["train", "--epochs", "1", "--data", "random(size=28, channels=1)"],
        ["schedule", "linear", "-o", "schedule.png"],
        ["preview", "--perturb", "rot", "--images", "1", "-o", "preview.png"],
    ]
    return python(WITH_TORCH, commands, folder)


def test_training_and_evaluation_reach_their_first_batch_with_little_beside_torch(with_torch):
    imported, _ = with_torch
    for modules in imported[:3]:
        assert set(modules).intersection(HEAVY) <= {"torch", "numpy", "safetensors"}
        for name in ("curricula.reporting", "curricula.benchmark", "curricula.sweeps.runner"):
            assert name not in modules


def test_figures_need_no_pyplot(with_torch):
    imported, _ = with_torch
    for modules in imported[3:]:
        assert "matplotlib.figure" in modules
        assert "matplotlib.pyplot" not in modules


def test_the_optimiser_hook_is_registered_with_the_first_victim_not_at_import(with_torch):
    _, hooks = with_torch
    assert hooks == [0, 1]
