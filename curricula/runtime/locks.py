"""Locks of folders: one process of curricula writes to a run or sweep folder at a time."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock

from curricula.errors import UserError
from curricula.runtime.files import inside, remove_partials

LOCK = ".lock"


@contextlib.contextmanager
def exclusive(
    folder: Path,
    *,
    files: Collection[str] = (),
    wait: bool = False,
    what: str = "run folder",
    lock: str = LOCK,
) -> Iterator[None]:
    """Make a folder and lock it inside the block, so that no other process of curricula writes to
    it.

    The operating system frees the lock of a process that ends, however it ends.

    Args:
        folder: the folder.
        files: names of the files that are written only inside such a block: what a killed process
            left half written of them is deleted.
        wait: wait for a process that writes to it, instead of refusing.
        what: name of the folder in errors.
        lock: name of the file that is locked; a different one for a block that a long training,
            which locks the folder, must not keep waiting.

    Raises:
        UserError: another process writes to it, or it cannot be made or written to.
    """
    locked = filelock.FileLock(inside(folder, lock))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locked.acquire(blocking=wait)
    except filelock.Timeout as error:
        raise UserError(
            f"{what} {folder}: another process is writing to it; wait until it ends, or choose "
            "another folder with --output"
        ) from error
    except FileExistsError as error:
        raise UserError(f"{what} {folder}: there is a file of that name; choose another") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {folder}: cannot be made ({error})") from error
    try:
        for file in files:
            remove_partials(folder / file)
        yield
    finally:
        locked.release()
