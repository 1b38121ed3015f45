"""The study that ``curricula theory`` prints: closed forms, their simulation, trained models."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from curricula.errors import UserError, amount
from curricula.runtime.records import fields_of, register_json
from curricula.runtime.values import check_whole
from curricula_theory import closed_forms
from curricula_theory.classifiers import Linear, Network
from curricula_theory.setting import Setting
from curricula_theory.simulation import Accuracies, simulate
from curricula_theory.training import METHODS, Method, collapsed, final_loss, train

REFERENCE_RATIOS = {2.0: (1.0, 20.0, 40.0, 100.0), 3.0: (1.0, 60.0, 200.0)}
"""The ratios rho shown by default, by c."""

# Largest arguments of a study: features, samples, settings, ratios, seeds, updates, ratio.
MAX_FEATURES, MAX_SAMPLES, MAX_SETTINGS, MAX_RATIOS = 10_001, 100_000_000, 4, 100
MAX_SEEDS, MAX_UPDATES = 100, 1_000_000
MAX_DRAWN = 10**11  # numbers drawn in a simulation: samples x features
MAX_TRAINED = 10**7  # updates of all models of a kind: seeds x updates
MAX_RATIO = 1e12  # beyond it the other weights are lost in float64
NUM_TEST_SAMPLES = 20_000  # samples on which a trained model is measured
NUM_ATTACKED = 2_000  # test samples that PGD attacks, with up to 200 gradients each


@attrs.frozen(kw_only=True)
class Row:
    """Accuracies of one classifier w = (rho, 1, ..., 1), in closed form and by sampling.

    Attributes:
        rho: ratio of its weights.
        clean, spatial, adversarial: accuracies in closed form, in [0, 1].
        simulated: the same accuracies by sampling.
    """

    rho: float
    clean: float
    spatial: float
    adversarial: float
    simulated: Accuracies


@attrs.frozen(kw_only=True)
class Trained:
    """Ratio, final loss and accuracies of one trained model.

    Attributes:
        classifier: ``linear`` or ``MLP``.
        method: the perturbations in its training.
        seed: seed of its initial weights and all samples.
        ratio: strong weight over the mean magnitude of the others; None for the MLP.
        loss: final loss under the perturbations of its training.
        accuracies: accuracies on new samples.
        above: result of `above_frontier`.
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
        """True if the model learned nothing, as judged by its final loss."""
        return collapsed(self.loss)


register_json(
    Trained,
    lambda trained: {
        "classifier": trained.classifier,
        "method": trained.method.name,
        "curriculum": trained.method.curriculum,
        "seed": trained.seed,
        "ratio": trained.ratio,
        "loss": trained.loss,
        "collapsed": trained.collapsed,
        "above_frontier": trained.above,
        **fields_of(trained.accuracies),
    },
)


@attrs.frozen(kw_only=True)
class Study:
    """Closed forms, their simulation and trained models of one setting.

    Attributes:
        setting: the distribution and the adversary.
        rows: one classifier of the family for each ratio.
        trained: the trained models.
    """

    setting: Setting
    rows: tuple[Row, ...]
    trained: tuple[Trained, ...]


def _study_keys(found: Study) -> dict[str, Any]:
    """Return the keys and values of a study's JSON, with None for values that are not finite."""
    bound = {
        "best_ratio": closed_forms.best_ratio(found.setting),
        "critical_ratio": closed_forms.critical_ratio(found.setting),
        "shifted_bound": closed_forms.shifted_bound(found.setting),
        "shifted_limit": closed_forms.shifted_limit(found.setting.c),
    }
    finite = {name: value if abs(value) < torch.inf else None for name, value in bound.items()}
    return {
        **fields_of(found.setting),
        "eta": found.setting.eta,
        **finite,
        "rows": found.rows,
        "trained": found.trained,
    }


register_json(Study, _study_keys)


def study(
    setting: Setting,
    *,
    ratios: Sequence[float] = (),
    samples: int = 1_000_000,
    seeds: int = 3,
    updates: int = 600,
    lr: float = 0.01,
    on_message: Callable[[str], None] = lambda line: None,
) -> Study:
    """Return a study of a setting: closed forms at some ratios rho, their simulation, and trained
    models.

    Args:
        setting: the distribution and the adversary.
        ratios: values of rho, above 0, at most 100; by default `default_ratios`.
        samples: number of simulated samples, 1 to 100,000,000.
        seeds: number of models of each kind, with seeds from 0 on, 0 to 100.
        updates: number of updates of each training, 1 to 1,000,000.
        lr: highest learning rate of each training, above 0 and at most 1.
        on_message: receives a line of progress at the start of each part.

    Raises:
        UserError: a value is out of its range.
    """
    check(setting, ratios, samples, seeds, updates, lr)
    ratios = ratios or default_ratios(setting)
    on_message(f"c = {setting.c:g}: {len(ratios)} closed forms, {samples:,} samples")
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
        on_message(f"c = {setting.c:g}: training, {classifier}, {how}")
        trained += [
            _trained(setting, classifier, method, seed, updates, lr) for seed in range(seeds)
        ]
    return Study(setting=setting, rows=tuple(rows), trained=tuple(trained))


def default_ratios(setting: Setting) -> tuple[float, ...]:
    """Return values of rho: reference ratios if c is 2 or 3, else 1 (the invariant classifier), and
    those of the Bayes rule and rho* that exceed 1."""
    if setting.c in REFERENCE_RATIOS:
        return REFERENCE_RATIOS[setting.c]
    critical = closed_forms.critical_ratio(setting)
    further = (closed_forms.best_ratio(setting), critical if critical < torch.inf else 1.0)
    return tuple(sorted({1.0, *(rho for rho in further if rho > 1)}))


def check(
    setting: Setting,
    ratios: Sequence[float],
    samples: int,
    seeds: int,
    updates: int,
    lr: float,
) -> None:
    """Check the ranges of the arguments of `study`, before any work.

    Raises:
        UserError: a value is out of its range.
    """
    if setting.d > MAX_FEATURES:
        raise UserError(f"d must be 3 to {MAX_FEATURES:,} for sampling, not {amount(setting.d)}")
    check_whole("the number of ratios, rho,", len(ratios), 0, MAX_RATIOS)
    for rho in ratios:
        if not 0 < rho <= MAX_RATIO:
            raise UserError(f"rho must be above 0 and at most {MAX_RATIO:g}, not {rho:g}")
    for name, value, least, most in (
        ("samples", samples, 1, MAX_SAMPLES),
        ("seeds", seeds, 0, MAX_SEEDS),
        ("updates", updates, 1, MAX_UPDATES),
    ):
        if not least <= value <= most:
            raise UserError(f"{name} must be {least} to {most:,}, not {amount(value)}")
    for product, size, most in (
        ("samples x d", samples * setting.d, MAX_DRAWN),
        ("seeds x updates", seeds * updates, MAX_TRAINED),
    ):
        if size > most:
            raise UserError(
                f"{product} would be {size:,}; at most {most:,} are allowed: lower one of them"
            )
    if not 0 < lr <= 1:
        raise UserError(f"lr must be above 0 and at most 1, not {lr:g}")


def above_frontier(setting: Setting, spatial: float, adversarial: float) -> float:
    """Return how far an adversarial accuracy lies above the frontier at the same spatial accuracy;
    below 0 if it lies under it.

    A spatial accuracy beyond an end of `closed_forms.frontier` is compared with that end.
    """
    xs, ys = closed_forms.frontier(setting)
    return adversarial - float(np.interp(spatial, xs.numpy(), ys.numpy()))


def _trained(
    setting: Setting,
    classifier: str,
    method: Method,
    seed: int,
    updates: int,
    lr: float,
) -> Trained:
    """Train a model, measure it, and return its ratio, loss and accuracies."""
    generator = torch.Generator().manual_seed(seed)
    model: Linear | Network
    if classifier == "linear":
        model, attacked = Linear.random(setting.d, generator=generator), NUM_TEST_SAMPLES
    else:
        model, attacked = Network(setting.d, generator=generator), NUM_ATTACKED
    train(model, setting, method, updates=updates, lr=lr, generator=generator)
    loss = final_loss(model, setting, method, generator=generator)
    (accuracies,) = simulate(
        setting, [model], n=NUM_TEST_SAMPLES, attacked=attacked, generator=generator
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
