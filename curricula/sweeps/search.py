"""Run a search: propose a trial, train and measure it as a cell of a sweep, and go on.

The folder of a search is that of a sweep whose cells were chosen as it went: ``trials.json`` has
the values of all trials, from which ``sweep.toml`` follows. The run folders say how trials ended.
The process that runs a trial holds its lock, which the operating system frees with the process.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import attrs
import filelock

from curricula.curriculum import Threat
from curricula.errors import UserError, message_of
from curricula.runtime.files import inside, write_atomic
from curricula.runtime.locks import exclusive
from curricula.runtime.parsing import parse_json, read_text
from curricula.runtime.records import to_json
from curricula.runtime.signals import Interrupted
from curricula.runtime.values import as_path, check_flag, known_keywords
from curricula.sweeps.folder import (
    CELLS,
    FAILURE,
    PRUNED,
    SEARCH,
    Pruned,
    cell_folder,
    cell_lock,
    check_same_search,
    default_folder,
    different_sweep,
    record_failure,
    write_sweep,
)
from curricula.sweeps.pruning import PrunedError, Pruner, intermediate
from curricula.sweeps.runner import Planned, accuracies_line, check_cells, run_cell
from curricula.sweeps.sampling import Ending, propose
from curricula.sweeps.search_spec import (
    AXIS,
    Search,
    Trial,
    check_search,
    check_trials,
    read_search,
)
from curricula.sweeps.spec import Cell, Sweep
from curricula.training.run import CONFIG, DATA, RESULTS, SWEEP, Run, holds

TRIALS = "trials.json"  # file with the values of all trials, in order
POLL_SECONDS = 2  # interval at which trials of other processes are checked
_IMAGES = ("train", "test", "validation")  # fields of `DataIdentity`


@known_keywords()
def run_search(
    search: Search | str | Path,
    output: str | Path | None = None,
    *,
    retry: bool = False,
    download: bool = False,
    on_message: Callable[[str], None] = lambda line: None,
) -> None:
    """Propose, train and measure the trials of a search, and write their run folders into
    ``output/cells``.

    A search that is started again goes on where it was: with the same seed its trials are those of
    an uninterrupted one. Several processes that run the same search into the same folder share its
    trials; which values are proposed then depends on the order in which they end.

    Args:
        search: what to run, or its TOML file.
        output: folder of the search; it may hold finished trials already. By default ``runs/NAME``
            of a file ``NAME.toml``.
        retry: run failed trials again.
        download: fetch missing data.
        on_message: receives a line whenever a trial begins or ends.

    Raises:
        UserError: a wrong configuration, a threat that does not suit the data, a folder of a
            different search. A trial that fails does not raise: its reason is kept.
    """
    if not isinstance(search, Search):
        file = as_path("search", search)
        search, output = read_search(file), default_folder(file) if output is None else output
    if output is None:
        raise UserError("output is missing: name the folder of the search, such as 'runs/mine'")
    check_flag("retry", retry)
    folder = as_path("output", output)
    check_same_search(search, folder)
    check_search(search)
    planned = check_cells(search.sweep(search.extremes), download=download)
    _check_same_trials(planned, search.sweep(read_trials(search, folder)), folder)
    running = _Running(search=search, folder=folder, threats=planned.threats, on_message=on_message)
    running.start(retry=retry)
    waiting = False
    while True:
        with running.exclusive():
            claimed, others_run = running.claim()
        if claimed is not None:
            waiting = False
            try:
                running.run(planned.pinned(claimed.cell))
            finally:
                claimed.lock.release()
        elif others_run:
            if not waiting:
                on_message(f"{folder}: waiting for trials that other processes run")
            waiting = True
            time.sleep(POLL_SECONDS)
        else:
            return


def _check_same_trials(planned: Planned, trials: Sweep, folder: Path) -> None:
    """Check that the trials in a folder began with the initial weights that are there now, and on
    the data that are there now, if all trials have the same.

    Raises:
        UserError: they began with others.
    """
    data, *others = planned.data.values()
    for cell in trials.cells:
        path = cell_folder(folder, cell.name)
        if not holds(path, CONFIG):
            continue
        begun = Run(path).config.init
        if planned.initial.get(begun.rpartition("#")[0], begun) != begun:
            raise different_sweep(folder, f"trial {cell.name} (init)")
        found = Run(path).read_json(DATA)
        same = not isinstance(found, dict) or all(found.get(name) == data[name] for name in _IMAGES)
        if not same and all(each == data for each in others):
            raise different_sweep(folder, f"trial {cell.name} (its images)")


def read_trials(search: Search, folder: Path) -> list[Trial]:
    """Return the values of all trials of a search so far, in order, from its folder.

    Raises:
        UserError: their file is damaged.
    """
    file = inside(folder, TRIALS)
    try:
        return check_trials(search, parse_json(read_text(file)))
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read ({message_of(error)}); restore it, or choose another output "
            "(--output)"
        ) from error


_State = Literal["done", "pruned", "failed", "running", "queued"]


@attrs.frozen(kw_only=True)
class _Claimed:
    """The cell of a trial that this process runs, and the lock that this process holds."""

    cell: Cell
    lock: filelock.BaseFileLock


@attrs.frozen(kw_only=True)
class _Running:
    """A search that this process takes part in.

    Attributes:
        search: what is searched.
        folder: its folder.
        threats: threats of the evaluation, by name.
        on_message: receives lines for the user.
    """

    search: Search
    folder: Path
    threats: Mapping[str, Threat]
    on_message: Callable[[str], None]

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that keeps other processes of the same search out of its
        block."""
        files = (SEARCH, TRIALS, SWEEP)
        return exclusive(self.folder, files=files, wait=True, what="search folder")

    def start(self, *, retry: bool) -> None:
        """Write the search's file into its folder; with ``retry``, delete failed trials, so that
        they run again."""
        with self.exclusive():
            check_same_search(self.search, self.folder)  # again: another process may have started
            self._write(SEARCH, self.search.as_toml())
            inside(self.folder, CELLS).mkdir(exist_ok=True)
            trials = read_trials(self.search, self.folder)
            if trials:  # it may be one behind
                write_sweep(self.search.sweep(trials), self.folder)
            ended = 0
            for cell in self._cells(trials):
                state = self._state(cell)
                if state == "failed" and retry:
                    shutil.rmtree(self._path(cell))
                elif state in ("done", "pruned", "failed"):
                    ended += 1
        left = max(self.search.trials, len(trials)) - ended
        self.on_message(f"{self.folder}: {ended} trials done, {left} to run")

    def claim(self) -> tuple[_Claimed | None, bool]:
        """Claim an abandoned trial or else a new one, and return it with whether other processes
        run trials; None if there is nothing to claim.

        The caller keeps other processes out.
        """
        trials = read_trials(self.search, self.folder)
        cells = self._cells(trials)
        states = [self._state(cell) for cell in cells]
        for cell, state in zip(cells, states, strict=True):
            if state == "queued":
                return self._claimed(cell), True
        if len(trials) >= self.search.trials:
            return None, "running" in states
        endings = [self._ending(cell, state) for cell, state in zip(cells, states, strict=True)]
        trials.append(propose(self.search, list(zip(trials, endings, strict=True))))
        self._write(TRIALS, json.dumps(trials, indent=1) + "\n")
        write_sweep(self.search.sweep(trials), self.folder)
        return self._claimed(self._cells(trials)[-1]), True

    def run(self, cell: Cell) -> None:
        """Train and measure the cell of a claimed trial; if that fails or is ended, write down why.

        Raises:
            Interrupted: a signal ended the training.
        """
        path, name = self._path(cell), cell.labels[AXIS]
        began = time.perf_counter()
        self.on_message(f"{name}: begins")
        try:
            results = run_cell(
                cell,
                path,
                self.search.sweep(read_trials(self.search, self.folder)),
                self.threats,
                callback=self._pruner() if self.search.prune else None,
            )
        except Interrupted as error:
            text = "interrupted; start the search again to continue it"
            raise Interrupted(text, error.status - 128) from error
        except Exception as error:
            if isinstance(error.__cause__, PrunedError):
                Run(path).write_json(PRUNED, to_json(Pruned(epoch=error.__cause__.epoch)))
                self.on_message(f"{name}: {error.__cause__}")
                return
            self.on_message(f"{name}: failed: {record_failure(path, error)}")
        else:
            minutes = (time.perf_counter() - began) / 60
            self.on_message(f"{name}: {accuracies_line(results)} in {minutes:.1f} min")

    def _pruner(self) -> Pruner:
        """Return the callback that compares a trial with those that are finished now."""
        cells = self._cells(read_trials(self.search, self.folder))
        done = [cell for cell in cells if self._state(cell) == "done"]
        return Pruner(
            threats={name: self.threats[name] for name in self.search.objectives},
            finished=[intermediate(Run(self._path(cell))) for cell in done],
            limit=self.search.limit,
        )

    def _cells(self, trials: list[Trial]) -> list[Cell]:
        """Return each trial's cell."""
        return self.search.sweep(trials).cells if trials else []

    def _state(self, cell: Cell) -> _State:
        """Return how far a trial is, by its folder and its lock."""
        path = self._path(cell)
        lock = cell_lock(self.folder, cell.name)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return "running"
        lock.release()
        files: dict[str, _State] = {
            FAILURE: "failed",
            PRUNED: "pruned",
            RESULTS["validation"]: "done",
        }
        return next((state for file, state in files.items() if holds(path, file)), "queued")

    def _ending(self, cell: Cell, state: _State) -> Ending:
        """Return how a trial ended."""
        if state in ("pruned", "failed"):
            return state
        if state != "done":
            return None
        path = self._path(cell)
        found = {result.name: result.accuracy for result in Run(path).results("validation")}
        first, second = self.search.objectives
        if first not in found or second not in found:
            raise UserError(
                f"{path / RESULTS['validation']}: it has no {first} or no {second}; delete it, and "
                "start the search again"
            )
        return found[first], found[second]

    def _claimed(self, cell: Cell) -> _Claimed:
        lock = cell_lock(self.folder, cell.name)
        lock.acquire(blocking=False)
        return _Claimed(cell=cell, lock=lock)

    def _path(self, cell: Cell) -> Path:
        return cell_folder(self.folder, cell.name)

    def _write(self, name: str, text: str) -> None:
        file = inside(self.folder, name)
        try:
            write_atomic(file, text.encode())
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error})") from error
