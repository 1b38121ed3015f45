"""Running a sweep: its cells one after the other, in as many processes as share its study."""

import contextlib
import hashlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import filelock
import optuna
import sqlalchemy
from optuna.trial import TrialState

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.evaluation.accuracy import Measured
from curricula.evaluation.threats import standard_threats
from curricula.sweeps.definition import Cell, Sweep, read_sweep
from curricula.training.config import Part, TrainConfig, merge
from curricula.training.loop import train_plan
from curricula.training.plan import Plan, check_channels, make_plan
from curricula.training.run import RESULTS, Run, write_atomically

DEFINITION = "sweep.toml"
STUDY = "study.db"
CELLS = "cells"
LOCK = ".lock"
FAILURE = "failed.json"

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 20  # of silence, after which a process that was running a cell is taken for dead


class _CellError(Exception):
    """A cell has failed, and its reason is kept."""


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    storage: str | None = None,
    retry: bool = False,
    download: bool = False,
    noted: Callable[[str], None] = lambda line: None,
) -> None:
    """Train and measure each cell of a sweep that is not done yet, into ``out/cells``.

    The cells wait in an Optuna study. Whoever runs the same sweep into the same folder at the same
    time takes cells of it too; a cell whose process has died is run anew.

    Args:
        sweep: what to run.
        out: folder of the sweep; it may hold a part of it already.
        storage: URL of the database of the study; by default a SQLite file in the folder.
        retry: run cells again that have failed.
        download: fetch missing data.
        noted: called with a line on each thing that begins or ends.

    Raises:
        UserError: a configuration that cannot be made a plan, a threat that the data cannot carry,
            a folder of another sweep, a database that cannot be opened. A cell that fails does not
            raise: its reason is kept.
    """
    out = Path(out)
    threats = check_cells(sweep, download=download)
    cells = {cell.name: cell for cell in sweep.cells}
    with _quiet():
        with _alone(out):
            _check_the_same(sweep, out)
            study = _open_study(sweep, out, threats, storage)
            _check_cells_of(study, cells, out)
            _write_down(sweep, out)
            left, waiting = _enqueue(study, cells, out, sweep.part, retry=retry), False
        noted(f"{out}: {len(cells)} cells, {left} of them to run")
        while True:
            with _alone(out):
                optuna.storages.fail_stale_trials(study)
                _enqueue(study, cells, out, sweep.part)
            states = {trial.state for trial in study.get_trials(deepcopy=False)}
            if TrialState.WAITING in states:
                waiting = False
                study.optimize(
                    lambda trial: _run(study, trial, cells, sweep, threats, out, noted),
                    n_trials=1,
                    catch=_CellError,  # and nothing else: it would be run again without an end
                )
            elif TrialState.RUNNING in states:
                if not waiting:
                    noted(f"{out}: waiting for cells that other processes run")
                waiting = True
                time.sleep(HEARTBEAT_SECONDS)
            else:
                return


def check_cells(sweep: Sweep, *, download: bool = False) -> dict[str, Threat]:
    """The threats that all cells are measured under, after a plan was made of every cell (of
    those that differ in the seed alone, of the first; of the others, a configuration).

    Raises:
        UserError: a cell that cannot be planned, a threat that its data cannot carry, standard
            threats that are not the same for all.
    """
    checked: dict[str, TrainConfig] = {}
    threats: dict[str, Threat] = {}
    for cell in sweep.cells:
        values = {name: value for name, value in cell.values.items() if name != "seed"}
        key = json.dumps(values, sort_keys=True)
        with _named(f"cell {cell.name}"):
            if key in checked:
                merge(attrs.asdict(checked[key]), cell.values)
                continue
            plan = make_plan(cell.values, download=download)
            checked[key], found = plan.config, _threats(sweep, plan)
        del plan  # it holds its data: one at a time
        threats = threats or found
        for name, threat in found.items():
            if str(threat) != str(threats[name]):
                raise UserError(
                    f"the cells would be measured under different threats ({name}: "
                    f"{threats[name]} and {threat}); name them under [evaluation.threats]"
                )
    return threats


def _threats(sweep: Sweep, plan: Plan) -> dict[str, Threat]:
    if not sweep.threats:
        return standard_threats(plan.curriculum.bound, plan.data.budgets)
    threats = {}
    for name, text in sweep.threats.items():
        with _named(f"threat {name}"):
            threats[name] = Threat.parse(text, budgets=plan.data.budgets)
            check_channels(threats[name].bound, plan.data)
    return threats


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """While no other process of the same sweep is in here; one that dies lets go."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(out / LOCK)
        lock.acquire()
    except (OSError, ValueError) as error:
        raise UserError(f"sweep folder {out}: cannot be made ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _check_the_same(sweep: Sweep, out: Path) -> None:
    """Refuse a folder whose sweep has another base, other axes, or was measured otherwise."""
    if not (out / DEFINITION).exists():
        return
    before, now = _identity(read_sweep(out / DEFINITION)), _identity(sweep)
    for what, value in now.items():
        if value != before[what]:
            raise _another(out, what)


def _identity(sweep: Sweep) -> dict[str, Any]:
    """What makes a sweep another one when it changes; an axis may grow, and data may move."""
    return {
        "[base]": _less_the_place(sweep.base),
        "[axes]": list(sweep.axes),
        "[evaluation]": [dict(sweep.threats), sweep.part, sweep.limit],
    }


def _less_the_place(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "data_root"}


def _check_cells_of(study: optuna.Study, cells: Mapping[str, Cell], out: Path) -> None:
    """Refuse a cell that was run, or waits, with other values under the same name."""
    for trial in study.get_trials(deepcopy=False):
        cell = cells.get(trial.user_attrs.get("cell", ""))
        if cell and trial.user_attrs.get("values") not in (None, _less_the_place(cell.values)):
            raise _another(out, f"cell {cell.name}")


def _another(out: Path, what: str) -> UserError:
    return UserError(
        f"sweep folder {out} holds another sweep: {what} has changed; choose another --out"
    )


def _write_down(sweep: Sweep, out: Path) -> None:
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
        write_atomically(out / DEFINITION, sweep.as_toml())
    except (OSError, ValueError) as error:
        raise UserError(f"sweep folder {out}: cannot be made ({error})") from error


def _study_name(sweep: Sweep, out: Path) -> str:
    """In a database that it shares: of its folder, and of what makes it another sweep."""
    text = json.dumps(_identity(sweep), sort_keys=True)
    return f"{out.resolve().name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _open_study(
    sweep: Sweep, out: Path, threats: Mapping[str, Threat], storage: str | None
) -> optuna.Study:
    url = storage or sqlalchemy.URL.create(
        "sqlite", database=str((out / STUDY).resolve())
    ).render_as_string(hide_password=False)
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(
                url, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
            ),
            study_name=_study_name(sweep, out) if storage else "sweep",
            directions=["maximize"] * len(threats),
            load_if_exists=True,
        )
        study.set_metric_names(list(threats))
    except (
        sqlalchemy.exc.SQLAlchemyError,
        ImportError,
        ValueError,
        optuna.exceptions.StorageInternalError,
    ) as error:
        reason = str(error).partition("\n")[0]
        mend = "" if storage else "; move it away: what its cells have measured is kept beside it"
        raise UserError(
            f"study {_less_the_password(url)}: cannot be opened ({reason}){mend}"
        ) from error
    return study


def _less_the_password(url: str) -> str:
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:  # not a URL
        return url


def _enqueue(
    study: optuna.Study, cells: Mapping[str, Cell], out: Path, part: Part, *, retry: bool = False
) -> int:
    """Let each cell wait that is neither done nor waiting nor run; how many are to be run. A cell
    whose results are gone is not done."""
    done: set[str] = set()
    taken: set[str] = set()
    for trial in study.get_trials(deepcopy=False):
        name = trial.user_attrs.get("cell", "")
        complete = trial.state is TrialState.COMPLETE
        there = complete and (out / CELLS / name / RESULTS[part]).exists()
        if there or ("reason" in trial.user_attrs and not retry):
            done.add(name)
        elif trial.state in (TrialState.WAITING, TrialState.RUNNING):
            taken.add(name)
    for name, cell in cells.items():
        if name not in done | taken:
            values, labels = _less_the_place(cell.values), dict(cell.labels)
            study.enqueue_trial({}, user_attrs={"cell": name, "values": values, "labels": labels})
    return len(cells.keys() - done)


def _run(
    study: optuna.Study,
    trial: optuna.Trial,
    cells: Mapping[str, Cell],
    sweep: Sweep,
    threats: Mapping[str, Threat],
    out: Path,
    noted: Callable[[str], None],
) -> list[float]:
    """The accuracies of the cell that a trial stands for."""
    cell = cells.get(trial.user_attrs.get("cell", ""))
    if cell is None:  # of an axis that has shrunk since
        raise optuna.TrialPruned
    path = out / CELLS / cell.name
    began = time.perf_counter()
    noted(f"{cell.name}: begins")
    try:
        results = _results(cell, path, sweep, threats)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        trial.set_user_attr("reason", reason)
        path.mkdir(parents=True, exist_ok=True)
        Run(path).write_json(FAILURE, {"reason": reason})
        noted(f"{cell.name}: failed: {reason}")
        raise _CellError(reason) from error
    shown = ", ".join(f"{r.name} {100 * r.accuracy:.1f}" for r in results)
    noted(f"{cell.name}: {shown} % in {(time.perf_counter() - began) / 60:.1f} min")
    return [result.accuracy for result in results]


def _results(cell: Cell, path: Path, sweep: Sweep, threats: Mapping[str, Threat]) -> list[Measured]:
    """What its run folder says, or else a new training."""
    if not (path / RESULTS[sweep.part]).exists():
        shutil.rmtree(path, ignore_errors=True)  # of a process that has died, or has failed
        train_plan(
            make_plan(cell.values), path, threats=threats, part=sweep.part, limit=sweep.limit
        )
    results = {result.name: result for result in Run(path).measured(sweep.part)}
    if results.keys() != threats.keys():
        raise UserError(
            f"{path / RESULTS[sweep.part]}: measured under {', '.join(results)}, not the sweep's "
            f"{', '.join(threats)}; delete it and start the sweep again with --retry"
        )
    return [results[name] for name in threats]


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing: what it would say is said here, or is that its heartbeat may change."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
