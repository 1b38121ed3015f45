"""The database that the workers of a sweep share: SQLite or PostgreSQL.

It may come from someone else: every error is a user error, and nothing in it is executed. Each
statement is a transaction, so that a worker that is stopped holds no lock. Passwords are never
shown.
"""

import contextlib
import importlib.util
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from curricula.errors import UserError, message_of, redacted
from curricula.runtime.files import inside, read_file

T = TypeVar("T")

FILE = "study.db"  # the database in a sweep's folder
RETRY_SECONDS = 300  # time for which a database that does not answer is tried again
MAX_DELAY = 5.0  # seconds between two tries
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")  # last bytes of a journal that names a file
_COMPUTED = re.compile(r"\b(AS|VIRTUAL)\b", re.IGNORECASE)  # of tables that compute what they hold
# Options of libpq: a server that went away without a word is noticed within half a minute.
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# Expressions for the time of the database's clock, in seconds since 1970, by its dialect.
CLOCK: Mapping[str, str] = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "EXTRACT(EPOCH FROM clock_timestamp())",
}
_EXAMPLE = "postgresql://USER@HOST/NAME or sqlite:///FILE"


@attrs.frozen(kw_only=True, eq=False)
class Database:
    """A connection to a database; each method can raise a `UserError`.

    Attributes:
        url: the database, without its password.
        in_folder: whether it is a file in the sweep's folder.
        engine: SQLAlchemy's engine, each of whose statements is a transaction.
        on_message: receives a line when the database is waited for.
    """

    url: str
    in_folder: bool
    engine: Engine
    on_message: Callable[[str], None]

    @classmethod
    def open(
        cls, folder: Path, storage: str | None, on_message: Callable[[str], None]
    ) -> "Database":
        """Return the database at a URL, or else the SQLite file in a sweep's folder.

        Args:
            folder: the sweep's folder.
            storage: URL of the database; None for the file in the folder.
            on_message: receives a line when the database is waited for.

        Raises:
            UserError: not a URL, a driver that is not installed, or a file that SQLite must not
                open.
        """
        if storage is None:
            _check_file(folder)
            database = str((folder / FILE).resolve())
            url = sqlalchemy.URL.create("sqlite", database=database)
        else:
            url = parse_url(storage)
        shown = redacted(url.render_as_string(hide_password=True))
        connect: dict[str, Any] = {"timeout": 30} if storage is None else {}
        if url.get_backend_name() == "postgresql":
            connect = {key: value for key, value in _POSTGRESQL.items() if key not in url.query}
        try:
            engine = sqlalchemy.create_engine(
                url,
                connect_args=connect,
                isolation_level="AUTOCOMMIT",
                poolclass=sqlalchemy.NullPool,  # no connection is left to processes that read data
            )
        except ImportError as error:
            raise UserError(
                f"storage {shown}: its driver is not installed ({error.name}); "
                "pip install 'psycopg[binary]'"
            ) from error
        return cls(url=shown, in_folder=storage is None, engine=engine, on_message=on_message)

    @property
    def clock(self) -> "sqlalchemy.ColumnElement[float]":
        """The time of the database's clock, in seconds, as an expression."""
        return sqlalchemy.literal_column(CLOCK[self.engine.dialect.name], sqlalchemy.Double)

    def once(self, work: Callable[[Connection], T]) -> T:
        """Return what a function of a connection returns, without trying again.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        with self.engine.connect() as connection:
            return work(connection)

    def first(self, work: Callable[[Connection], T]) -> T:
        """Return what a function of a connection returns, as the first use of the database.

        Raises:
            UserError: it cannot be opened.
        """
        try:
            return self.once(work)
        except Exception as error:
            raise self.error(error, "opened") from error

    def use(self, work: Callable[[Connection], T]) -> T:
        """Return what a function of a connection returns; while the database does not answer, try
        again for some minutes, and say so.

        Args:
            work: executes one statement; it may be run again although it took effect.

        Raises:
            UserError: the database is damaged, or did not answer in time.
        """
        end, delay = 0.0, 0.1
        while True:
            try:
                return self.once(work)
            except Exception as error:  # of several libraries: damaged rows raise many types
                now = time.monotonic()
                if not is_temporary(error) or 0 < end <= now:
                    raise self.error(error, "used") from error
                if not end:
                    end = now + RETRY_SECONDS
                    self.on_message(
                        f"database {self.url}: does not answer ({_reason(error)}); trying again "
                        f"for up to {RETRY_SECONDS / 60:g} minutes"
                    )
            time.sleep(delay)
            delay = min(2 * delay, MAX_DELAY)

    def error(self, error: BaseException, what: str) -> UserError:
        """Return the user error for a database that cannot be opened or used."""
        fix = "move it away" if self.in_folder else "start the sweep again once it works"
        kept = "kept beside it" if self.in_folder else "kept in the sweep's folder"
        return UserError(
            f"database {self.url}: cannot be {what} ({_reason(error)}); {fix}: what its cells have "
            f"measured is {kept}"
        )


def parse_url(storage: str) -> sqlalchemy.URL:
    """Return the URL of a database, with a driver that is installed.

    >>> parse_url("sqlite:///runs.db").database
    'runs.db'

    Raises:
        UserError: not a URL of SQLite or PostgreSQL.
    """
    try:
        url = sqlalchemy.make_url(storage)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as error:  # its message may contain a part of the password
        raise UserError(
            f"storage must be the URL of a database, such as {_EXAMPLE}, not {redacted(storage)!r}"
        ) from error
    if backend == "postgres":
        backend, url = "postgresql", url.set(drivername="postgresql")
    if backend not in CLOCK:
        raise UserError(f"storage {redacted(storage)}: cannot be used; give {_EXAMPLE} (--storage)")
    if url.drivername == "postgresql" and importlib.util.find_spec("psycopg2") is None:
        return url.set(drivername="postgresql+psycopg")
    return url


def is_temporary(error: Exception) -> bool:
    """Return whether a database may answer again after an error: it is locked, restarts, or cannot
    be reached."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError))


def _reason(error: BaseException) -> str:
    """Return an error's reason as one line, without SQL and without passwords."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return redacted(message_of(cause) or type(error).__name__)


def _check_file(folder: Path) -> None:
    """Check that the database in a sweep's folder cannot make SQLite write elsewhere, or compute
    without end.

    Raises:
        UserError: what is wrong.
    """
    for suffix in ("", "-journal", "-wal", "-shm"):  # the files of SQLite
        inside(folder, FILE + suffix)
        if (folder / (FILE + suffix)).is_dir():
            raise UserError(f"{folder / (FILE + suffix)} is not a regular file; move it away")
    path, journal = folder / FILE, folder / f"{FILE}-journal"
    try:
        with contextlib.suppress(FileNotFoundError):
            if read_file(journal).endswith(JOURNAL_MAGIC):  # SQLite would delete that file
                raise ValueError(f"{journal.name} names another file")
        if not path.exists():
            return
        with contextlib.closing(sqlite3.connect(path)) as database:
            schema = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        for kind, name, sql in schema:
            if kind not in ("table", "index") or _COMPUTED.search(str(sql)):
                raise ValueError(f"its {kind} {name!r} is not of curricula")
    except Exception as error:  # damaged files raise many types
        raise UserError(
            f"database {path}: cannot be opened ({_reason(error)}); move it away: what its cells "
            "have measured is kept beside it"
        ) from error
