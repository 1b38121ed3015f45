"""Callbacks: follow a training from the outside, without changing it. Needs no torch."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from curricula.errors import UserError, message_of, shown
from curricula.expressions import factories
from curricula.expressions.checks import check_call
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry

if TYPE_CHECKING:
    from curricula.evaluation.results import ThreatResult
    from curricula.training.metrics import EpochMetrics
    from curricula.training.plan import Plan
    from curricula.training.run import Run
    from curricula.training.step import Update


@runtime_checkable
class Callback(Protocol):
    """An interface for code that follows a training, such as a progress bar: one method for each
    event.

    A callback may follow several trainings, one after another: a run and its baseline.
    """

    def on_message(self, line: str) -> None:
        """Receive a line of text for the user, such as a decision and its reason."""

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        """Receive the run, its plan and the number of updates, before the first update."""

    def on_resume(self, step: int) -> None:
        """Receive the number of updates after which the training continues from a checkpoint: after
        `on_train_start`, or after a rollback. All later updates and epochs come again."""

    def on_step_end(self, update: "Update") -> None:
        """Receive an update: its progress, loss, strengths, learning rate and images. Reading a
        tensor waits for the device, so read them seldom; do not keep the update."""

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        """Receive the metrics of an epoch, as written to metrics.jsonl."""

    def on_checkpoint(self) -> None:
        """Run before a checkpoint is written. What came before it does not come again after an
        interruption, so write out now what is buffered."""

    def on_eval_start(self, batches: int) -> None:
        """Receive the number of batches of the final evaluation, before it starts."""

    def on_eval_batch_end(self) -> None:
        """Run after each batch of the final evaluation."""

    def on_eval_end(self, results: "Sequence[ThreatResult]") -> None:
        """Receive the results of the final evaluation, one per threat, before they are written."""

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
    def on_resume(self, step: int) -> None: ...
    def on_step_end(self, update: "Update") -> None: ...
    def on_epoch_end(self, metrics: "EpochMetrics") -> None: ...
    def on_checkpoint(self) -> None: ...
    def on_eval_start(self, batches: int) -> None: ...
    def on_eval_batch_end(self) -> None: ...
    def on_eval_end(self, results: "Sequence[ThreatResult]") -> None: ...
    def on_train_end(self) -> None: ...


class Callbacks:
    """Forward each event of a training to several callbacks, in order.

    An error of a callback must not lose the updates since the last checkpoint, so it is not raised
    in the middle of them: it is kept in `failure` until the training has saved its state. The
    callback that failed receives no more events, except the end of the training.

    Args:
        callbacks: the callbacks.
        texts: the expressions that name some of them, by the callback's position.
    """

    def __init__(
        self, callbacks: Sequence[Callback] = (), texts: Mapping[int, str] | None = None
    ) -> None:
        self.failure: UserError | None = None
        self._callbacks = dict(enumerate(callbacks))
        self._texts = dict(texts or {})
        self._failed: set[int] = set()
        self._started = False

    @classmethod
    def build(cls, callbacks: "Iterable[Callback | str]") -> "Callbacks":
        """Return callbacks of which some are given as objects and some as expressions.

        Raises:
            UserError: a callback cannot be built, or lacks a method.
        """
        built, texts = [], {}
        for position, each in enumerate(callbacks):
            if isinstance(each, str):
                found = factories.build("callback", parse_call(each))
                if not isinstance(found.value, Callback):
                    provider = registry.current().find("callback", found.call.name).provider
                    raise UserError(
                        f"callback {found.call} of {provider} lacks methods of "
                        "curricula.training.Callback; let it derive from NoCallback"
                    )
                built.append(found.value)
                texts[position] = str(found.call)
            else:
                built.append(each)
        return cls(built, texts)

    @property
    def texts(self) -> list[str]:
        """The expressions of the callbacks that were named by one and have not failed."""
        return [text for key, text in self._texts.items() if key not in self._failed]

    def on_message(self, line: str) -> None:
        self._forward("on_message", line)

    def on_train_start(self, run: "Run", plan: "Plan", steps: int) -> None:
        self._started = True
        self._forward("on_train_start", run, plan, steps)

    def on_resume(self, step: int) -> None:
        self._forward("on_resume", step)

    def on_step_end(self, update: "Update") -> None:
        self._forward("on_step_end", update)

    def on_epoch_end(self, metrics: "EpochMetrics") -> None:
        self._forward("on_epoch_end", metrics)

    def on_checkpoint(self) -> None:
        self._forward("on_checkpoint")

    def on_eval_start(self, batches: int) -> None:
        self._forward("on_eval_start", batches)

    def on_eval_batch_end(self) -> None:
        self._forward("on_eval_batch_end")

    def on_eval_end(self, results: "Sequence[ThreatResult]") -> None:
        self._forward("on_eval_end", results)

    def on_train_end(self) -> None:
        if self._started:
            self._started = False
            self._forward("on_train_end")

    def _forward(self, event: str, *values: object) -> None:
        for key, callback in self._callbacks.items():
            if key in self._failed and event != "on_train_end":
                continue
            try:
                with _same_modes():
                    getattr(callback, event)(*values)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # third-party code may call exit()
                self._failed.add(key)
                if self.failure is None:
                    name = self._texts.get(key, type(callback).__name__)
                    reason = message_of(error)
                    if not isinstance(error, UserError):
                        reason = f"{type(error).__name__}: {reason}"
                    self.failure = UserError(f"callback {name} failed in {event} ({reason})")
                    self.failure.__cause__ = error


@contextmanager
def _same_modes() -> Iterator[None]:
    """Restore torch's grad mode and default dtype after the block, which third-party code may
    change."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


def check_callbacks(callbacks: Any) -> "Sequence[Callback | str]":
    """Return callbacks after checking that each is a `Callback` or an expression of registered
    names. Needs no torch.

    Raises:
        UserError: one is neither, or no plugin registered its name.
    """
    if not isinstance(callbacks, (list, tuple)):
        raise UserError(
            "callbacks must be a list of callbacks and of their expressions, such as "
            f"['tensorboard'], not {shown(callbacks)}"
        )
    for callback in callbacks:
        if isinstance(callback, str):
            check_call("callback", callback)
        elif isinstance(callback, type) or not isinstance(callback, Callback):
            raise UserError(
                "a callback must have the methods of curricula.training.Callback (derive its class "
                f"from NoCallback, and give an object), not {shown(callback)}"
            )
    return callbacks
