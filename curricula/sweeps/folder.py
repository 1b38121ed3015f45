"""The folder of a sweep: what it holds, and which sweep it belongs to. Needs no torch."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import filelock

from curricula.errors import UserError, message_of, printable
from curricula.runtime.files import check_folder, inside, write_atomic
from curricula.runtime.locks import LOCK
from curricula.runtime.parsing import read_text
from curricula.runtime.records import to_json
from curricula.runtime.values import check_printable
from curricula.sweeps.search_spec import Search, read_search
from curricula.sweeps.spec import Cell, Sweep, read_sweep
from curricula.training.config import TrainConfig
from curricula.training.run import CONFIG, RUNS, SWEEP, Run, holds

CELLS = "cells"  # folder of the run folders
IDENTITY = ".folder"  # file that tells a sweep's folder from all others
MAX_IDENTITY = 100  # bytes of that file
FAILURE = "failed.json"  # file with the reason why a cell failed
SEARCH = "search.toml"  # file in the folder of a search, which is also a sweep's
PRUNED = "pruned.json"  # file that says when a search ended a cell's training


@attrs.frozen(kw_only=True)
class Failure:
    """The contents of ``failed.json``: the reason why a cell failed, on one line."""

    reason: str = attrs.field(validator=check_printable)


@attrs.frozen(kw_only=True)
class Pruned:
    """The contents of ``pruned.json``: the last epoch of a training that a search ended."""

    epoch: int = attrs.field(validator=attrs.validators.ge(1))


DEVICE_FIELDS = ("device", "precision", "compile")  # fields whose ``auto`` depends on the machine


def default_folder(file: str | Path) -> Path:
    """Return the folder for a sweep whose output is not given: ``runs/NAME`` for the file
    ``NAME.toml``."""
    return RUNS / (Path(file).stem.strip(".") or "sweep")  # a stem may be ".."


def sweep_in(folder: Path) -> Sweep | None:
    """Return the sweep whose file a folder holds; None if it holds no sweep.

    Raises:
        UserError: the folder cannot be read, or its file is not a sweep.
    """
    return read_sweep(folder / SWEEP) if holds(folder, SWEEP) else None


def search_in(folder: Path) -> Search | None:
    """Return the search whose file a folder holds; None if it holds no search.

    Raises:
        UserError: the folder cannot be read, or its file is not a search.
    """
    return read_search(folder / SEARCH) if holds(folder, SEARCH) else None


def check_same_search(search: Search, folder: Path) -> None:
    """Check that a folder holds neither a run, nor a sweep without a search, nor a search that
    differs in more than the number of trials and the data's folder.

    Raises:
        UserError: it holds one; as `check_folder` does.
    """
    check_folder(folder)
    held = search_in(folder)
    for file, what in ((CONFIG, "run"), (SWEEP, "sweep")):
        if held is None and holds(folder, file):
            raise UserError(
                f"search folder {folder} holds a {what}: choose another output (--output)"
            )
    if held is None:
        return
    before = _identity(held)
    for section, value in _identity(search).items():
        if value != before[section]:
            raise UserError(
                f"search folder {folder} holds another search: [{section}] has changed; choose "
                "another output (--output)"
            )


def _identity(search: Search) -> dict[str, str]:
    """Return the values, by section, that two searches in one folder must share, as JSON; the order
    of the ranges counts."""
    sections = attrs.evolve(search, trials=1).with_base(data_root="").sections
    return {
        name: json.dumps(section, sort_keys=name != "ranges") for name, section in sections.items()
    }


def cell_folder(folder: Path, name: str) -> Path:
    """Return the path of a cell's run folder."""
    return inside(folder, f"{CELLS}/{name}")


def cell_lock(folder: Path, name: str) -> filelock.BaseFileLock:
    """Return the lock, not yet acquired, of a cell in a folder."""
    return filelock.FileLock(inside(folder, f"{CELLS}/.{name}{LOCK}"))


def record_failure(path: Path, error: Exception) -> str:
    """Write into a cell's run folder why it failed, and return the reason."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    reason = printable(reason) or "unknown"
    path.mkdir(parents=True, exist_ok=True)
    Run(path).write_json(FAILURE, to_json(Failure(reason=reason)))
    return reason


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Make the folder of a sweep and write the sweep's file into it.

    Raises:
        UserError: the folder cannot be made.
    """
    cells, file = inside(folder, CELLS), inside(folder, SWEEP)
    try:
        cells.mkdir(parents=True, exist_ok=True)
        write_atomic(file, sweep.as_toml().encode())
    except (OSError, ValueError) as error:
        raise UserError(f"sweep folder {folder}: cannot be made ({error})") from error


def identity(sweep: Sweep) -> dict[str, Any]:
    """Return the values, by section, that two sweeps in one folder must share: all but the values
    on an axis, and the data's folder."""
    base = {name: value for name, value in sweep.base.items() if name != "data_root"}
    return {
        "[base]": base,
        "[axes]": list(sweep.axes),
        "[evaluation]": [dict(sweep.threats), list(sweep.suites), sweep.split, sweep.limit],
    }


def check_same_sweep(sweep: Sweep, folder: Path) -> None:
    """Check that a folder holds neither a run nor a search, nor a sweep with a different base, axes
    or evaluation.

    Raises:
        UserError: the folder holds one of these; as `check_folder` does.
    """
    check_folder(folder)
    for file, what in ((CONFIG, "run"), (SEARCH, "search")):
        if holds(folder, file):
            raise UserError(
                f"sweep folder {folder} holds a {what}: choose another output (--output)"
            )
    held = sweep_in(folder)
    if held is None:
        return
    before = identity(held)
    for section, value in identity(sweep).items():
        if value != before[section]:
            raise different_sweep(folder, section)


def check_same_values(configs: Mapping[str, TrainConfig], sweep: Sweep, folder: Path) -> None:
    """Check that the folder's cells, and their attempts, were run with the same values as the
    sweep's cells of the same names.

    Raises:
        UserError: a value differs; the message names the cell and the field.
    """
    begun: dict[str, list[Path]] = {}
    for path in (folder / CELLS).glob("*"):
        hidden = path.name.startswith(".")  # an attempt: .NAME.NUMBER
        name = path.name[1:].rpartition(".")[0] if hidden else path.name
        begun.setdefault(name, []).append(path)
    for cell in sweep.cells:
        for path in begun.get(cell.name, []):
            try:
                found = Run(path).config if holds(path, CONFIG) else None
            except UserError:
                if holds(path, CONFIG):
                    raise
                found = None  # another process has just renamed the folder
            if found is None:
                continue
            different = different_field(configs[cell.name], found, cell)
            if different is not None:
                raise different_sweep(folder, f"cell {cell.name} ({different})")


def different_field(expected: TrainConfig, found: TrainConfig, cell: Cell) -> str | None:
    """Return a field in which a cell's configuration is not as expected; None if there is none.

    The data's folder may differ, and so may what each machine chooses for ``auto``.
    """
    resolved = [name for name in DEVICE_FIELDS if cell.values.get(name, "auto") == "auto"]
    if (expected.optimizer, expected.lr_schedule) != (found.optimizer, found.lr_schedule):
        from curricula.training.optimizers import with_defaults  # here: it imports torch

        found = with_defaults(found)  # an earlier version stated fewer
    for name, value in attrs.asdict(expected).items():
        if name not in ("data_root", *resolved) and value != getattr(found, name):
            return name
    return None


def folder_identity(folder: Path) -> str:
    """Return the identity of a sweep's folder, which it keeps when it is moved; a new folder gets
    one.

    Raises:
        UserError: its file cannot be read or written.
    """
    file = inside(folder, IDENTITY)
    try:
        return uuid.UUID(hex=read_text(file, MAX_IDENTITY).strip()).hex
    except FileNotFoundError:
        found = uuid.uuid4().hex
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({message_of(error)}); delete it") from error
    try:
        write_atomic(file, f"{found}\n".encode())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from error
    return found


def different_sweep(folder: Path, what: str) -> UserError:
    """Return the user error for a folder or database that holds another sweep."""
    return UserError(
        f"sweep folder {folder} holds another sweep: {what} has changed; choose another output "
        "(--output)"
    )
