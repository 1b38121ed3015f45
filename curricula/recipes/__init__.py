"""Shipped configurations and sweeps: TOML files in this folder, whose first line is a summary.

A file with ``[axes]`` is a sweep.
"""

import contextlib
import os.path
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from curricula.errors import UserError, did_you_mean
from curricula.runtime.files import similar_path
from curricula.sweeps.spec import Sweep, read_sweep
from curricula.training.config import read_toml


def recipes(*, sweeps: bool = False) -> dict[str, str]:
    """Return the one-line summary of each shipped configuration by name, or of each shipped sweep.

    >>> "cusp" in recipes(), "cusp-vs-baselines-mnist" in recipes(sweeps=True)
    (True, True)

    Args:
        sweeps: return the sweeps, not the configurations.
    """
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    texts = {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".toml")
    }
    return {
        name: text.partition("\n")[0].lstrip("# ")
        for name, text in texts.items()
        if ("axes" in tomllib.loads(text)) == sweeps
    }


def read_config(name_or_file: str) -> dict[str, Any]:
    """Return the values of a configuration by field, given the name of a recipe or a TOML file.

    Raises:
        UserError: no such recipe or file (it suggests a known one), a sweep, or a damaged file.
    """
    if name_or_file in recipes(sweeps=True):
        raise UserError(f"{name_or_file!r} is a sweep: use curricula sweep {name_or_file}")
    with _located("configuration", name_or_file, list(recipes())) as path:
        return read_toml(path)


def find_sweep(name_or_file: str) -> Sweep:
    """Return the sweep with this name among the recipes, or in this file.

    Raises:
        UserError: no such recipe or file (it suggests a known one), a single configuration, or a
            damaged file.
    """
    if name_or_file in recipes():
        raise UserError(f"{name_or_file!r} is one run: use curricula train --config {name_or_file}")
    with _located("sweep", name_or_file, list(recipes(sweeps=True))) as path:
        return read_sweep(path)


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
        recipe = did_you_mean(name_or_file, known, otherwise=f"recipes: {', '.join(known)}")
        fix = similar_path(Path(name_or_file), ["*.toml"]) or f"; {recipe}"
        raise UserError(f"{what} {name_or_file!r}: no such recipe or file{fix}")
    return contextlib.nullcontext(Path(name_or_file))
