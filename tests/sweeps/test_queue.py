"""The queue of a sweep in a database, which may come from someone else: its leases and fencing
tokens, and databases that are damaged, locked, gone or crafted."""

import contextlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time

import pytest
import sqlalchemy

import curricula
from curricula.errors import UserError
from curricula.sweeps import database as databases
from curricula.sweeps.database import FILE, Database, is_temporary, parse_url
from curricula.sweeps.queue import LeaseLostError, Place, Queue, lease_seconds
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep

HERE = Place(host="here", folder="a", path="/a")
THERE = Place(host="there", folder="b", path="/b")
CELLS = ("seed=0", "seed=1")


def opened(folder, storage=None, *, place=HERE, seconds=60, on_message=lambda line: None):
    folder.mkdir(parents=True, exist_ok=True)
    database = Database.open(folder, storage, on_message)
    return Queue(database=database, study="sweep", place=place, lease_seconds=seconds)


def entry(queue, cell="seed=0"):
    return queue.entries(CELLS)[cell]


def claimed(queue, cell="seed=0", *, is_dead=False):
    return queue.claim(cell, entry(queue, cell), is_dead=is_dead)


@pytest.fixture(scope="module")
def queued(tmp_path_factory):
    """Return the folder of a sweep with a queued cell."""
    path = tmp_path_factory.mktemp("queued") / "out"
    opened(path).add({"seed=0": {"values": {"seed": 0}}}, {})
    return path


@pytest.fixture
def folder(queued, tmp_path):
    """Return a copy of it."""
    return shutil.copytree(queued, tmp_path / "out")


def database(path):
    return contextlib.closing(sqlite3.connect(path))


def expire(queue):
    """Let all leases end now."""
    with queue.database.engine.connect() as connection:
        connection.execute(sqlalchemy.text("UPDATE curricula_cells SET expires = 0"))


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_cell_is_queued_claimed_and_finished(folder):
    queue = opened(folder)
    assert (entry(queue).state, entry(queue).token) == ("queued", 0)
    lease = claimed(queue)
    assert (entry(queue).state, entry(queue).token, entry(queue).place) == ("running", 1, HERE)
    lease.finish({"evaluation.json": "[]\n"})
    assert entry(queue).state == "done"
    assert queue.results("seed=0", entry(queue)) == {"evaluation.json": "[]\n"}
    queue.add({"seed=1": {}}, {})
    claimed(queue, "seed=1").finish({}, failure="no reason")
    assert (entry(queue, "seed=1").state, entry(queue, "seed=1").reason) == ("failed", "no reason")
    queue.retry("seed=1", entry(queue, "seed=1"))
    assert (entry(queue, "seed=1").state, entry(queue, "seed=1").token) == ("queued", 1)


def test_a_cell_is_queued_once_by_workers_that_share_only_the_database(folder):
    first, second = opened(folder), opened(folder, place=THERE)
    first.add({"seed=1": {"values": 1}}, {})
    second.add({"seed=0": {"values": 2}, "seed=1": {"values": 2}}, {"seed=1": "a reason"})
    assert [entry(second, cell).state for cell in CELLS] == ["queued", "queued"]
    assert entry(second, "seed=1").definition == '{"values": 1}'


def test_one_of_two_workers_claims_a_cell(folder):
    first, second = opened(folder), opened(folder, place=THERE)
    seen = entry(second)
    assert claimed(first) is not None
    assert second.claim("seed=0", seen, is_dead=False) is None
    assert second.claim("seed=0", seen, is_dead=True) is None
    assert claimed(second) is None  # its lease has not ended
    assert entry(second).place == HERE


def test_a_lease_that_ended_is_taken_over_and_the_earlier_worker_refused(folder):
    first, second = opened(folder), opened(folder, place=THERE)
    earlier = claimed(first)
    assert not entry(second).expired
    expire(first)
    assert entry(second).expired
    later = claimed(second)
    assert later.token == 2
    for report in (earlier.extend, lambda: earlier.finish({"a": "1"}), lambda: earlier.finish({})):
        with pytest.raises(LeaseLostError):
            report()
    later.finish({"evaluation.json": "2"})
    with pytest.raises(LeaseLostError):
        earlier.finish({"evaluation.json": "1"}, failure="late")
    assert second.results("seed=0", entry(second)) == {"evaluation.json": "2"}


def test_a_lease_that_ended_unnoticed_is_extended(folder):
    queue = opened(folder)
    lease = claimed(queue)
    expire(queue)
    lease.extend()
    assert not entry(queue).expired


def test_a_thread_extends_a_lease_and_notices_that_it_was_lost(folder):
    first, second = opened(folder, seconds=1), opened(folder, place=THERE)
    with claimed(first) as lease:
        expire(first)
        wait_until(lambda: not entry(second).expired)
        lease.check()
        taken = claimed(second, is_dead=True)
        wait_until(lambda: is_lost(lease))
    assert entry(second).token == taken.token == 2


def is_lost(lease):
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def test_the_extension_of_a_lease_that_ended_with_its_block_stops(folder):
    queue = opened(folder, seconds=0.3)
    with claimed(queue):
        pass
    time.sleep(0.6)
    assert entry(queue).expired


def test_an_acceptance_whose_answer_was_lost_is_recognised(folder):
    """As if the connection had ended after the database had accepted the results."""
    queue = opened(folder)
    lease = claimed(queue)
    lease.finish({"a": "1"})
    lease.finish({"a": "1"})
    with pytest.raises(LeaseLostError):
        lease.finish({"a": "1"}, failure="something else")


def test_the_time_of_a_lease_can_be_set(monkeypatch):
    monkeypatch.delenv("CURRICULA_LEASE", raising=False)
    assert lease_seconds() == 60
    monkeypatch.setenv("CURRICULA_LEASE", "5")
    assert lease_seconds() == 5
    for text in ("0", "1.5", "-3", "99999999", "\u0663", "1e2", "soon"):
        monkeypatch.setenv("CURRICULA_LEASE", text)
        with pytest.raises(UserError, match="CURRICULA_LEASE must be a whole number of seconds"):
            lease_seconds()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@there/db",
        "postgresql://me:se/cr:et@x@there/db",
        "postgresql://me@there/db?password=secret",
        "postgresql+psycopg://me:secret@there/db?sslpassword=secret",
        "mysql://me:secret@there/db",
        "postgresql://me:secret@there:port/db",
        "//me:secret@there",
        "secret",
    ],
)
def test_a_password_is_never_shown(tmp_path, url):
    try:
        shown = Database.open(tmp_path, url, print).url
    except UserError as error:
        shown = str(error)
    assert url == "secret" or not {"secret", "se/", "cr:et", "et@"} & {
        part for part in ("secret", "se/", "cr:et", "et@") if part in shown
    }


def test_a_plain_postgresql_url_uses_psycopg_3_where_psycopg_2_is_missing(monkeypatch):
    monkeypatch.setattr(databases.importlib.util, "find_spec", lambda name: None)
    assert parse_url("postgresql://there/db").drivername == "postgresql+psycopg"
    assert parse_url("postgres://there/db").drivername == "postgresql+psycopg"
    assert parse_url("postgresql+psycopg2://there/db").drivername == "postgresql+psycopg2"
    monkeypatch.setattr(databases.importlib.util, "find_spec", lambda name: object())
    assert parse_url("postgresql://there/db").drivername == "postgresql"


def test_a_missing_driver_is_one_line_with_its_installation(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"its driver is not installed .*; pip install 'psycopg"):
        Database.open(tmp_path, "postgresql+psycopg://me:secret@there/db", print)


def overwrite(path, begin, content):
    with path.open("r+b") as stream:
        stream.seek(begin)
        stream.write(content)


DAMAGES = {
    "a text": lambda path: path.write_text("this is no database, and long enough not to be empty"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "page sizes": lambda path: overwrite(path, 16, b"\xff\xff\xff\xff"),
    "pages": lambda path: overwrite(path, 4096, bytes(range(256)) * 200),
    "a schema": lambda path: overwrite(path, 100, b"\x0d\xff\xff" + bytes(range(256)) * 10),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_database_is_one_line(folder, name):
    DAMAGES[name](folder / FILE)
    before = (folder / FILE).read_bytes()
    with pytest.raises(
        UserError, match=r"database .*study.db: cannot be .*; move it away: what its"
    ):
        opened(folder).entries(CELLS)
    assert (folder / FILE).read_bytes() == before


ROWS = {
    "state": "UPDATE curricula_cells SET state = 'dancing'",
    "token": "UPDATE curricula_cells SET token = 'x'",
    "large token": "UPDATE curricula_cells SET token = 9223372036854775807",
    "negative token": "UPDATE curricula_cells SET token = -1",
    "host": "UPDATE curricula_cells SET host = char(27) || '[2J'",
    "blob": "UPDATE curricula_cells SET folder = x'ff00'",
    "expires": "UPDATE curricula_cells SET expires = 'soon'",
    "results": f"UPDATE curricula_cells SET results = '{'[' * 9000}'",
    "more results": 'UPDATE curricula_cells SET results = \'{"files": {"a": 3}}\'',
    "large results": "UPDATE curricula_cells SET results = zeroblob(200000000)",
    "no column": "ALTER TABLE curricula_cells DROP COLUMN expires",
    "no table": "DROP TABLE curricula_cells",
    "no key": "DROP TABLE curricula_cells; CREATE TABLE curricula_cells (cell TEXT)",
}


@pytest.mark.parametrize("name", ROWS)
def test_damaged_rows_are_one_line_or_ignored(folder, name):
    with database(folder / FILE) as rows:
        rows.executescript(ROWS[name])
        rows.commit()
    with contextlib.suppress(UserError, KeyError):
        queue = opened(folder)
        queue.results("seed=0", entry(queue))
    with contextlib.suppress(UserError, KeyError):
        claimed(opened(folder)).finish({})


@pytest.mark.parametrize("cell", ["[1]", "", "../../x", b"\xff", 3])
def test_a_cell_that_the_sweep_does_not_have_is_left_alone(folder, cell):
    with database(folder / FILE) as rows:
        rows.execute("UPDATE curricula_cells SET cell = ?", (cell,))
        rows.commit()
    assert opened(folder).entries(CELLS) == {}


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
CRAFTED = {
    "an endless view": f"DROP TABLE curricula_cells; CREATE VIEW curricula_cells AS {ENDLESS}",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON curricula_cells BEGIN SELECT 1; END",
    "a computed column": "CREATE TABLE x (a INT, b INT/**/AS/**/(hex(zeroblob(1000000000))))",
    "a generated column": "CREATE TABLE x (a INT, b INT generated always as (a + 1) STORED)",
    "a virtual table": "CREATE VIRTUAL TABLE x USING fts5(a)",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_database_that_computes_is_refused_at_once(folder, name):
    with database(folder / FILE) as rows:
        rows.executescript(CRAFTED[name])
    with pytest.raises(UserError, match=r"cannot be opened \(its .* is not of curricula\)"):
        opened(folder)


KILLED = """
import os, sqlite3, sys
rows = sqlite3.connect(sys.argv[1])
rows.execute("PRAGMA cache_size = 1")
rows.execute("CREATE TABLE large (x)")
rows.execute("BEGIN")
for _ in range(3000):
    rows.execute("INSERT INTO large VALUES (?)", ("y" * 500,))
os._exit(0)
"""


@pytest.fixture
def killed(folder):
    """Return the folder of a sweep whose process was killed while it wrote to the database."""
    subprocess.run([sys.executable, "-c", KILLED, folder / FILE], check=True)
    assert (folder / f"{FILE}-journal").stat().st_size > 1000
    return folder


def test_what_a_killed_process_left_is_rolled_back(killed):
    assert entry(opened(killed)).state == "queued"
    assert not (killed / f"{FILE}-journal").exists()


def test_no_file_is_deleted_that_a_journal_names(killed, tmp_path):
    precious = tmp_path / "precious"
    name = os.fsencode(precious)

    def name_it():
        """End the journal as SQLite does in a transaction over several databases."""
        precious.write_text("important")
        checksum = sum(struct.unpack(f"{len(name)}b", name))
        end = struct.pack(">I", 1 + (1 << 30) // 4096) + name
        end += struct.pack(">II", len(name), checksum) + bytes.fromhex("d9d505f920a163d7")
        with (killed / f"{FILE}-journal").open("ab") as stream:
            stream.write(end)

    name_it()
    shutil.copytree(killed, tmp_path / "copy")
    with pytest.raises(UserError, match=r"study.db-journal names another file"):
        opened(killed)
    assert precious.exists()
    with database(tmp_path / "copy" / FILE) as rows:  # what SQLite would have done
        rows.execute("SELECT * FROM curricula_cells").fetchall()
    assert not precious.exists()


def test_pipes_and_folders_in_place_of_the_database_do_not_hang(folder):
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    with pytest.raises(UserError, match=r"study.db is not a regular file"):
        opened(folder)
    (folder / FILE).unlink()
    (folder / f"{FILE}-wal").mkdir()
    with pytest.raises(UserError, match=r"study.db-wal is not a regular file"):
        opened(folder)


def test_a_database_that_another_process_locks_is_waited_for(folder, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.dbapi2.connect",
        lambda *names, **settings: connect(*names, **{**settings, "timeout": 0.1}),
    )
    lines = []
    queue = opened(folder, on_message=lines.append)
    seen = entry(queue)
    with database(folder / FILE) as rows:
        rows.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"cannot be opened \(database is locked\); move it"):
            opened(folder)
        monkeypatch.setattr(databases, "RETRY_SECONDS", 0.5)
        with pytest.raises(UserError, match=r"cannot be used \(database is locked\); move it"):
            queue.claim("seed=0", seen, is_dead=False)
        assert len(lines) == 1
        assert "does not answer (database is locked); trying again for up to" in lines[0]
        monkeypatch.setattr(databases, "RETRY_SECONDS", 60)
        monkeypatch.setattr(databases.time, "sleep", lambda seconds: rows.rollback())
        assert queue.claim("seed=0", seen, is_dead=False).token == 1


def test_a_database_that_may_only_be_read_is_one_line(tmp_path):
    url = f"sqlite:///file:{tmp_path / 'shared.db'}?mode={{}}&uri=true"
    opened(tmp_path / "out", url.format("rwc")).add({"seed=0": {}}, {})
    with pytest.raises(UserError, match=r"cannot be used .*what its cells have measured is kept"):
        claimed(opened(tmp_path / "out", url.format("ro")))
    assert claimed(opened(tmp_path / "out", url.format("rw"))) is not None


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (sqlite3.OperationalError("no such table: x"), False),
        (sqlite3.DatabaseError("file is not a database"), False),
        (ConnectionError("server closed the connection"), True),
    ],
)
def test_only_what_can_pass_is_tried_again(error, temporary):
    wrapped = sqlalchemy.exc.OperationalError("SELECT", {}, error)
    assert is_temporary(wrapped) is temporary
    assert not is_temporary(sqlalchemy.exc.ProgrammingError("SELECT", {}, error))
    assert not is_temporary(ValueError("x"))


def test_a_database_that_fails_in_the_middle_loses_no_result(tiny, tmp_path):
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nmodel = "tinycnn(width=2)"\nperturb = "rot"\nepochs = 1\n'
        "[axes]\nseed = [0, 1]\n[evaluation]\nlimit = 5\n"
    )
    out, lines = tmp_path / "out", []

    def damage(line):
        if "begins" in line:
            (out / FILE).write_bytes(b"not a database" * 1000)

    with pytest.raises(UserError, match=r"cannot be used .*; move it away") as raised:
        run_sweep(sweep, out, on_message=damage)
    assert "\n" not in str(raised.value)
    attempt = out / "cells" / ".seed=0.1"  # no database has accepted its results
    kept = (attempt / "evaluation.json").read_bytes()
    stamp = (attempt / "best.safetensors").stat().st_mtime_ns
    (out / FILE).unlink()
    run_sweep(sweep, out, on_message=lines.append)
    assert (out / "cells" / "seed=0" / "evaluation.json").read_bytes() == kept
    assert (out / "cells" / "seed=0" / "best.safetensors").stat().st_mtime_ns == stamp
    assert [len(row.outcomes) for row in curricula.compare([out]).rows] == [2]
