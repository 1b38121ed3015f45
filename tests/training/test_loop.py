"""A run is reproducible, complete, and selected on validation."""

import json
import shutil
import tomllib
from collections import Counter
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.evaluation.accuracy import evaluate_threats
from curricula.evaluation.threats import validation_threats
from curricula.plugins import registry
from curricula.training import loop
from curricula.training.config import (
    EVALUATION_SEED,
    FIELDS,
    TrainConfig,
    merge,
    read_toml,
    to_toml,
)
from curricula.training.loop import train_plan
from curricula.training.metrics import PassCounts, forward_and_backward, in_millions
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import make_plan
from curricula.training.run import BEST, LAST, Run
from curricula.training.step import Networks, start, update

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"
JOINT = {"data": "tiny", "perturb": "rot+pgd"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tensors(path):
    with safe_open(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata()  # noqa: SIM118


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a finished training, which a test may read."""
    registry.use(registry.build_registry([TINY]))
    return curricula.train(**JOINT, output=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(trained, tmp_path):
    """Return a folder that holds a run, which a test may change."""
    return shutil.copytree(trained.run.path, tmp_path / "run")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_gives_the_same_metrics_bit_for_bit(tiny, tmp_path, precision):
    for name in ("a", "b"):
        torch.rand(3)  # earlier draws must not matter
        curricula.train(**JOINT, seed=5, precision=precision, output=tmp_path / name)
    for file in ("config.toml", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    for file in (BEST, LAST):
        (a, a_meta), (b, b_meta) = (tensors(tmp_path / name / file) for name in "ab")
        assert a_meta == b_meta
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_different_seed_gives_different_metrics(tiny, trained, tmp_path):
    other = curricula.train(**JOINT, seed=trained.run.config.seed + 1, output=tmp_path / "run")
    ours, others = ((each.run.path / "metrics.jsonl").read_text() for each in (trained, other))
    assert ours != others


@pytest.mark.parametrize(
    ("objective", "beside"),  # the 5 and 10 steps of pgd
    [
        ("trades", {"gradient": 0, "forward": 1, "training": 2}),
        ("gat", {"gradient": 0, "forward": 1, "training": 2}),
        ("nuat", {"gradient": 0, "forward": 1, "training": 2}),
        ("gradalign", {"gradient": 2, "forward": 0, "training": 3}),
    ],
)
def test_the_passes_of_each_epoch_are_counted(tiny, tmp_path, objective, beside):
    steps = "constant", "pgd=step(0:1/2, 0.5:1)"  # pgd steps: 5 of 10 at half of the budget
    perturb = "rot+pgd(0.1, steps=auto, step=0.025)"
    settings = {"data": "tiny", "perturb": perturb, "schedule": steps, "epochs": 2}
    run = curricula.train(**settings, objective=objective, output=tmp_path / "run").run
    train = make_plan(settings).data.train
    images = len(train) // run.config.batch_size * run.config.batch_size
    metrics = lines(run.path / "metrics.jsonl")
    for line, steps_taken in zip(metrics, (5, 10), strict=True):
        passes = beside | {"gradient": steps_taken + beside["gradient"]}
        counted = {kind: n for kind, n in line["passes"].items() if "validation" not in kind}
        assert counted == {kind: count * images for kind, count in passes.items()}
    both = 15 + 2 * (beside["gradient"] + beside["training"])
    assert forward_and_backward(run.metrics) == both * images
    assert [in_millions(count) for count in (1_234_567, 94_999, 180)] == [
        "1.23",
        "0.095",
        "0.00018",
    ]


class Counting(nn.Module):
    """A linear network that counts the images it classifies in eval mode, by whether their gradient
    is wanted; its copies count into the same place."""

    counts: ClassVar = Counter()

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(28 * 28, 10)

    def forward(self, x_NCHW):
        self.counts[x_NCHW.requires_grad and torch.is_grad_enabled()] += len(x_NCHW)
        return self.layer(x_NCHW.flatten(1))


def test_the_passes_of_the_validation_are_counted(tiny, tmp_path):
    settings = {"data": "tiny", "perturb": "rot+pgd", "schedule": "constant", "epochs": 1}
    model = Counting()
    (line,) = curricula.train(**settings, model=model, output=tmp_path / "run").run.metrics
    plan = make_plan(settings)
    threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
    Counting.counts.clear()
    evaluate_threats(
        model, plan.data, plan.validation, threats, seed=EVALUATION_SEED, batch_size=250
    )
    own = Counting.counts
    assert line.passes.validation_gradient == own[True] > 0
    # The evaluation also compares its copy of the network with the network, on a few images.
    assert 2 * len(plan.validation) <= line.passes.validation_forward <= own[False]
    assert line.passes.one_way == (
        2 * (line.passes.gradient + line.passes.training + own[True])
        + line.passes.validation_forward
    )


def test_a_limit_of_validation_images_takes_of_each_class_its_share(tmp_path):
    y = np.arange(3).repeat([36, 18, 6])  # sorted, as those of a folder
    x = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    arrays = {f"{kind}_{part}": v for kind, v in (("x", x), ("y", y)) for part in ("train", "test")}
    np.savez(tmp_path / "sorted.npz", **arrays, x_valid=x, y_valid=y)
    settings = {"data": "npz", "data_root": str(tmp_path / "sorted.npz"), "perturb": "clean"}
    settings |= {"epochs": 1, "batch_size": 20, "lr": 0.01}
    whole = make_plan(settings)
    for limit, kept in ((0, 60), (1, 1), (7, 7), (25, 25), (59, 59), (60, 60), (1000, 60)):
        plan = make_plan({**settings, "validation_limit": limit})
        assert len(plan.validated.pixels.unique(dim=0)) == len(plan.validated) == kept
        for count, size in zip(
            plan.validated.labels.bincount(minlength=3), (36, 18, 6), strict=True
        ):
            assert abs(count - kept * size / 60) < 1
        assert len(plan.data.train) == len(plan.validation) == 60
        assert plan.identity == whole.identity
    (line,) = curricula.train(**settings, validation_limit=27, output=tmp_path / "run").run.metrics
    assert line.validation["clean"] in [count / 27 for count in range(28)]


def test_passes_without_gradients_through_the_trained_network_are_forward_ones(tiny):
    plan = make_plan({"data": "tiny"})
    networks = Networks.of(plan, start(plan).model)
    counter, x = PassCounter.attach(networks), torch.rand(3, 1, 28, 28)
    networks.running(x)
    with torch.no_grad():  # a teacher in an objective
        networks.running(x)
    counter.stop()
    assert counter.counts() == PassCounts(training=3, forward=3)


@pytest.mark.parametrize("shuffle", [True, False])
def test_images_come_in_a_new_order_each_epoch_or_as_stored(tiny, tmp_path, monkeypatch, shuffle):
    seen = []

    def watched(plan, state, networks, indices_N, batch, progress):
        seen.append(indices_N)
        return update(plan, state, networks, indices_N, batch, progress)

    monkeypatch.setattr(loop, "update", watched)
    curricula.train(data="tiny", epochs=2, shuffle=shuffle, output=tmp_path / "run")
    first, second = torch.cat(seen).chunk(2)
    assert torch.equal(first.sort().values, torch.arange(180))  # 9 batches of 20
    assert torch.equal(first, torch.arange(180)) != shuffle
    assert torch.equal(first, second) != shuffle


def test_running_a_runs_configuration_again_gives_the_same_run(tiny, tmp_path):
    curricula.train(
        **JOINT,
        schedule=["step(0:1/3, 0.5:1)", "pgd=cosine"],
        objective="trades",
        optimizer="sgd",
        augmentation="crop+flip",
        output=tmp_path / "first",
    )
    config = read_toml(tmp_path / "first" / "config.toml")
    curricula.train(**config, output=tmp_path / "again")
    for file in ("config.toml", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_the_resolved_configuration_states_every_value(trained):
    config = tomllib.loads((trained.run.path / "config.toml").read_text())
    assert set(config) == set(FIELDS)
    assert config["perturb"] == (
        "rot(30, interpolation=bilinear, padding=zeros)+pgd(0.1, norm=linf, steps=2, "
        "rel_step=1.25, random_start=true, restarts=1, loss=default)"
    )
    assert config["schedule"] == [
        "rot=linear(start=0, until=0.4)",
        "pgd=linear(start=0, until=0.4)",
    ]
    assert config["model"] == "tinycnn(width=8, dropout=0.1)"
    assert "auto" not in (config["device"], config["precision"])
    assert config["batch_size"] == 20
    assert config["lr_schedule"] == "one-cycle(warmup=0.3)"
    assert json.loads(json.dumps(attrs.asdict(trained.run.config))) == config


def test_a_run_folder_holds_its_files(trained, run):
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.toml",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "timing.jsonl",
        "evaluation.json",
        "predictions.safetensors",
        BEST,
        LAST,
    }
    metrics = lines(run / "metrics.jsonl")
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert metrics[-1]["strength"] == {"rot": 1.0, "pgd": 1.0}
    assert set(metrics[0]["validation"]) == {"clean", "joint"}
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in evaluation] == ["clean", "spatial", "adversarial", "joint"]
    assert [row["accuracy"] for row in evaluation] == [r.accuracy for r in trained.results]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert any("curricula-escnn" in provider for provider in environment["providers"])


def test_the_last_checkpoint_holds_everything_that_training_changes(tiny, tmp_path):
    curricula.train(
        **JOINT, schedule=["earned"], optimizer="adamw", epochs=1, output=tmp_path / "run"
    )
    held, metadata = tensors(tmp_path / "run" / LAST)
    kinds = {name.partition(".")[0] for name in held}
    assert kinds == {"model", "optimizer", "random", "schedule", "sums"}
    streams = ("order", "augmentation", "perturbation", "torch", "python", "numpy")
    assert {f"random.{name}" for name in streams} <= set(held)
    assert held["schedule.pgd.strength"].shape == (180,)
    assert held["schedule.pgd.strength"].max() > 0
    assert held["schedule.pgd.epochs"] == 1
    state = json.loads(metadata["state"])
    assert (state["step"], state["epoch"]) == (9, 1)


def test_the_best_checkpoint_is_the_latest_with_the_highest_joint_accuracy(tiny, tmp_path):
    curricula.train(**JOINT, epochs=6, lr=0.02, output=tmp_path / "run")
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    joint = [line["validation"]["joint"] for line in metrics]
    best = max(i for i, value in enumerate(joint) if value == max(joint))
    assert [line["best"] for line in metrics].index(True) <= best
    assert max(i for i, line in enumerate(metrics) if line["best"]) == best
    # Evaluating the saved weights again gives that accuracy.
    plan = make_plan({**JOINT})
    model = curricula.load_model(tmp_path / "run")
    threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
    again = evaluate_threats(model, plan.data, plan.validation, threats, seed=EVALUATION_SEED)
    assert {found.name: found.accuracy for found in again} == metrics[best]["validation"]


def test_evaluate_repeats_the_final_evaluation_and_takes_other_threats(tiny, trained):
    assert curricula.evaluate(trained.run.path) == trained.results
    (found,) = curricula.evaluate(trained.run, threats=["worst(rot:30, k=2)"], limit=20)
    assert found.n == 20
    assert found.threat.startswith("worst(rot(30,")
    (named,) = curricula.evaluate(trained.run, threats={"mine": "trans"}, limit=5)
    assert named.name == "mine"
    assert named.threat.startswith("trans(3,")


def test_training_raises_accuracy(tiny, tmp_path):
    trained = curricula.train(data="tiny", epochs=15, output=tmp_path / "run")
    losses = [line["loss"] for line in lines(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < losses[0] / 2
    assert trained.results[0].accuracy > 0.6


def test_a_baseline_is_the_same_run_without_a_curriculum_under_the_same_threats(tiny, tmp_path):
    trained = curricula.train(
        data="tiny", perturb="rot:45+pgd:0.05", epochs=1, baseline=True, output=tmp_path / "run"
    )
    ours, baselines = (attrs.asdict(run.config) for run in (trained.run, trained.baseline.run))
    changed = {name for name in ours if ours[name] != baselines[name]}
    assert changed == {"perturb", "schedule"}
    assert [r.threat for r in trained.results] == [r.threat for r in trained.baseline.results]
    assert trained.baseline.run.path == tmp_path / "run" / "baseline"


def test_the_global_random_state_is_restored(tiny, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    curricula.train(**JOINT, epochs=1, output=tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_is_not_finite_stops_the_run_with_a_fix(tiny, tmp_path):
    with pytest.raises(
        UserError,
        match=r"no longer finite in epoch 1.*lower lr \(--lr\), now 1e\+30, or set precision",
    ):
        curricula.train(**JOINT, optimizer="sgd", lr=1e30, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, not 0"),
        ({"batch_size": 181}, "batch_size 181 is larger than the 180 training images"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 2**64}, "seed must be at most "),
        ({"lr": float("inf")}, r"lr must be at most 1e\+35, not inf"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
        ({"epochs": "3"}, "epochs must be a whole number, not '3'"),
        ({"lr": "high"}, "lr must be a number, not 'high'"),
        ({"schedule": ["linear", 3]}, "schedule must be a list of texts"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam': did you mean adamw?"),
        ({"precision": "fp16"}, "precision must be auto or float32 or bf16"),
        ({"epoch": 3}, "train has no argument 'epoch'; did you mean epochs"),
        ({"objective": "trade"}, "unknown objective 'trade': did you mean trades"),
        ({"model": "tinycnm"}, "unknown model 'tinycnm': did you mean tinycnn"),
        ({"data": "tinny"}, "unknown dataset 'tinny': did you mean tiny"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available; choose from auto, cpu"),
        ({"lr_schedule": "linear"}, "unknown lr_schedule 'linear': known: constant, step"),
    ],
)
def test_a_wrong_value_is_one_line_and_nothing_is_written(tiny, tmp_path, values, message):
    with pytest.raises(UserError, match=message) as caught:
        curricula.train(**{**JOINT, **values}, output=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_alone(tiny, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match="already holds a run: choose another"):
        curricula.train(**JOINT, epochs=1, output=run)
    assert before == {path: path.read_bytes() for path in run.iterdir()}


def test_a_folder_that_holds_a_baseline_is_refused_before_training(tiny, trained, tmp_path):
    shutil.copytree(trained.run.path, tmp_path / "run" / "baseline")
    with pytest.raises(UserError, match="baseline already holds a run"):
        curricula.train(**JOINT, epochs=1, baseline=True, output=tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_damaged_checkpoint_is_one_line(tiny, run):
    best = run / BEST
    whole = best.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b""):
        best.write_bytes(damaged)
        with pytest.raises(UserError, match=r"best\.safetensors: damaged"):
            curricula.evaluate(run)
    best.unlink()
    with pytest.raises(UserError, match="no such file; let its training finish"):
        curricula.evaluate(run)


def test_a_checkpoint_of_another_model_is_one_line(tiny, run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("width=8", "width=9"))
    with pytest.raises(UserError, match="not of this model"):
        curricula.load_model(Run.open(run))


def test_a_configuration_is_the_same_after_toml(tmp_path):
    plan_values = {"model": "m", "epochs": 3, "batch_size": 4, "optimizer": "sgd", "lr": 0.1}
    config = merge(
        plan_values,
        {"weight_decay": 0, "lr_schedule": "cosine", "augmentation": "clean"},
        {"schedule": ["linear", "rot=cosine"], "epochs": 5},
    )
    assert config.epochs == 5
    assert config.weight_decay == 0.0
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert merge(read_toml(path)) == config
    assert isinstance(config, TrainConfig)
    assert attrs.evolve(config, epochs=6) != config


def test_augmentation_is_an_expression_at_full_strength_and_comes_first(tiny, tmp_path):
    plan = make_plan({**JOINT, "augmentation": "flip:1", "perturb": "clean"})
    assert plan.config.augmentation == "flip(1, direction=horizontal)"
    with pytest.raises(UserError, match=r"augmentation crop\+pgd: pgd is an attack; write"):
        make_plan({**JOINT, "augmentation": "crop+pgd"})
    with pytest.raises(UserError, match="hue works on images of 3 channels"):
        make_plan({**JOINT, "augmentation": "hue"})
    # Mirroring every image equals training on mirrored pixels.
    plain = make_plan({"data": "tiny", "epochs": 1, "precision": "float32"})
    flipped = make_plan({**attrs.asdict(plain.config), "augmentation": "flip:1"})
    pixels = plain.data.train.pixels.flip(3)
    train = attrs.evolve(plain.data.train, pixels=pixels)
    mirrored = attrs.evolve(plain, data=attrs.evolve(plain.data, train=train))
    losses = []
    for name, each in (("flipped", flipped), ("mirrored", mirrored), ("plain", plain)):
        train_plan(each, tmp_path / name, threats={})
        losses.append(lines(tmp_path / name / "metrics.jsonl")[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_schedule_that_needs_random_order_says_so(tiny, shuffle):
    plan = make_plan(JOINT | {"schedule": ["pgd=self-paced"], "shuffle": shuffle})
    said = [line for line in plan.notes if "needs images in random order" in line]
    assert len(said) == (not shuffle)
    assert all(line.startswith("pgd: its schedule self-paced") for line in said)
