"""Runs side by side: accuracies over seeds, the frontier of two of them, what each cost.

`curricula.sweeps.collect` makes a comparison of folders.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import attrs

from curricula.errors import UserError
from curricula.evaluation.pareto import Point, dominates, frontier, hypervolume
from curricula.evaluation.results import ThreatResult, in_percent, wilson_interval
from curricula.training.pass_counter import in_millions


@attrs.frozen(kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        folder: of the run.
        seed: of its training.
        configuration: of its training, less the seed and where its data lie; JSON.
        results: by threat.
        images: which these were measured on.
        passes: how many images went through its networks forward and backward in training.
        seconds: of training, its validation included.
    """

    folder: Path
    seed: int
    configuration: str
    results: Mapping[str, ThreatResult]
    images: str
    passes: int
    seconds: float


@attrs.frozen(kw_only=True)
class Row:
    """Runs that differ in the seed alone.

    Attributes:
        label: what tells them from the others.
        outcomes: one a seed.
        failures: why the others have none, by cell.
    """

    label: str
    outcomes: tuple[Outcome, ...] = ()
    failures: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def configuration(self) -> str:
        """Of the first outcome; what ``auto`` became on its machine may differ in another."""
        return self.outcomes[0].configuration

    def with_more(
        self, outcomes: Sequence[Outcome] = (), failures: Mapping[str, str] | None = None
    ) -> "Row":
        """With outcomes of further seeds, and failures."""
        seeds = {outcome.seed for outcome in self.outcomes}
        fresh = (outcome for outcome in outcomes if outcome.seed not in seeds)
        return attrs.evolve(
            self,
            outcomes=(*self.outcomes, *fresh),
            failures={**self.failures, **(failures or {})},
        )

    def accuracies(self, threat: str) -> list[float]:
        """Under a threat, one a seed."""
        return [outcome.results[threat].accuracy for outcome in self.outcomes]

    def mean(self, threat: str) -> float:
        """Over the seeds, exactly rounded: equal means compare equal."""
        results = (outcome.results[threat] for outcome in self.outcomes)
        return float(mean(Fraction(result.correct, result.n) for result in results))

    def deviation(self, threat: str) -> float | None:
        """The sample's standard deviation over the seeds; None of one seed."""
        found = self.accuracies(threat)
        return stdev(found) if len(found) > 1 else None

    def interval(self, threat: str) -> tuple[float, float]:
        """The 95 % interval (Wilson 1927) of the accuracy of these very models, all their test
        images counted together; it says nothing of other seeds."""
        results = [outcome.results[threat] for outcome in self.outcomes]
        return wilson_interval(sum(r.correct for r in results), sum(r.n for r in results))

    def shown(self, threat: str) -> str:
        """The mean in %, with the standard deviation over seeds, or the interval of one."""
        deviation = self.deviation(threat)
        if deviation is None:
            return in_percent(self.mean(threat), self.interval(threat))
        return f"{100 * self.mean(threat):.1f} ± {100 * deviation:.1f}"

    @property
    def passes(self) -> float:
        """Mean of the outcomes'."""
        return mean(outcome.passes for outcome in self.outcomes)

    @property
    def minutes(self) -> float:
        """Mean of training."""
        return mean(outcome.seconds for outcome in self.outcomes) / 60


@attrs.frozen(kw_only=True)
class Comparison:
    """Rows, and the frontier of two of their accuracies.

    Attributes:
        rows: that have an outcome.
        failed: that have none.
        pending: cells of sweeps that have not been run yet.
        threats: expressions by name; the same for all rows.
        axes: the names of the two whose frontier is drawn.
        reference: of the hypervolume, in the same order.
    """

    rows: tuple[Row, ...]
    failed: tuple[Row, ...] = ()
    pending: int = 0
    threats: Mapping[str, str]
    axes: tuple[str, str]
    reference: Point = (0.0, 0.0)

    def point(self, row: Row) -> Point:
        """Its two mean accuracies."""
        return row.mean(self.axes[0]), row.mean(self.axes[1])

    @property
    def frontier(self) -> list[bool]:
        """Of each row, whether no other dominates it."""
        return frontier([self.point(row) for row in self.rows])

    def dominated_by(self, row: Row) -> list[str]:
        """Labels of the rows that are at least as good in both, and better in one."""
        point = self.point(row)
        return [other.label for other in self.rows if dominates(self.point(other), point)]

    @property
    def hypervolume(self) -> float:
        """Of all rows together."""
        return hypervolume([self.point(row) for row in self.rows], self.reference)

    @property
    def header(self) -> list[str]:
        """Of the columns of `lines`."""
        return ["", "seeds", *self.threats, "passes, M", "min"]

    @property
    def lines(self) -> list[list[str]]:
        """Each row as text: its label, seeds, accuracies in %, millions of passes, minutes."""
        return [
            [
                row.label,
                str(len(row.outcomes)),
                *map(row.shown, self.threats),
                in_millions(row.passes),
                f"{row.minutes:.1f}",
            ]
            for row in self.rows
        ]

    def _failed_cells(self) -> list[dict[str, str]]:
        return [
            {"label": row.label, "cell": cell, "reason": reason}
            for row in (*self.rows, *self.failed)
            for cell, reason in row.failures.items()
        ]

    @property
    def failures(self) -> list[str]:
        """A line on each cell that has failed."""
        return [f"{found['cell']} failed: {found['reason']}" for found in self._failed_cells()]

    @property
    def unfinished(self) -> list[str]:
        """A line on each cell that has failed, and one on those that have not been run."""
        pending = [f"{self.pending} cells have not been run yet"] if self.pending else []
        return [*self.failures, *pending]

    def sorted(self, column: str) -> "Comparison":
        """The same, the best first: by ``label``, ``passes``, ``minutes`` (the least first) or a
        threat (the highest first).

        Raises:
            UserError: no such column.
        """
        keys: dict[str, Callable[[Row], Any]] = {
            "label": lambda row: row.label,
            "passes": lambda row: row.passes,
            "minutes": lambda row: row.minutes,
            **{name: _falling(name) for name in self.threats},
        }
        if column not in keys:
            raise UserError(f"sort: no column {column!r}; there is {', '.join(keys)}")
        return attrs.evolve(self, rows=tuple(sorted(self.rows, key=keys[column])))

    def records(self) -> list[dict[str, Any]]:
        """A flat record a row, for JSON and CSV."""
        found = []
        for row, front in zip(self.rows, self.frontier, strict=True):
            record: dict[str, Any] = {
                "label": row.label,
                "seeds": " ".join(str(outcome.seed) for outcome in row.outcomes),
            }
            for name in self.threats:
                low, high = row.interval(name)
                record |= {
                    name: row.mean(name),
                    f"{name}_sd": row.deviation(name),
                    f"{name}_low": low,
                    f"{name}_high": high,
                }
            own = hypervolume([self.point(row)], self.reference)
            record |= {"passes": row.passes, "minutes": row.minutes}
            record |= {"frontier": front, "hypervolume": own}
            found.append(record)
        return found

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "threats": dict(self.threats),
            "frontier_of": list(self.axes),
            "reference": list(self.reference),
            "hypervolume": self.hypervolume,
            "rows": self.records(),
            "pending": self.pending,
            "failed": self._failed_cells(),
        }

    def as_csv(self) -> str:
        """A line a row, with a header."""
        stream = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(stream, fieldnames=list(records[0]) if records else ["label"])
        writer.writeheader()
        writer.writerows(records)
        return stream.getvalue()


def _falling(threat: str) -> Callable[[Row], float]:
    return lambda row: -row.mean(threat)
