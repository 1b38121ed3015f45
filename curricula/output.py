"""The files and folders that a command is asked to write: refused before any work, and written
whole."""

import os
from pathlib import Path

from curricula.errors import UserError


def check_output(path: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        UserError: a missing folder, a folder of that name, a place out of bounds.
    """
    try:
        if path.is_dir():
            raise UserError(f"output {path}: there is a folder of that name; choose another")
        if not path.parent.is_dir():
            raise UserError(f"output {path}: there is no folder {path.parent}; make it first")
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"output {path}: cannot be written ({error})") from error
    if not writable:
        raise UserError(f"output {path}: cannot be written; choose another place")


def make_folder(folder: Path) -> None:
    """Make a folder to write files into, unless it is there; its parent must be.

    Raises:
        UserError: a file of that name; as `check_output` does; a full disk.
    """
    if folder.is_file():
        raise UserError(f"output {folder}: there is a file of that name; choose another folder")
    check_output(folder / "any" if folder.is_dir() else folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"output {folder}: cannot be made ({error})") from error


def write_output(path: Path, content: bytes) -> None:
    """Write a file; an older one is replaced.

    Raises:
        UserError: as `check_output` does; a full disk.
    """
    check_output(path)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"output {path}: cannot be written ({error})") from error
