"""Running a sweep: its cells one after the other, in as many processes as share its study.

Who runs a cell holds its lock, which falls with the process. So a cell whose trial says that it
runs, and whose lock is free, was left by a process that has died.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import filelock
import optuna
import sqlalchemy
from optuna.trial import TrialState

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import standard_threats
from curricula.runtime.files import write_atomic
from curricula.sweeps.spec import Cell, Sweep, read_sweep
from curricula.training.config import FIELDS, SplitName, TrainConfig, images_of, merge
from curricula.training.loop import train_plan
from curricula.training.plan import Plan, check_channels, make_plan
from curricula.training.run import CONFIG, RESULTS, SWEEP, Run, holds

STUDY = "study.db"
CELLS = "cells"
LOCK = ".lock"
FAILURE = "failed.json"
OF_THE_MACHINE = ("device", "precision", "compile")  # what ``auto`` becomes may differ on another

POLL_SECONDS = 2  # between looks at the cells that other processes run


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
    _check_the_same(sweep, out)
    configs, threats = check_cells(sweep, download=download)
    cells = {cell.name: cell for cell in sweep.cells}
    with _silence_optuna():
        with _exclusive(out):
            _check_the_same(sweep, out)  # again: another process may have begun there
            _check_runs(configs, sweep, out)
            study = _open_study(sweep, out, threats, storage)
            _write_down(sweep, out)
            states = _enqueue(study, cells, out, sweep.split, retry=retry)
        left = sum(state != "done" for state in states.values())
        noted(f"{out}: {len(cells)} cells, {left} of them to run")
        waiting = False
        while "waits" in states.values() or "runs" in states.values():
            with _exclusive(out):
                _check_runs(configs, sweep, out)  # another may run the sweep with other values
                states = _enqueue(study, cells, out, sweep.split)
                taken = _claim(study, cells, out) if "waits" in states.values() else None
            if taken:
                waiting = False
                try:
                    _run(study, taken, sweep, threats, out, noted)
                finally:
                    taken.lock.release()
            elif "waits" not in states.values() and "runs" in states.values():
                if not waiting:
                    noted(f"{out}: waiting for cells that other processes run")
                waiting = True
                time.sleep(POLL_SECONDS)


def sweep_in(folder: Path) -> Sweep | None:
    """The sweep that a folder holds; None where it holds none.

    Raises:
        UserError: a place out of bounds, a file that is no sweep.
    """
    return read_sweep(folder / SWEEP) if holds(folder, SWEEP) else None


def check_cells(
    sweep: Sweep, *, download: bool = False
) -> tuple[dict[str, TrainConfig], dict[str, Threat]]:
    """The configuration of each cell, by its name, and the threats that all are measured under;
    after a plan was made of every cell (of those that differ in the seed alone, of the first).

    Raises:
        UserError: a cell that cannot be planned, a threat that its data cannot carry, standard
            threats or images to measure on that are not the same for all.
    """
    planned: dict[str, TrainConfig] = {}
    configs: dict[str, TrainConfig] = {}
    threats: dict[str, Threat] = {}
    for cell in sweep.cells:
        values = {name: value for name, value in cell.values.items() if name != "seed"}
        key = json.dumps(values, sort_keys=True)
        with _named(f"cell {cell.name}"):
            if key in planned:
                seed = {"seed": cell.values.get("seed", FIELDS["seed"].default)}
                configs[cell.name] = merge(attrs.asdict(planned[key]), seed)
                continue
            plan = make_plan(cell.values, download=download)
            found = _threats(sweep, plan)
            planned[key] = configs[cell.name] = plan.config
        del plan  # it holds its data: one at a time
        threats = threats or found
        for name, threat in found.items():
            if str(threat) != str(threats[name]):
                raise UserError(
                    f"the cells would be measured under different threats ({name}: "
                    f"{threats[name]} and {threat}); name them under [evaluation.threats]"
                )
    images = sorted({images_of(config.data, sweep.split) for config in planned.values()})
    if len(images) > 1:
        raise UserError(
            f"the cells would be measured on different images ({' and '.join(images)}), and could "
            "not be compared; make a sweep of each"
        )
    return configs, threats


def _threats(sweep: Sweep, plan: Plan) -> dict[str, Threat]:
    if not sweep.threats:
        return standard_threats(plan.curriculum.tree, plan.data.budgets)
    threats = {}
    for name, text in sweep.threats.items():
        with _named(f"threat {name}"):
            threats[name] = Threat.parse(text, budgets=plan.data.budgets)
            check_channels(threats[name].tree, plan.data)
    return threats


@contextlib.contextmanager
def _exclusive(out: Path) -> Iterator[None]:
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
    """Refuse the folder of a run, and that of a sweep with another base, other axes, or that was
    measured otherwise."""
    if holds(out, CONFIG):
        raise UserError(f"sweep folder {out} holds a run: choose another with --output")
    held = sweep_in(out)
    if held is None:
        return
    before, now = _identity(held), _identity(sweep)
    for what, value in now.items():
        if value != before[what]:
            raise _another(out, what)


def _identity(sweep: Sweep) -> dict[str, Any]:
    """What makes a sweep another one when it changes; an axis may grow, and data may move."""
    return {
        "[base]": _less_the_place(sweep.base),
        "[axes]": list(sweep.axes),
        "[evaluation]": [dict(sweep.threats), sweep.split, sweep.limit],
    }


def _less_the_place(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "data_root"}


def _check_runs(configs: Mapping[str, TrainConfig], sweep: Sweep, out: Path) -> None:
    """Refuse a folder where a cell of the same name was run with other values."""
    for cell in sweep.cells:
        folder = out / CELLS / cell.name
        if not (folder / CONFIG).exists():
            continue
        chosen = [name for name in OF_THE_MACHINE if cell.values.get(name, "auto") == "auto"]
        before = Run(folder).config
        for name, value in attrs.asdict(configs[cell.name]).items():
            if name not in ("data_root", *chosen) and value != getattr(before, name):
                raise _another(out, f"cell {cell.name} ({name})")


def _another(out: Path, what: str) -> UserError:
    return UserError(
        f"sweep folder {out} holds another sweep: {what} has changed; choose another --output"
    )


def _write_down(sweep: Sweep, out: Path) -> None:
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
        write_atomic(out / SWEEP, sweep.as_toml().encode())
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
            storage=url,
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
        raise UserError(f"study {_redacted(url)}: cannot be opened ({reason}){mend}") from error
    return study


def _redacted(url: str) -> str:
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:  # not a URL
        return url


_State = Literal["done", "waits", "runs"]


def _enqueue(
    study: optuna.Study,
    cells: Mapping[str, Cell],
    out: Path,
    split: SplitName,
    *,
    retry: bool = False,
) -> dict[str, _State]:
    """What each cell does, by its name, after those that do nothing were let wait: that are new,
    whose process has died, whose results are gone; and that have failed, if asked to ``retry``."""
    latest = {trial.user_attrs.get("cell"): trial for trial in study.get_trials(deepcopy=False)}
    states: dict[str, _State] = {}
    for name, cell in cells.items():
        trial = latest.get(name)
        failed = trial is not None and "reason" in trial.user_attrs
        complete = trial is not None and trial.state is TrialState.COMPLETE
        if (failed and not retry) or (complete and (out / CELLS / name / RESULTS[split]).exists()):
            states[name] = "done"
        elif _is_held(out, name):
            states[name] = "runs"
        else:
            states[name] = "waits"
            if trial is not None and trial.state is TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            if trial is None or trial.state is not TrialState.WAITING:
                labels = dict(cell.labels)
                study.enqueue_trial({}, user_attrs={"cell": name, "labels": labels})
    return states


@attrs.frozen(kw_only=True)
class _Taken:
    """A cell that this process runs, the trial that stands for it, and its lock, held."""

    cell: Cell
    trial: optuna.Trial
    lock: filelock.BaseFileLock


def _claim(study: optuna.Study, cells: Mapping[str, Cell], out: Path) -> _Taken | None:
    """The next cell that waits; None where what waits is of an axis that has shrunk since."""
    trial = study.ask()
    cell = cells.get(trial.user_attrs.get("cell", ""))
    if cell is None:
        study.tell(trial, state=TrialState.PRUNED)
        return None
    lock = _lock(out, cell.name)
    lock.acquire(blocking=False)
    return _Taken(cell=cell, trial=trial, lock=lock)


def _lock(out: Path, name: str) -> filelock.BaseFileLock:
    return filelock.FileLock(out / CELLS / f".{name}{LOCK}")


def _is_held(out: Path, name: str) -> bool:
    lock = _lock(out, name)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _run(
    study: optuna.Study,
    taken: _Taken,
    sweep: Sweep,
    threats: Mapping[str, Threat],
    out: Path,
    noted: Callable[[str], None],
) -> None:
    """Train and measure a cell, or keep the reason why that failed."""
    cell, path = taken.cell, out / CELLS / taken.cell.name
    began = time.perf_counter()
    noted(f"{cell.name}: begins")
    try:
        results = _results(cell, path, sweep, threats)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        path.mkdir(parents=True, exist_ok=True)
        Run(path).write_json(FAILURE, {"reason": reason})
        taken.trial.set_user_attr("reason", reason)
        study.tell(taken.trial, state=TrialState.FAIL)
        noted(f"{cell.name}: failed: {reason}")
        return
    study.tell(taken.trial, [result.accuracy for result in results])
    shown = ", ".join(f"{r.name} {100 * r.accuracy:.1f}" for r in results)
    noted(f"{cell.name}: {shown} % in {(time.perf_counter() - began) / 60:.1f} min")


def _results(
    cell: Cell, path: Path, sweep: Sweep, threats: Mapping[str, Threat]
) -> list[ThreatResult]:
    """What its run folder says, or else a new training."""
    if not (path / RESULTS[sweep.split]).exists():
        shutil.rmtree(path, ignore_errors=True)  # of a process that has died, or has failed
        train_plan(
            make_plan(cell.values), path, threats=threats, split=sweep.split, limit=sweep.limit
        )
    results = {result.name: result for result in Run(path).measured(sweep.split)}
    if results.keys() != threats.keys():
        raise UserError(
            f"{path / RESULTS[sweep.split]}: measured under {', '.join(results)}, not the sweep's "
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
def _silence_optuna() -> Iterator[None]:
    """Optuna says nothing: what it would say is said here, or is that names may change."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
