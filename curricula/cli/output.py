"""Standard output and standard error that outlast a full disk and a reader that goes away."""

import errno
import io
from typing import Any

import click

FILED = ("train", "sweep", "search")  # commands whose results are files; they print their progress


class LastingFile(io.FileIO):
    """An open file that drops what is written to it after a write has failed, so that the work goes
    on.

    Attributes:
        error: the error of the failed write, else None.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
                self.on_error(error)
        return memoryview(data).nbytes

    def on_error(self, error: OSError) -> None:
        """Do nothing: an error of standard error cannot be printed."""


class ResultFile(LastingFile):
    """Standard output, whose failure is a warning in `FILED` commands and an error in others.

    A reader that went away, as in ``| head``, has read what it wanted: the status stays that of the
    work, rather than 141.

    Attributes:
        lost: the error message where a result was lost, else None.
    """

    lost: str | None = None

    def on_error(self, error: OSError) -> None:
        message = f"standard output: cannot be written ({error.strerror})"
        context = click.get_current_context(silent=True)
        if context is not None and context.find_root().invoked_subcommand in FILED:
            click.echo(f"Warning: {message}; the work goes on", err=True)
        elif error.errno != errno.EPIPE:
            self.lost = message


def lasting(stream: io.TextIOWrapper, kind: type[LastingFile]) -> io.TextIOWrapper:
    """Return a text stream that writes to the same file through a `LastingFile`, and replaces the
    characters that its encoding lacks: a terminal may know only ASCII."""
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def lost(stream: Any) -> str | None:
    """Return the error message of a stream whose text was lost, or None."""
    if stream is None:  # closed from the start, as by >&-
        return None
    stream.flush()
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    return file.lost if isinstance(file, ResultFile) else None
