"""One process of curricula writes to a run folder at a time."""

import multiprocessing
import os
import signal

import pytest

from curricula.errors import UserError
from curricula.runtime.locks import LOCK, exclusive


def hold(folder, held, release):
    with exclusive(folder):
        held.set()
        release.wait()


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder; return the process."""
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", held, context.Event()))
    process.start()
    assert held.wait(timeout=60)
    yield process
    process.kill()
    process.join()


def test_a_folder_that_another_process_writes_to_is_refused_until_it_dies(tmp_path, holder):
    refused = pytest.raises(UserError, match=r"run: another process is writing to it; wait")
    with refused, exclusive(tmp_path / "run"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with exclusive(tmp_path / "run"):
        pass


def test_a_block_that_raises_frees_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    with exclusive(tmp_path):
        pass


def test_only_the_named_files_half_written_are_removed(tmp_path):
    (tmp_path / ".best.ab.partial").write_bytes(b"")
    (tmp_path / ".report.ab.partial").write_bytes(b"")  # another process may be writing it
    with exclusive(tmp_path, files=["best"]):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, ".report.ab.partial"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "nul\0"):
        with (
            pytest.raises(UserError, match=r"sweep folder .*(file|cannot)"),
            exclusive(folder, what="sweep folder"),
        ):
            pass
    (tmp_path / LOCK).symlink_to(tmp_path / "file")
    with pytest.raises(UserError, match="is a symbolic link"), exclusive(tmp_path):
        pass
    assert (tmp_path / "file").read_bytes() == b"precious"
