"""Keep the results of suites in a run's folder, and read them. Needs no torch."""

from collections.abc import Iterable, Mapping

import attrs

from curricula.errors import printable
from curricula.evaluation.results import Evaluation, ThreatResult, check_results
from curricula.evaluation.suite_tables import SuiteTable, tables_of
from curricula.runtime.locks import LOCK, exclusive
from curricula.runtime.records import to_json
from curricula.runtime.values import check_printable
from curricula.training.run import SUITES, Run


def _results(found: Iterable[ThreatResult]) -> tuple[ThreatResult, ...]:
    return tuple(found)


@attrs.frozen(kw_only=True)
class StoredSuite:
    """The last results of a suite with a table, as a run's folder keeps them.

    Attributes:
        checkpoint, seed: what was measured, and the seed of the random draws.
        weights: digest of the checkpoint then; empty if the file does not say it.
        results: results in the table, one or more.
        baseline: path of the baseline's run, if one was measured.
        baseline_results: its results.
        baseline_weights: digest of its checkpoint then; empty if the file does not say it.
    """

    checkpoint: str = attrs.field(validator=check_printable)
    seed: int
    results: tuple[ThreatResult, ...] = attrs.field(converter=_results)
    baseline: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(check_printable)
    )
    baseline_results: tuple[ThreatResult, ...] = attrs.field(default=(), converter=_results)
    weights: str = attrs.field(default="", validator=check_printable)
    baseline_weights: str = attrs.field(default="", validator=check_printable)

    def __attrs_post_init__(self) -> None:
        check_results(self.results)
        if any(result.position is None for result in (*self.results, *self.baseline_results)):
            raise ValueError("each result must have a position")
        for results in (self.results, self.baseline_results):
            if len({result.position for result in results}) < len(results):
                raise ValueError("two results have the same position")
        measured = {
            (result.n, result.draws.count if result.draws else None)
            for result in (*self.results, *self.baseline_results)
        }
        if len(measured) > 1:
            raise ValueError("all results must be of equally many images and draws")

    @property
    def tables(self) -> tuple[SuiteTable, ...]:
        """The tables of the results: one."""
        return tables_of(self.results, self.baseline_results)


@attrs.frozen(kw_only=True)
class StoredSuites:
    """The contents of ``suites.json``: the last results of each suite by its name."""

    suites: Mapping[str, StoredSuite]


def read_suites(run: Run) -> Mapping[str, StoredSuite]:
    """Return the last results of each suite that a run was measured under, by its name.

    Raises:
        UserError: the file is damaged.
    """
    stored = run.read(SUITES, StoredSuites)
    return stored.suites if stored else {}


def write_suites(
    run: Run,
    found: Evaluation,
    *,
    checkpoint: str,
    seed: int,
    beside: Run | None,
    weights: str = "",
    baseline_weights: str = "",
) -> None:
    """Write the results of an evaluation that are in the tables of suites into a run's folder, and
    keep those of other suites there.

    Args:
        run: the run.
        found: the evaluation.
        checkpoint, seed, weights, baseline_weights: as in `StoredSuite`.
        beside: the run that its baseline was measured on, if any.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    baseline = found.baseline.results if found.baseline else ()
    new = {
        table.suite: StoredSuite(
            checkpoint=checkpoint,
            seed=seed,
            weights=weights,
            results=_of_suite(table.suite, found.results),
            baseline=None if beside is None else printable(str(beside.path)),
            baseline_results=_of_suite(table.suite, baseline),
            baseline_weights=baseline_weights,
        )
        for table in found.tables
    }
    # Another process may have measured another suite.
    with exclusive(run.path, wait=True, lock=f".{SUITES}{LOCK}"):
        run.write_json(SUITES, to_json(StoredSuites(suites={**read_suites(run), **new})))


def _of_suite(suite: str, results: Iterable[ThreatResult]) -> list[ThreatResult]:
    return [each for each in results if each.position and each.position.suite == suite]
