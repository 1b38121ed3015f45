"""Runs side by side: accuracies over seeds, the frontier of two of them, what each cost."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import attrs

from curricula.errors import UserError
from curricula.evaluation.accuracy import Measured, in_percent, wilson_interval
from curricula.evaluation.frontier import Point, dominates, frontier, hypervolume
from curricula.expression import Call, parse_call
from curricula.sweeps.definition import FRONTIER, Sweep
from curricula.sweeps.running import CELLS, FAILURE, sweep_in
from curricula.training.config import Part, TrainConfig
from curricula.training.passes import forward_and_backward, in_millions
from curricula.training.run import METRICS, RESULTS, TIMING, Run

TRAINING_IMAGES = "images"  # of a data set's expression: how many
NOT_COMPARED = ("seed", "data_root")  # runs that differ in these alone are one row


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
    results: Mapping[str, Measured]
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


def compare(
    paths: Sequence[str | Path],
    *,
    axes: tuple[str, str] | None = None,
    reference: Point = (0.0, 0.0),
    part: Part = "test",
) -> Comparison:
    """Runs and sweeps side by side, by what they have measured.

    Args:
        paths: folders of runs or of sweeps.
        axes: names of the two threats whose frontier is asked for; by default those that the first
            sweep names, else spatial and adversarial.
        reference: of the hypervolume.
        part: of the data set that they were measured on; a sweep says so itself.

    Raises:
        UserError: a folder that is neither, a run that was not measured, runs that were measured
            under different threats or on different images, an unknown name in ``axes`` or one
            twice, a reference that is no pair of accuracies.
    """
    if not all(0 <= value <= 1 for value in reference):
        raise UserError(f"reference must be two accuracies, each from 0 to 1, not {reference}")
    if axes is not None and axes[0] == axes[1]:
        raise UserError(f"the frontier is of two different threats, not {axes[0]!r} twice")
    folders = [Path(path) for path in paths]
    sweeps = {path: sweep_in(path) for path in folders}
    axes = axes or next((sweep.frontier for sweep in sweeps.values() if sweep), FRONTIER)
    found: dict[tuple[Path, str], Row] = {}
    threats: dict[str, str] = {}
    pending = 0
    for member in (member for path in folders for member in _members(path, sweeps[path], part)):
        place = (member.parent, member.label)
        row = found.setdefault(place, Row(label=member.label))
        failure = Run(member.folder).read_json(FAILURE)
        if failure is not None:
            found[place] = row.with_more(failures={member.name: failure["reason"]})
        elif (member.folder / RESULTS[member.part]).exists():
            outcome = _outcome(Run.open(member.folder), member.part)
            _check_alike(threats, outcome)
            found[place] = row.with_more([outcome])
        elif member.of_sweep:
            pending += 1
        else:
            raise UserError(f"run {member.folder} was not measured; let its training finish")
    for name in axes:
        if threats and name not in threats:
            raise UserError(f"no threat is called {name!r}; there is {', '.join(threats)}")
    rows = _told_apart(_joined(found))
    return Comparison(
        rows=tuple(row for row in rows if row.outcomes),
        failed=tuple(row for row in rows if row.failures and not row.outcomes),
        pending=pending,
        threats=threats,
        axes=axes,
        reference=reference,
    )


def _joined(found: Mapping[tuple[Path, str], Row]) -> list[tuple[Path, Row]]:
    """Rows with where they were first found; those of one configuration are one row, but for those
    to which one sweep gives different names."""
    joined: list[tuple[list[Path], Row]] = []
    for (parent, _), row in found.items():
        for at, (parents, other) in enumerate(joined):
            alike = row.outcomes and other.outcomes and row.configuration == other.configuration
            if alike and parent not in parents:
                joined[at] = ([*parents, parent], other.with_more(row.outcomes, row.failures))
                break
        else:
            joined.append(([parent], row))
    return [(parents[0], row) for parents, row in joined]


def _told_apart(found: Sequence[tuple[Path, Row]]) -> list[Row]:
    """Rows of several sweeps; those of equal labels are called by their sweeps too."""
    times = Counter(row.label for _, row in found)
    return [
        attrs.evolve(row, label=f"{row.label} ({parent})") if times[row.label] > 1 else row
        for parent, row in found
    ]


@attrs.frozen(kw_only=True)
class _Member:
    label: str
    name: str
    parent: Path
    folder: Path
    part: Part
    of_sweep: bool


def _members(path: Path, sweep: Sweep | None, part: Part) -> Iterator[_Member]:
    """The runs of a sweep's folder, or the one run that a folder is."""
    if sweep is None:
        Run.open(path)
        yield _Member(
            label=str(path), name=str(path), parent=path, folder=path, part=part, of_sweep=False
        )
        return
    for cell in sweep.cells:
        yield _Member(
            label=sweep.row(cell) or str(path),
            name=cell.name,
            parent=path,
            folder=path / CELLS / cell.name,
            part=sweep.part,
            of_sweep=True,
        )


def _outcome(run: Run, part: Part) -> Outcome:
    for file in (TIMING, METRICS):
        if not (run.path / file).exists():
            raise UserError(f"run {run.path}: its {file} is gone, which has what training cost")
    with run.reading(METRICS):
        passes = forward_and_backward(run.lines(METRICS))
    with run.reading(TIMING):
        seconds = sum(
            line["training_seconds"] + line["validation_seconds"]
            for line in run.lines(TIMING)
            if "epoch" in line
        )
    config = run.config
    return Outcome(
        folder=run.path,
        seed=config.seed,
        configuration=_less_the_seed(config),
        results={result.name: result for result in run.measured(part)},
        images=_images(parse_call(config.data), part),
        passes=passes,
        seconds=seconds,
    )


def _images(data: Call, part: Part) -> str:
    """The part of a data set. Of those for the test there are as many however many train."""
    if part == "test":
        kept = tuple(argument for argument in data.arguments if argument.key != TRAINING_IMAGES)
        data = attrs.evolve(data, arguments=kept)
    return f"{part} images of {data}"


def _check_alike(threats: dict[str, str], outcome: Outcome) -> None:
    """Refuse a run that was measured otherwise than those before it, of which ``threats`` tells."""
    found = {
        name: f"{result.threat} on {result.n:,} {outcome.images}"
        for name, result in outcome.results.items()
    }
    if not threats:
        threats |= found
    for name in {**threats, **found}:
        if found.get(name) != threats.get(name):
            raise UserError(
                f"run {outcome.folder} was measured otherwise than those before it ({name}: "
                f"{found.get(name, 'not')}; before: {threats.get(name, 'not')}); "
                "measure all alike, in one sweep"
            )


def _less_the_seed(config: TrainConfig) -> str:
    values = attrs.asdict(config)
    return json.dumps({name: values[name] for name in values if name not in NOT_COMPARED})
