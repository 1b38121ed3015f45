"""Time saved and accuracy lost by the shortcuts of training: pairs of trainings on MNIST.

The trainings of a pair differ in one value. Two run at a time, one thread each, and both threads
stay busy, so that both of a pair meet the same machine.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

import pytest

SEEDS = (0, 1, 2)
ATTACK = "pgd(0.3, steps=40, rel_step=1/10)"

SCRIPT = """
import json, sys
from pathlib import Path
from curricula.runtime.malloc import keep_freed_memory
from curricula.curriculum import Threat
from curricula.recipes import read_config
from curricula.training.loop import train_plan
from curricula.training.plan import make_plan
recipe, values, threat, out = json.loads(sys.argv[1])
keep_freed_memory()
plan = make_plan((read_config(recipe) if recipe else {}) | values)
(measured,) = train_plan(plan, Path(out), threats={"threat": Threat.parse(threat)})
lines = [json.loads(line) for line in Path(out, "timing.jsonl").read_text().splitlines()]
epochs = [line for line in lines if "epoch" in line]
seconds = sum(line["training_seconds"] + line["validation_seconds"] for line in epochs)
print(json.dumps({"accuracy": measured.accuracy, "seconds": seconds}))
"""

STUDIES = {
    "steps=auto": {
        "recipe": "cusp",
        "common": {
            "data": "mnist(images=15000)",
            "model": "smallcnn",
            "optimizer": "adamw",
            "lr": 0.001,
            "augmentation": "clean",
            "epochs": 10,
        },
        "pair": {
            "steps=auto": {"perturb": "rot:60+pgd(0.3, steps=auto, step=0.075)"},
            "steps=10": {"perturb": "rot:60+pgd(0.3, steps=10, step=0.075)"},
        },
        "threat": f"rot:60+{ATTACK}",
    },
    "bf16": {
        "recipe": None,
        "common": {"data": "mnist(images=20000)", "perturb": "rot:30+pgd:0.3", "epochs": 5},
        "pair": {"bf16": {"precision": "bf16"}, "float32": {"precision": "float32"}},
        "threat": ATTACK,
    },
}


def run_in_process(study, value, seed, root, out):
    values = {
        **study["common"],
        **study["pair"][value],
        "seed": seed,
        "data_root": root,
        "compile": "off",
    }
    argument = json.dumps([study["recipe"], values, study["threat"], str(out)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", STUDIES)
def test_shortcut(benchmark, mnist_root, tmp_path, name):
    study = STUDIES[name]
    runs = [(value, seed) for seed in SEEDS for value in study["pair"]]

    def one(run):
        value, seed = run
        return run_in_process(study, value, seed, mnist_root, tmp_path / f"{value}-{seed}")

    def all_of_them():
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(runs, pool.map(one, runs), strict=True))

    found = benchmark.pedantic(all_of_them, rounds=1)
    short, long = study["pair"]
    summary = {
        "accuracy": {v: [found[v, seed]["accuracy"] for seed in SEEDS] for v in study["pair"]},
        "seconds": {v: [found[v, seed]["seconds"] for seed in SEEDS] for v in study["pair"]},
        "mean difference in accuracy": mean(
            found[short, seed]["accuracy"] - found[long, seed]["accuracy"] for seed in SEEDS
        ),
        "shares of time": [
            found[short, seed]["seconds"] / found[long, seed]["seconds"] for seed in SEEDS
        ],
    }
    benchmark.extra_info.update(summary)
    print(json.dumps({name: summary}, indent=2))
