"""Output files and folders: checked before any work, and written atomically."""

import os
import uuid
from pathlib import Path

from curricula.errors import UserError


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
    """Return the first of a folder and its parents that exists.

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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; an older one stays unchanged until the end.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
