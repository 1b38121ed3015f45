"""Sweeps whose workers share a PostgreSQL, which is started for these tests."""

import os
import threading
import time

import pytest
import sqlalchemy
from tools import sweep_workers

from curricula.errors import UserError
from curricula.sweeps import database as databases
from curricula.sweeps.database import Database
from curricula.sweeps.queue import LeaseLostError, Place, Queue

REQUIRED = os.environ.get("CURRICULA_POSTGRESQL") == "required"  # set by .ci/run
CELLS = ("a", "b")


@pytest.fixture(scope="module")
def server():
    """Return a running server."""
    if sweep_workers.binaries() is None and not REQUIRED:
        pytest.skip("needs Debian's package postgresql")
    with sweep_workers.server() as running:
        yield running


def opened(folder, server, *, place="here", study="sweep", on_message=lambda line: None):
    database = Database.open(folder, server.url, on_message)
    where = Place(host=place, folder=place, path=place)
    return Queue(database=database, study=study, place=where, lease_seconds=60)


def test_killed_stopped_and_restarted_workers_publish_each_cell_once(server, tmp_path):
    found = sweep_workers.check(tmp_path, server, kills=1, seeds=2, epochs=3, lease=2, seed=0)
    assert found == []


def test_what_the_workers_leave_is_compared(tmp_path, monkeypatch):
    """The script finds a cell that was published twice, other results, and what is left over."""
    workers = [sweep_workers.Worker(tmp_path / name) for name in ("alone", "one", "two")]
    for worker in workers:
        cell = worker.out / "cells" / "a"
        cell.mkdir(parents=True)
        (cell / "best.safetensors").write_text("")
        (cell / "metrics.jsonl").write_text("1")
    alone, *others = workers
    monkeypatch.setattr(sweep_workers, "rows", lambda url: {"a": ("done", 1, "")})
    monkeypatch.setattr(sweep_workers, "table", lambda out: [])

    def found():
        return len(sweep_workers.problems(others, alone, ""))

    assert found() == 1  # published twice
    (others[0].out / "cells" / "a" / "best.safetensors").unlink()
    assert found() == 0
    (others[0].out / "cells" / "a" / "metrics.jsonl").write_text("2")
    (others[1].out / "cells" / ".a.1").mkdir()
    (others[1].folder / "log").write_text(f"postgresql://{sweep_workers.PASSWORD}")
    assert found() == 3
    monkeypatch.setattr(sweep_workers, "rows", lambda url: {"a": ("running", 1, "")})
    assert found() == 4


def test_many_workers_make_the_table_and_queue_the_cells_at_once(server, tmp_path):
    engine = opened(tmp_path, server).database.engine
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE curricula_cells"))
    began, failures = threading.Barrier(8), []

    def start(number):
        began.wait()
        try:
            queue = opened(tmp_path, server, place=str(number))
            queue.add(dict.fromkeys(CELLS, number), {})
            lease = queue.claim("a", queue.entries(CELLS)["a"], is_dead=False)
            claims.append(lease)
        except Exception as error:
            failures.append(error)

    claims = []
    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(lease is not None for lease in claims) == 1
    queue = opened(tmp_path, server)
    assert [entry.state for entry in queue.entries(CELLS).values()] == ["running", "queued"]


def test_a_lease_passes_to_the_next_worker_and_the_earlier_one_is_refused(server, tmp_path):
    first, second = (opened(tmp_path, server, place=each, study="lease") for each in "ab")
    first.add({"a": {}}, {})
    earlier = first.claim("a", first.entries(CELLS)["a"], is_dead=False)
    seen = second.entries(CELLS)["a"]
    assert not seen.expired
    assert second.claim("a", seen, is_dead=False) is None
    with first.database.engine.connect() as connection:
        connection.execute(sqlalchemy.text("UPDATE curricula_cells SET expires = 0"))
    later = second.claim("a", second.entries(CELLS)["a"], is_dead=False)
    assert later.token == 2
    with pytest.raises(LeaseLostError):
        earlier.finish({"a": "1"})
    later.finish({"a": "2"})
    assert second.results("a", second.entries(CELLS)["a"]) == {"a": "2"}


def test_a_server_that_is_gone_is_waited_for_and_a_lease_survives(server, tmp_path, monkeypatch):
    lines = []
    queue = opened(tmp_path, server, study="gone", on_message=lines.append)
    queue.add({"a": {}}, {})
    with queue.claim("a", queue.entries(CELLS)["a"], is_dead=False) as lease:
        server.stop()
        monkeypatch.setattr(databases, "RETRY_SECONDS", 0.3)
        with pytest.raises(UserError, match=r"cannot be used .*start the sweep again once") as one:
            lease.finish({})
        assert "\n" not in str(one.value)
        with pytest.raises(UserError, match="cannot be opened"):
            opened(tmp_path, server)
        monkeypatch.setattr(databases, "RETRY_SECONDS", 60)
        finishing = threading.Thread(target=lease.finish, args=({"a": "1"},))
        finishing.start()
        time.sleep(0.3)
        server.start()  # here: it would end with the thread that started it
        finishing.join()
    assert len(lines) == 2  # one for each time
    for line in (*lines, str(one.value)):
        assert "\n" not in line
        assert sweep_workers.PASSWORD not in line
        assert sweep_workers.USER in line
    assert queue.entries(CELLS)["a"].state == "done"


def test_a_wrong_password_is_one_line_without_it(server, tmp_path):
    url = sqlalchemy.make_url(server.url).set(password="wr:ong").render_as_string(False)
    database = Database.open(tmp_path, url, print)
    with pytest.raises(UserError, match=r"cannot be opened .*password authentication") as one:
        Queue(database=database, study="sweep", place=Place(), lease_seconds=1)
    assert "\n" not in str(one.value)
    assert "wr:ong" not in str(one.value)
    assert "wr%3Aong" not in str(one.value)


def test_the_server_runs_as_an_unprivileged_user(server):
    assert (server.folder / "data").stat().st_uid != 0
