"""Shipped configurations: TOML files beside this one, each with a name and a first line that says
what it is for."""

import difflib
import os.path
from importlib import resources
from pathlib import Path
from typing import Any

from curricula.errors import UserError
from curricula.training.config import read_toml


def recipes() -> dict[str, str]:
    """The summary of each recipe, by name."""
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        .partition("\n")[0]
        .lstrip("# ")
        for file in files
        if file.name.endswith(".toml")
    }


def read_config(name_or_file: str) -> dict[str, Any]:
    """The keys of a recipe, or of a configuration file such as a run's.

    Raises:
        UserError: neither is there (with the near miss), or the file is wrong.
    """
    known = recipes()
    if name_or_file in known:
        with resources.as_file(resources.files(__name__) / f"{name_or_file}.toml") as path:
            return read_toml(path)
    if not os.path.exists(name_or_file):  # unlike Path's, never raises
        near = difflib.get_close_matches(name_or_file, known, n=1)
        mend = f"did you mean {near[0]}?" if near else f"recipes: {', '.join(known)}"
        raise UserError(f"configuration {name_or_file!r}: no such recipe or file; {mend}")
    return read_toml(Path(name_or_file))
