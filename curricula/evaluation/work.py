"""How much of a measurement is done."""

from collections.abc import Callable, Iterable, Sequence

from curricula.curriculum import Threat
from curricula.expression import (
    CLEAN,
    GRID,
    WORST,
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Union,
    parse,
)

COUNTS = ("steps", "queries")  # parameters that say how many passes an attack makes
GRID_POINTS = 31 * 5 * 5  # of rotations and translations, by default


class Work:
    """Which share of the passes is done, if no image falls: what `curricula.measure` calls.

    Args:
        threats: what is to be run, clean images besides.
        progress: who is told the share, in [0, 1], after each batch.
    """

    def __init__(self, threats: Iterable[Threat], progress: Callable[[float], None]) -> None:
        self.progress = progress
        texts = {CLEAN, *(str(threat) for threat in threats)}
        self.total = sum(passes(parse(text)) for text in texts)
        self.done = self.each = 0.0

    def began(self, threat: Threat, batches: int) -> None:
        self.each = passes(parse(str(threat))) / batches

    def after_batch(self) -> None:
        self.done += self.each
        self.progress(min(1.0, self.done / self.total))


def passes(expression: Expression) -> int:
    """How many passes, gradients or forward, an image of a threat takes at most, as far as its
    arguments say; the last says what the model makes of the result."""

    def within(part: Expression) -> int:
        match part:
            case Chain(links):
                return sum(map(within, links))
            case Union(branches):
                return sum(within(branch) + 1 for branch in branches)
            case Call(name=name, arguments=(argument, *rest)) if name == WORST:
                assert isinstance(argument.value, (Call, Chain))
                return _number(rest, "k") * (within(argument.value) + 1)
            case Call(name=name) if name == GRID:
                return GRID_POINTS
        return sum(_number(part.arguments, count) for count in COUNTS) * max(
            _number(part.arguments, "restarts"), 1
        )

    return within(expression) + 1


def _number(arguments: Sequence[Argument], key: str) -> int:
    """An argument's value, where it is a number; 0 where not."""
    values = (each.value for each in arguments if each.key == key)
    return next((int(value.value) for value in values if isinstance(value, Number)), 0)
