"""The ``curricula`` program. Its commands are records of the registry, imported when they run."""

import functools
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click

from curricula.cli.output import LastingFile, ResultFile, lasting, lost
from curricula.errors import Notice, UserError, shortened, similar_names
from curricula.plugins import registry
from curricula.runtime.processes import FirstProcessError, launched_rank, started
from curricula.runtime.signals import Interrupted, sigterm_raises

# Commands that several processes can share.
SHARED = ("train", "evaluate", "profile", "audit", "certify")
CONTINUED = ("sweep", "search")  # commands that continue when they are started again


def _use_plugins(context: click.Context, parameter: click.Parameter, files: Any) -> None:
    """Load the plugin files that the user named, before click looks for the command, which one of
    them may provide."""
    registry.use(registry.build_registry([Path(file) for file in files]))


class Program(click.Group):
    """A click group that finds its commands in the registry, and prints a user error as one line,
    with exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(registry.current().records("command"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        registered = registry.current().find("command", cmd_name)
        processes = started().count
        if processes > 1 and cmd_name not in SHARED:
            raise UserError(
                f"curricula {cmd_name} runs in one process, and torchrun has started {processes}: "
                "start it without torchrun"
            )
        command = registered.load()
        if not isinstance(command, click.Command):
            raise UserError(f"command {cmd_name!r}: its factory must be a click.Command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, registered.record.summary)
            for name, registered in registry.current().records("command").items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            what, status = str(error) or "interrupted", getattr(error, "status", 130)
            if ctx.invoked_subcommand in CONTINUED and ";" not in what:
                what = f"{what}; start it again to continue"
            raise Interrupted(what, status - 128) from error

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", registry.PluginWarning)
            warnings.simplefilter("always", Notice)
            warnings.showwarning = functools.partial(_show_warning, set())
            try:
                with sigterm_raises():
                    status = super().main(args, standalone_mode=False, **extra)
            except FirstProcessError:
                sys.exit(2)  # the first process prints it
            except UserError as error:
                self._end(str(error), 2)
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                sys.exit(error.exit_code)
            except click.NoSuchOption as error:
                self._end(self._unknown_option(error), error.exit_code)
            except click.ClickException as error:
                self._end(shortened(error.format_message()), error.exit_code)
            except click.Abort as error:
                cause = error.__cause__
                if isinstance(cause, Interrupted):
                    self._end(str(cause), cause.status)
                self._end("interrupted", 130)
        if standalone_mode:
            sys.exit(status if isinstance(status, int) else 0)
        return status

    def _unknown_option(self, error: click.NoSuchOption) -> str:
        """Return the message for an option that a command does not have, which the program or
        the command may have elsewhere or under a similar name."""
        name, context = error.option_name, error.ctx
        if context is None:
            return error.format_message()
        command = context.command_path.split()[1:]  # the first is the program as it was called
        if command and any(name in option.opts for option in self.params):
            words = [name, "FILE", *command] if name == "--plugin" else [name]
            return f"{name} comes before the command: write curricula {' '.join(words)}"
        flags = {
            flag.removeprefix("--"): flag
            for option in context.command.params
            for flag in (*option.opts, *option.secondary_opts)
        }
        word = name.removeprefix("--")  # a single letter resembles all others
        similar = [flags[flag] for flag in similar_names(word, flags)] if word != name else []
        listing = f"{' '.join(['curricula', *command])} --help lists all"
        fix = f"did you mean {' or '.join(similar)}?" if similar else listing
        return f"No such option {name!r}; {fix}"

    def _end(self, message: str, status: int) -> NoReturn:
        rank = launched_rank()  # unchecked: the message may be about it
        where = f" (process {rank})" if rank.isdecimal() and int(rank) else ""
        click.echo(f"Error{where}: {' '.join(message.split())}", err=True)
        sys.exit(status)


_show_any_warning = warnings.showwarning


def _show_warning(printed: set[str], message: Any, category: Any, *where: Any, **more: Any) -> None:
    """Print a notice, or a plugin's warning, as one line without the line of source code that
    raised it. A notice is printed once: Python's own filter forgets what it has shown whenever
    the filters change."""
    if issubclass(category, registry.PluginWarning):
        click.echo(f"Warning: {message}", err=True)
    elif issubclass(category, Notice):
        if str(message) not in printed:
            printed.add(str(message))
            click.echo(f"Note: {message}", err=True)
    else:
        _show_any_warning(message, category, *where, **more)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_use_plugins,
    help="Python file with hooks to load; repeatable, before the command.",
)
@click.version_option(version("curricula"), prog_name="curricula")
def program() -> None:
    """Train image classifiers that are robust to spatial changes and adversarial pixels at once.

    Start with: curricula train --perturb rot+pgd --schedule linear
    """


def main() -> None:
    """Run the program on the arguments of the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = lasting(sys.stdout, ResultFile)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = lasting(sys.stderr, LastingFile)
    if launched_rank() != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the first process prints)
    try:
        program(prog_name="curricula")
    except SystemExit:
        if message := lost(sys.stdout):
            click.echo(f"Error: {message}", err=True)
            sys.exit(2)
        raise
