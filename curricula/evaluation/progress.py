"""The share of an evaluation that is done."""

from collections.abc import Callable, Iterable

from curricula.curriculum import Threat
from curricula.plugins.names import CLEAN


class EvaluationProgress:
    """Report the share of the passes that are done, as if no image were fooled.

    `evaluate_threats` calls its methods.

    Args:
        threats: the threats to run; clean images are always added.
        progress: called with the share, in [0, 1], after each batch.
    """

    def __init__(self, threats: Iterable[Threat], progress: Callable[[float], None]) -> None:
        self.progress = progress
        different = {str(threat): threat for threat in (Threat.parse(CLEAN), *threats)}
        self.total = sum(map(_max_passes, different.values()))
        self.done = self.each = 0.0

    def began(self, threat: Threat, batches: int) -> None:
        """Record that a threat begins and how many batches it runs in."""
        self.each = _max_passes(threat) / batches

    def after_batch(self) -> None:
        """Add one batch to the passes that are done, and report the share."""
        self.done += self.each
        self.progress(min(1.0, self.done / self.total))


def _max_passes(threat: Threat) -> int:
    """Return the maximum number of passes per image, including that of the final classification."""
    return threat.tree.max_passes + 1
