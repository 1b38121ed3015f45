"""Ctrl-C and SIGTERM, answered at a moment at which nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs

from curricula.runtime.processes import started

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM has ended some work, in an orderly way.

    Attributes:
        status: exit status of the program: 128 and the signal's number, as in a shell.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number


@attrs.define
class StopRequest:
    """Holds the first signal that asked the work to stop; None while there is none."""

    received: int | None = None


@contextmanager
def stop_requests(*, patient: bool = False) -> Iterator[StopRequest]:
    """Yield an object that records the first SIGINT or SIGTERM in the block, instead of ending; a
    second signal ends the process.

    Args:
        patient: ignore further signals: torchrun passes a Ctrl-C on to processes that the terminal
            has sent it already, and kills those that do not end.

    Outside the main thread, which alone receives signals, nothing is recorded.
    """
    request = StopRequest()

    def record(number: int, frame: FrameType | None) -> None:
        if request.received is not None and patient:
            return
        if request.received is not None:
            raise Interrupted("interrupted again: ended at once", number)
        request.received = number

    with _handled_by(record):
        yield request


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted` inside the block, as Ctrl-C raises KeyboardInterrupt.

    One of several processes still ends at once: it may wait for the others in an exchange, during
    which Python handles no signal.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted("terminated", number)

    with _handled_by(end, () if started().count > 1 else (signal.SIGTERM,)):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Delay a SIGINT or SIGTERM that arrives inside the block to its end.

    Python would raise KeyboardInterrupt in the middle of the block, and code that starts and stops
    processes can swallow it.
    """
    received: list[int] = []
    with _handled_by(lambda number, frame: received.append(number)):
        yield
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _handled_by(handler: Any, signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
    """Handle signals by a function inside the block, and restore the old handlers afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            # None: a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if old is None else old)
