"""Updates of training: ours beside the loop that one would write around torchattacks.

`make benchmark` runs these; they assert nothing about speed, and CI does not run them. Each keeps
the whole of `curricula bench` in its extra information, medians of five rounds in one process.
"""

import json
import subprocess
import sys

import pytest
from fixtures.escnn_p4cnn import escnn_p4cnn

from curricula.allocation import keep_freed_memory
from curricula.speed.bench import bench
from curricula.training.compiling import Trial
from curricula.training.plan import make_plan

pytestmark = pytest.mark.filterwarnings("default")  # the rivals' warnings are their own

GREY, COLOUR = "random(size=28, channels=1)", "random(size=32)"
SETTING = {
    "perturb": "rot+pgd(steps=10)",
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.01,
    "compile": "off",
}


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("smallcnn", GREY),
        ("stdcnn", GREY),
        ("p4cnn", GREY),
        ("resnet18", COLOUR),
        ("vgg16", COLOUR),
    ],
)
def test_update(benchmark, model, data):
    keep_freed_memory()  # as the program does; the rival, in the same process, has it too
    setting = {**SETTING, "model": model, "data": data}
    rival = escnn_p4cnn() if model == "p4cnn" else None
    speed = bench(**setting, against=["torchattacks"], rival_model=rival, noted=print)
    benchmark.extra_info.update(speed.as_json())
    print(json.dumps(speed.as_json(), indent=2))
    trial = Trial(make_plan(setting))
    benchmark.pedantic(trial.update, rounds=5, warmup_rounds=2)


MEMORY = """
import sys
from curricula.allocation import keep_freed_memory
from curricula.speed.bench import peak_memory, reset_peak_memory
from curricula.speed.rivals import Rival
from curricula.training.compiling import Trial
from curricula.training.plan import make_plan
plan = make_plan({setting!r})
if sys.argv[1] == "ours":
    keep_freed_memory()  # as the program does
run = Trial(plan) if sys.argv[1] == "ours" else Rival("torchattacks", plan)
run.update()
reset_peak_memory(plan.device)
run.update()
print(peak_memory(plan.device))
"""


def test_peak_memory(benchmark):
    """Of a process each, libraries included; the rival's worker is another process, not counted."""
    setting = {**SETTING, "model": "resnet18", "data": COLOUR}
    script = MEMORY.format(setting=setting)

    def peak(who):
        done = subprocess.run(
            [sys.executable, "-c", script, who], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    theirs = peak("torchattacks")
    ours = benchmark.pedantic(peak, args=("ours",), rounds=1)
    benchmark.extra_info.update(ours=ours, theirs=theirs, ratio=ours / theirs)
    print(f"peak memory: ours {ours:,}, torchattacks {theirs:,}, ratio {ours / theirs:.3f}")
