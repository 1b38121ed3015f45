"""Updates of training: ours beside a plain loop around torchattacks.

`make benchmark` runs these; they assert nothing about speed, and CI does not run them. Each keeps
the output of `curricula bench` in its extra information, medians of five rounds in one process.
"""

import json
import subprocess
import sys
from statistics import median

import pytest
from fixtures.escnn_p4cnn import escnn_p4cnn

from curricula.benchmark.measure import bench
from curricula.runtime.malloc import keep_freed_memory
from curricula.runtime.records import to_json
from curricula.training.compile_choice import TrialUpdates
from curricula.training.plan import make_plan

pytestmark = pytest.mark.filterwarnings("default")  # the baselines may warn

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
    keep_freed_memory()  # as the program does; the baseline, in the same process, has it too
    setting = {**SETTING, "model": model, "data": data}
    baseline = escnn_p4cnn() if model == "p4cnn" else None
    speed = bench(**setting, against=["torchattacks"], baseline_model=baseline, noted=print)
    benchmark.extra_info.update(to_json(speed))
    print(json.dumps(to_json(speed), indent=2))
    trial = TrialUpdates(make_plan(setting))
    benchmark.pedantic(trial.update, rounds=5, warmup_rounds=2)


SCRIPT = """
import json, sys
from curricula.runtime.malloc import keep_freed_memory
from curricula.benchmark.measure import peak_memory, reset_peak_memory
from curricula.benchmark.baselines import BaselineLoop
from curricula.runtime.timing import seconds
from curricula.training.compile_choice import TrialUpdates
from curricula.training.plan import make_plan
plan = make_plan({setting!r})
if sys.argv[1] == "ours":
    keep_freed_memory()  # as the program does
run = TrialUpdates(plan) if sys.argv[1] == "ours" else BaselineLoop("torchattacks", plan)
for _ in range(2):
    run.update()
reset_peak_memory(plan.device)
took = [seconds(run.update, plan.device) for _ in range({updates})]
print(json.dumps([took, peak_memory(plan.device)]))
"""


@pytest.mark.parametrize(
    ("model", "data", "updates"),
    [("smallcnn", GREY, 15), ("stdcnn", GREY, 15), ("resnet18", COLOUR, 2), ("vgg16", COLOUR, 2)],
)
def test_update_in_separate_processes(benchmark, model, data, updates):
    """Measure time and peak memory in five pairs of processes, each as its user would start it.

    The baseline's worker is a third process, whose memory is not counted.
    """
    setting = {**SETTING, "model": model, "data": data}
    script = SCRIPT.format(setting=setting, updates=updates)

    def run_in_process(who):
        done = subprocess.run(
            [sys.executable, "-c", script, who], capture_output=True, text=True, check=True
        )
        took, peak = json.loads(done.stdout)
        return median(took), peak

    pairs = [(run_in_process("torchattacks"), run_in_process("ours")) for _ in range(5)]
    ratios = sorted(theirs[0] / ours[0] for theirs, ours in pairs)
    memory = sorted(ours[1] / theirs[1] for theirs, ours in pairs)
    found = {"model": model, "speed": ratios, "memory": memory, "pairs": pairs}
    benchmark.extra_info.update(found)
    print(json.dumps(found))
    benchmark.pedantic(run_in_process, args=("ours",), rounds=1)
