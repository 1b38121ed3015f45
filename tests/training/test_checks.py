"""Values are checked before torch is imported, with the messages of the plan."""

import re
import subprocess
import sys

import pytest

from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.expressions.checks import check_perturbation, schedules_by_label
from curricula.training.checks import check_values

WRONG = [
    ({"epoch": 3}, "unknown key 'epoch'; did you mean epochs"),
    ({"epochs": 0}, "configuration: epochs must be 1 or more, not 0"),
    ({"epochs": int("9" * 15)}, "epochs must be at most 1,000,000, not 999,999,999,999,999"),
    ({"epochs": int("9" * 400)}, "epochs must be at most 1,000,000, not about 10^400"),
    ({"batch_size": 10**12}, "batch_size must be at most 1,000,000, not 1,000,000,000,000"),
    ({"lr": 1e300}, "configuration: lr must be at most 1e+35, not 1e+300"),
    ({"lr": 10**400}, "lr must be a number, not about 10^400"),
    ({"weight_decay": 1e36}, "weight_decay must be at most 1e+35"),
    ({"awp": 1e36}, "awp must be at most 1e+35"),
    ({"schedule": ["linear"] * 1001}, "a list of at most 1,000 texts, not of 1,001"),
    ({"perturb": "+".join(["rot"] * 201)}, "at most 200 perturbations"),
    ({"perturb": "worst(" * 3000 + "rot" + ")" * 3000}, "parentheses nest deeper than 50"),
    ({"model": "wrn" + "(" * 3000}, "parentheses nest deeper than 50"),
    ({"data": "random(size=\x1c8)"}, r"unexpected '\x1c'"),
    ({"objective": "trades:1_000"}, "unexpected '_'"),
    ({"average": "ema(decay=1e999)"}, "this number is too large"),
    ({"lr_schedule": "step(0:1, 1/2:\uff11)"}, "unexpected '\uff11'"),
    (
        {"schedule": ["random(seed=1e300)"]},
        "seed must be at most 4,611,686,018,427,387,904, not about",
    ),
    (
        {"data_root": "photos\udcff"},
        "data_root 'photos\\udcff' is not valid UTF-8, and config",
    ),
    ({"epochs": "3"}, "epochs must be a whole number, not '3'"),
    ({"lr": 0}, "configuration: lr must be above 0, not 0"),
    ({"momentum": 1}, "configuration: momentum must be below 1, not 1"),
    ({"optimizer": "adam"}, "unknown optimizer 'adam': did you mean adamw?"),
    ({"perturb": "rott+pgd"}, "unknown perturbation 'rott': did you mean rot"),
    ({"perturb": "rot+"}, "in 'rot+', at the end: expected a name"),
    ({"perturb": "rot+worst(trans|flp, k=3)"}, "unknown perturbation 'flp': did you mean flip"),
    ({"perturb": "grid(rott, rot=5)"}, "unknown perturbation 'rott'"),
    ({"perturb": "clean:3"}, "clean:3: clean takes no arguments"),
    ({"augmentation": "crp+flip"}, "unknown perturbation 'crp': did you mean crop"),
    ({"perturb": "rot", "schedule": ["liner"]}, "unknown schedule 'liner': did you mean linear"),
    ({"schedule": ["liner"]}, "unknown schedule 'liner': did you mean linear"),
    (
        {"perturb": "rot+pgd", "schedule": ["pdg=linear"]},
        "schedule pdg=linear: no perturbation is called 'pdg' here; there is rot, pgd",
    ),
    ({"perturb": "rot", "schedule": ["rot="]}, "write [LABEL=]SCHEDULE"),
    (
        {"perturb": "rot+pgd", "schedule": ["linear", "constant"]},
        "schedule constant: every perturbation has the schedule linear already; leave one out, or "
        "write LABEL=constant",
    ),
    ({"schedule": ["linear", "linear"]}, "every perturbation has the schedule linear already"),
    (
        {"perturb": "rot+rot", "schedule": ["rot.2=linear", "constant", "rot.2=cosine"]},
        "schedule rot.2=cosine: rot.2 has the schedule linear already; leave one out",
    ),
    ({"learning_rate": 0.1}, "unknown key 'learning_rate'; did you mean lr?"),
    ({"batch": 3}, "unknown key 'batch'; did you mean batch_size?"),
    ({"optimiser": "sgd"}, "unknown key 'optimiser'; did you mean optimizer?"),
    ({"patience": 3}, "unknown key 'patience'; did you mean stop_after?"),
    ({"model": "smalcnn"}, "unknown model 'smalcnn': did you mean smallcnn"),
    ({"model": "wrn|vgg16"}, "expected a single name or call"),
    ({"objective": "trade"}, "unknown objective 'trade': did you mean trades"),
    ({"data": "mnits"}, "unknown dataset 'mnits': did you mean mnist"),
    ({"lr_schedule": "linear"}, "unknown lr_schedule 'linear': known: constant, step"),
    ({"lr_schedule": "step:3"}, "step:3: stages must be a pair NUMBER:NUMBER, not 3"),
    ({"average": "ma"}, "unknown average 'ma'; known: none, ema, swa"),
    ({"average": "none:3"}, "unknown average 'none:3'"),
    ({"average": "ema(decay=2)"}, "ema(decay=2): decay must be below 1, not 2"),
    ({"average": "swa(strat=0)"}, "average 'swa' takes start; did you mean start?"),
    ({"lr_schedule": "one-cycle(warmup=2)"}, "warmup must be above 0 and below 1, not 2"),
    ({"lr_schedule": "step(0:2)"}, "step(0:2): a stage's value must lie from 0 to 1, not 2"),
    ({"schedule": ["linear(until=2)"]}, "linear(until=2): until must be at most 1, not 2"),
    ({"perturb": "rot", "schedule": ["rot=anti(start=-1)"]}, "start must be 0 or more, not -1"),
    ({"schedule": "random(low=2)"}, "low must be at most 1, not 2"),
    (
        {"device": "gpu"},
        "device 'gpu' is not available; choose from auto, cpu, cuda, cuda:1",
    ),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_value_is_one_line(values, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        check_values(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"perturb": "rot+(pgd(norm=l2)|worst(rot, k=3))+fgsm", "schedule": ["rot.2=cosine"]},
        {"perturb": "grid(rot+trans, rot=5)", "schedule": ("linear", "trans=step(0:1/2, 1/2:1)")},
        {"lr_schedule": "step(0:1, 0.5:0.1)", "average": "ema(decay=0.9)", "device": "cuda:1"},
        {"data": "random(size=8)", "model": "wrn(depth=16)", "objective": "trades(beta=6)"},
    ],
)
def test_right_values_pass(values):
    check_values(values)


def test_the_schedule_of_a_label_comes_before_that_of_all():
    for texts in (["rot=constant", "linear"], ["linear", "rot=constant"]):
        calls = schedules_by_label(texts, ["rot", "pgd"])
        assert [str(call) for call in calls.values()] == ["constant", "linear"]


@pytest.mark.parametrize(
    "text", ["clean", "rot+trans+rot", "(rot|trans)+pgd", "worst(rot|trans, k=2)+rot+fgsm"]
)
def test_the_labels_are_those_of_the_bound_expression(text):
    budgets = {"degrees": "30", "pixels": "3", "linf": "0.1"}
    assert check_perturbation(text) == tuple(bind(text, budgets=budgets).leaves)


def test_checking_imports_no_torch():
    code = f"""
import sys
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.training import config
from curricula.training.checks import check_values
for values, _ in {WRONG!r}:
    try:
        check_values(values)
    except UserError:
        continue
    raise SystemExit(f"passed: {{values}}")
check_values({{"perturb": "rot+pgd", "schedule": ["pgd=linear(until=0.2)"]}})
heavy = {{"torch", "torchvision", "sklearn", "scipy", "matplotlib", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
