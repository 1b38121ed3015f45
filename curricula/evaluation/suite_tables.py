"""The tables of suites: accuracies by row and column, and the mean errors of corruptions. Needs no
torch."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import attrs

from curricula.evaluation.intervals import in_percent, wilson_interval
from curricula.runtime.records import register_json
from curricula.runtime.values import check_printable


@attrs.frozen(kw_only=True)
class Position:
    """The position of a threat in the table of its suite.

    Attributes:
        suite: the suite, as it was named.
        row: name of its row, such as a corruption.
        column: name of its column; a whole number is a severity.
    """

    suite: str = attrs.field(validator=check_printable)
    row: str = attrs.field(validator=check_printable)
    column: str = attrs.field(validator=check_printable)


class Result(Protocol):
    """A result under a threat, which may be in the table of a suite."""

    @property
    def name(self) -> str: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def n(self) -> int: ...
    @property
    def position(self) -> Position | None: ...
    @property
    def draws(self) -> Any: ...


R = TypeVar("R", bound=Result)
Rows = Mapping[str, Mapping[str, Result]]
"""Results by row and column."""


@attrs.frozen(kw_only=True)
class SuiteTable:
    """The results of a suite by row and column, with those of a baseline.

    Columns that are whole numbers are severities: then rows are corruptions, and have errors.

    >>> from curricula.evaluation import ThreatResult
    >>> def result(severity, correct):
    ...     position = Position(suite="weather", row="fog", column=severity)
    ...     name = f"fog {severity}"
    ...     return ThreatResult(
    ...         name=name, threat=name, correct=correct, fooled=0, n=100, position=position
    ...     )
    >>> (table,) = tables_of(
    ...     [result("1", 90), result("2", 70)], [result("1", 80), result("2", 60)]
    ... )
    >>> round(table.mean_error, 3), round(table.normalised_mean_error, 3)
    (0.2, 0.667)

    Attributes:
        suite: the suite, as it was named.
        rows: its results, one or more.
        baseline: the results of a baseline; empty without one.
    """

    suite: str
    rows: Rows
    baseline: Rows = attrs.field(factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(dict.fromkeys(name for row in self.rows.values() for name in row))

    @property
    def has_severities(self) -> bool:
        """True if the columns are severities."""
        return all(name.isdecimal() for name in self.columns)

    @property
    def results(self) -> tuple[Result, ...]:
        """All results, row by row."""
        return tuple(result for row in self.rows.values() for result in row.values())

    @property
    def n(self) -> int:
        """Number of images."""
        return self.results[0].n

    @property
    def measure(self) -> str:
        """Name of the values in the cells: accuracy; of a random network by its majority."""
        draws = self.results[0].draws
        return "accuracy in %" + (f", majority of {draws.count:,} draws" if draws else "")

    @property
    def widest(self) -> float:
        """Largest half width of the 95 % intervals of the accuracies, in [0, 1]."""
        return max((high - low) / 2 for low, high in (each.interval for each in self.results))

    def error(self, row: str) -> float:
        """Return the mean error of a row over its columns, in [0, 1]."""
        return _error(self.rows[row])

    def normalised_error(self, row: str) -> float | None:
        """Return the errors of a row as a multiple of those of the baseline, CE of Hendrycks and
        Dietterich (2019): the sum of its errors over the severities, divided by that of the
        baseline. It is None without a baseline, and where the baseline makes no error."""
        baseline = self.baseline.get(row, {})
        if baseline.keys() != self.rows[row].keys() or not _error(baseline):
            return None
        return self.error(row) / _error(baseline)

    @property
    def mean_error(self) -> float:
        """Mean of the rows' errors, in [0, 1], unnormalised."""
        return sum(map(self.error, self.rows)) / len(self.rows)

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of the 95 % interval of `mean_error`, in [0, 1]: Wilson's (1927) for n
        images, as if all threats fooled the same ones; otherwise it is too wide."""
        return wilson_interval(self.mean_error * self.n, self.n)

    @property
    def normalised_mean_error(self) -> float | None:
        """Mean of the rows' normalised errors, mCE of Hendrycks and Dietterich (2019); None if a
        row has none."""
        errors = [self.normalised_error(row) for row in self.rows]
        known = [error for error in errors if error is not None]
        return sum(known) / len(known) if len(known) == len(errors) else None

    @property
    def column_means(self) -> list[float]:
        """Mean accuracy of each column over the rows that have it, in [0, 1]."""
        of_columns = (
            [row[column].accuracy for row in self.rows.values() if column in row]
            for column in self.columns
        )
        return [sum(accuracies) / len(accuracies) for accuracies in of_columns]

    @property
    def findings(self) -> list[str]:
        """Sentences on the mean error of severities; none for other columns."""
        if not self.has_severities:
            return []
        error = in_percent(self.mean_error, self.interval)
        lines = [
            f"mean error, unnormalised: {error} % over {len(self.rows)} corruptions and "
            f"{len(self.columns)} severities"
        ]
        if not self.baseline:
            return lines
        mean = self.normalised_mean_error
        lines.append(
            "mean error, normalised by the baseline (mCE, Hendrycks and Dietterich 2019): "
        )
        if mean is None:
            row = next(row for row in self.rows if self.normalised_error(row) is None)
            lines[-1] += f"undefined, since the baseline makes no error under {row}"
        else:
            lines[-1] += f"{100 * mean:.1f} %; that of the baseline is 100 %"
        return lines

    def as_rows(self) -> list[dict[str, Any]]:
        """Return a mapping for each row: the suite, the row, the accuracy in each column and, of
        severities, the errors."""
        return [
            {
                "suite": self.suite,
                "row": name,
                **{
                    column: row[column].accuracy if column in row else None
                    for column in self.columns
                },
                **(
                    {"error": self.error(name), "normalised_error": self.normalised_error(name)}
                    if self.has_severities
                    else {}
                ),
            }
            for name, row in self.rows.items()
        ]


register_json(
    SuiteTable,
    lambda table: {
        "suite": table.suite,
        "n": table.n,
        "rows": table.as_rows(),
        **(
            {
                "mean_error": table.mean_error,
                "interval_95": table.interval,
                "normalised_mean_error": table.normalised_mean_error,
            }
            if table.has_severities
            else {}
        ),
    },
)


def tables_of(results: Iterable[Result], baseline: Iterable[Result] = ()) -> tuple[SuiteTable, ...]:
    """Return the table of each suite that has one.

    Args:
        results: results under threats.
        baseline: results of a baseline under the same threats.
    """
    of_baseline = _by_suite(baseline)
    return tuple(
        SuiteTable(suite=suite, rows=rows, baseline=of_baseline.get(suite, {}))
        for suite, rows in _by_suite(results).items()
    )


def severity_tables(results: Iterable[Result]) -> tuple[SuiteTable, ...]:
    """Return the tables whose columns are severities.

    They have too many results to show each on a line or in a column; show their mean instead.
    """
    return tuple(table for table in tables_of(results) if table.has_severities)


def outside_tables(results: Iterable[R]) -> list[R]:
    """Return the results that are in no suite's table."""
    return [result for result in results if result.position is None]


def _by_suite(results: Iterable[Result]) -> dict[str, dict[str, dict[str, Result]]]:
    """Return the results that have a position by suite, row and column."""
    found: dict[str, dict[str, dict[str, Result]]] = {}
    for result in results:
        if result.position is not None:
            where = result.position
            found.setdefault(where.suite, {}).setdefault(where.row, {})[where.column] = result
    return found


def _error(row: Mapping[str, Result]) -> float:
    """Return the mean error over the columns of a row."""
    return sum(1 - result.accuracy for result in row.values()) / len(row)
