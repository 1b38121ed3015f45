"""Files of run and sweep folders: written whole or not at all, and through no link."""

import errno
import os

import pytest

from curricula.errors import UserError
from curricula.runtime.files import (
    append_line,
    inside,
    read_file,
    remove_partials,
    write_atomic,
)


def planted(monkeypatch, name, code):
    """Make a function of ``os`` fail as the system would."""

    def fail(*arguments, **settings):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(f"curricula.runtime.files.os.{name}", fail)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_write_that_fails_keeps_the_older_file_and_leaves_nothing(
    tmp_path, monkeypatch, call, code
):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patched:
        planted(patched, call, code)
        with pytest.raises(OSError):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    write_atomic(tmp_path / "file", b"new")
    assert done == ["fsync", "replace", "fsync"]


def test_a_link_of_the_files_name_is_replaced_and_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(other)
    write_atomic(tmp_path / "file", b"new")
    assert other.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"new"


def test_no_line_is_appended_through_a_link(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(other)
    with pytest.raises(OSError):
        append_line(tmp_path / "file", "line")
    assert other.read_bytes() == b"precious"
    append_line(tmp_path / "new", "one")
    append_line(tmp_path / "new", "two")
    assert (tmp_path / "new").read_text() == "one\ntwo\n"


def test_a_path_inside_a_folder_has_no_link_in_any_part(tmp_path):
    real, folder = tmp_path / "real", tmp_path / "folder"
    (real / "figures").mkdir(parents=True)
    folder.symlink_to(real)  # the user named it: it may be a link
    assert inside(folder, "figures/a.svg") == folder / "figures" / "a.svg"
    (real / "figures" / "a.svg").symlink_to(tmp_path / "absent")
    (real / "linked").symlink_to(tmp_path)
    for name in ("figures/a.svg", "linked", "linked/b.svg", "linked/real/c"):
        with pytest.raises(UserError, match=r"is a symbolic link.*delete the link"):
            inside(folder, name)


def test_no_pipe_inside_a_folder_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is not a regular file; delete it"):
        inside(tmp_path, "pipe")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "", ".", "..", "a\0b"])
def test_a_path_inside_a_folder_does_not_lead_out_of_it(tmp_path, name):
    with pytest.raises(UserError, match="is no name of a file inside"):
        inside(tmp_path, name)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "link") == b"content"
    for name in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(name)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


def test_half_written_files_of_a_name_are_removed(tmp_path):
    kept = [tmp_path / "best", tmp_path / ".last.ab.partial", tmp_path / ".best.ab"]
    for path in [*kept, tmp_path / ".best.ab.partial", tmp_path / ".best.cd.partial"]:
        path.write_bytes(b"")
    remove_partials(tmp_path / "best")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
