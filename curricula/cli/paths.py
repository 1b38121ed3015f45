"""The type of every option and argument that is a file or a folder."""

from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """As click's; but an empty word, such as a variable that is not set, is not the current
    folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; for the current folder write a dot", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
