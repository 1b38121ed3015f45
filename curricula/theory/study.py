"""The study that `curricula theory` prints: closed forms, their simulation, and trained models."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from curricula.errors import UserError
from curricula.theory import closed_forms
from curricula.theory.classifiers import Linear, Network
from curricula.theory.setting import Setting
from curricula.theory.simulation import Accuracies, simulate
from curricula.theory.training import METHODS, Method, collapsed, final_loss, train

REFERENCE = {2.0: (1.0, 20.0, 40.0, 100.0), 3.0: (1.0, 60.0, 200.0)}
"""The ratios rho that are shown by default, by c."""

MOST_FEATURES, MOST_SAMPLES, MOST_SETTINGS = 10_001, 100_000_000, 4
LARGEST_RATIO = 1e12  # beyond, float64 has no room for the other weights
MOST_SEEDS, MOST_UPDATES = 100, 1_000_000
TEST_SAMPLES = 20_000
ATTACKED = 2_000  # of them, where the adversary costs up to 200 gradients a sample


@attrs.frozen(kw_only=True)
class Row:
    """One classifier of the family: its closed forms, and what sampling gave."""

    rho: float
    clean: float
    spatial: float
    adversarial: float
    simulated: Accuracies

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        closed = {name: getattr(self, name) for name in ("rho", "clean", "spatial", "adversarial")}
        return {**closed, "simulated": self.simulated.as_json()}


@attrs.frozen(kw_only=True)
class Trained:
    """One trained model.

    Attributes:
        classifier: ``linear`` or ``MLP``.
        method: what it was trained on.
        seed: of its initial weights and all samples.
        ratio: of a linear one the strong weight over the mean size of the others, else None.
        loss: at the end, under what it was trained on.
        accuracies: on fresh samples.
        above: see `above_frontier`.
    """

    classifier: str
    method: Method
    seed: int
    ratio: float | None
    loss: float
    accuracies: Accuracies
    above: float

    @property
    def collapsed(self) -> bool:
        """Whether it learned nothing of what it was trained on."""
        return collapsed(self.loss)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "classifier": self.classifier,
            "method": self.method.name,
            "curriculum": self.method.curriculum,
            "seed": self.seed,
            "ratio": self.ratio,
            "loss": self.loss,
            "collapsed": self.collapsed,
            "above_frontier": self.above,
            **self.accuracies.as_json(),
        }


@attrs.frozen(kw_only=True)
class Study:
    """All that belongs to one setting."""

    setting: Setting
    rows: tuple[Row, ...]
    trained: tuple[Trained, ...]

    def as_json(self) -> dict[str, Any]:
        """For a JSON file; what is not a finite number is None."""
        bound = {
            "best_ratio": closed_forms.best_ratio(self.setting),
            "critical_ratio": closed_forms.critical_ratio(self.setting),
            "shifted_bound": closed_forms.shifted_bound(self.setting),
            "shifted_limit": closed_forms.shifted_limit(self.setting.c),
        }
        finite = {name: value if abs(value) < torch.inf else None for name, value in bound.items()}
        return {
            **attrs.asdict(self.setting),
            "eta": self.setting.eta,
            **finite,
            "rows": [row.as_json() for row in self.rows],
            "trained": [each.as_json() for each in self.trained],
        }


def study(
    setting: Setting,
    *,
    ratios: Sequence[float] = (),
    samples: int = 1_000_000,
    seeds: int = 3,
    updates: int = 600,
    learning_rate: float = 0.01,
    noted: Callable[[str], None] = lambda line: None,
) -> Study:
    """The closed forms at some ratios beside a simulation, and models trained in the setting.

    Args:
        setting: which.
        ratios: each rho, above 0; by default those of `default_ratios`.
        samples: of the simulation, 1 to 100,000,000.
        seeds: models trained of each kind, from seed 0 on, 0 to 100.
        updates: of each training, 1 to 1,000,000.
        learning_rate: the highest of each training, above 0.
        noted: called with a line now and then, to show progress.

    Raises:
        UserError: a value out of its range.
    """
    check(setting, ratios, samples, seeds, updates, learning_rate)
    ratios = ratios or default_ratios(setting)
    noted(f"c = {setting.c:g}: {len(ratios)} closed forms, {samples:,} samples")
    simulated = simulate(
        setting,
        [Linear.of_ratio(setting.d, rho) for rho in ratios],
        n=samples,
        generator=torch.Generator().manual_seed(0),
    )
    rows = [
        Row(
            rho=rho,
            clean=float(closed_forms.clean_accuracy(setting, rho)),
            spatial=float(closed_forms.spatial_accuracy(setting, rho)),
            adversarial=float(closed_forms.adversarial_accuracy(setting, rho)),
            simulated=accuracies,
        )
        for rho, accuracies in zip(ratios, simulated, strict=True)
    ]
    trained = []
    for classifier, method in itertools.product(("linear", "MLP"), METHODS) if seeds else ():
        how = f"{method.name}{', curriculum' if method.curriculum else ''}"
        noted(f"c = {setting.c:g}: training, {classifier}, {how}")
        trained += [
            _trained(setting, classifier, method, seed, updates, learning_rate)
            for seed in range(seeds)
        ]
    return Study(setting=setting, rows=tuple(rows), trained=tuple(trained))


def default_ratios(setting: Setting) -> tuple[float, ...]:
    """The reference ratios of c = 2 and c = 3; for any other c the invariant classifier, the Bayes
    rule, and rho* if there is one beyond 1."""
    if setting.c in REFERENCE:
        return REFERENCE[setting.c]
    critical = closed_forms.critical_ratio(setting)
    further = (closed_forms.best_ratio(setting), critical if critical < torch.inf else 1.0)
    return tuple(sorted({1.0, *(rho for rho in further if rho > 1)}))


def check(
    setting: Setting,
    ratios: Sequence[float],
    samples: int,
    seeds: int,
    updates: int,
    learning_rate: float,
) -> None:
    """Refuse what `study` cannot do, before any of it.

    Raises:
        UserError: a value out of its range.
    """
    if setting.d > MOST_FEATURES:
        raise UserError(f"d must lie from 3 to {MOST_FEATURES:,} to be sampled, not {setting.d:,}")
    for rho in ratios:
        if not 0 < rho <= LARGEST_RATIO:
            raise UserError(f"rho must be a number above 0, at most {LARGEST_RATIO:g}, not {rho:g}")
    for name, value, least, most in (
        ("samples", samples, 1, MOST_SAMPLES),
        ("seeds", seeds, 0, MOST_SEEDS),
        ("updates", updates, 1, MOST_UPDATES),
    ):
        if not least <= value <= most:
            raise UserError(f"{name} must lie from {least} to {most:,}, not {value:,}")
    if not 0 < learning_rate <= 1:
        raise UserError(f"learning rate must lie above 0 and up to 1, not {learning_rate:g}")


def above_frontier(setting: Setting, spatial: float, adversarial: float) -> float:
    """An adversarial accuracy less that of `closed_forms.frontier` at the same spatial accuracy.

    Spatial accuracies beyond the frontier's ends are taken as those of the nearer end.
    """
    xs, ys = closed_forms.frontier(setting)
    return adversarial - float(np.interp(spatial, xs.numpy(), ys.numpy()))


def _trained(
    setting: Setting,
    classifier: str,
    method: Method,
    seed: int,
    updates: int,
    learning_rate: float,
) -> Trained:
    generator = torch.Generator().manual_seed(seed)
    model: Linear | Network
    if classifier == "linear":
        model, attacked = Linear.random(setting.d, generator=generator), TEST_SAMPLES
    else:
        model, attacked = Network(setting.d, generator=generator), ATTACKED
    train(model, setting, method, updates=updates, learning_rate=learning_rate, generator=generator)
    loss = final_loss(model, setting, method, generator=generator)
    (accuracies,) = simulate(
        setting, [model], n=TEST_SAMPLES, attacked=attacked, generator=generator
    )
    return Trained(
        classifier=classifier,
        method=method,
        seed=seed,
        ratio=model.ratio if isinstance(model, Linear) else None,
        loss=loss,
        accuracies=accuracies,
        above=above_frontier(setting, accuracies.spatial.accuracy, accuracies.adversarial.accuracy),
    )
