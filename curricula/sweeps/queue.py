"""The queue of a sweep's cells: one row per cell of a table in a database.

Each change of a row is one statement, which takes effect only if the row is still as the worker saw
it. The worker that runs a cell holds a lease, which a thread extends and which ends by the clock of
the database. Each attempt at a cell has a number, its fencing token: once another worker has begun
the next attempt, the database refuses whatever an earlier one still reports.
"""

import functools
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import sqlalchemy
from sqlalchemy import Column, Connection, Double, Integer, String, Text, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, ProgrammingError

from curricula.errors import UserError, message_of, shown
from curricula.runtime.parsing import parse_json
from curricula.runtime.records import from_json, to_json
from curricula.runtime.values import check_printable
from curricula.sweeps.database import MAX_DELAY, Database
from curricula.training.run import WRONG_SHAPE

LEASE_VARIABLE = "CURRICULA_LEASE"
LEASE_SECONDS = 60  # time after which another worker may take a cell that is not extended
MAX_LEASE = 86_400  # seconds
EXTENSIONS = 3  # extensions in the time of a lease
MAX_RESULTS = 2**26  # characters of a cell's results in the database
MAX_TEXT = 2**20  # characters of another text in the database
MAX_ROWS = 500  # rows added by one statement
MAX_TRIES = 5  # tries to make the table while other workers make it too

State = Literal["queued", "running", "done", "failed"]

_TABLE = sqlalchemy.Table(
    "curricula_cells",
    sqlalchemy.MetaData(),
    Column("study", String(300), primary_key=True),
    Column("cell", String(300), primary_key=True),
    Column("definition", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("token", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("expires", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("results", Text, nullable=False),
)


@attrs.frozen(kw_only=True)
class Place:
    """A worker's machine and sweep folder.

    Attributes:
        host: name of its machine.
        folder: identity of its sweep folder, which machines can share.
        path: path of that folder on the machine.
    """

    host: str = attrs.field(default="", validator=check_printable)
    folder: str = attrs.field(default="", validator=check_printable)
    path: str = attrs.field(default="", validator=check_printable)

    def shares_locks(self, other: "Place") -> bool:
        """Return whether two workers see each other's file locks."""
        return (self.host, self.folder) == (other.host, other.folder)


@attrs.frozen(kw_only=True)
class Entry:
    """The state of a cell in the queue.

    Attributes:
        state: ``queued``, ``running``, ``done`` or ``failed``.
        token: number of the latest attempt; 0 before the first.
        place: where that attempt writes.
        expired: whether its lease has ended.
        definition: the values of the cell's configuration and the identity of its data, as JSON.
        reason: why the cell failed.
    """

    state: State
    token: int = attrs.field(validator=attrs.validators.ge(0))
    place: Place
    expired: bool
    definition: str
    reason: str = attrs.field(validator=check_printable)


@attrs.frozen
class _Results:
    """The contents of a finished cell's small files, by name, as the database keeps them."""

    files: Mapping[str, str]


class LeaseLostError(Exception):
    """Another worker has taken over the cell."""


@attrs.frozen(kw_only=True, eq=False)
class Queue:
    """The cells of a sweep in a database; each method can raise a `UserError`.

    Attributes:
        database: the database.
        study: name of the sweep in it.
        place: where this worker writes.
        lease_seconds: time after which another worker may take a cell of this one.
    """

    database: Database
    study: str
    place: Place
    lease_seconds: float

    def __attrs_post_init__(self) -> None:
        create = sqlalchemy.schema.CreateTable(_TABLE, if_not_exists=True)
        for left in reversed(range(MAX_TRIES)):
            try:
                self.database.once(lambda connection: connection.execute(create))
                return
            except Exception as error:
                # PostgreSQL refuses one of two workers that make the table at once.
                if not left or not isinstance(error, (IntegrityError, ProgrammingError)):
                    raise self.database.error(error, "opened") from error

    def entries(self, cells: Collection[str]) -> dict[str, Entry]:
        """Return the state of each of the given cells that the queue holds, by name, in their
        order."""
        columns = _TABLE.c
        expired = sqlalchemy.case((columns.expires < self.database.clock, 1), else_=0)
        texts = (columns.definition, columns.host, columns.folder, columns.path, columns.reason)
        query = select(
            columns.cell,
            columns.state,
            columns.token,
            expired.label("expired"),
            *(sqlalchemy.func.substr(text, 1, MAX_TEXT).label(text.name) for text in texts),
        ).where(columns.study == self.study)
        rows = self.database.use(lambda connection: connection.execute(query).mappings().all())
        found = {}
        for row in rows:
            name = row["cell"]
            if name not in cells:  # of an axis that was longer once
                continue
            place = {key: row[key] for key in ("host", "folder", "path")}
            value = {**row, "place": place, "expired": bool(row["expired"])}
            with self._checked(name):
                found[name] = from_json(Entry, value)
        return {name: found[name] for name in cells if name in found}

    def add(self, definitions: Mapping[str, Any], failures: Mapping[str, str]) -> None:
        """Queue the cells that the queue does not hold yet; several workers may do so at once.

        Args:
            definitions: definition of each cell, for JSON, by name.
            failures: reasons of cells that are known to have failed, by name.
        """
        rows = [
            {
                "study": self.study,
                "cell": name,
                "definition": json.dumps(definition, sort_keys=True),
                "state": "failed" if name in failures else "queued",
                "token": 0,
                "expires": 0.0,
                "reason": failures.get(name, ""),
                "results": "",
                **attrs.asdict(Place()),
            }
            for name, definition in definitions.items()
        ]
        is_sqlite = self.database.engine.dialect.name == "sqlite"
        statement = (sqlite.insert if is_sqlite else postgresql.insert)(_TABLE)
        for first in range(0, len(rows), MAX_ROWS):
            some = statement.values(rows[first : first + MAX_ROWS]).on_conflict_do_nothing()
            self.database.use(functools.partial(Connection.execute, statement=some))

    def retry(self, cell: str, seen: Entry) -> None:
        """Queue a failed cell again."""
        again = update(_TABLE).values(state="queued", reason="", results="")
        self._change(again.where(*self._as_seen(cell, seen)))

    def _as_seen(self, cell: str, seen: Entry) -> "list[sqlalchemy.ColumnElement[bool]]":
        """Return the conditions that a cell's state has not changed."""
        columns = _TABLE.c
        return [
            columns.study == self.study,
            columns.cell == cell,
            columns.state == seen.state,
            columns.token == seen.token,
        ]

    def claim(self, cell: str, seen: Entry, *, is_dead: bool) -> "Lease | None":
        """Begin the next attempt at a cell and return its lease; None if the cell's state has
        changed.

        Args:
            cell: its name.
            seen: its state, as `entries` returned it.
            is_dead: whether the worker of the latest attempt is known to have ended, so that its
                lease need not have.
        """
        conditions = self._as_seen(cell, seen)
        if seen.state == "running" and not is_dead:
            conditions.append(_TABLE.c.expires < self.database.clock)
        claimed = update(_TABLE).values(
            state="running",
            token=seen.token + 1,
            expires=self.database.clock + self.lease_seconds,
            reason="",
            results="",
            **attrs.asdict(self.place),
        )
        if not self._change(claimed.where(*conditions)):
            return None
        return Lease(queue=self, cell=cell, token=seen.token + 1)

    def results(self, cell: str, seen: Entry) -> Mapping[str, str]:
        """Return the small files of a finished cell, by name, as its worker stored them."""
        text = sqlalchemy.func.substr(_TABLE.c.results, 1, MAX_RESULTS + 1)
        query = select(text).where(*self._as_seen(cell, seen))
        found = self.database.use(lambda connection: connection.execute(query).scalar())
        if found == "":
            raise UserError(f"they are larger than {MAX_RESULTS:,} characters: copy that folder")
        with self._checked(cell):
            if not isinstance(found, str) or len(found) > MAX_RESULTS:
                raise ValueError("its results are missing or too large")
            return from_json(_Results, parse_json(found)).files

    def _change(self, statement: sqlalchemy.Update) -> bool:
        """Return whether a statement has changed a row."""
        return self.database.use(lambda connection: connection.execute(statement).rowcount > 0)

    @contextmanager
    def _checked(self, cell: str) -> Iterator[None]:
        """Turn errors raised inside the block, which reads a cell's row, into a user error."""
        try:
            yield
        except WRONG_SHAPE as error:
            raise UserError(
                f"database {self.database.url}: the row of cell {cell} in {_TABLE.name} is damaged "
                f"({message_of(error)}); delete the row and start the sweep again"
            ) from error


@attrs.define(kw_only=True, eq=False)
class Lease:
    """The right to run a cell, extended by a thread inside a ``with`` block.

    Attributes:
        queue: the queue.
        cell: name of the cell.
        token: number of the attempt.
    """

    queue: Queue
    cell: str
    token: int
    _lost: threading.Event = attrs.field(factory=threading.Event, init=False)
    _ended: threading.Event = attrs.field(factory=threading.Event, init=False)

    def __enter__(self) -> "Lease":
        threading.Thread(target=self._keep, daemon=True, name=f"lease of {self.cell}").start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def check(self) -> None:
        """Check that no other worker has taken over the cell, as far as the thread knows.

        Raises:
            LeaseLostError: one has.
        """
        if self._lost.is_set():
            raise LeaseLostError

    def extend(self) -> None:
        """Renew the lease now.

        Raises:
            LeaseLostError: another worker has taken over the cell.
            UserError: the database does not answer.
        """
        if not self.queue._change(self._extension):
            raise LeaseLostError

    def finish(self, files: Mapping[str, str], *, failure: str = "") -> None:
        """Report the attempt's results, which the database accepts once and from the latest
        attempt only.

        Args:
            files: contents of the run's small files, by name, for workers with other folders.
            failure: the reason why the cell failed.

        Raises:
            LeaseLostError: another worker has taken over the cell.
            UserError: the database does not answer.
        """
        state: State = "failed" if failure else "done"
        results = json.dumps(to_json(_Results(files)))
        if len(results) > MAX_RESULTS:
            results = ""  # other folders will report that it has none
        finished = update(_TABLE).values(state=state, reason=failure, results=results)
        if self.queue._change(finished.where(self._held)):
            return
        # A database that went away may have accepted it without an answer.
        now = self.queue.entries([self.cell]).get(self.cell)
        if now is None or (now.state, now.token) != (state, self.token):
            raise LeaseLostError

    @property
    def _held(self) -> "sqlalchemy.ColumnElement[bool]":
        columns = _TABLE.c
        return sqlalchemy.and_(
            columns.study == self.queue.study,
            columns.cell == self.cell,
            columns.state == "running",
            columns.token == self.token,
        )

    @property
    def _extension(self) -> sqlalchemy.Update:
        expires = self.queue.database.clock + self.queue.lease_seconds
        return update(_TABLE).values(expires=expires).where(self._held)

    def _keep(self) -> None:
        """Extend the lease until the block ends or the lease is lost."""
        interval = self.queue.lease_seconds / EXTENSIONS
        delay = interval
        while not self._ended.wait(delay):
            try:
                held = self.queue.database.once(
                    lambda connection: connection.execute(self._extension).rowcount
                )
            except Exception:  # the database does not answer; soon it may
                delay = min(interval / 4, MAX_DELAY)
                continue
            if not held:
                self._lost.set()
                return
            delay = interval


def lease_seconds() -> int:
    """Return the time after which another worker may take a cell that is not extended, in seconds:
    the environment variable ``CURRICULA_LEASE``, or 60.

    Raises:
        UserError: the variable is not a whole number from 1 to 86,400.
    """
    text = os.environ.get(LEASE_VARIABLE, "")
    if not text:
        return LEASE_SECONDS
    whole = text.isascii() and text.isdecimal() and len(text) < 10
    if not whole or not 1 <= int(text) <= MAX_LEASE:
        raise UserError(
            f"{LEASE_VARIABLE} must be a whole number of seconds, from 1 to {MAX_LEASE:,}, not "
            f"{shown(text)}"
        )
    return int(text)
