"""Run the cells of a sweep, in one process or in several that share the study.

The process that runs a cell holds the cell's lock, which the operating system releases when the
process ends. So a cell whose trial is running while its lock is free belongs to a dead process.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import filelock
import optuna
from optuna.trial import TrialState

from curricula.curriculum import Threat, check_channels
from curricula.errors import UserError, printable, shown
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import standard_threats
from curricula.runtime.files import inside
from curricula.runtime.locks import LOCK, exclusive
from curricula.runtime.records import to_json
from curricula.runtime.values import as_path, check_flag
from curricula.sweeps.folder import (
    CELLS,
    FAILURE,
    Failure,
    check_same_sweep,
    check_same_values,
    default_folder,
    write_sweep,
)
from curricula.sweeps.spec import Cell, Sweep, check_sweep, prefixed_errors, read_sweep
from curricula.sweeps.study import Study, has_failed, silence_optuna
from curricula.training.callbacks import Callback, Callbacks
from curricula.training.config import FIELDS, SplitName, TrainConfig, images_of, merge
from curricula.training.loop import train_plan
from curricula.training.plan import Plan, make_plan
from curricula.training.run import CONFIG, RESULTS, SWEEP, Run, holds

POLL_SECONDS = 2  # interval at which cells of other processes are checked


def run_sweep(
    sweep: Sweep | str | Path,
    output: str | Path | None = None,
    *,
    storage: str | None = None,
    retry: bool = False,
    download: bool = False,
    on_message: Callable[[str], None] = lambda line: None,
) -> None:
    """Train and evaluate each unfinished cell of a sweep, and write its run folder into
    ``output/cells``.

    The cells are queued in an Optuna study. Several processes that run the same sweep into the same
    folder share its cells; a cell whose process has died is run again.

    Args:
        sweep: what to run, or its TOML file.
        output: folder of the sweep; it may hold finished cells already. By default ``runs/NAME``
            of a file ``NAME.toml``.
        storage: URL of the study's database; by default a SQLite file in the folder.
        retry: run failed cells again.
        download: fetch missing data.
        on_message: receives a line whenever a cell begins or ends.

    Raises:
        UserError: a wrong configuration, a threat that does not suit the data, a folder of a
            different sweep, a database that cannot be opened. A cell that fails does not raise:
            its reason is kept.
    """
    if not isinstance(sweep, Sweep):
        file = as_path("sweep", sweep)
        sweep, output = read_sweep(file), default_folder(file) if output is None else output
    if output is None:
        raise UserError("output is missing: name the folder of the sweep, such as 'runs/mine'")
    if storage is not None and not isinstance(storage, str):
        raise UserError(f"storage must be the URL of a database, not {shown(storage)}")
    check_flag("retry", retry)
    folder = as_path("output", output)
    check_same_sweep(sweep, folder)
    configs, threats = check_cells(sweep, download=download)
    cells = {cell.name: cell for cell in sweep.cells}
    with silence_optuna():
        with _exclusive(folder):
            check_same_sweep(sweep, folder)  # again: another process may have started meanwhile
            check_same_values(configs, sweep, folder)
            study = Study.open(sweep, folder, list(threats), storage)
            write_sweep(sweep, folder)
            states = _enqueue(study, cells, folder, sweep.split, retry=retry)
        left = sum(state != "done" for state in states.values())
        on_message(f"{folder}: {len(cells)} cells, {left} of them to run")
        waiting = False
        while "queued" in states.values() or "running" in states.values():
            with _exclusive(folder):
                check_same_values(configs, sweep, folder)  # another process may use other values
                states = _enqueue(study, cells, folder, sweep.split)
                claimed = _claim(study, cells, folder) if "queued" in states.values() else None
            if claimed:
                waiting = False
                try:
                    _run(study, claimed, sweep, threats, folder, on_message)
                finally:
                    claimed.lock.release()
            elif "queued" not in states.values() and "running" in states.values():
                if not waiting:
                    on_message(f"{folder}: waiting for cells that other processes run")
                waiting = True
                time.sleep(POLL_SECONDS)


def check_cells(
    sweep: Sweep, *, download: bool = False
) -> tuple[dict[str, TrainConfig], dict[str, Threat]]:
    """Return each cell's configuration by name, and the threats that all cells are evaluated under.

    Every cell is planned; of cells that differ only in the seed, only the first.

    Raises:
        UserError: a cell cannot be planned, a threat does not suit its data, or the cells differ in
            their standard threats or in the images that they are evaluated on.
    """
    check_sweep(sweep)
    planned: dict[str, TrainConfig] = {}
    configs: dict[str, TrainConfig] = {}
    threats: dict[str, Threat] = {}
    for cell in sweep.cells:
        values = {name: value for name, value in cell.values.items() if name != "seed"}
        key = json.dumps(values, sort_keys=True)
        with prefixed_errors(f"cell {cell.name}"):
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
    """Return the sweep's threats by name; if it has none, the standard ones for the plan's data and
    perturbation."""
    if not sweep.threats:
        return standard_threats(plan.curriculum.tree, plan.data.budgets)
    threats = {}
    for name, text in sweep.threats.items():
        with prefixed_errors(f"threat {name}"):
            threats[name] = Threat.parse(text, budgets=plan.data.budgets)
            check_channels(threats[name].tree, plan.data.in_channels, data=plan.data.name)
    return threats


def _exclusive(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Return a context manager that keeps other processes of the same sweep out of its block."""
    return exclusive(folder, files=(SWEEP,), wait=True, what="sweep folder")


_State = Literal["done", "queued", "running"]


def _enqueue(
    study: Study,
    cells: Mapping[str, Cell],
    folder: Path,
    split: SplitName,
    *,
    retry: bool = False,
) -> dict[str, _State]:
    """Queue every cell that still has to run, and return each cell's state by name.

    These are cells that are new, were abandoned by a dead process, or lack their results; with
    ``retry`` also those that failed.
    """

    def is_done(name: str) -> bool:
        trial = latest.get(name)
        if trial is None:
            return holds(folder / CELLS / name, FAILURE) and not retry
        if has_failed(trial):
            return not retry
        evaluated = holds(folder / CELLS / name, RESULTS[split])
        return trial.state is TrialState.COMPLETE and evaluated

    # The caller keeps other processes from queueing a cell, so a cell that is done stays done, and
    # its lock need not be tried.
    latest = study.trials()
    states: dict[str, _State] = {name: "done" for name in cells if is_done(name)}
    # Locks before trials: a process reports its trial and then frees its lock, so the trial of a
    # cell whose lock is free is up to date.
    locked = {name: _is_locked(folder, name) for name in cells if name not in states}
    latest = study.trials()
    for name in locked:
        trial = latest.get(name)
        if is_done(name):
            states[name] = "done"
        elif locked[name]:
            states[name] = "running"
        else:
            states[name] = "queued"
            if trial is not None and trial.state is TrialState.RUNNING:
                study.abandon(trial)
            if trial is None or trial.state is not TrialState.WAITING:
                study.enqueue(cells[name])
    return states


@attrs.frozen(kw_only=True)
class _Claimed:
    """A cell that this process runs, with its trial and the lock that this process holds."""

    cell: Cell
    trial: optuna.Trial
    lock: filelock.BaseFileLock


def _claim(study: Study, cells: Mapping[str, Cell], folder: Path) -> _Claimed | None:
    """Claim the next queued cell and return it; None if no cell is queued."""
    name, trial = study.claim()
    cell = cells.get(name)
    if cell is None:
        study.drop(trial)
        return None
    lock = _lock(folder, cell.name)
    lock.acquire(blocking=False)
    return _Claimed(cell=cell, trial=trial, lock=lock)


def _lock(folder: Path, name: str) -> filelock.BaseFileLock:
    return filelock.FileLock(inside(folder, f"{CELLS}/.{name}{LOCK}"))


def _is_locked(folder: Path, name: str) -> bool:
    """Return whether some process holds the lock of a cell."""
    lock = _lock(folder, name)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _run(
    study: Study,
    claimed: _Claimed,
    sweep: Sweep,
    threats: Mapping[str, Threat],
    folder: Path,
    on_message: Callable[[str], None],
) -> None:
    """Train and evaluate a claimed cell; if that fails, write down the reason."""
    cell, path = claimed.cell, inside(folder, f"{CELLS}/{claimed.cell.name}")
    began = time.perf_counter()
    on_message(f"{cell.name}: begins")
    try:
        results = run_cell(cell, path, sweep, threats)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = printable(reason)
        path.mkdir(parents=True, exist_ok=True)
        Run(path).write_json(FAILURE, to_json(Failure(reason=reason)))
        study.fail(claimed.trial, reason)
        on_message(f"{cell.name}: failed: {reason}")
        return
    study.finish(claimed.trial, [result.accuracy for result in results])
    shown = ", ".join(f"{r.name} {100 * r.accuracy:.1f}" for r in results)
    on_message(f"{cell.name}: {shown} % in {(time.perf_counter() - began) / 60:.1f} min")


def _values(cell: Cell, path: Path) -> Mapping[str, Any]:
    """Return the values of a cell's configuration; for a cell that was begun, the values resolved
    then."""
    if not holds(path, CONFIG):
        return cell.values
    root = {"data_root": cell.values["data_root"]} if "data_root" in cell.values else {}
    return {**attrs.asdict(Run(path).config), **root}


def run_cell(
    cell: Cell,
    path: Path,
    sweep: Sweep,
    threats: Mapping[str, Threat],
    *,
    callback: Callback | None = None,
) -> list[ThreatResult]:
    """Return the results of a cell's final evaluation; if it has none yet, train the cell, or the
    rest of it, first.

    Args:
        cell: what to train.
        path: its run folder.
        sweep: names the split and the number of images.
        threats: threats of the evaluation, by name.
        callback: receives the events of the training; an error that it raises ends the training, as
            the cause of a `UserError`.

    Raises:
        UserError: the training failed, or its results are of other threats.
    """
    if holds(path, FAILURE):  # it is run again because the user said --retry
        shutil.rmtree(path)
    if not holds(path, RESULTS[sweep.split]):
        train_plan(
            make_plan(_values(cell, path)),
            path,
            threats=threats,
            split=sweep.split,
            limit=sweep.limit,
            callback=Callbacks([callback] if callback else []),
            resume=holds(path, CONFIG),
        )
    results = {result.name: result for result in Run(path).results(sweep.split)}
    if results.keys() != threats.keys():
        raise UserError(
            f"{path / RESULTS[sweep.split]}: measured under {', '.join(results)}, not the sweep's "
            f"{', '.join(threats)}; delete it and start the sweep again with retry (--retry)"
        )
    return [results[name] for name in threats]
