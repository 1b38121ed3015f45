"""Show the progress of a training on standard output: a bar on a terminal, and lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from curricula.errors import printable
from curricula.evaluation.names import CLEAN, JOINT
from curricula.training.callbacks import NoCallback
from curricula.training.config import FIELDS
from curricula.training.run import Run

if TYPE_CHECKING:  # a callback is made before torch is imported
    from curricula.interfaces import Strength
    from curricula.training.metrics import EpochMetrics
    from curricula.training.plan import Plan
    from curricula.training.step import Update

READ_EVERY = 10  # updates between two reads of the loss, which wait for the device


class Terminal(NoCallback):
    """A callback that prints the progress and results of a training on standard output.

    Args:
        console: prints; by default on standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.title = ""
        self.console = console or Console(highlight=False)
        self.bar = self._new_bar()
        self.task = TaskID(0)
        self.epochs = 0

    def _new_bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )

    def say(self, text: str) -> None:
        """Print one line of text, neither wrapped nor coloured."""
        self.console.print(printable(text), soft_wrap=True, markup=False)

    def on_message(self, line: str) -> None:
        self.say(line)

    def on_train_start(self, run: Run, plan: "Plan", steps: int) -> None:
        self.title = str(run.path)
        self.epochs = plan.config.epochs
        from curricula.evaluation.threats import validation_threats

        train, validation = len(plan.data.train), len(plan.validation)
        after = len(plan.validated)
        limited = "" if after == validation else f", {after:,} of them after each epoch"
        self.say(f"{self.title}: {train:,} training images, {validation:,} for validation{limited}")
        width = max(map(len, FIELDS))
        for name in FIELDS:
            value = getattr(plan.config, name)
            self.say(f"  {name:<{width}} {', '.join(value) if isinstance(value, tuple) else value}")
        joint = validation_threats(plan.curriculum.tree, plan.data.budgets)[JOINT]
        self.say(f"joint in validation: {joint}; * marks the best epoch so far")
        self.bar = self._new_bar()
        self.bar.start()
        self.task = self.bar.add_task("training", total=steps)

    def on_step_end(self, update: "Update") -> None:
        if not self.console.is_terminal:
            return
        progress = update.progress
        description: str | None = None
        if progress.step % READ_EVERY == 0:
            description = (
                f"epoch {progress.epoch + 1}/{progress.total_epochs} "
                f"loss {float(update.loss):.3f}{_shown(update.strengths)}"
            )
        self.bar.update(self.task, completed=progress.step + 1, description=description)

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        validation = metrics.validation
        self.say(
            f"epoch {metrics.epoch:>3}/{self.epochs}  loss {metrics.loss:.4f}  "
            f"train {metrics.train_accuracy:.3f}  "
            f"validation clean {validation[CLEAN]:.3f} joint {validation[JOINT]:.3f}"
            f"{' *' if metrics.best else '  '}{_shown(metrics.strength)}"
        )

    def on_eval_start(self, batches: int) -> None:
        self.bar.remove_task(self.task)
        self.say(f"{self.title}: measuring the best checkpoint (the last *) on the test split")
        self.task = self.bar.add_task("evaluation", total=batches)

    def on_eval_batch_end(self) -> None:
        self.bar.update(self.task, advance=1)

    def on_train_end(self) -> None:
        self.bar.stop()


def _shown(strengths: "Mapping[str, Strength]") -> str:
    """Return the mean strength of each perturbation, in [0, 1], as text to append to a line."""
    import torch

    shown = (
        f"{label} {float(torch.as_tensor(strength).float().mean()):.2f}"
        for label, strength in strengths.items()
    )
    text = ", ".join(shown)
    return f"  [{text}]" if text else ""
