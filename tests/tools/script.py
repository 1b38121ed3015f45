"""The form of the command lines in this folder."""

from typing import Any

import click

from curricula.errors import UserError


class Script(click.Command):
    """A click command that prints a user error as one line, as ``curricula`` does."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
