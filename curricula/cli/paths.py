"""A click type for options and arguments that name a file or a folder."""

import os
from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A click path type that refuses an empty text (an unset variable, for example), which would
    otherwise mean the current folder, and expands ``~``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; write . for the current folder", param, ctx)
        text = os.path.expanduser(value) if isinstance(value, str) else value
        return super().convert(text, param, ctx)


PATH = _Path(path_type=Path)
