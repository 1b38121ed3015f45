"""Compare runs: accuracies over seeds, the Pareto frontier of two accuracies, and the cost.

`curricula.sweeps.collect` builds a comparison from folders. Neither needs torch.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import attrs

from curricula.errors import UserError
from curricula.evaluation.intervals import in_percent, seeds_interval
from curricula.evaluation.pareto import Point, dominates, hypervolume, on_frontier
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.suite_tables import severity_tables
from curricula.runtime.records import register_json
from curricula.runtime.tables import frame_of_rows, html_table
from curricula.training.metrics import in_millions

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

MAX_SHOWN = 3  # labels in the repr of a comparison


def mean_and_deviation(fractions: Sequence[float]) -> str:
    """Return the mean of fractions and their standard deviation in %, as text; of a single one the
    value."""
    spread = f" ± {100 * stdev(fractions):.1f}" if len(fractions) > 1 else ""
    return f"{100 * mean(fractions):.1f}{spread}"


@attrs.frozen(kw_only=True)
class Outcome:
    """Results of one run's final evaluation, and what its training cost.

    Attributes:
        folder: the run folder.
        seed: the seed of its training; None for a model that was only measured.
        configuration: its configuration without the seed and the data's folder, with the hashes of
            its training and validation images, as JSON.
        results: results of its final evaluation, by threat.
        images: name of the images that the results were measured on.
        fingerprint: hash of these images; None if the run does not have it.
        passes: images that went forward and backward through its networks in training; None for a
            model that was only measured.
        seconds: wall time of training and validation; None likewise.
        images_correct: a bool array by threat that is True for each image classified correctly;
            empty if the run does not have its predictions.
    """

    folder: Path
    seed: int | None
    configuration: str
    results: Mapping[str, ThreatResult]
    images: str
    passes: int | None
    seconds: float | None
    fingerprint: str | None = None
    images_correct: Mapping[str, "NDArray[Any]"] = attrs.field(factory=dict, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class Row:
    """A group of runs that differ only in the seed, shown as one row of a comparison.

    Attributes:
        label: the row's name.
        outcomes: results and cost of the runs, one per seed.
        failures: reason of each failed run, by cell.
        short: a shorter name, for figures; empty if there is none.
    """

    label: str
    outcomes: tuple[Outcome, ...] = ()
    failures: Mapping[str, str] = attrs.field(factory=dict)
    short: str = ""

    @property
    def name(self) -> str:
        """The row's name in a figure."""
        return self.short or self.label

    @property
    def configuration(self) -> str:
        """Configuration of the row's first run, as JSON; ``auto`` can have resolved differently in
        others."""
        return self.outcomes[0].configuration

    def with_more(
        self, outcomes: Sequence[Outcome] = (), failures: Mapping[str, str] | None = None
    ) -> "Row":
        """Return the row with the outcomes of seeds that it does not have yet, and with more
        failures."""
        seeds = {outcome.seed for outcome in self.outcomes}
        added = (outcome for outcome in outcomes if outcome.seed not in seeds)
        return attrs.evolve(
            self,
            outcomes=(*self.outcomes, *added),
            failures={**self.failures, **(failures or {})},
        )

    def contradicts(self, other: "Row") -> bool:
        """Return whether a run of another row has a seed of this one, but other results."""
        own = {outcome.seed: outcome.results for outcome in self.outcomes}
        return any(
            outcome.seed in own and own[outcome.seed] != outcome.results
            for outcome in other.outcomes
        )

    def accuracies(self, threat: str) -> list[float]:
        """Return the accuracies under a threat, in [0, 1], one per seed."""
        return [outcome.results[threat].accuracy for outcome in self.outcomes]

    def mean(self, threat: str) -> float:
        """Return the mean accuracy over the seeds, in [0, 1], exactly rounded: equal means compare
        equal."""
        results = (outcome.results[threat] for outcome in self.outcomes)
        return float(mean(Fraction(result.correct, result.n) for result in results))

    def deviation(self, threat: str) -> float | None:
        """Return the sample standard deviation of the accuracy over the seeds, in [0, 1]; None for
        one seed."""
        found = self.accuracies(threat)
        return stdev(found) if len(found) > 1 else None

    def interval(self, threat: str) -> tuple[float, float]:
        """Return the lower and the upper end, in [0, 1], of the 95 % interval of the mean accuracy
        over seeds and images (`seeds_interval`), or of the accuracy of a single seed (Wilson 1927).
        """
        results = [outcome.results[threat] for outcome in self.outcomes]
        by_image = [outcome.images_correct.get(threat) for outcome in self.outcomes]
        known = [each for each in by_image if each is not None]
        images_SN = None
        if len(known) == len(results):
            import numpy as np  # here: results without predictions need none

            images_SN = np.stack(known)
        return seeds_interval(
            [result.correct for result in results], results[0].n, images_SN=images_SN
        )

    def shown_mean(self, threats: Sequence[str]) -> str:
        """Return the mean of the accuracies under some threats in %, as text: mean and standard
        deviation over seeds, or the value of a single seed."""
        found = [
            mean(of_threats) for of_threats in zip(*map(self.accuracies, threats), strict=True)
        ]
        return mean_and_deviation(found)

    def shown(self, threat: str) -> str:
        """Return the accuracy under a threat in %, as text: mean and standard deviation over seeds,
        or the value and interval of a single seed."""
        deviation = self.deviation(threat)
        if deviation is None:
            return in_percent(self.mean(threat), self.interval(threat))
        return f"{100 * self.mean(threat):.1f} ± {100 * deviation:.1f}"

    @property
    def passes(self) -> float | None:
        """Mean number of images passed forward and backward in a run's training; None for a model
        that was only measured."""
        return _mean(outcome.passes for outcome in self.outcomes)

    @property
    def minutes(self) -> float | None:
        """Mean wall time of a run's training and validation, in minutes; None for a model that was
        only measured."""
        seconds = _mean(outcome.seconds for outcome in self.outcomes)
        return None if seconds is None else seconds / 60


@attrs.frozen(kw_only=True)
class PrunedRun:
    """A run whose training a search ended, since it was poor: it has no results.

    Attributes:
        label: its row's name.
        epoch: number of its last epoch.
        epochs: number of epochs that it would have had.
        passes: images that went forward and backward through its networks in training.
        seconds: wall time of training and validation.
    """

    label: str
    epoch: int
    epochs: int
    passes: int
    seconds: float


@attrs.frozen(kw_only=True, repr=False)
class Comparison:
    """Rows of runs to compare, with the Pareto frontier of two of their accuracies.

    Attributes:
        rows: rows with at least one outcome.
        failed: rows whose runs all failed.
        pruned: runs whose training a search ended.
        pending: number of sweep cells that have not been run yet.
        threats: expressions by name; the same for all rows.
        axes: names of the two threats of the frontier.
        reference: reference point of the hypervolume, in the order of ``axes``.
    """

    rows: tuple[Row, ...]
    failed: tuple[Row, ...] = ()
    pruned: tuple[PrunedRun, ...] = ()
    pending: int = 0
    threats: Mapping[str, str]
    axes: tuple[str, str]
    reference: Point = (0.0, 0.0)

    def point(self, row: Row) -> Point:
        """Return a row's mean accuracies under the two threats of ``axes``, in [0, 1]."""
        return row.mean(self.axes[0]), row.mean(self.axes[1])

    @property
    def on_frontier(self) -> list[bool]:
        """True for each row on the Pareto frontier, False for each that another row dominates; in
        the order of the rows."""
        return on_frontier([self.point(row) for row in self.rows])

    def dominated_by(self, row: Row) -> list[str]:
        """Return the labels of the rows that dominate the given one: at least as good in both
        accuracies, and better in one."""
        point = self.point(row)
        return [other.label for other in self.rows if dominates(self.point(other), point)]

    @property
    def hypervolume(self) -> float:
        """Area that all rows together dominate, above the reference point."""
        return hypervolume([self.point(row) for row in self.rows], self.reference)

    def legend(self, mark: str) -> str:
        """Return what the mark of a row on the frontier and the hypervolume mean, in two sentences.

        Args:
            mark: the mark, such as ``*``.
        """
        x, y = self.axes
        corner = ", ".join(f"{share:g}" for share in self.reference)
        return (
            f"{mark} is on the Pareto frontier: no other row is as good in both {x} and {y} "
            f"accuracy, and better in one. The hypervolume, {self.hypervolume:.4f}, is the area "
            f"between ({corner}) and this frontier, for accuracies in [0, 1]: the larger, the "
            "better."
        )

    @property
    def severities(self) -> dict[str, list[str]]:
        """Names of the threats in each suite's table of severities, by the suite."""
        results = self.rows[0].outcomes[0].results.values() if self.rows else ()
        return {
            table.suite: [result.name for result in table.results]
            for table in severity_tables(results)
        }

    @property
    def shown_threats(self) -> list[str]:
        """Names of the threats with a column in a table of texts: all but those in a suite's table
        of severities, of which only the ones of the frontier have."""
        hidden = {name for names in self.severities.values() for name in names}
        return [name for name in self.threats if name not in hidden or name in self.axes]

    @property
    def header(self) -> list[str]:
        """Headings of the columns of `Comparison.lines`."""
        means = [f"{suite}, mean" for suite in self.severities]
        return ["", "seeds", *self.shown_threats, *means, "passes, M", "min"]

    @property
    def lines(self) -> list[list[str]]:
        """Texts of each row's cells: label, seeds, accuracies in %, their means over the severities
        of a suite, millions of passes, minutes."""
        threats, severities = self.shown_threats, self.severities.values()  # the same for all rows
        return [
            [
                row.label,
                "" if row.outcomes[0].seed is None else str(len(row.outcomes)),
                *map(row.shown, threats),
                *map(row.shown_mean, severities),
                "" if row.passes is None else in_millions(row.passes),
                "" if row.minutes is None else f"{row.minutes:.1f}",
            ]
            for row in self.rows
        ]

    @property
    def pruned_lines(self) -> list[list[str]]:
        """Table lines of the pruned runs, with the columns of `Comparison.lines` and no
        accuracies."""
        return [
            [
                f"{run.label} (pruned after epoch {run.epoch} of {run.epochs})",
                "1",
                *("" for _ in (*self.shown_threats, *self.severities)),
                in_millions(run.passes),
                f"{run.seconds / 60:.1f}",
            ]
            for run in self.pruned
        ]

    @property
    def failed_cells(self) -> list[dict[str, str]]:
        """Label, name and reason of failure of each cell that failed."""
        return [
            {"label": row.label, "cell": cell, "reason": reason}
            for row in (*self.rows, *self.failed)
            for cell, reason in row.failures.items()
        ]

    @property
    def failures(self) -> list[str]:
        """One line of text for each cell that failed."""
        return [f"{found['cell']} failed: {found['reason']}" for found in self.failed_cells]

    @property
    def unfinished(self) -> list[str]:
        """One line of text for each cell that failed, and one for all cells that have not been
        run."""
        if not self.pending:
            return self.failures
        cells = "1 cell has" if self.pending == 1 else f"{self.pending} cells have"
        return [*self.failures, f"{cells} not been run yet"]

    def sorted(self, column: str) -> "Comparison":
        """Return the comparison sorted by ``label``, ``passes`` or ``minutes`` (lowest first), or
        by a threat (highest first).

        Raises:
            UserError: an unknown column.
        """
        keys: dict[str, Callable[[Row], Any]] = {
            "label": lambda row: row.label,
            "passes": lambda row: row.passes or 0,
            "minutes": lambda row: row.minutes or 0,
            **{name: _descending(name) for name in self.threats},
        }
        if column not in keys:
            raise UserError(f"sort: no column {column!r}; there is {', '.join(keys)}")
        return attrs.evolve(self, rows=tuple(sorted(self.rows, key=keys[column])))

    def records(self) -> list[dict[str, Any]]:
        """Return a flat dict for each row, for JSON and CSV; accuracies are in [0, 1]."""
        found = []
        for row, front in zip(self.rows, self.on_frontier, strict=True):
            record: dict[str, Any] = {
                "label": row.label,
                "seeds": " ".join(
                    str(outcome.seed) for outcome in row.outcomes if outcome.seed is not None
                ),
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

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the comparison as a data frame with a row per row, and accuracies in [0, 1].

        Raises:
            UserError: pandas is not installed.
        """
        return frame_of_rows(self.records())

    def __repr__(self) -> str:
        labels = ", ".join(map(repr, (row.label for row in self.rows[:MAX_SHOWN])))
        more = f" and {len(self.rows) - MAX_SHOWN:,} more" if len(self.rows) > MAX_SHOWN else ""
        return f"Comparison({labels}{more}; under {', '.join(self.threats)})"

    def _repr_html_(self) -> str:
        marks = ["★" if front else "" for front in self.on_frontier]
        lines = [*zip(self.lines, marks, strict=True), *((line, "") for line in self.pruned_lines)]
        return html_table(
            "Comparison, accuracy in %",
            [*self.header, "frontier"],
            [[*line, mark] for line, mark in lines],
            note=f"{self.legend('★') if self.rows else ''} {' '.join(self.unfinished)}".strip(),
        )

    def as_csv(self) -> str:
        """Return the comparison as CSV: a header, and one line for each row."""
        stream = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(stream, fieldnames=list(records[0]) if records else ["label"])
        writer.writeheader()
        writer.writerows(records)
        return stream.getvalue()


register_json(
    Comparison,
    lambda compared: {
        "threats": compared.threats,
        "frontier_of": compared.axes,
        "reference": compared.reference,
        "hypervolume": compared.hypervolume,
        "rows": compared.records(),
        "pruned": compared.pruned,
        "pending": compared.pending,
        "failed": compared.failed_cells,
    },
)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of some numbers; None if one is missing."""
    found = list(values)
    known = [value for value in found if value is not None]
    return mean(known) if len(known) == len(found) else None


def _descending(threat: str) -> Callable[[Row], float]:
    return lambda row: -row.mean(threat)
