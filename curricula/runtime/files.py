"""Output files and folders: checked before any work, and written atomically."""

import contextlib
import glob
import os
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from curricula.errors import UserError, similar_names
from curricula.runtime.memory import total_bytes

PARTIAL = ".partial"  # suffix of a file that is being written
MAX_UNASKED = 2**28  # bytes of a file that is read without asking how much memory there is


def similar_path(path: Path, existing: Iterable[Path]) -> str:
    """Return ``; did you mean ...?`` with the existing files or folders whose names are most
    similar to that of a path that does not exist; an empty text if there are none.

    >>> similar_path(Path("plugins/hzae.py"), [Path("plugins/haze.py"), Path("plugins/small.py")])
    '; did you mean plugins/haze.py?'
    """
    suffix = path.suffix  # which all may share, and which would make them similar
    found = {each.name.removesuffix(suffix): str(each) for each in existing}
    similar = [found[name] for name in similar_names(path.name.removesuffix(suffix), sorted(found))]
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def check_output(path: Path) -> None:
    """Check that an output file can be written.

    Raises:
        UserError: the folder is missing or not writable, or a folder has the file's name.
    """
    try:
        if path.is_dir():
            raise UserError(f"output {path}: there is a folder of that name; choose another")
        if _existing(path, path.parent) != path.parent:
            raise UserError(f"output {path}: there is no folder {path.parent}; make it first")
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"output {path}: cannot be written ({error})") from error
    if not writable:
        raise UserError(f"output {path}: cannot be written; choose another place")


def check_folder(folder: Path, *, parents: bool = True) -> None:
    """Check that an output folder can be written to, or made.

    Args:
        folder: the folder.
        parents: whether its missing parents will be made too; otherwise they are an error.

    Raises:
        UserError: the folder or one of its parents is a file, cannot be written to, or is missing.
    """
    nearest = _existing(folder, folder)
    if not parents and nearest not in (folder, folder.parent):
        raise UserError(f"output {folder}: there is no folder {folder.parent}; make it first")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"output {folder}: {nearest} cannot be written to; choose another place")


def _existing(output: Path, folder: Path) -> Path:
    """Return the folder if it exists, otherwise its nearest existing parent.

    Raises:
        UserError: it is a file; the message begins with the output.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if nearest.is_dir():
        return nearest
    if nearest == output:
        raise UserError(f"output {output}: there is a file of that name; choose another folder")
    raise UserError(f"output {output}: {nearest} is a file, not a folder; choose another place")


def make_folder(folder: Path) -> None:
    """Make a folder for output files if it does not exist; its parent must exist.

    Raises:
        UserError: a file has the folder's name, or it cannot be made or written to.
    """
    check_folder(folder, parents=False)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"output {folder}: cannot be made ({error})") from error


def write_atomic(path: Path, content: bytes, *, previous: Path | None = None) -> None:
    """Write a file to disk completely or not at all. Until then an older file stays unchanged. A
    link of the file's name is replaced, not followed.

    Args:
        path: the file.
        content: its bytes.
        previous: new name of the older file; by default it is lost.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_partials(path: Path) -> None:
    """Delete the half-written copies of a file that killed processes left; no other process may be
    writing the file."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file and force it to disk; the file must not be a link.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "ab") as stream:
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names of a folder's files to disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folder; some network disks sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: Path, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file; a pipe or a device, which may never end, is an error.

    Args:
        path: the file.
        limit: largest size, in bytes; by default half of this machine's memory.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file, is too large or cannot be read.
        ValueError: the path has a null character.
    """
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if limit is None and size > MAX_UNASKED:
            limit = (total_bytes() or MAX_UNASKED) // 2
        if limit is not None and size > limit:  # also a sparse file without a block
            raise OSError(f"larger than {limit:,} bytes")
        return stream.read() or b""  # a file of /proc may have nothing to read


def open_file(path: Path) -> BinaryIO:
    """Return a regular file, open for reading; a pipe or a device, which may never end, is an
    error.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file, or cannot be opened.
        ValueError: the path has a null character.
    """
    # Opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return open(descriptor, "rb")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file or folder below a run or sweep folder, after checking that it stays
    inside and passes through no link, since such a folder may come from someone else.

    >>> inside(Path("runs/first"), "figures/training.svg").as_posix()
    'runs/first/figures/training.svg'

    Args:
        folder: the folder that the user named; it may be a link itself.
        name: path below it.

    Raises:
        UserError: a part of the path below the folder is a link, a pipe or a device, or the path
            leads out of it.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise UserError(f"{name!r} is no name of a file inside {folder}; choose another")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link, and curricula writes through no link inside a run or "
                "sweep folder; delete the link"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is not a regular file; delete it")  # writing would wait
    return path


def write_output(path: Path, content: bytes) -> None:
    """Write an output file, replacing an older one.

    Raises:
        UserError: it cannot be written (see `check_output`), or the disk is full.
    """
    check_output(path)
    try:
        # A link, or a special file such as /dev/stdout, must not be replaced.
        special = path.is_symlink() or (path.exists() and not path.is_file())
        if special or not os.access(path.parent, os.W_OK):
            path.write_bytes(content)
        else:
            write_atomic(path, content)
    except OSError as error:
        raise UserError(f"output {path}: cannot be written ({error})") from error
