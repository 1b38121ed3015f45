"""Shipped configurations, sweeps and searches: TOML files in this folder, whose first line is a
summary.

A file with ``[axes]`` is a sweep, one with ``[ranges]`` a search.
"""

import contextlib
import os.path
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from curricula.errors import UserError, did_you_mean
from curricula.runtime.files import similar_path
from curricula.sweeps.search_spec import Search, read_search
from curricula.sweeps.spec import Sweep, read_sweep
from curricula.training.config import read_toml

T = TypeVar("T")


Kind = Literal["configuration", "sweep", "search"]
_SECTIONS: Mapping[str, Kind] = {"axes": "sweep", "ranges": "search"}
_COMMANDS: Mapping[Kind, str] = {
    "configuration": "train --config",
    "sweep": "sweep",
    "search": "search",
}
"""Commands that run a recipe, by its kind."""


def recipes(kind: Kind = "configuration") -> dict[str, str]:
    """Return the one-line summary of each shipped recipe of a kind, by name.

    >>> "cusp" in recipes(), "cusp-vs-baselines-mnist" in recipes("sweep")
    (True, True)
    """
    return {name: summary for name, (found, summary) in _all().items() if found == kind}


def usage(kind: Kind) -> str:
    """Return the command that runs a recipe of a kind, without its name."""
    return f"curricula {_COMMANDS[kind]}"


def read_config(name_or_file: str) -> dict[str, Any]:
    """Return the values of a configuration by field, given the name of a recipe or a TOML file.

    Raises:
        UserError: no such recipe or file (it suggests a known one), a sweep or a search, or a
            damaged file.
    """
    return _read("configuration", name_or_file, read_toml)


def find_sweep(name_or_file: str) -> Sweep:
    """Return the sweep with this name among the recipes, or in this file.

    Raises:
        UserError: no such recipe or file (it suggests a known one), a recipe of a different kind,
            or a damaged file.
    """
    return _read("sweep", name_or_file, read_sweep)


def find_search(name_or_file: str) -> Search:
    """Return the search with this name among the recipes, or in this file.

    Raises:
        UserError: as `find_sweep` does.
    """
    return _read("search", name_or_file, read_search)


def _all() -> dict[str, tuple[Kind, str]]:
    """Return the kind and the one-line summary of each shipped recipe, by name."""
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            text = file.read_text(encoding="utf-8")
            sections = tomllib.loads(text)
            kinds = (kind for section, kind in _SECTIONS.items() if section in sections)
            kind: Kind = next(kinds, "configuration")
            found[file.name.removesuffix(".toml")] = kind, text.partition("\n")[0].lstrip("# ")
    return found


def _read(kind: Kind, name_or_file: str, read: Callable[[Path], T]) -> T:
    """Return what a function reads from the recipe of a kind with this name, or from this file."""
    other, _ = _all().get(name_or_file, (kind, ""))
    if other != kind:
        what = "one run" if other == "configuration" else f"a {other}"
        raise UserError(f"{name_or_file!r} is {what}: use {usage(other)} {name_or_file}")
    with _located(kind, name_or_file, list(recipes(kind))) as path:
        return read(path)


def _located(
    what: str, name_or_file: str, known: Sequence[str]
) -> contextlib.AbstractContextManager[Path]:
    """Return a context manager that yields the path of the recipe with this name, or of this file.

    Raises:
        UserError: neither exists; the message has the nearest known recipe.
    """
    if name_or_file in known:
        return resources.as_file(resources.files(__name__) / f"{name_or_file}.toml")
    if not os.path.exists(name_or_file):  # unlike Path's, never raises
        recipe = did_you_mean(
            name_or_file.removesuffix(".toml"), known, otherwise=f"recipes: {', '.join(known)}"
        )
        path = Path(name_or_file)
        files = path.parent.glob("*.toml") if path.suffix == ".toml" else ()
        fix = similar_path(path, files) or f"; {recipe}"
        raise UserError(f"{what} {name_or_file!r}: no such recipe or file{fix}")
    return contextlib.nullcontext(Path(name_or_file))
