"""Callbacks: follow a training from the outside, without changing it. Needs no torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from curricula.interfaces import Progress, Strength
    from curricula.training.metrics import EpochMetrics
    from curricula.training.plan import Plan
    from curricula.training.run import Run


@runtime_checkable
class Callback(Protocol):
    """An interface for code that follows a training, such as a progress bar: one method for each
    event."""

    def on_message(self, line: str) -> None:
        """Receive a line of text for the user, such as a decision and its reason."""

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        """Receive the run, its plan and the number of updates, before the first update."""

    def on_step_end(
        self, progress: "Progress", loss: "Tensor", strengths: "Mapping[str, Strength]"
    ) -> None:
        """Receive the progress, loss and strengths of an update. Reading the loss waits for the
        device, so read it seldom."""

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        """Receive the metrics of an epoch, as written to metrics.jsonl."""

    def on_eval_start(self, batches: int) -> None:
        """Receive the number of batches of the final evaluation, before it starts."""

    def on_eval_batch_end(self) -> None:
        """Run after each batch of the final evaluation."""

    def on_train_end(self) -> None:
        """Run at the end, when everything is written or an error ends the training."""


class NoCallback:
    """Ignore every event. Derive from it to receive only some.

    >>> class Print(NoCallback):
    ...     def on_message(self, line):
    ...         print(line)
    >>> Print().on_message("compile: off")
    compile: off
    """

    def on_message(self, line: str) -> None: ...
    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None: ...
    def on_step_end(
        self, progress: "Progress", loss: "Tensor", strengths: "Mapping[str, Strength]"
    ) -> None: ...
    def on_epoch_end(self, metrics: "EpochMetrics") -> None: ...
    def on_eval_start(self, batches: int) -> None: ...
    def on_eval_batch_end(self) -> None: ...
    def on_train_end(self) -> None: ...
