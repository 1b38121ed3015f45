"""Show the progress of a training from Python, on a terminal or in a notebook."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from curricula.evaluation.names import CLEAN, JOINT
from curricula.runtime.progress import ProgressBar, ProgressChoice, is_shown
from curricula.training.callbacks import Callback, NoCallback

if TYPE_CHECKING:
    from curricula.training.metrics import EpochMetrics
    from curricula.training.plan import Plan
    from curricula.training.run import Run
    from curricula.training.step import Update


def progress_callbacks(progress: ProgressChoice) -> list[Callback]:
    """Return the callbacks that show the progress of a training: one or none.

    Args:
        progress: True shows a bar with the latest epoch's accuracies, False does not, None does
            where `is_interactive`; a function receives the share of the updates that are done.
    """
    if callable(progress):
        return [_Reported(progress)]
    return [_Shown()] if is_shown(progress) else []


class _Reported(NoCallback):
    """Calls a function with the share of the updates that are done, in [0, 1]."""

    def __init__(self, function: Callable[[float], None]) -> None:
        self.function = function
        self.steps = 1

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        self.steps = max(steps, 1)

    def on_step_end(self, update: "Update") -> None:
        self.function((update.progress.step + 1) / self.steps)


class _Shown(NoCallback):
    """Shows a bar of the updates with the latest epoch's accuracies, then one of the final
    evaluation."""

    def __init__(self) -> None:
        self.bar: ProgressBar | None = None
        self.steps = self.batches = self.done = 0
        self.epochs = 0

    def _begin(self, name: str) -> None:
        self._end()
        self.bar = ProgressBar(name)
        self.bar.__enter__()

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None

    def _show(self, share: float, text: str | None = None) -> None:
        if self.bar is not None:
            self.bar.progress(share, text)

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        self.steps, self.epochs = max(steps, 1), plan.config.epochs
        self._begin(f"training {run.path}")

    def on_step_end(self, update: "Update") -> None:
        self._show((update.progress.step + 1) / self.steps)

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        validation = metrics.validation
        self._show(
            self.bar.share if self.bar is not None else 0.0,
            f"epoch {metrics.epoch}/{self.epochs}, loss {metrics.loss:.3f}, validation clean "
            f"{100 * validation[CLEAN]:.1f} %, joint {100 * validation[JOINT]:.1f} %",
        )

    def on_eval_start(self, batches: int) -> None:
        self.batches, self.done = max(batches, 1), 0
        self._begin("evaluation")

    def on_eval_batch_end(self) -> None:
        self.done += 1
        self._show(min(1.0, self.done / self.batches))

    def on_train_end(self) -> None:
        self._end()
