"""Run the cells of a sweep, in one process or in several workers that share a queue.

The worker that runs a cell holds a lease in the database, and the lock of the cell in its folder,
which the operating system releases when the process ends. So a worker of the same machine and
folder is known to be dead as soon as its lock is free; any other one when its lease has ended.
"""

import contextlib
import functools
import hashlib
import json
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import filelock

from curricula.curriculum import Threat, check_channels
from curricula.errors import UserError, did_you_mean, prefixed_errors, printable, shown
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.suite_tables import severity_tables
from curricula.evaluation.suites import suite_threats, with_threats
from curricula.evaluation.threats import standard_threats
from curricula.runtime.locks import exclusive
from curricula.runtime.parsing import parse_json
from curricula.runtime.records import to_json
from curricula.runtime.signals import Interrupted
from curricula.runtime.values import as_path, check_flag, known_keywords
from curricula.sweeps.attempts import (
    attempt_folder,
    begin,
    is_measured,
    publish,
    results_of,
    write_results,
)
from curricula.sweeps.database import Database
from curricula.sweeps.folder import (
    CELLS,
    FAILURE,
    Failure,
    cell_lock,
    check_same_sweep,
    check_same_values,
    default_folder,
    different_sweep,
    folder_identity,
    identity,
    record_failure,
    write_sweep,
)
from curricula.sweeps.queue import (
    EXTENSIONS,
    Entry,
    Lease,
    LeaseLostError,
    Place,
    Queue,
    lease_seconds,
)
from curricula.sweeps.spec import (
    Cell,
    Sweep,
    check_column,
    check_sweep,
    read_sweep,
)
from curricula.training.callbacks import Callback, Callbacks, NoCallback
from curricula.training.config import FIELDS, TrainConfig, images_of, merge
from curricula.training.loop import train_plan
from curricula.training.plan import Plan, make_plan
from curricula.training.run import CONFIG, RESULTS, SWEEP, Run, holds

POLL_SECONDS = 2  # interval at which cells of other workers are checked


@known_keywords()
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

    Several workers that run the same sweep share its cells: processes with the same folder, or,
    with ``storage``, on any machines with folders of the same name. A cell whose worker has ended
    is run again. At the end, each folder has the results of all cells.

    Args:
        sweep: what to run, or its TOML file.
        output: folder of the sweep; it may hold finished cells already. By default ``runs/NAME``
            of a file ``NAME.toml``.
        storage: URL of the queue's database, such as ``postgresql://USER@HOST/NAME``; by default a
            SQLite file in the folder.
        retry: run failed cells again.
        download: fetch missing data.
        on_message: receives a line whenever a cell begins or ends.

    Raises:
        UserError: a wrong configuration, a threat that does not suit the data, a folder of a
            different sweep, a database that cannot be used. A cell that fails does not raise: its
            reason is kept.
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
    seconds = lease_seconds()
    check_same_sweep(sweep, folder)
    planned = check_cells(sweep, download=download)
    with exclusive(folder, files=(SWEEP,), wait=True, what="sweep folder"):
        check_same_sweep(sweep, folder)  # again: another process may have started meanwhile
        check_same_values(planned.configs, sweep, folder)
        database = Database.open(folder, storage, on_message)
        place = Place(
            host=printable(socket.gethostname()),
            folder=folder_identity(folder),
            path=printable(str(folder.resolve())),
        )
        study = "sweep" if storage is None else _study(sweep, folder)
        queue = Queue(database=database, study=study, place=place, lease_seconds=seconds)
        write_sweep(sweep, folder)
    worker = _Worker(
        sweep=sweep,
        folder=folder,
        planned=planned,
        cells={cell.name: planned.pinned(cell) for cell in sweep.cells},
        queue=queue,
        on_message=on_message,
    )
    worker.enqueue(retry=retry)
    worker.run()
    worker.write_results()


def _study(sweep: Sweep, folder: Path) -> str:
    """Return the name of a sweep in a shared database: the folder's name, and a hash of the
    sweep."""
    text = json.dumps(identity(sweep), sort_keys=True)
    return f"{folder.resolve().name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@attrs.frozen(kw_only=True)
class Planned:
    """The configurations, data and threats of a sweep's cells, after all of them were checked.

    Attributes:
        configs: configuration of each cell, every value stated, by name.
        data: identity of each cell's data, for JSON, by name.
        threats: threats that all cells are evaluated under, by name.
    """

    configs: Mapping[str, TrainConfig]
    data: Mapping[str, Any]
    threats: Mapping[str, Threat]

    @functools.cached_property
    def initial(self) -> dict[str, str]:
        """The run folders and files of initial weights (``init``), with their digests, by path."""
        found = (config.init for config in self.configs.values() if config.init)
        return {text.rpartition("#")[0]: text for text in found}

    def pinned(self, cell: Cell) -> Cell:
        """Return the cell with the digest of its initial weights, so that it refuses others."""
        init = cell.values.get("init")
        if not init:
            return cell
        return attrs.evolve(cell, values={**cell.values, "init": self.initial.get(init, init)})


def check_cells(sweep: Sweep, *, download: bool = False) -> Planned:
    """Return the configurations and data of a sweep's cells, and the threats that they are
    evaluated under.

    Every cell is planned; of cells that differ only in the seed, only the first.

    Raises:
        UserError: a cell cannot be planned, a threat does not suit its data, or the cells differ in
            their standard threats or in the images that they are evaluated on.
    """
    check_sweep(sweep)
    planned: dict[str, TrainConfig] = {}
    identities: dict[str, Any] = {}
    configs: dict[str, TrainConfig] = {}
    data: dict[str, Any] = {}
    threats: dict[str, Threat] = {}
    for cell in sweep.cells:
        values = {name: value for name, value in cell.values.items() if name != "seed"}
        key = json.dumps(values, sort_keys=True)
        with prefixed_errors(f"cell {cell.name}"):
            if key in planned:
                seed = {"seed": cell.values.get("seed", FIELDS["seed"].default)}
                configs[cell.name] = merge(attrs.asdict(planned[key]), seed)
                data[cell.name] = identities[key]
                continue
            plan = make_plan(cell.values, download=download)
            found = _threats(sweep, plan)
            planned[key] = configs[cell.name] = plan.config
            identities[key] = data[cell.name] = to_json(plan.identity)
        del plan  # it holds its data: one at a time
        threats = threats or found
        for name in {**threats, **found}:
            if str(found.get(name)) != str(threats.get(name)):
                raise UserError(
                    f"the cells would be measured under different threats ({name}: "
                    f"{threats.get(name)} and {found.get(name)}); name them under "
                    "[evaluation.threats]"
                )
    images = sorted({images_of(config.data, sweep.split) for config in planned.values()})
    if len(images) > 1:
        raise UserError(
            f"the cells would be measured on different images ({' and '.join(images)}), and could "
            "not be compared; make a sweep of each"
        )
    return Planned(configs=configs, data=data, threats=threats)


def _threats(sweep: Sweep, plan: Plan) -> dict[str, Threat]:
    """Return the threats of the sweep's suites and its own by name; if it has neither, the standard
    ones for the plan's data and perturbation."""
    if not sweep.threats and not sweep.suites:
        return standard_threats(plan.curriculum.tree, plan.data.budgets)
    threats = {}
    for name, text in sweep.threats.items():
        with prefixed_errors(f"threat {name}"):
            threats[name] = Threat.parse(text, budgets=plan.data.budgets)
            check_channels(threats[name].tree, plan.data.in_channels, data=plan.data.name)
    if not sweep.suites:
        return threats
    of_suites = suite_threats(
        sweep.suites,
        curriculum=plan.config.perturb,
        budgets=plan.data.budgets,
        in_channels=plan.data.in_channels,
        data=plan.data.name,
    )
    found = with_threats(of_suites, threats)
    for name in found:
        check_column(name)
    for name in sweep.frontier_of:
        if name not in found:
            fix = did_you_mean(name, found)
            raise UserError(f"evaluation: frontier: no threat is called {shown(name)}; {fix}")
    return found


@attrs.frozen(kw_only=True, eq=False)
class _Worker:
    """One process that runs cells of a sweep.

    Attributes:
        sweep: the sweep.
        folder: its folder.
        planned: what its cells do.
        cells: its cells, by name.
        queue: their queue.
        on_message: receives lines for the user.
        expired: moments since which leases are seen to have ended, by cell and token, in seconds.
    """

    sweep: Sweep
    folder: Path
    planned: Planned
    cells: Mapping[str, Cell]
    queue: Queue
    on_message: Callable[[str], None]
    expired: dict[tuple[str, int], float] = attrs.field(factory=dict)

    def enqueue(self, *, retry: bool) -> None:
        """Queue the cells that are new, and those that failed if they are to be run again."""
        entries = self._entries()
        new = {name: self._definition(name) for name in self.cells if name not in entries}
        failures = {}
        for name in new:
            failure = Run(self.folder / CELLS / name).read(FAILURE, Failure)
            if failure is not None and not retry:
                failures[name] = failure.reason
        self.queue.add(new, failures)
        if retry:
            for name, entry in entries.items():
                if entry.state == "failed":
                    self.queue.retry(name, entry)
        left = self._open(self._entries())
        measured = sum(is_measured(self.folder, name, self.sweep.split) for name in left)
        before = f", {measured} measured before" if measured else ""
        self.on_message(
            f"{self.folder}: {len(self.cells)} cells, {len(left) - measured} of them to run{before}"
        )

    def run(self) -> None:
        """Run cells until none is left, also while other workers run the last ones."""
        waiting = False
        while found := self._open(self._entries()):
            for name, entry in found.items():
                with self._locked(name) as locked:
                    if not locked:
                        continue
                    if self._publish(name, entry):
                        break
                    lease = self._claim(name, entry)
                    if lease is not None:
                        waiting = False
                        self._run(lease)
                        break  # other workers have gone on meanwhile
            else:
                if not waiting:
                    self.on_message(f"{self.folder}: waiting for cells that other workers run")
                waiting = True
                time.sleep(POLL_SECONDS)

    def write_results(self) -> None:
        """Write the results of the cells that workers with other folders have run into this one."""
        written: dict[str, int] = {}
        with exclusive(self.folder, wait=True, what="sweep folder"):
            for name, entry in self._entries().items():
                if self._is_elsewhere(entry) and not self._has_results(name, entry):
                    self._write_results(name, entry)
                    where = f"{entry.place.path} on {entry.place.host}"
                    written[where] = written.get(where, 0) + 1
        if written:
            places = ", ".join(f"{where} (cells: {count})" for where, count in written.items())
            self.on_message(
                f"{self.folder}: results of other workers' cells were added; their weights are in "
                f"{places}"
            )

    def _write_results(self, name: str, entry: Entry) -> None:
        try:
            write_results(
                self.folder,
                self.cells[name],
                self.queue.results(name, entry),
                entry.place,
                config=self.planned.configs[name],
                split=self.sweep.split,
                threats=self.planned.threats,
            )
        except UserError as error:
            raise UserError(
                f"database {self.queue.database.url}: the results of cell {name}, whose folder is "
                f"{entry.place.path} on {entry.place.host}, cannot be used: {error}"
            ) from error

    def _is_elsewhere(self, entry: Entry) -> bool:
        return entry.place.folder not in ("", self.queue.place.folder)

    def _has_results(self, name: str, entry: Entry) -> bool:
        """Return whether this folder has the results, or the failure, of a finished cell."""
        path = self.folder / CELLS / name
        return holds(path, FAILURE if entry.state == "failed" else RESULTS[self.sweep.split])

    def _definition(self, name: str) -> dict[str, Any]:
        """Return a cell's configuration values and the identity of its data, for JSON: they must be
        equal in all workers of a sweep."""
        values = {k: v for k, v in self.cells[name].values.items() if k != "data_root"}
        return {"values": values, "data": self.planned.data[name]}

    def _entries(self) -> dict[str, Entry]:
        """Return the state of each cell, after checking that all workers run the same values.

        Raises:
            UserError: a cell was queued with different values or data.
        """
        found = self.queue.entries(self.cells)
        for name, entry in found.items():
            own = self._definition(name)
            try:
                other = parse_json(entry.definition)
            except ValueError:
                other = None
            if own == other:
                continue
            values = other.get("values") if isinstance(other, dict) else None
            if isinstance(values, dict):
                mine: dict[str, Any] = own["values"]
                names = [k for k in {**mine, **values} if mine.get(k) != values.get(k)]
            else:
                names = []
            field = names[0] if names else "its images"
            raise different_sweep(self.folder, f"cell {name} ({printable(field)})")
        self._note_expired(found)
        return found

    def _note_expired(self, entries: Mapping[str, Entry]) -> None:
        """Remember since when each lease is seen to have ended."""
        before = dict(self.expired)
        self.expired.clear()
        for name, entry in entries.items():
            if entry.state == "running" and entry.expired:
                key = name, entry.token
                self.expired[key] = before.get(key, time.monotonic())

    def _open(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """Return the state of the cells that are not finished, by name."""
        return {name: entry for name, entry in entries.items() if not self._is_done(name, entry)}

    def _is_done(self, name: str, entry: Entry) -> bool:
        if entry.state not in ("done", "failed"):
            return False
        # A worker may have ended before it renamed the folder; results may have been deleted.
        return self._is_elsewhere(entry) or self._has_results(name, entry)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Hold a cell's lock in this folder inside the block, and yield whether it was free."""
        lock = cell_lock(self.folder, name)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _publish(self, name: str, entry: Entry) -> bool:
        """Return whether a cell is finished now; its worker may have ended after the database had
        accepted its results, and before it published them."""
        if entry.state in ("done", "failed"):
            attempt = attempt_folder(self.folder, name, entry.token)
            if holds(attempt, FAILURE if entry.state == "failed" else RESULTS[self.sweep.split]):
                publish(self.folder, name, attempt)
        return self._is_done(name, entry)

    def _claim(self, name: str, entry: Entry) -> Lease | None:
        """Return the lease of a cell whose lock this process holds; None if another worker has
        it."""
        is_dead = entry.place.shares_locks(self.queue.place)
        if entry.state == "running" and not is_dead:
            since = self.expired.get((name, entry.token), math.inf)
            if time.monotonic() - since < self.queue.lease_seconds / EXTENSIONS:
                return None  # the database may be back only now, and the worker may extend it yet
        return self.queue.claim(name, entry, is_dead=is_dead)

    def _run(self, lease: Lease) -> None:
        """Train and evaluate a claimed cell unless its folder has its results already, and report
        them or why it failed."""
        name = lease.cell
        began = time.perf_counter()
        measured = is_measured(self.folder, name, self.sweep.split)
        if not measured:
            self.on_message(f"{name}: begins")
        try:
            with lease:
                line = self._attempt(lease)
        except LeaseLostError:
            self.on_message(
                f"{name}: another worker has taken it over, since this one did not extend its "
                f"lease within {self.queue.lease_seconds:g} seconds; its attempt is not used"
            )
            return
        except Interrupted as error:
            number = error.status - 128
            message = "interrupted; start the sweep again to continue"
            raise Interrupted(message, number) from error
        minutes = (time.perf_counter() - began) / 60
        took = "measured before" if measured else f"in {minutes:.1f} min"
        self.on_message(f"{name}: {line} {took}")

    def _attempt(self, lease: Lease) -> str:
        """Run a cell, publish its folder, and return its accuracies or its failure as text.

        Raises:
            LeaseLostError: another worker has taken over the cell.
        """
        name, split = lease.cell, self.sweep.split
        attempt = attempt_folder(self.folder, name, lease.token)
        failure, line = "", ""
        try:
            attempt = begin(self.folder, name, lease.token, split)
            results = run_cell(
                self.cells[name],
                attempt,
                self.sweep,
                self.planned.threats,
                callback=_LeaseCheck(lease),
            )
            line = accuracies_line(results)
        except LeaseLostError:
            raise
        except Exception as error:
            lease.extend()  # another worker may have deleted this folder
            failure = record_failure(attempt, error)
            line = f"failed: {failure}"
        lease.finish(results_of(attempt, split), failure=failure)
        publish(self.folder, name, attempt)
        return line


@attrs.frozen(eq=False)
class _LeaseCheck(NoCallback):
    """End a training whose cell another worker has taken over."""

    lease: Lease

    def on_step_end(self, *event: object) -> None:
        self.lease.check()

    def on_eval_batch_end(self) -> None:
        self.lease.check()


def accuracies_line(results: Sequence[ThreatResult]) -> str:
    """Return the accuracy under each threat as a line of text, with the mean of a suite in place of
    its severities.

    >>> from curricula.evaluation.suite_tables import Position
    >>> place = Position(suite="weather", row="fog", column="1")
    >>> fog = ThreatResult(name="fog 1", threat="fog:1", correct=3, fooled=1, n=4, position=place)
    >>> accuracies_line([ThreatResult(name="clean", threat="clean", correct=4, fooled=0, n=4), fog])
    'clean 100.0, weather mean 75.0 %'
    """
    tables = severity_tables(results)
    folded = {each.name for table in tables for each in table.results}
    accuracies = {each.name: each.accuracy for each in results if each.name not in folded}
    accuracies |= {f"{table.suite} mean": 1 - table.mean_error for table in tables}
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in accuracies.items()) + " %"


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
    if not holds(path, RESULTS[sweep.split]):
        train_plan(
            make_plan(_values(cell, path), read_init=not Run(path).has_checkpoint),
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
