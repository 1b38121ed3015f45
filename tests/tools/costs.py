"""Measure what checkpoints and the monitor cost, as shares of the time of a training.

    python tests/tools/costs.py [--only NAME] [--rounds 3]

Each training runs on one thread, with the default interval of checkpoints. Times are seconds of the
processor, so that other processes of the machine and the wait for the disk do not count. The time
of a training is that of its epochs, validation included, without what comes before the first update
and without the final evaluation. Medians of the rounds are printed; they differ in the seed.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

import curricula
from curricula.training import loop
from curricula.training.callbacks import NoCallback
from curricula.training.monitor import Prober, Trace
from curricula.training.run import Run
from curricula.training.saver import Saver

COMMON: dict[str, Any] = {"device": "cpu", "compile": "off"}
TRAININGS: dict[str, dict[str, Any]] = {
    "clean": {"perturb": "clean", "epochs": 5},
    "rot": {"perturb": "rot", "epochs": 5},
    "rot+pgd": {"perturb": "rot+pgd", "epochs": 3},
    "trades, ema": {
        "perturb": "rot+pgd", "objective": "trades", "average": "ema(decay=0.99)", "epochs": 3,
    },
    "resnet18": {
        "data": "random(size=32, images=2000)", "model": "resnet18", "perturb": "rot+pgd(8/255)",
        "epochs": 1,
    },
}  # fmt: skip
MONITOR = (
    (loop, "problem"), (loop, "has_finite_loss"), (loop, "has_no_gradient"), (loop, "findings"),
    (loop, "nan_strength"), (loop._Training, "_strengths"), (Trace, "of"),
    (Prober, "strong_accuracy"),
)  # fmt: skip
WITHIN_EPOCHS = ((loop._Training, "_save_within_epoch"),)
AFTER_EPOCHS = ((Saver, "save"), (Run, "save"))  # the others


class Clock:
    """Adds up the time inside wrapped functions, by kind; nested ones count once."""

    def __init__(self) -> None:
        self.processor: dict[str, float] = defaultdict(float)
        self._inside = False

    def wrapped(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return a function that is timed."""

        def run(*arguments: Any, **settings: Any) -> Any:
            if self._inside:
                return function(*arguments, **settings)
            self._inside = True
            began = time.process_time()
            try:
                return function(*arguments, **settings)
            finally:
                self._inside = False
                self.processor[kind] += time.process_time() - began

        return run

    def replace(self, owner: Any, name: str, kind: str) -> Callable[[], None]:
        """Time a function of a module or class, and return what restores it."""
        before = vars(owner)[name]
        timed = self.wrapped(getattr(owner, name), kind)
        is_bound = isinstance(before, classmethod)
        setattr(owner, name, staticmethod(timed) if is_bound else timed)
        return lambda: setattr(owner, name, before)


class Whole(NoCallback):
    """Times the epochs of a training."""

    began = ended = 0.0

    def on_train_start(self, *arguments: Any, **settings: Any) -> None:
        self.began = time.process_time()

    def on_eval_start(self, *arguments: Any, **settings: Any) -> None:
        self.ended = time.process_time()
        raise KeyboardInterrupt  # the final evaluation is not needed


def measured(values: dict[str, Any]) -> dict[str, float]:
    """Train once, and return the seconds of the training, its monitor, and its checkpoints within
    and after epochs."""
    clock, whole = Clock(), Whole()
    kinds = {"monitor": MONITOR, "within": WITHIN_EPOCHS, "after": AFTER_EPOCHS}
    restore = [
        clock.replace(owner, name, kind) for kind, parts in kinds.items() for owner, name in parts
    ]
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            curricula.train(**{**COMMON, **values}, output=f"{folder}/run", callbacks=[whole])
    except KeyboardInterrupt:
        pass
    finally:
        for each in restore:
            each()
    return {
        "training": whole.ended - whole.began,
        **{kind: clock.processor[kind] for kind in kinds},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=TRAININGS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("training      seconds   within epochs     after epochs     monitor")
    for name in [arguments.only] if arguments.only else TRAININGS:
        rounds = [measured({**TRAININGS[name], "seed": 500 + k}) for k in range(arguments.rounds)]
        found = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        columns = (
            f"{found[kind]:7.3f} {found[kind] / found['training']:7.2%}"
            for kind in ("within", "after", "monitor")
        )
        print(f"{name:<12} {found['training']:8.1f}   {'   '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
