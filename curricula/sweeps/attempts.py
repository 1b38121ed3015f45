"""The folders of a cell's attempts, and their results for workers with other folders.

Each attempt writes into its own folder, ``cells/.NAME.TOKEN``, which becomes ``cells/NAME``
once the database has accepted its results. An attempt that continues an earlier one begins with a
copy of its folder, because the earlier one's worker may only be paused.
"""

import base64
import contextlib
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from curricula.data.identity import DataIdentity
from curricula.errors import UserError
from curricula.runtime.files import PARTIAL, inside, read_file, sync_folder, write_atomic
from curricula.runtime.parsing import MAX_TEXT, read_text
from curricula.runtime.records import to_json
from curricula.sweeps.folder import CELLS, FAILURE, Failure, cell_folder, different_field
from curricula.sweeps.queue import Place
from curricula.sweeps.spec import Cell
from curricula.training.config import SplitName, TrainConfig
from curricula.training.run import (
    BEST,
    CONFIG,
    DATA,
    ELSEWHERE,
    ENVIRONMENT,
    GOOD,
    LAST,
    METRICS,
    PREDICTIONS,
    PREVIOUS,
    RESULTS,
    TIMING,
    Elsewhere,
    Run,
    holds,
)

# In this order a copy of a folder that is written meanwhile can be continued: its metrics are as
# new as its checkpoint, or newer.
_CONTINUED = (LAST, PREVIOUS, BEST, GOOD, METRICS, TIMING, CONFIG, DATA, ENVIRONMENT)


def attempt_folder(folder: Path, name: str, token: int) -> Path:
    """Return the path of the folder of an attempt at a cell."""
    return inside(folder, f"{CELLS}/.{name}.{token}")


def is_measured(folder: Path, name: str, split: SplitName) -> bool:
    """Return whether the folder of a cell has the results of a final evaluation in this folder,
    whatever the database says; a sweep's folder in a repository may have none."""
    path = cell_folder(folder, name)
    return holds(path, RESULTS[split]) and not (holds(path, FAILURE) or holds(path, ELSEWHERE))


def begin(folder: Path, name: str, token: int, split: SplitName) -> Path:
    """Return the folder in which an attempt at a cell works; it holds what the latest attempt in
    the same folder left.

    A cell that has its results already keeps its folder, and so does one that was never published.
    A failed cell, which runs again because of ``--retry``, is deleted.

    Raises:
        UserError: a folder cannot be copied, moved or deleted.
    """
    published, attempt = cell_folder(folder, name), attempt_folder(folder, name, token)
    try:
        if is_measured(folder, name, split):
            return published
        if holds(published, FAILURE) or holds(published, ELSEWHERE):
            shutil.rmtree(published)
        if published.exists():
            os.replace(published, attempt_folder(folder, name, max(_attempts(folder, name)) + 1))
        earlier = max(_attempts(folder, name))
        if not attempt.exists() and earlier:
            _copy(attempt_folder(folder, name, earlier), attempt)
        (attempt / FAILURE).unlink(missing_ok=True)  # the database has not accepted it
    except OSError as error:
        raise UserError(f"{attempt}: cannot be prepared ({error.strerror})") from error
    return attempt


def publish(folder: Path, name: str, attempt: Path) -> None:
    """Make the folder of an attempt, whose results the database has accepted, that of the cell, and
    delete those of earlier attempts.

    Raises:
        UserError: it cannot be renamed.
    """
    published = cell_folder(folder, name)
    if attempt != published:
        try:
            os.replace(attempt, published)
        except OSError as error:
            if published.exists() and not attempt.exists():
                return  # another worker has published it
            raise UserError(f"{published}: cannot be written ({error.strerror})") from error
        sync_folder(published.parent)
    forget_attempts(folder, name)


def forget_attempts(folder: Path, name: str) -> None:
    """Delete the folders of a cell's attempts, once the cell has results."""
    pattern = re.compile(rf"\.{re.escape(name)}(\.[0-9]+)?({re.escape(PARTIAL)})?")
    for each in os.listdir(folder / CELLS):
        if pattern.fullmatch(each) and not (folder / CELLS / each).is_symlink():
            shutil.rmtree(folder / CELLS / each, ignore_errors=True)


def _attempts(folder: Path, name: str) -> list[int]:
    """Return the numbers of a cell's attempts that have a folder, and 0."""
    pattern = re.compile(rf"\.{re.escape(name)}\.([0-9]{{1,18}})")
    matches = (pattern.fullmatch(each) for each in os.listdir(folder / CELLS))
    return [0, *(int(match[1]) for match in matches if match)]


def _partial(folder: Path, name: str) -> Path:
    """Return the path of a cell's folder that is being copied."""
    return inside(folder, f"{CELLS}/.{name}{PARTIAL}")


def _copy(earlier: Path, attempt: Path) -> None:
    """Copy the files of an attempt, whose worker may still write them, completely or not at all."""
    partial = attempt.with_name(f"{attempt.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file in _CONTINUED:
        with contextlib.suppress(FileNotFoundError):
            write_atomic(partial / file, read_file(earlier / file))
    os.replace(partial, attempt)


def results_of(path: Path, split: SplitName) -> dict[str, str]:
    """Return the contents of the small files of a run, by name: all that a comparison reads. The
    predictions, which are not text, are in Base64.

    Raises:
        UserError: a file cannot be read.
    """
    found = {}
    for file in _small_files(split):
        try:
            if file == PREDICTIONS[split]:
                found[file] = base64.b64encode(read_file(path / file)).decode()
            else:
                found[file] = read_text(path / file, MAX_TEXT)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{path / file}: cannot be read ({error})") from error
    return found


def _small_files(split: SplitName) -> tuple[str, ...]:
    return (
        CONFIG, METRICS, TIMING, ENVIRONMENT, DATA, RESULTS[split], PREDICTIONS[split], FAILURE,
    )  # fmt: skip


def write_results(
    folder: Path,
    cell: Cell,
    files: Mapping[str, str],
    place: Place,
    *,
    config: TrainConfig,
    split: SplitName,
    threats: Collection[str],
) -> None:
    """Check the result files of a cell that a worker ran in a different folder, and write them to
    this sweep's folder. Weights stay where they are.

    Args:
        folder: the sweep's folder.
        cell: the cell.
        files: contents of the files, by name, from the database.
        place: where the cell's own folder is.
        config: the configuration that it must have.
        split: the split that it must be measured on.
        threats: names of the threats that it must be measured under.

    Raises:
        UserError: a file is damaged, or of a different cell.
    """
    published, partial = cell_folder(folder, cell.name), _partial(folder, cell.name)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in files:
            if name not in _small_files(split):
                raise UserError(f"{name!r} is not a file of a cell's results")
            content = files[name].encode()
            if name == PREDICTIONS[split]:
                content = base64.b64decode(content, validate=True)
            write_atomic(partial / name, content)
        _check(partial, cell, config, split, threats)
        path = str(Path(place.path) / CELLS / cell.name)
        Run(partial).write_json(ELSEWHERE, to_json(Elsewhere(host=place.host, path=path)))
        if published.exists():  # a failure, or results of an earlier attempt elsewhere
            shutil.rmtree(published)
        os.replace(partial, published)
        sync_folder(published.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{published}: cannot be written ({error})") from error
    forget_attempts(folder, cell.name)


def _check(
    path: Path, cell: Cell, config: TrainConfig, split: SplitName, threats: Collection[str]
) -> None:
    """Check that a run's small files are those of a cell that has failed, or of a finished one.

    Raises:
        UserError: what is wrong.
    """
    run = Run(path)
    failed = run.read(FAILURE, Failure) is not None
    if failed and not holds(path, CONFIG):
        return
    different = different_field(config, run.config, cell)
    if different is not None:
        raise UserError(f"its {different} is not that of the sweep")
    if failed:
        return
    results = [result.name for result in run.results(split)]
    if set(results) != set(threats):
        raise UserError(f"it was measured under {results}, not {list(threats)}")
    if not run.metrics or not run.times or run.environment is None:
        raise UserError("its metrics, times or environment are missing")
    if run.read(DATA, DataIdentity) is None:
        raise UserError(f"its {DATA} is missing")
