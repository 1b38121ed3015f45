"""From the folders of runs and sweeps to a comparison of them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from curricula.errors import UserError
from curricula.evaluation.pareto import Point
from curricula.sweeps.comparison import Comparison, Outcome, Row
from curricula.sweeps.runner import CELLS, FAILURE, sweep_in
from curricula.sweeps.spec import FRONTIER, Sweep
from curricula.training.config import SplitName, TrainConfig, images_of
from curricula.training.pass_counter import forward_and_backward
from curricula.training.run import METRICS, RESULTS, TIMING, Run

NOT_COMPARED = ("seed", "data_root")  # runs that differ in these alone are one row


def compare(
    paths: Sequence[str | Path],
    *,
    axes: tuple[str, str] | None = None,
    reference: Point = (0.0, 0.0),
    split: SplitName = "test",
) -> Comparison:
    """Runs and sweeps side by side, by what they have measured.

    Args:
        paths: folders of runs or of sweeps.
        axes: names of the two threats whose frontier is asked for; by default those that the first
            sweep names, else spatial and adversarial.
        reference: of the hypervolume.
        split: of the data set that they were measured on; a sweep says so itself.

    Raises:
        UserError: a folder that is neither, a run that was not measured, runs that were measured
            under different threats, or on images of different data sets or parts, an unknown name
            in ``axes`` or one twice, a reference that is no pair of accuracies.
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
    for member in (member for path in folders for member in _members(path, sweeps[path], split)):
        place = (member.parent, member.label)
        row = found.setdefault(place, Row(label=member.label))
        failure = Run(member.folder).read_json(FAILURE)
        if failure is not None:
            found[place] = row.with_more(failures={member.name: failure["reason"]})
        elif (member.folder / RESULTS[member.split]).exists():
            outcome = _outcome(Run.open(member.folder), member.split)
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
    split: SplitName
    of_sweep: bool


def _members(path: Path, sweep: Sweep | None, split: SplitName) -> Iterator[_Member]:
    """The runs of a sweep's folder, or the one run that a folder is."""
    if sweep is None:
        Run.open(path)
        yield _Member(
            label=str(path), name=str(path), parent=path, folder=path, split=split, of_sweep=False
        )
        return
    for cell in sweep.cells:
        yield _Member(
            label=sweep.row(cell) or str(path),
            name=cell.name,
            parent=path,
            folder=path / CELLS / cell.name,
            split=sweep.split,
            of_sweep=True,
        )


def _outcome(run: Run, split: SplitName) -> Outcome:
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
        results={result.name: result for result in run.measured(split)},
        images=images_of(config.data, split),
        passes=passes,
        seconds=seconds,
    )


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
