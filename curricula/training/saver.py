"""When a checkpoint is due within an epoch."""

import time
from collections.abc import Callable
from typing import TypeAlias

import attrs
from attrs.validators import and_, ge, gt, le

from curricula.errors import UserError, shown
from curricula.expressions.syntax import parse_number

MAX_SHARE = 0.01  # share of the time that checkpoints may take by default
MAX_STEPS = 10**12  # updates between checkpoints
MAX_MINUTES = 10**6  # minutes between checkpoints
MIN_SECONDS = 60.0  # between checkpoints by default


@attrs.frozen
class Steps:
    """An interval between checkpoints: a number of updates."""

    number: int = attrs.field(validator=and_(ge(1), le(MAX_STEPS)))


@attrs.frozen
class Minutes:
    """An interval between checkpoints: a number of minutes."""

    number: float = attrs.field(validator=and_(gt(0), le(MAX_MINUTES)))


Interval: TypeAlias = Steps | Minutes


def parse_interval(value: str | int) -> Interval:
    """Return the interval between checkpoints that a text or number gives, in updates or in
    minutes.

    >>> parse_interval("500"), parse_interval(500), parse_interval("2.5min")
    (Steps(number=500), Steps(number=500), Minutes(number=2.5))

    Raises:
        UserError: neither.
    """
    try:
        text = str(value)
        if text.endswith("min"):
            return Minutes(parse_number(text.removesuffix("min")).value)
        number = parse_number(text).value
        if not number.is_integer():
            raise UserError("a number of updates is whole")
        return Steps(int(number))
    except ValueError as error:
        raise UserError(
            f"checkpoint_every must be a number of updates, such as 500, from 1 to {MAX_STEPS:,}, "
            f"or of minutes, such as 10min, above 0 to {MAX_MINUTES:,}, not {shown(value)}"
        ) from error


class Saver:
    """Decide when a checkpoint is due within an epoch.

    Args:
        every: the interval; None for one that takes under 1 % of the time.
    """

    def __init__(self, every: Interval | None) -> None:
        self._every = every
        self._saved = time.perf_counter()
        self._took = 0.0

    def is_due(self, step: int) -> bool:
        """Return whether to write a checkpoint now, after ``step`` updates of the training."""
        if isinstance(self._every, Steps):
            return step % self._every.number == 0
        passed = time.perf_counter() - self._saved
        if isinstance(self._every, Minutes):
            return passed >= 60 * self._every.number
        return passed >= max(MIN_SECONDS, self._took / MAX_SHARE)

    def save(self, write: Callable[[], None]) -> None:
        """Write a checkpoint by calling ``write``, and remember when it was and how long it
        took."""
        began = time.perf_counter()
        write()
        self._saved = time.perf_counter()
        self._took = self._saved - began
