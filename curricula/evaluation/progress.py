"""How much of a measurement is done."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from curricula.curriculum import Threat
from curricula.expressions.syntax import Argument, Call, Chain, Expression, Number, Union, parse
from curricula.plugins.names import CLEAN, GRID, WORST

COUNTS = ("steps", "queries")  # parameters that say how many passes an attack makes
GRID_POINTS = 31 * 5 * 5  # of rotations and translations, by default


class EvaluationProgress:
    """Track the share of the passes that is done, as if no image were fooled; `evaluate_threats`
    calls it.

    Args:
        threats: what is to be run, clean images besides.
        progress: who is told the share, in [0, 1], after each batch.
    """

    def __init__(self, threats: Iterable[Threat], progress: Callable[[float], None]) -> None:
        self.progress = progress
        different = {str(threat): threat for threat in (Threat.parse(CLEAN), *threats)}
        self.total = sum(map(passes, different.values()))
        self.done = self.each = 0.0

    def began(self, threat: Threat, batches: int) -> None:
        self.each = passes(threat) / batches

    def after_batch(self) -> None:
        self.done += self.each
        self.progress(min(1.0, self.done / self.total))


def passes(threat: Threat) -> int:
    """How many passes, gradients or forward, an image of a threat takes at most, as far as its
    perturbations (`passes`) or else their arguments say; the last says what the model makes of the
    result."""
    known = {
        str(leaf.call): leaf.perturbation.passes
        for leaf in threat.tree.leaves.values()
        if hasattr(leaf.perturbation, "passes")
    }
    return _within(parse(str(threat)), known) + 1


def _within(part: Expression, known: Mapping[str, int]) -> int:
    match part:
        case Chain(links):
            return sum(_within(link, known) for link in links)
        case Union(branches):
            return sum(_within(branch, known) + 1 for branch in branches)
        case Call(name=name, arguments=(argument, *rest)) if name == WORST:
            assert isinstance(argument.value, (Call, Chain))
            return _number(rest, "k") * (_within(argument.value, known) + 1)
        case Call(name=name) if name == GRID:
            return GRID_POINTS
    if str(part) in known:
        return known[str(part)]
    return sum(_number(part.arguments, count) for count in COUNTS) * max(
        _number(part.arguments, "restarts"), 1
    )


def _number(arguments: Sequence[Argument], key: str) -> int:
    """An argument's value, where it is a number; 0 where not."""
    values = (each.value for each in arguments if each.key == key)
    return next((int(value.value) for value in values if isinstance(value, Number)), 0)
