"""Propose the trials of a search, by Optuna's samplers."""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from curricula.evaluation.pareto import Point
from curricula.sweeps.search_spec import Choices, Range, Search, Trial

RANDOM_TRIALS = 10  # trials of TPE before it uses what was measured
MAX_PROPOSALS = 10  # proposals for a trial, if the first ones have been tried already
POPULATION = 10  # trials of a generation of NSGA-II

Ending: TypeAlias = Point | Literal["pruned", "failed"] | None
"""The end of a trial: its accuracies under the objectives, or none; None if it goes on."""


def propose(search: Search, earlier: Sequence[tuple[Trial, Ending]]) -> Trial:
    """Return the values of the next trial of a search.

    They depend on the search, its seed and the earlier trials alone, so a search that was
    interrupted goes on as it would have. Several processes at once end trials in another order.

    Args:
        search: what is searched.
        earlier: values and ending of each earlier trial, in order.
    """
    distributions = {name: _distribution(one) for name, one in search.ranges.items()}
    with _silence_optuna():
        study = optuna.create_study(directions=["maximize"] * 2, sampler=_sampler(search, 0))
        for values, ending in earlier:
            study.enqueue_trial(dict(values))
            trial = study.ask(distributions)
            _ = trial.relative_params  # NSGA-II stores the trial's generation
            if isinstance(ending, tuple):
                study.tell(trial, list(ending))
            elif ending is not None:
                state = TrialState.PRUNED if ending == "pruned" else TrialState.FAIL
                study.tell(trial, state=state)
        # A new sampler: its random state is that of this trial, however many were proposed before.
        study.sampler = _sampler(search, len(earlier) + 1)
        known = [values for values, _ in earlier]
        for _ in range(MAX_PROPOSALS):
            found = _rounded(search, study.ask(distributions).params)
            if found not in known:
                break
    return found


def _rounded(search: Search, found: Mapping[str, Any]) -> Trial:
    """Return the values that Optuna proposes, in the order of the ranges, with few digits."""
    return {
        name: found[name] if isinstance(one, Choices) else one.rounded(found[name])
        for name, one in search.ranges.items()
    }


def _distribution(one: Range) -> BaseDistribution:
    """Return the range as Optuna's distribution."""
    if isinstance(one, Choices):
        return CategoricalDistribution(one.ends)
    if one.is_whole:
        step = 1 if one.step is None else int(one.step)
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=step)
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _sampler(search: Search, number: int) -> BaseSampler:
    """Return the search's sampler, seeded for the trial of the given number."""
    text = f"{search.seed},{number}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    if search.sampler == "nsga2":
        return NSGAIISampler(seed=seed, population_size=POPULATION)
    return TPESampler(
        seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, constant_liar=True
    )


@contextlib.contextmanager
def _silence_optuna() -> Iterator[None]:
    """Silence, inside the block, Optuna's log, its warning that its interface may change, and
    those of its arithmetic, which very large or small numbers cause."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
