"""The training loop."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
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
from curricula.training.callbacks import Callback, NoCallback
from curricula.training.compile_choice import decide_compile
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
from curricula.training.step import Networks, TrainingState, average_epoch, start, update


def train_plan(
    plan: Plan,
    path: Path,
    *,
    threats: Mapping[str, Threat],
    split: SplitName = "test",
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[ThreatResult]:
    """Train as planned into a new run folder, evaluate the best checkpoint, and return its results.

    torch's global random state, which draws the weights and the dropout, is seeded for the run and
    restored afterwards.

    Args:
        plan: as `curricula.training.plan.make_plan` returns it.
        path: the run folder.
        threats: threats of the final evaluation, by name.
        split: split of the final evaluation: ``test``, or ``validation``, the training images held
            out to pick the checkpoint.
        limit: evaluate the first ``limit`` images of the split; None for all.
        callback: receives the events of the training.

    Raises:
        UserError: the folder already holds a run, or the loss is no longer finite.
    """
    callback = callback or NoCallback()
    check_free(path)
    images = first(plan.data.test if split == "test" else plan.validation, limit)
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        plan, reason = decide_compile(plan)
    callback.on_message(reason)
    run = Run.create(path, plan.config)
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(plan.config.seed)
            state = start(plan)
            _train(plan, state, run, callback)
            run.load_weights(BEST, state.model)
        return _evaluate(plan, state.model, images, threats, run, RESULTS[split], callback)
    finally:
        callback.on_train_end()


def _train(plan: Plan, state: TrainingState, run: Run, callback: Callback) -> None:
    """Train all epochs; after each, validate, save the checkpoints and write the metrics."""
    callback.on_train_start(run, plan, plan.total_steps)
    threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
    networks = Networks.of(plan, state.model)
    passes = PassCounter.attach(networks)
    for epoch in range(plan.config.epochs):
        began = time.perf_counter()
        sums = _train_epoch(plan, state, networks, epoch, callback)
        trained = time.perf_counter()
        mean_loss = float(sums.loss) / plan.steps_per_epoch
        _check_finite(mean_loss, plan, run, epoch)
        average_epoch(plan, state, epoch)
        validation = _validate(plan, state.evaluated_model, threats)
        state.schedules = plan.curriculum.after_epoch(state.schedules, validation)
        state.epoch = epoch + 1
        best = _save_checkpoints(state, run, validation[JOINT])
        metrics = {
            "epoch": epoch + 1,
            "loss": mean_loss,
            "train_accuracy": int(sums.correct) / (plan.steps_per_epoch * plan.config.batch_size),
            "validation": validation,
            "strength": _means(sums.strengths),
            "lr": state.optimizer.param_groups[0]["lr"],
            "passes": passes.pop(),
            "best": best,
        }
        run.append(METRICS, metrics)
        timing = {
            "epoch": epoch + 1,
            "training_seconds": trained - began,
            "validation_seconds": time.perf_counter() - trained,
        }
        run.append(TIMING, timing)
        callback.on_epoch_end(metrics)
    for label in _never_raised(plan, run):
        callback.on_message(
            f"{label} stayed at strength 0: {plan.curriculum.schedule_calls[label]} never raised "
            "it; train longer, or choose another threshold or schedule"
        )


@attrs.define(kw_only=True)
class _EpochSums:
    """Sums over the updates of an epoch, kept on the device.

    Attributes:
        loss: sum of the updates' losses.
        correct: number of perturbed images classified correctly.
        strengths: strengths of the last update, by label.
    """

    loss: Tensor
    correct: Tensor
    strengths: Mapping[str, Strength] = attrs.field(factory=dict)


def _train_epoch(
    plan: Plan, state: TrainingState, networks: Networks, epoch: int, callback: Callback
) -> _EpochSums:
    """Update the network on each batch of an epoch, and return sums over the updates."""
    sums = _EpochSums(
        loss=torch.zeros((), device=plan.device),
        correct=torch.zeros((), dtype=torch.int64, device=plan.device),
    )
    order = state.generators["order"] if plan.config.shuffle else None
    for indices_N, batch in batches(plan.data.train, plan.config.batch_size, generator=order):
        progress = Progress(
            step=state.step,
            total_steps=plan.total_steps,
            epoch=epoch,
            total_epochs=plan.config.epochs,
        )
        done = update(plan, state, networks, indices_N, batch, progress)
        sums.loss += done.loss
        sums.correct += done.correct_N.sum()
        sums.strengths = done.strengths
        callback.on_step_end(progress, done.loss, done.strengths)
    return sums


def _check_finite(loss: float, plan: Plan, run: Run, epoch: int) -> None:
    """Raise a user error after an epoch whose loss is infinite or NaN."""
    if math.isfinite(loss):
        return
    awp = f" or awp (--awp), now {plan.config.awp:g}," if plan.config.awp else ""
    raise UserError(
        f"the loss is no longer finite in epoch {epoch + 1} (run {run.path}); "
        f"lower lr (--lr), now {plan.config.lr:g},{awp} or set precision (--precision) to float32"
    )


def _validate(plan: Plan, model: nn.Module, threats: Mapping[str, Threat]) -> dict[str, float]:
    """Return a network's accuracies on the validation images, by threat."""
    results = evaluate_threats(
        model,
        plan.data,
        plan.validation,
        threats,
        seed=EVALUATION_SEED,
        batch_size=BATCH_SIZE,
    )
    return {result.name: result.accuracy for result in results}


def _save_checkpoints(state: TrainingState, run: Run, joint: float) -> bool:
    """Save a state as the last checkpoint, and as the best if it is the best so far; return whether
    it is.

    Args:
        state: the state after an epoch.
        run: the run.
        joint: validation accuracy under the joint threat, in [0, 1]; the last state wins a tie.
    """
    best = joint >= state.best_joint
    if best:
        state.best_joint = joint
        run.save(BEST, prefixed("model", state.evaluated_model.state_dict()))
    run.save(LAST, state.tensors(), state.counters())
    return best


def _means(strengths: Mapping[str, Strength]) -> dict[str, float]:
    """Return the mean over the batch of each leaf's strength, by label."""
    return {label: float(torch.as_tensor(s).float().mean()) for label, s in strengths.items()}


def _never_raised(plan: Plan, run: Run) -> list[str]:
    """Return the labels whose adaptive schedules stayed at strength 0 in all epochs."""
    strengths: list[Mapping[str, Any]] = [line["strength"] for line in run.lines(METRICS)]
    return [
        label
        for label, schedule in plan.curriculum.schedules.items()
        if isinstance(schedule, AdaptiveSchedule)
        and not any(of_epoch[label] for of_epoch in strengths)
    ]


def _evaluate(
    plan: Plan,
    model: nn.Module,
    images: SplitLike,
    threats: Mapping[str, Threat],
    run: Run,
    file: str,
    callback: Callback,
) -> list[ThreatResult]:
    """Return the final accuracies, and write them to a file of the run."""
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
