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
    """Receives the events of a training; a progress bar or an experiment tracker, for example."""

    def on_message(self, line: str) -> None:
        """Called with a line of text for the user, such as a decision and its reason."""

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        """Called before the first of ``steps`` updates."""

    def on_step_end(
        self, progress: "Progress", loss: "Tensor", strengths: "Mapping[str, Strength]"
    ) -> None:
        """Called after each update. Reading the loss waits for the device, so read it seldom."""

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        """Called after each epoch with the line that was written to metrics.jsonl."""

    def on_eval_start(self, batches: int) -> None:
        """Called before the final evaluation of ``batches`` batches."""

    def on_eval_batch_end(self) -> None:
        """Called after each batch of the final evaluation."""

    def on_train_end(self) -> None:
        """Called at the end, when everything is written or an error ends the training."""


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
