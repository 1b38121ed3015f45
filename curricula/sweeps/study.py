"""The queue of a sweep's cells: an Optuna study in a database, which may come from someone else.

Every error of the database is a user error, and nothing in it is executed. What the cells have
measured is in their run folders, not here.
"""

import contextlib
import hashlib
import json
import logging
import re
import sqlite3
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from curricula.errors import UserError
from curricula.runtime.files import inside, read_file, write_atomic
from curricula.sweeps.folder import identity
from curricula.sweeps.spec import Cell, Sweep

STUDY = "study.db"
STUDY_ID = ".study"  # file that tells the folder of a study from others of the same name
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")  # last bytes of a journal that names a file
_COMPUTED = re.compile(r"\b(AS|VIRTUAL)\b", re.IGNORECASE)  # of tables that compute what they hold
_FOLDER, _CELL, _LABELS, _REASON = "folder", "cell", "labels", "reason"  # attributes in the study


@attrs.frozen(kw_only=True, eq=False)
class Study:
    """The queue of a sweep's cells in Optuna's database; each method can raise a `UserError`.

    Attributes:
        url: the database, without its password.
        in_folder: whether it is a file in the sweep's folder.
    """

    url: str
    in_folder: bool
    _study: optuna.Study

    @classmethod
    def open(
        cls, sweep: Sweep, folder: Path, threats: Sequence[str], storage: str | None
    ) -> "Study":
        """Return the queue of a sweep, from the database that holds it or from a new one.

        Args:
            sweep: the sweep.
            folder: its folder, locked by this process.
            threats: names of its threats.
            storage: URL of the database; None for a file in the folder.

        Raises:
            UserError: the database cannot be opened, or has the study of another folder.
        """
        url = storage
        if url is None:
            _check_file(folder)
            database = str((folder / STUDY).resolve())
            url = sqlalchemy.URL.create("sqlite", database=database).render_as_string()
        shown, in_folder = _redacted(url), storage is None
        with _user_errors(shown, in_folder, "opened"):
            study = optuna.create_study(
                storage=url,
                study_name="sweep" if in_folder else _name(sweep, folder),
                directions=["maximize"] * len(threats),
                load_if_exists=True,
            )
            study.set_metric_names(list(threats))
        found = cls(url=shown, in_folder=in_folder, study=study)
        if not in_folder:
            found._check_folder(folder)
        return found

    def _used(self) -> "contextlib.AbstractContextManager[None]":
        return _user_errors(self.url, self.in_folder, "used")

    def _check_folder(self, folder: Path) -> None:
        """Check that the study in a shared database belongs to this folder, not to another one of
        the same name."""
        file = inside(folder, STUDY_ID)
        try:
            own = read_file(file).decode().strip()
        except FileNotFoundError:
            own = ""
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({error}); delete it") from error
        with self._used():
            stored = self._study.user_attrs.get(_FOLDER)
            if stored is None:
                stored = own = own or uuid.uuid4().hex
                self._study.set_user_attr(_FOLDER, own)
        if stored != own:
            raise UserError(
                f"study {self._study.study_name} in {self.url} is that of another folder called "
                f"{folder.resolve().name}: choose another name for this one (--output), or share "
                "that folder between the machines"
            )
        try:
            write_atomic(file, f"{own}\n".encode())
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error})") from error

    def trials(self) -> dict[str, FrozenTrial]:
        """Return each cell's latest trial, by the cell's name."""
        with self._used():
            found = {}
            for trial in self._study.get_trials(deepcopy=False):
                cell = trial.user_attrs.get(_CELL)
                if isinstance(cell, str):  # others are not of curricula
                    found[cell] = trial
            return found

    def enqueue(self, cell: Cell) -> None:
        """Add a cell to the end of the queue."""
        attributes = {_CELL: cell.name, _LABELS: dict(cell.labels)}
        with self._used():
            self._study.enqueue_trial({}, user_attrs=attributes)

    def abandon(self, trial: FrozenTrial) -> None:
        """Mark a trial as failed because the process that ran it has died."""
        with self._used():
            self._study.tell(trial.number, state=TrialState.FAIL)

    def claim(self) -> tuple[str, optuna.Trial]:
        """Take the next cell from the queue, and return its name and its trial."""
        with self._used():
            trial = self._study.ask()
            return str(trial.user_attrs.get(_CELL)), trial

    def drop(self, trial: optuna.Trial) -> None:
        """Mark a trial as pruned because the sweep no longer has its cell."""
        with self._used():
            self._study.tell(trial, state=TrialState.PRUNED)

    def finish(self, trial: optuna.Trial, accuracies: Sequence[float]) -> None:
        """Mark a trial as complete, with its cell's accuracy under each threat."""
        with self._used():
            self._study.tell(trial, list(accuracies))

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Mark a trial as failed, with the reason."""
        with self._used():
            trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, state=TrialState.FAIL)


def has_failed(trial: FrozenTrial) -> bool:
    """Return whether a trial has the reason why its cell failed; without one, its process died."""
    return _REASON in trial.user_attrs


@contextlib.contextmanager
def _user_errors(url: str, in_folder: bool, what: str) -> Iterator[None]:
    """Turn errors raised inside the block, which uses a database, into user errors."""
    try:
        yield
    except Exception as error:  # of three libraries: damaged rows raise many types
        reason = str(error).partition("\n")[0] or type(error).__name__
        fix = "move it away" if in_folder else "start the sweep again once it works"
        kept = "kept beside it" if in_folder else "kept in the sweep's folder"
        raise UserError(
            f"study {url}: cannot be {what} ({reason}); {fix}: what its cells have measured is "
            f"{kept}"
        ) from error


def _check_file(folder: Path) -> None:
    """Check that the database in a sweep's folder cannot make SQLite write elsewhere, or compute
    without end.

    Raises:
        UserError: what is wrong.
    """
    for suffix in ("", "-journal", "-wal", "-shm"):  # the files of SQLite
        path = inside(folder, STUDY + suffix)
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file; move it away")
    path, journal = folder / STUDY, folder / f"{STUDY}-journal"
    with _user_errors(str(path), True, "opened"):
        with contextlib.suppress(FileNotFoundError):
            if read_file(journal).endswith(JOURNAL_MAGIC):  # SQLite would delete that file
                raise ValueError(f"{journal.name} names another file")
        if not path.exists():
            return
        with contextlib.closing(sqlite3.connect(path)) as database:
            schema = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        for kind, name, sql in schema:
            if kind not in ("table", "index") or _COMPUTED.search(str(sql)):
                raise ValueError(f"its {kind} {name!r} is not of Optuna")


def _name(sweep: Sweep, folder: Path) -> str:
    """Return the study's name in a shared database: the folder's name, and a hash of the sweep."""
    text = json.dumps(identity(sweep), sort_keys=True)
    return f"{folder.resolve().name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _redacted(url: str) -> str:
    """Return a database's URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:  # not a URL
        return url


@contextlib.contextmanager
def silence_optuna() -> Iterator[None]:
    """Silence, inside the block, Optuna's log and its warning that its interface may change."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
