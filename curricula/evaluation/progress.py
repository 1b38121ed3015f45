"""Progress of an evaluation, as the finished share of its network passes."""

from collections.abc import Callable, Iterable

from curricula.curriculum import Threat
from curricula.plugins.names import CLEAN


class EvaluationProgress:
    """Reports the finished share of an evaluation's passes, in [0, 1], as if no image were fooled
    early.

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
        """Store the number of passes in each batch of a threat that now starts and has ``batches``
        batches; of several processes, one may have none."""
        self.each = _max_passes(threat) / max(batches, 1)

    def after_batch(self) -> None:
        """Count the passes of one finished batch, and report the share."""
        self.done += self.each
        self.progress(min(1.0, self.done / self.total))


def _max_passes(threat: Threat) -> int:
    """Return the maximum number of passes per image under a threat, including the final
    classification."""
    return threat.tree.max_passes + 1
