"""Collect the results of run and sweep folders into a comparison. Needs no torch."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import attrs

from curricula.errors import UserError, prefixed_errors, printable, shortened, shown
from curricula.evaluation.pareto import Point
from curricula.expressions.given import is_given
from curricula.expressions.model_files import FILE, parts_of
from curricula.expressions.syntax import calls, parse
from curricula.plugins.registry import command_line
from curricula.runtime.values import as_path, check_choice, known_keywords
from curricula.sweeps.comparison import Comparison, Outcome, PrunedRun, Row
from curricula.sweeps.folder import CELLS, FAILURE, PRUNED, SEARCH, Failure, Pruned, sweep_in
from curricula.sweeps.search_spec import AXIS
from curricula.sweeps.spec import FRONTIER_OF, Sweep
from curricula.training.config import SplitName, TrainConfig, images_of
from curricula.training.metrics import EpochTimes, forward_and_backward
from curricula.training.predictions import read_evaluation
from curricula.training.run import CONFIG, DATA, METRICS, RESULTS, TIMING, Run, holds

IGNORED_FIELDS = ("seed", "data_root")  # runs that differ only in these share a row


@known_keywords()
def compare(
    paths: str | Path | Sequence[str | Path],
    *,
    axes: tuple[str, str] | None = None,
    reference: Point = (0.0, 0.0),
    split: SplitName = "test",
) -> Comparison:
    """Return a comparison of the runs and sweeps in some folders, from their stored results.

    Args:
        paths: folders of runs or of sweeps, or a single one.
        axes: names of the two threats of the Pareto frontier; by default those that the first sweep
            names, else spatial and adversarial.
        reference: reference point of the hypervolume: two accuracies, in [0, 1].
        split: split of the data set that the runs were measured on; a sweep names its own.

    Raises:
        UserError: a folder that is neither a run nor a sweep; a run without results; runs measured
            under different threats or on different images; an unknown or repeated name in
            ``axes``; a reference outside [0, 1].
    """
    if not _is_pair(reference, Real) or not all(0 <= value <= 1 for value in reference):
        raise UserError(
            f"reference must be two accuracies, each from 0 to 1, not {shown(reference)}"
        )
    if axes is not None and not _is_pair(axes, str):
        raise UserError(f"axes must be the names of two threats, not {shown(axes)}")
    if axes is not None and axes[0] == axes[1]:
        raise UserError(f"the frontier needs two different threats, not {axes[0]!r} twice")
    check_choice("split", split, RESULTS)
    several = paths if isinstance(paths, Iterable) and not isinstance(paths, str) else [paths]
    folders = [as_path("paths", path) for path in several]
    if not folders:
        raise UserError("paths is empty: name one or more folders of runs or sweeps")
    sweeps = {path: sweep_in(path) for path in folders}
    axes = axes or next((sweep.frontier_of for sweep in sweeps.values() if sweep), FRONTIER_OF)
    found: dict[tuple[Path, str], Row] = {}
    first: Outcome | None = None
    pruned: list[PrunedRun] = []
    pending = 0
    for member in (member for path in folders for member in _members(path, sweeps[path], split)):
        key = (member.parent, member.label)
        row = found.setdefault(key, Row(label=member.label, short=member.short))
        failure = Run(member.folder).read(FAILURE, Failure)
        ended = Run(member.folder).read(PRUNED, Pruned)
        if failure is not None:
            found[key] = row.with_more(failures={member.name: failure.reason})
        elif ended is not None:
            pruned.append(_pruned(member.label, Run.open(member.folder), ended))
        elif holds(member.folder, RESULTS[member.split]):
            outcome = _outcome(Run.open(member.folder), member.split)
            first = first or outcome
            _check_comparable(outcome, first)
            found[key] = row.with_more([outcome])
        elif member.of_sweep:
            pending += 1
        else:
            raise UserError(f"run {member.folder} was not measured; let its training finish")
    threats = {} if first is None else _threats(first)
    for name in axes:
        if threats and name not in threats:
            raise UserError(f"no threat is called {name!r}; there is {', '.join(threats)}")
    rows = _with_unique_labels(_merged(found))
    return Comparison(
        rows=tuple(row for row in rows if row.outcomes),
        failed=tuple(row for row in rows if row.failures and not row.outcomes),
        pruned=tuple(pruned),
        pending=pending,
        threats=threats,
        axes=axes,
        reference=reference,
    )


def _is_pair(value: Any, kind: type) -> bool:
    """Return whether a value is a tuple or list of exactly two values of type ``kind``."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(part, kind) for part in value)
    )


def _merged(found: Mapping[tuple[Path, str], Row]) -> list[tuple[Path, Row]]:
    """Return the rows, merged where their configurations are equal, each with the folder that it
    was first found in.

    Rows of the same configuration are merged, unless one sweep has both under different names, or
    they have other results of one seed, as of objects or files of one name that differ.
    """
    merged: list[tuple[list[Path], Row]] = []
    for (parent, _), row in found.items():
        for at, (parents, other) in enumerate(merged):
            same = row.outcomes and other.outcomes and row.configuration == other.configuration
            if same and parent not in parents and not other.contradicts(row):
                merged[at] = ([*parents, parent], other.with_more(row.outcomes, row.failures))
                break
        else:
            merged.append(([parent], row))
    return [(parents[0], row) for parents, row in merged]


def _with_unique_labels(found: Sequence[tuple[Path, Row]]) -> list[Row]:
    """Return the rows; where several share a label, their folder is added to it, and where several
    share a short name, they have none."""
    counts = Counter(row.label for _, row in found)
    shorts = Counter(row.short for _, row in found)
    found = [
        (parent, row if shorts[row.short] == 1 else attrs.evolve(row, short=""))
        for parent, row in found
    ]
    return [
        attrs.evolve(row, label=printable(f"{row.label} ({parent})"))
        if counts[row.label] > 1
        else row
        for parent, row in found
    ]


@attrs.frozen(kw_only=True)
class _Member:
    """The folder of one run to compare, with its row and cell names.

    Attributes:
        label: label of the run's row.
        name: name of its cell, or else of its folder.
        parent: the sweep's folder, or else its own.
        folder: the run folder.
        split: the split that the run was measured on.
        of_sweep: whether the run is a cell of a sweep.
        short: number of a search's trial, which names the row in a figure.
    """

    label: str
    name: str
    parent: Path
    folder: Path
    split: SplitName
    of_sweep: bool
    short: str = ""


def _shown(path: Path) -> str:
    return printable(str(path))


def _members(path: Path, sweep: Sweep | None, split: SplitName) -> Iterator[_Member]:
    """Yield a member for each cell of a sweep's folder, or for the one run of a run folder."""
    if sweep is None:
        Run.open(path)
        yield _Member(
            label=printable(str(path)),
            name=printable(str(path)),
            parent=path,
            folder=path,
            split=split,
            of_sweep=False,
        )
        return
    of_search = holds(path, SEARCH)
    for cell in sweep.cells:
        yield _Member(
            label=sweep.row(cell) or _shown(path),
            name=cell.name,
            parent=path,
            folder=path / CELLS / cell.name,
            split=sweep.split,
            of_sweep=True,
            short=cell.labels.get(AXIS, "").partition(" ")[0] if of_search else "",
        )


def _pruned(label: str, run: Run, ended: Pruned) -> PrunedRun:
    """Return a run that a search has ended, and what its training cost.

    Raises:
        UserError: a file is missing or damaged.
    """
    _check_cost(run)
    return PrunedRun(
        label=label,
        epoch=ended.epoch,
        epochs=run.config.epochs,
        passes=forward_and_backward(run.metrics),
        seconds=_seconds(run),
    )


def _check_cost(run: Run) -> None:
    """Check that a run has the files with its training cost."""
    for file in (TIMING, METRICS):
        if not holds(run.path, file):
            raise UserError(f"run {run.path}: its {file}, which has the training cost, is missing")


def _seconds(run: Run) -> float:
    """Return the wall time of a run's training and validation, in seconds."""
    return sum(
        line.training_seconds + line.validation_seconds
        for line in run.times
        if isinstance(line, EpochTimes)
    )


def _outcome(run: Run, split: SplitName) -> Outcome:
    """Return a run's results on a split of the data set, and what its training cost.

    Raises:
        UserError: a file is missing or damaged.
    """
    stored, identity = run.model_config, _identity(run)
    fingerprint = _fingerprint(identity, split)
    measured = read_evaluation(run, split)
    images_correct = (
        {name: of_N == measured.labels for name, of_N in measured.predictions.items()}
        if measured
        else {}
    )
    if not isinstance(stored, TrainConfig):
        return Outcome(
            folder=run.path,
            seed=None,
            configuration=json.dumps([*map(str, (run.path, stored))]),
            results={result.name: result for result in run.results(split)},
            images=_images_of(run, stored.data, split, fingerprint),
            fingerprint=fingerprint,
            passes=None,
            seconds=None,
            images_correct=images_correct,
        )
    _check_cost(run)
    config, metrics = stored, run.metrics
    ends_early = config.stop_after > 0 or config.on_collapse == "stop"
    if len(metrics) not in range(1 if ends_early else config.epochs, config.epochs + 1):
        raise UserError(
            f"{run.path / METRICS} has {len(metrics)} of the {config.epochs} epochs of {CONFIG}, "
            f"although the run was measured; restore the one that changed, or delete {run.path} "
            "and train it again"
        )
    return Outcome(
        folder=run.path,
        seed=config.seed,
        configuration=_compared_fields(config, identity),
        results={result.name: result for result in run.results(split)},
        images=_images_of(run, config.data, split, fingerprint),
        fingerprint=fingerprint,
        passes=forward_and_backward(metrics),
        seconds=_seconds(run),
        images_correct=images_correct,
    )


def _images_of(run: Run, data: str, split: SplitName, fingerprint: str | None) -> str:
    """Return a name for the images that a run was measured on; of data that were given in Python it
    has their fingerprint."""
    with prefixed_errors(str(run.path / CONFIG)):
        images = images_of(data, split)
    return f"{images} ({fingerprint or 'unknown'})" if is_given(data) else images


def _fingerprint(identity: Mapping[str, Any], split: SplitName) -> str | None:
    """Return the hash of the images of a split, or of those that they are held out from; None if
    the identity does not have it."""
    if split == "test":
        return identity.get("test")
    return identity.get("validation") or identity.get("train")


def _identity(run: Run) -> Mapping[str, Any]:
    """Return what a run stores of its data's identity, by field; nothing if the file is missing."""
    stored = run.read_json(DATA)
    return stored if isinstance(stored, dict) else {}


def _check_comparable(outcome: Outcome, first: Outcome) -> None:
    """Check that a run was measured on the same images and under the same threats as the first.

    Raises:
        UserError: what each was measured on or under, and how to measure both alike.
    """
    images, images_of_first = _images(outcome), _images(first)
    if images != images_of_first:
        raise UserError(
            f"run {outcome.folder} was measured on {images}, run {first.folder} on "
            f"{images_of_first}; measure both on the same images, in one sweep"
        )
    fingerprints = {outcome.fingerprint, first.fingerprint} - {None}
    if len(fingerprints) > 1:
        raise UserError(
            f"runs {first.folder} and {outcome.folder} were not measured on the same {images}: the "
            "files of their --data-root differ; measure both on the same images"
        )
    threats, threats_of_first = (
        {name: result.threat for name, result in each.results.items()} for each in (outcome, first)
    )
    names = [
        name
        for name in {**threats_of_first, **threats}
        if threats.get(name) != threats_of_first.get(name)
    ]
    if not names:
        return
    name, *more = names
    here, there = threats.get(name), threats_of_first.get(name)
    others = f" (also: {', '.join(more)})" if more else ""
    # The command measures one of the runs under the threat of the other, and prints the result.
    folder, threat = (outcome.folder, there) if there else (first.folder, here)
    is_training = None not in (outcome.seed, first.seed)
    fix = "train both in one sweep" if is_training else "measure both under the same threats"
    raise UserError(
        f"compare needs equal threats, but {name} is {shortened(there or 'missing')} in "
        f"{first.folder} and {shortened(here or 'missing')} in {outcome.folder}{others}: {fix}, "
        "or print the accuracy under one threat: "
        f"{_with_plugins((first, outcome), 'evaluate', folder, '--threat', threat)}"
    )


def _with_plugins(outcomes: Sequence[Outcome], *words: object) -> str:
    """Return the shell command for ``curricula`` with these words, and with every plugin file that
    is loaded or that a run was trained with, or that defines its model."""
    runs = [Run(outcome.folder) for outcome in outcomes]
    stored = [run.environment for run in runs]
    plugins = [
        Path(name)
        for environment in stored
        for name in (environment.providers if environment else ())
        if name.endswith(".py")
    ]
    models = [run.model_config.model for run in runs]
    networks = [
        Path(parts_of(call)[0])
        for model in models
        if not is_given(model)
        for call in calls(parse(model))
        if call.name == FILE
    ]
    return command_line(*words, files=[*plugins, *networks])


def _threats(outcome: Outcome) -> dict[str, str]:
    """Return each threat's expression and number of images in a run's results, by the threat's
    name."""
    return {
        name: f"{result.threat} on {result.n:,} {outcome.images}"
        for name, result in outcome.results.items()
    }


def _images(outcome: Outcome) -> str:
    """Return the number and the name of the images that a run was measured on, as text."""
    return ", ".join({f"{result.n:,} {outcome.images}": 0 for result in outcome.results.values()})


def _compared_fields(config: TrainConfig, identity: Mapping[str, Any]) -> str:
    """Return, as JSON, what is equal for all runs of a row: fields of their configuration, and the
    hashes of their training and validation images."""
    values = attrs.asdict(config)
    compared = {name: values[name] for name in values if name not in IGNORED_FIELDS}
    return json.dumps([compared, identity.get("train"), identity.get("validation")])
