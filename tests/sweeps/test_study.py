"""The database of a sweep, which may come from someone else: damaged, locked, shared or crafted."""

import contextlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys

import optuna
import pytest

import curricula
from curricula.errors import UserError
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep
from curricula.sweeps.study import STUDY, STUDY_ID, Study, has_failed, silence_optuna

SWEEP = parse_sweep("[base]\nmodel = 'lenet'\n[axes]\nseed = [0, 1]\n")
THREATS = ["clean", "joint"]


@pytest.fixture(autouse=True)
def quiet():
    with silence_optuna():
        yield


def opened(folder, storage=None):
    folder.mkdir(parents=True, exist_ok=True)
    return Study.open(SWEEP, folder, THREATS, storage)


@pytest.fixture(scope="module")
def queued(tmp_path_factory):
    """Return the folder of a sweep with a queued cell."""
    path = tmp_path_factory.mktemp("queued") / "out"
    with silence_optuna():
        opened(path).enqueue(SWEEP.cells[0])
    return path


@pytest.fixture
def folder(queued, tmp_path):
    """Return a copy of it."""
    return shutil.copytree(queued, tmp_path / "out")


def database(path):
    return contextlib.closing(sqlite3.connect(path))


def test_a_cell_is_queued_claimed_and_finished(folder):
    study = opened(folder)
    name, trial = study.claim()
    assert name == "seed=0"
    assert study.trials()[name].state is optuna.trial.TrialState.RUNNING
    study.finish(trial, [0.5, 0.25])
    assert study.trials()[name].values == [0.5, 0.25]
    study.enqueue(SWEEP.cells[1])
    name, trial = study.claim()
    study.fail(trial, "no reason")
    assert has_failed(study.trials()["seed=1"])
    assert not has_failed(study.trials()["seed=0"])


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
    DAMAGES[name](folder / STUDY)
    before = (folder / STUDY).read_bytes()
    with pytest.raises(UserError, match=r"study .*study.db: cannot be .*; move it away: what its"):
        opened(folder).trials()
    assert (folder / STUDY).read_bytes() == before


ROWS = {
    "state": "UPDATE trials SET state = 'DANCING'",
    "date": "UPDATE trials SET datetime_start = 'yesterday'",
    "attribute": "UPDATE trial_user_attributes SET value_json = '[[['",
    "nested": f"UPDATE trial_user_attributes SET value_json = '{'[' * 9000}'",
    "huge number": f"UPDATE trial_user_attributes SET value_json = '{'1' * 9000}'",
    "direction": "UPDATE study_directions SET direction = 'UP'",
    "version": "UPDATE version_info SET schema_version = 99",
    "alembic": "UPDATE alembic_version SET version_num = '../../evil'",
    "value": "INSERT INTO trial_values VALUES (1, 1, 99, 'x', 'FINITE')",
    "no table": "DROP TABLE trial_user_attributes",
    "no study": "DROP TABLE studies",
    "parameter": "INSERT INTO trial_params VALUES (1, 1, 'x', 1.0, '{\"name\": \"os.system\"}')",
}


@pytest.mark.parametrize("name", ROWS)
def test_damaged_rows_are_one_line_or_ignored(folder, name):
    with database(folder / STUDY) as rows:
        rows.execute(ROWS[name])
        rows.commit()
    with contextlib.suppress(UserError):
        study = opened(folder)
        study.trials()
        _, trial = study.claim()
        study.finish(trial, [0.5, 0.5])


@pytest.mark.parametrize("cell", ["[1]", "{}", "3", "null", '"../../x"'])
def test_a_cell_that_the_sweep_does_not_have_is_left_alone(folder, cell):
    with database(folder / STUDY) as rows:
        rows.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'cell'", (cell,))
        rows.commit()
    study = opened(folder)
    assert set(study.trials()) <= {"../../x"}
    name, trial = study.claim()
    assert name not in {cell.name for cell in SWEEP.cells}
    study.drop(trial)


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
CRAFTED = {
    "an endless view": f"DROP TABLE trials; CREATE VIEW trials AS {ENDLESS}",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM studies; END",
    "a computed column": "CREATE TABLE x (a INT, b INT/**/AS/**/(hex(zeroblob(1000000000))))",
    "a generated column": "CREATE TABLE x (a INT, b INT generated always as (a + 1) STORED)",
    "a virtual table": "CREATE VIRTUAL TABLE x USING fts5(a)",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_database_that_computes_is_refused_at_once(folder, name):
    with database(folder / STUDY) as rows:
        rows.executescript(CRAFTED[name])
    with pytest.raises(UserError, match=r"cannot be opened \(its .* is not of Optuna\)"):
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
    subprocess.run([sys.executable, "-c", KILLED, folder / STUDY], check=True)
    assert (folder / f"{STUDY}-journal").stat().st_size > 1000
    return folder


def test_what_a_killed_process_left_is_rolled_back(killed):
    assert set(opened(killed).trials()) == {"seed=0"}
    assert not (killed / f"{STUDY}-journal").exists()


def test_no_file_is_deleted_that_a_journal_names(killed, tmp_path):
    precious = tmp_path / "precious"
    name = os.fsencode(precious)

    def name_it():
        """End the journal as SQLite does in a transaction over several databases."""
        precious.write_text("important")
        checksum = sum(struct.unpack(f"{len(name)}b", name))
        end = struct.pack(">I", 1 + (1 << 30) // 4096) + name
        end += struct.pack(">II", len(name), checksum) + bytes.fromhex("d9d505f920a163d7")
        with (killed / f"{STUDY}-journal").open("ab") as stream:
            stream.write(end)

    name_it()
    shutil.copytree(killed, tmp_path / "copy")
    with pytest.raises(UserError, match=r"study.db-journal names another file"):
        opened(killed)
    assert precious.exists()
    with database(tmp_path / "copy" / STUDY) as rows:  # what SQLite would have done
        rows.execute("SELECT * FROM trials").fetchall()
    assert not precious.exists()


def test_pipes_and_folders_in_place_of_the_database_do_not_hang(folder):
    (folder / STUDY).unlink()
    os.mkfifo(folder / STUDY)
    with pytest.raises(UserError, match=r"study.db is not a regular file"):
        opened(folder)
    (folder / STUDY).unlink()
    (folder / f"{STUDY}-wal").mkdir()
    with pytest.raises(UserError, match=r"study.db-wal is not a regular file"):
        opened(folder)


def test_a_database_that_another_process_locks_is_one_line(folder, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.connect",
        lambda *names, **settings: connect(*names, **{**settings, "timeout": 0.1}),
    )
    study = opened(folder)
    with database(folder / STUDY) as rows:
        rows.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"cannot be opened \(.*database is locked"):
            opened(folder)
    study.claim()  # it works again


def test_a_database_that_may_only_be_read_is_one_line(tmp_path):
    url = f"sqlite:///file:{tmp_path / 'shared.db'}?mode={{}}&uri=true"
    opened(tmp_path / "out", url.format("rwc"))
    with pytest.raises(UserError, match=r"cannot be opened .*what its cells have measured is kept"):
        opened(tmp_path / "out", url.format("ro"))
    opened(tmp_path / "out", url.format("rw"))


def test_two_folders_of_one_name_do_not_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    opened(tmp_path / "a" / "out", url).enqueue(SWEEP.cells[0])
    with pytest.raises(UserError, match="that of another folder called out: choose another name"):
        opened(tmp_path / "b" / "out", url)
    opened(tmp_path / "b" / "other", url)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert set(opened(tmp_path / "moved" / "out", url).trials()) == {"seed=0"}
    (tmp_path / "moved" / "out" / STUDY_ID).write_bytes(b"\xff")
    with pytest.raises(UserError, match="cannot be read"):
        opened(tmp_path / "moved" / "out", url)


def test_a_database_that_fails_in_the_middle_loses_no_result(tiny, tmp_path):
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nmodel = "tinycnn(width=2)"\nperturb = "rot"\nepochs = 1\n'
        "[axes]\nseed = [0, 1]\n[evaluation]\nlimit = 5\n"
    )
    out, lines = tmp_path / "out", []

    def damage(line):
        if "begins" in line:
            (out / STUDY).write_bytes(b"not a database" * 1000)

    with pytest.raises(UserError, match=r"cannot be used .*; move it away") as raised:
        run_sweep(sweep, out, on_message=damage)
    assert "\n" not in str(raised.value)
    kept = (out / "cells" / "seed=0" / "evaluation.json").read_bytes()
    stamp = (out / "cells" / "seed=0" / "best.safetensors").stat().st_mtime_ns
    (out / STUDY).unlink()
    run_sweep(sweep, out, on_message=lines.append)
    assert (out / "cells" / "seed=0" / "evaluation.json").read_bytes() == kept
    assert (out / "cells" / "seed=0" / "best.safetensors").stat().st_mtime_ns == stamp
    assert [len(row.outcomes) for row in curricula.compare([out]).rows] == [2]
