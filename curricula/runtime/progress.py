"""Show the progress of long work: a bar on a terminal or in a notebook, plain lines elsewhere."""

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from curricula.errors import UserError, printable, shown
from curricula.runtime.processes import place

if TYPE_CHECKING:
    from rich.console import Console

ProgressChoice: TypeAlias = "bool | Callable[[float], None] | None"
"""True or False to show progress or not, None to show it where someone looks, or a function."""

QUIET_SECONDS = 10.0  # seconds; shorter work prints no lines
NOTEBOOK_SECONDS = 0.2  # seconds between two updates of a notebook's output


def is_interactive() -> bool:
    """Return whether someone looks at the progress: standard error is a terminal, or the code runs
    in a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def is_shown(progress: bool | None) -> bool:
    """Return whether progress is shown: as stated, or by default where `is_interactive`."""
    return is_interactive() if progress is None else progress


def in_notebook() -> bool:
    """Return whether the code runs in a kernel of IPython, whose outputs a notebook shows."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def check_progress(progress: Any) -> None:
    """Check that a value says how to show progress.

    Raises:
        UserError: it is not True, False, None or a function.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise UserError(
            "progress must be True, False or a function of the share that is done, not "
            f"{shown(progress)}"
        )


@contextmanager
def reported(name: str, progress: ProgressChoice) -> Iterator[Callable[[float], None]]:
    """Yield the function to call with the finished share of some work, in [0, 1].

    Args:
        name: name of the work.
        progress: True shows it, False does not, None does where `is_interactive`; a function is
            yielded as it is.
    """
    if callable(progress):
        yield progress
    elif is_shown(progress):
        with ProgressBar(name) as bar:
            yield bar.progress
    else:
        yield lambda share: None


class ProgressBar:
    """A context manager that shows the finished share of some work.

    On a terminal it draws a bar, which vanishes at the end; in a notebook, a bar that stays as one
    line; elsewhere it prints one line per tenth, if the work takes longer than `QUIET_SECONDS`.

    Args:
        name: name of the work.
        console: prints; by default on standard error, so that standard output holds only the
            result.
    """

    def __init__(self, name: str, console: "Console | None" = None) -> None:
        self.name = name
        self.share, self.text = 0.0, name
        self.tenths = 0
        self.start = time.perf_counter()
        is_first = place().is_first  # of several processes
        self.output = _Output() if console is None and is_first and in_notebook() else None
        if self.output is not None:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console or Console(stderr=True, highlight=False, quiet=not is_first)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task(name, total=1.0)

    def __enter__(self) -> "ProgressBar":
        if self.output is None:
            self.bar.start()
        else:
            self.output.show(self, now=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.output is None:
            self.bar.stop()
        else:
            self.output.show(self, now=True)

    def progress(self, share: float, text: str | None = None) -> None:
        """Show ``share``, in [0, 1], as the finished share of the work, and a text beside it, by
        default the one before."""
        self.share = share
        if text is not None:
            self.text = printable(text)
        if self.output is not None:
            self.output.show(self)
            return
        self.bar.update(self.task, completed=share, description=self.text)
        prints_lines = self.seconds >= QUIET_SECONDS and not self.console.is_terminal
        if prints_lines and int(10 * share) > self.tenths:
            self.tenths = int(10 * share)
            line = f"{self.text}: {10 * self.tenths} % after {self.seconds:.0f} s"
            self.console.print(line, markup=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Seconds since the bar was made."""
        return time.perf_counter() - self.start

    def __repr__(self) -> str:
        return f"{self.text}: {100 * self.share:.0f} %, {self.seconds:.0f} s"

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.share:.3f}" max="1"></progress>'
        return f"<div>{bar} {html.escape(repr(self))}</div>"


class _Output:
    """One output of a notebook's cell, which is replaced by each update: without ipywidgets, so
    that every front end shows it."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.latest = 0.0

    def show(self, bar: ProgressBar, *, now: bool = False) -> None:
        """Show a bar, unless that was done a moment ago."""
        if not now and time.perf_counter() - self.latest < NOTEBOOK_SECONDS:
            return
        self.latest = time.perf_counter()
        if self.handle is None:
            from IPython import display

            show: Any = display.display
            self.handle = show(bar, display_id=True)
        else:
            self.handle.update(bar)
