"""The one training loop."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import SplitLike, batches, first
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, evaluate_threats
from curricula.evaluation.names import JOINT
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import validation_threats
from curricula.interfaces import AdaptiveSchedule, Progress, Strength
from curricula.runtime.records import to_json
from curricula.training.compile_choice import decide
from curricula.training.config import EVALUATION_SEED, SplitName
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan
from curricula.training.run import (
    BEST,
    LAST,
    METRICS,
    RESULTS,
    TIMING,
    Run,
    check_free,
    prefixed,
)
from curricula.training.step import Networks, TrainingState, Update, begin, update


class Callback(Protocol):
    """Who follows a training: a terminal, a tracker, nobody."""

    def on_message(self, line: str) -> None:
        """Something was decided that the user may want to know."""

    def on_train_start(self, run: Run, plan: Plan, steps: int) -> None:
        """``steps`` updates are to come."""

    def on_step_end(
        self, progress: Progress, loss: Tensor, strengths: Mapping[str, Strength]
    ) -> None:
        """An update is done; reading the loss waits for the device, so read it seldom."""

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """The line that went to metrics.jsonl."""

    def on_eval_start(self, batches: int) -> None:
        """The final evaluation begins, of so many batches."""

    def on_eval_batch_end(self) -> None:
        """One of them is done."""

    def on_train_end(self) -> None:
        """All is written, or an error ends the training."""


class NoCallback:
    """Follows nothing."""

    def on_message(self, line: str) -> None: ...
    def on_train_start(self, run: Run, plan: Plan, steps: int) -> None: ...
    def on_step_end(
        self, progress: Progress, loss: Tensor, strengths: Mapping[str, Strength]
    ) -> None: ...
    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None: ...
    def on_eval_start(self, batches: int) -> None: ...
    def on_eval_batch_end(self) -> None: ...
    def on_train_end(self) -> None: ...


def train_plan(
    plan: Plan,
    path: Path,
    *,
    threats: Mapping[str, Threat],
    split: SplitName = "test",
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[ThreatResult]:
    """Train as planned, into a new run folder, and measure the best checkpoint.

    The global random state, which draws the weights and the dropout, is seeded for the run and put
    back afterwards.

    Args:
        plan: see curricula.training.plan.make_plan.
        path: the run folder.
        threats: to measure it under, by name.
        split: ``test``, or ``validation``: the images that pick the checkpoint.
        limit: the first so many images of that; by default all.
        callback: who follows.

    Returns:
        The accuracies, a result a threat.

    Raises:
        UserError: when the folder holds a run already, or the loss is no longer a number.
    """
    callback = callback or NoCallback()
    check_free(path)
    images = first(plan.data.test if split == "test" else plan.validation, limit)
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        plan, why = decide(plan)
    callback.on_message(why)
    run = Run.create(path, plan.config)
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(plan.config.seed)
            state = begin(plan)
            _train(plan, state, run, callback)
            run.load_weights(BEST, state.model)
        return _final_evaluation(plan, state.model, images, threats, run, RESULTS[split], callback)
    finally:
        callback.on_train_end()


def _train(plan: Plan, state: TrainingState, run: Run, callback: Callback) -> None:
    config = plan.config
    steps_per_epoch = len(plan.data.train) // config.batch_size
    callback.on_train_start(run, plan, config.epochs * steps_per_epoch)
    threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
    networks = Networks.of(plan, state.model)
    passes = PassCounter.attach(networks)
    for epoch in range(config.epochs):
        began = time.perf_counter()
        loss_sum = torch.zeros((), device=plan.device)
        correct = torch.zeros((), dtype=torch.int64, device=plan.device)
        strengths: Mapping[str, Strength] = {}
        for done in _updates(plan, state, networks, steps_per_epoch, epoch):
            loss_sum += done.loss
            correct += done.correct_N.sum()
            strengths = done.strengths
            callback.on_step_end(done.progress, done.loss, strengths)
        trained = time.perf_counter()
        mean_loss = float(loss_sum) / steps_per_epoch
        if not math.isfinite(mean_loss):
            awp = f" or --awp (now {config.awp:g})" if config.awp else ""
            raise UserError(
                f"the loss is no longer a number in epoch {epoch + 1} (run {run.path}); "
                f"lower --lr (now {config.lr:g}){awp} or use --precision float32"
            )
        _join_epoch(plan, state, epoch)
        measured = evaluate_threats(
            state.measured,
            plan.data,
            plan.validation,
            threats,
            seed=EVALUATION_SEED,
            batch_size=BATCH_SIZE,
        )
        validation = {result.name: result.accuracy for result in measured}
        state.schedules = plan.curriculum.after_epoch(state.schedules, validation)
        state.epoch = epoch + 1
        best = validation[JOINT] >= state.best_joint
        if best:
            state.best_joint = validation[JOINT]
            run.save(BEST, prefixed("model", state.measured.state_dict()))
        run.save(LAST, state.tensors(), state.counters())
        metrics = {
            "epoch": epoch + 1,
            "loss": mean_loss,
            "train_accuracy": int(correct) / (steps_per_epoch * config.batch_size),
            "validation": validation,
            "strength": {
                label: float(torch.as_tensor(s).float().mean()) for label, s in strengths.items()
            },
            "lr": state.optimizer.param_groups[0]["lr"],
            "passes": passes.pop(),
            "best": best,
        }
        run.append(METRICS, metrics)
        run.append(
            TIMING,
            {
                "epoch": epoch + 1,
                "training_seconds": trained - began,
                "validation_seconds": time.perf_counter() - trained,
            },
        )
        callback.on_epoch_end(metrics)
    for label in _never_raised(plan, run):
        callback.on_message(
            f"{label} stayed at strength 0: {plan.curriculum.schedule_calls[label]} never raised "
            "it; train longer, or choose another threshold or schedule"
        )


def _never_raised(plan: Plan, run: Run) -> list[str]:
    """Labels whose schedules listened to the training in vain."""
    ends = [line["strength"] for line in run.lines(METRICS)]
    return [
        label
        for label, schedule in plan.curriculum.schedules.items()
        if isinstance(schedule, AdaptiveSchedule) and not any(end[label] for end in ends)
    ]


def _join_epoch(plan: Plan, state: TrainingState, epoch: int) -> None:
    """Let the weights at the end of an epoch join their average, where epochs do."""
    averaging, average = plan.averaging, state.average
    if averaging is None or average is None or averaging.each != "epoch":
        return
    if (epoch + 1) / plan.config.epochs > averaging.start:
        average.update_parameters(state.model)


def _updates(
    plan: Plan, state: TrainingState, networks: Networks, steps_per_epoch: int, epoch: int
) -> Iterator[Update]:
    """One epoch of updates."""
    total = plan.config.epochs * steps_per_epoch
    for indices_N, batch in batches(
        plan.data.train,
        plan.config.batch_size,
        generator=state.generators["order"] if plan.config.shuffle else None,
    ):
        progress = Progress(
            step=state.step, total_steps=total, epoch=epoch, total_epochs=plan.config.epochs
        )
        yield update(plan, state, networks, indices_N, batch, progress)


def _final_evaluation(
    plan: Plan,
    model: nn.Module,
    images: SplitLike,
    threats: Mapping[str, Threat],
    run: Run,
    file: str,
    callback: Callback,
) -> list[ThreatResult]:
    callback.on_eval_start(len(threats) * math.ceil(len(images) / BATCH_SIZE))
    began = time.perf_counter()
    results = evaluate_threats(
        model,
        plan.data,
        images,
        threats,
        seed=EVALUATION_SEED,
        batch_size=BATCH_SIZE,
        after_batch=callback.on_eval_batch_end,
    )
    run.write_json(file, to_json(results))
    run.append(TIMING, {"evaluation_seconds": time.perf_counter() - began})
    return results
