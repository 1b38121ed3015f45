"""Try the monitor on trainings that collapse and on ordinary ones, and print what it missed.

    python tests/tools/monitor_runs.py [--only PATTERN] [--log FILE]

All runs are on digits with smallcnn. After each epoch an independent attack (PGD-20 with steps of
eps/8 and two restarts, at the strengths of the epoch's end) measures the accuracy on all
validation images. An epoch is collapsed if the accuracy on the training attack is 0.4 or more and
this accuracy is below a tenth of it. A collapse is missed if neither its epoch nor the next one
has a finding; a false alarm is a finding, other than robust overfitting, in a run that has no
collapsed epoch. A run that is named in the log is not run again.
"""

import argparse
import fnmatch
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import curricula
from curricula import ModelVictim, Threat
from curricula.evaluation.threats import pixel_budget
from curricula.training.callbacks import NoCallback
from curricula.training.metrics import EpochMetrics
from curricula.training.monitor import ACUTE
from curricula.training.plan import Plan, make_plan
from curricula.training.step import Update

CONSTANT = ["constant"]
COLLAPSES: dict[str, dict[str, Any]] = {
    "fgsm": {"perturb": "fgsm:0.3", "schedule": CONSTANT, "seed": 200},
    "fgsm, large": {"perturb": "fgsm:0.4", "schedule": CONSTANT, "seed": 201},
    "rfgsm": {"perturb": "rfgsm:0.3", "schedule": CONSTANT, "seed": 202},
    "l-2": {
        "perturb": "pgd(3, norm=l2, steps=1, random_start=false)",
        "schedule": CONSTANT,
        "seed": 203,
    },
    "with rotations": {"perturb": "rot+fgsm:0.3", "schedule": CONSTANT, "seed": 204},
    "late": {
        "perturb": "fgsm:0.3",
        "schedule": ["step(0:0.3, 0.6:1)"],
        "seed": 205,
        "epochs": 20,
    },
    "on a ramp": {"perturb": "fgsm:0.4", "schedule": ["linear(until=0.6)"], "seed": 206},
    "averaged": {
        "perturb": "fgsm:0.3",
        "schedule": CONSTANT,
        "average": "ema(decay=0.9)",
        "seed": 207,
    },
}
ORDINARY: dict[str, dict[str, Any]] = {
    "clean": {"perturb": "clean"},
    "rot": {"perturb": "rot"},
    "pgd": {"perturb": "pgd", "schedule": CONSTANT},
    "pgd, ramp": {"perturb": "pgd:0.2"},
    "joint": {"perturb": "rot+pgd"},
    "joint, slow ramp": {"perturb": "rot+pgd:0.2", "schedule": ["linear(until=1)"]},
    "trades": {"perturb": "rot+pgd", "objective": "trades"},
    "per image": {"perturb": "rot+pgd", "schedule": ["pgd=per-image"]},
    "union": {"perturb": "rot|pgd"},
    "nfgsm": {"perturb": "nfgsm:0.1"},
}


class Truth(NoCallback):
    """Measures each epoch under an attack that the monitor does not use, as soon as its checkpoint
    is written: at the first event after its end."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.strong: list[float | None] = []
        self.plan: Plan | None = None
        self.run: curricula.Run | None = None
        self._ended: EpochMetrics | None = None

    def on_train_start(self, run: curricula.Run, plan: Plan, steps: int) -> None:
        self.plan, self.run = plan, run

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        self._ended = metrics

    def on_step_end(self, update: Update) -> None:
        self._measure()

    def _measure(self) -> None:
        """Measure the epoch that has ended, if it is not measured yet."""
        metrics, self._ended = self._ended, None
        if metrics is None:
            return
        assert self.plan is not None
        assert self.run is not None
        labels = [
            label
            for label, leaf in self.plan.curriculum.tree.leaves.items()
            if leaf.perturbation.kind == "pixel"
        ]
        strength = max((metrics.strength[label] for label in labels), default=0.0)
        self.strong.append(self._accuracy(strength, metrics) if strength else None)

    def _accuracy(self, strength: float, metrics: EpochMetrics) -> float:
        plan, run = self.plan, self.run
        assert plan is not None
        assert run is not None
        eps, norm = pixel_budget(plan.curriculum.tree, plan.data.budgets)
        spatial = f"rot:{max(30 * metrics.strength.get('rot', 0.0), 1e-6):f}+"
        attack = (
            f"pgd({float(eps.value) * strength:f}, norm={norm}, steps=20, rel_step=1/8, restarts=2)"
        )
        text = (spatial if "rot" in metrics.strength else "") + attack
        tensors, _ = run.load("last.safetensors")
        network = plan.build_model()
        network.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        batch = plan.validation.load()
        victim = ModelVictim(network, early_stop=True)
        x = Threat.parse(text)(
            plan.data.images(batch.pixels),
            batch.labels,
            victim=victim,
            generator=torch.Generator().manual_seed(1),
        )
        return float((victim.logits(x).argmax(1) == batch.labels).float().mean())

    def on_eval_start(self, batches: int) -> None:
        self._measure()
        raise KeyboardInterrupt  # the final evaluation is not needed


def tried(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Train once and return what was true and what was found, by epoch."""
    common = {"model": "smallcnn", "compile": "off", "precision": "float32", "epochs": 10}
    truth = Truth(values)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with torch.random.fork_rng(devices=[]):
                curricula.train(**{**common, **values}, output=f"{folder}/run", callbacks=[truth])
        except KeyboardInterrupt:
            pass
        lines = curricula.Run.open(f"{folder}/run").lines("metrics.jsonl")
        _, texts = curricula.Run.open(f"{folder}/run").load("last.safetensors")
    state = json.loads(texts["state"])
    collapsed = [
        strong is not None
        and line["train_accuracy"] >= 0.4
        and strong < 0.1 * line["train_accuracy"]
        for strong, line in zip(truth.strong, lines, strict=True)
    ]
    acute = [any(finding in ACUTE for finding in line["findings"]) for line in lines]
    return {
        "name": name,
        "collapsed": [number + 1 for number, value in enumerate(collapsed) if value],
        "found": [number + 1 for number, value in enumerate(acute) if value],
        "overfitting": [
            line["epoch"] for line in lines if "robust overfitting" in line["findings"]
        ],
        "cost": state["probe_passes"] / max(state["total_passes"], 1),
    }


def is_missed(run: dict[str, Any]) -> bool:
    """Return whether a run did not collapse as planned, or its first collapse has no finding."""
    if not run["collapsed"]:
        return True
    first = run["collapsed"][0]
    return not {first, first + 1} & {*run["found"]}


def runs() -> dict[str, dict[str, Any]]:
    """Return all runs by name: each ordinary one with 5 and with 30 epochs, on different seeds."""
    found = {f"collapse: {name}": values for name, values in COLLAPSES.items()}
    for number, (name, values) in enumerate(ORDINARY.items()):
        for epochs in (5, 30):
            seed = 300 + 2 * number + (epochs == 30)
            found[f"ordinary: {name}, {epochs} epochs"] = values | {"epochs": epochs, "seed": seed}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*")
    parser.add_argument("--log", type=Path, help="JSON lines; names in it are not run again")
    arguments = parser.parse_args()
    log = arguments.log
    done = (
        [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
    )
    for name, values in runs().items():
        if fnmatch.fnmatch(name, arguments.only) and name not in {run["name"] for run in done}:
            make_plan(values)  # a wrong one ends before the others run
            done.append(tried(name, values))
            print(json.dumps(done[-1]), flush=True)
            if log:
                with log.open("a") as stream:
                    stream.write(json.dumps(done[-1]) + "\n")
    planted = [run for run in done if run["name"].startswith("collapse")]
    ordinary = [run for run in done if run["name"].startswith("ordinary")]
    missed = [run["name"] for run in planted if is_missed(run)]
    alarms = [run["name"] for run in ordinary if run["found"] and not run["collapsed"]]
    print(f"{len(planted)} collapses, missed: {missed or 'none'}")
    print(f"{len(ordinary)} ordinary runs, false alarms: {alarms or 'none'}")
    print(f"largest share of a probe: {max((run['cost'] for run in done), default=0):.2%}")


if __name__ == "__main__":
    main()
