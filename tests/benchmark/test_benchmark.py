"""`curricula bench`: its counts and output. Tests measure no speed."""

import json

import pytest
import torch
from click.testing import CliRunner

from curricula.benchmark import baselines
from curricula.benchmark.measure import IsolatedPasses, Samples, bench
from curricula.cli.main import program
from curricula.errors import UserError
from curricula.interfaces import Progress
from curricula.runtime.records import to_json
from curricula.training.compile_choice import TrialUpdates, decide_compile
from curricula.training.plan import make_plan

TINY = {
    "data": "random(size=16, channels=1, images=40)",
    "model": "smallcnn",
    "batch_size": 8,
    "compile": "off",
}


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch):
    monkeypatch.setattr("curricula.benchmark.measure.ROUND_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("perturb", "objective", "passes"),
    [
        ("clean", "at", (0, 0, 1)),
        ("rot+pgd(steps=3)", "at", (3, 0, 1)),
        # KL needs the logits at the image once; TRADES trains on two views.
        ("rot+pgd(steps=3)", "trades", (3, 1, 2)),
        ("worst(rot, k=4)+fgsm", "at", (1, 4, 1)),
        ("pgd(steps=auto, step=0.1)", "at", (8, 0, 1)),  # 2.5 * 0.3 / 0.1, rounded up
        ("pgd(steps=2, restarts=3)", "at", (6, 3, 1)),
    ],
)
def test_the_passes_of_an_update_are_counted(perturb, objective, passes):
    plan = make_plan({**TINY, "perturb": perturb, "objective": objective})
    assert IsolatedPasses(TrialUpdates(plan)).count() == passes


def test_the_share_is_the_time_of_the_passes_over_that_of_the_update():
    speed = bench(**TINY, perturb="rot+pgd(steps=2)", rounds=2)
    assert (speed.gradient_passes, speed.forward_passes, speed.training_passes) == (2, 0, 1)
    for number, share in enumerate(speed.share.values):
        limit = 2 * speed.gradient_pass.values[number] + speed.training_pass.values[number]
        assert share == pytest.approx(limit / speed.update.values[number])
    for images, seconds in zip(speed.images_per_second.values, speed.update.values, strict=True):
        assert images == pytest.approx(8 / seconds)
    assert speed.compile_seconds is None
    assert speed.setting["image"] == "1x16x16"
    assert speed.setting["compile"] == "off"


def test_an_update_of_a_trial_is_at_full_strength(monkeypatch):
    plan = make_plan({**TINY, "perturb": "rot+pgd", "schedule": ("linear(until=1)",)})
    seen = []

    def strengths(self, progress: Progress, **more):
        seen.append(original(self, progress, **more))
        return seen[-1]

    original = type(plan.curriculum).strengths
    monkeypatch.setattr(type(plan.curriculum), "strengths", strengths)
    TrialUpdates(plan).update()
    (found,) = filter(None, seen)  # the augmentation has no leaves
    assert found == {"rot": pytest.approx(1, abs=1e-5), "pgd": pytest.approx(1, abs=1e-5)}


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_a_baseline_trains_with_its_own_attack(name):
    if name == "art":
        pytest.importorskip("art", reason="the Adversarial Robustness Toolbox is not a dependency")
    plan = make_plan({**TINY, "perturb": "rot+pgd(steps=2)", "optimizer": "sgd", "lr": 0.1})
    baseline = baselines.BaselineLoop(name, plan)
    try:
        x, y = torch.rand(4, 1, 16, 16), torch.arange(4)
        adversarial = baseline.attack(x, y)
        distance = (adversarial - x).abs().amax()
        assert 0.29 < distance <= 0.3 + 1e-6  # two steps of 1.25 eps are long enough
        before = [parameter.clone() for parameter in baseline.model.parameters()]
        baseline.update()
        assert baseline.model.training
        after = list(baseline.model.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    finally:
        baseline.close()


@pytest.mark.parametrize(
    ("perturb", "objective"),
    [
        ("pgd", "at"),
        ("rot+pgd(norm=l2)", "at"),
        ("rot+pgd(restarts=2)", "at"),
        ("rot|pgd", "at"),
        ("rot+pgd", "trades"),
    ],
)
def test_a_baseline_refuses_what_it_cannot_train(perturb, objective):
    plan = make_plan({**TINY, "perturb": perturb, "objective": objective})
    with pytest.raises(UserError, match="against foolbox: only rot"):
        baselines.BaselineLoop("foolbox", plan)


def test_wrong_values_are_one_line_each():
    with pytest.raises(UserError, match="against: 'cleverhans' is unknown; known: torchattacks"):
        bench(against=["cleverhans"])
    with pytest.raises(UserError, match="rounds must lie from 1 to 1,000, not 0"):
        bench(rounds=0)
    with pytest.raises(UserError, match="rounds must lie from 1 to 1,000, not about 10\\^5000"):
        bench(rounds=10**5000)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(baselines.BASELINES, "no_such_library", ("no-such-distribution", None))
    with pytest.raises(UserError, match="; pip install no-such-distribution"):
        bench(**TINY, perturb="rot+pgd", against=["no_such_library"])


def test_an_unwritable_file_is_refused_before_the_measurement(tmp_path):
    missing = str(tmp_path / "missing" / "speed.json")
    done = CliRunner().invoke(program, ["bench", "--data", TINY["data"], "--output", missing])
    assert done.exit_code == 2
    assert f"output {missing}: there is no folder" in done.output
    assert "round" not in done.output


def test_the_command_prints_a_table_or_json_and_writes_json(tmp_path):
    file = tmp_path / "speed.json"
    arguments = ["bench", "--data", TINY["data"], "--model", "smallcnn", "--batch-size", "8"]
    arguments += ["--perturb", "rot+pgd(steps=2)", "--rounds", "1", "--against", "torchattacks"]
    done = CliRunner().invoke(program, [*arguments, "-o", str(file), "--format", "json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(file.read_text())
    assert json.loads(done.stdout) == figures
    assert figures["images_per_second"]["n"] == 1
    assert figures["ratios"]["torchattacks"]["median"] > 0
    assert figures["setting"]["model"] == "smallcnn"
    done = CliRunner().invoke(program, arguments)
    for row in (
        "training, images/s",
        "input-gradient pass, ms (2 in an update)",
        "training pass, ms (1 in an update)",
        "share of the limit",
        "ratio to",
        "A share above 1 is noise",
    ):
        assert row in done.output
    assert "forward pass" not in done.output  # this training has none


def test_a_sample_is_its_median():
    sample = Samples(values=(3.0, 1.0, 2.0, 10.0, 0.5))
    assert to_json(sample) == {"median": 2.0, "min": 0.5, "max": 10.0, "n": 5}


def test_a_short_training_is_not_compiled_and_a_choice_is_kept():
    plan = make_plan({**TINY, "compile": "auto", "perturb": "rot+pgd", "epochs": 1})
    decided, why = decide_compile(plan)
    assert decided.config.compile == "off"
    assert (
        "compile: off; to try torch.compile takes about 60 s, at most 2 % of a training is" in why
    )
    assert decide_compile(decided) == (decided, "compile: off, as configured")


def test_a_long_training_compiles_if_that_is_faster(monkeypatch):
    """Try a compiler that makes updates twice as fast, barely faster, or slower."""
    plan = make_plan({**TINY, "compile": "auto", "perturb": "rot+pgd", "epochs": 10**6})
    times = {"auto": 1.0}  # uncompiled
    monkeypatch.setattr(TrialUpdates, "seconds", lambda trial: times[trial.plan.config.compile])
    for compiled, chosen in ((0.5, "on"), (0.99, "off"), (2.0, "off")):
        times["on"] = compiled
        decided, why = decide_compile(plan)
        assert decided.config.compile == chosen
        assert f"compile: {chosen}, because an update takes 1 s, and compiled {compiled:g} s" in why


def test_a_long_training_without_a_compiler_goes_on_uncompiled(no_compiler):
    plan = make_plan({**TINY, "compile": "auto", "perturb": "rot+pgd", "epochs": 10**6})
    decided, why = decide_compile(plan)
    assert decided.config.compile == "off"
    assert "compiled failed" in why


def test_two_networks_that_cannot_be_compiled_are_one_warning(no_compiler):
    trial = TrialUpdates(make_plan({**TINY, "compile": "on", "perturb": "rot+pgd(steps=2)"}))
    assert not trial.networks.compile_failed
    with pytest.warns(UserWarning, match="compiled") as warned:
        trial.update()
    assert ["could not be compiled" in str(one.message) for one in warned] == [True]
    assert trial.networks.compile_failed
