"""The one training loop."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from curricula.curriculum import ScheduleStates, Threat
from curricula.data.dataset import batches
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, Measured, measure
from curricula.evaluation.threats import validation_threats
from curricula.interfaces import Progress, Strength
from curricula.training.plan import AtPrecision, Plan
from curricula.training.run import (
    BEST,
    EVALUATION,
    LAST,
    METRICS,
    TIMING,
    Run,
    prefixed,
)
from curricula.victim import ModelVictim

EVALUATION_SEED = 0  # every run is measured under the same draws


class Watcher(Protocol):
    """Who follows a training: a terminal, a tracker, nobody."""

    def began(self, run: Run, plan: Plan, steps: int) -> None:
        """``steps`` updates are to come."""

    def stepped(self, progress: Progress, loss: Tensor, strengths: Mapping[str, Strength]) -> None:
        """An update is done; reading the loss waits for the device, so read it seldom."""

    def ended_epoch(self, metrics: Mapping[str, Any]) -> None:
        """The line that went to metrics.jsonl."""

    def evaluating(self, batches: int) -> None:
        """The final evaluation begins, of so many batches."""

    def evaluated_batch(self) -> None:
        """One of them is done."""

    def ended(self) -> None:
        """All is written, or an error ends the training."""


class Nobody:
    """Follows nothing."""

    def began(self, run: Run, plan: Plan, steps: int) -> None: ...
    def stepped(
        self, progress: Progress, loss: Tensor, strengths: Mapping[str, Strength]
    ) -> None: ...
    def ended_epoch(self, metrics: Mapping[str, Any]) -> None: ...
    def evaluating(self, batches: int) -> None: ...
    def evaluated_batch(self) -> None: ...
    def ended(self) -> None: ...


@attrs.define(kw_only=True)
class TrainingState:
    """All that moves in training; what a checkpoint holds, and a resume would need.

    Attributes:
        model: the network.
        optimizer: of its parameters.
        generators: the random streams by name; ``order`` is on the CPU, the others on the device.
        schedules: the state of each schedule that listens.
        step, epoch: how many are done.
        best_joint: the highest validation accuracy so far, below 0 if there is none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    schedules: ScheduleStates
    step: int = 0
    epoch: int = 0
    best_joint: float = -1.0

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, for a checkpoint."""
        optimizer = {
            f"{parameter}.{name}": value
            for parameter, values in self.optimizer.state_dict()["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        random = {name: generator.get_state() for name, generator in self.generators.items()}
        random["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()  # of the current device, as dropout draws
        schedules = {
            f"{label}.{name}": value
            for label, state in self.schedules.items()
            for name, value in state.items()
        }
        return (
            prefixed("model", self.model.state_dict())
            | prefixed("optimizer", optimizer)
            | prefixed("random", random)
            | prefixed("schedule", schedules)
        )

    def counters(self) -> dict[str, str]:
        """Its numbers, for a checkpoint."""
        return {
            "step": str(self.step),
            "epoch": str(self.epoch),
            "best_joint": repr(self.best_joint),
            "optimizer": json.dumps(self.optimizer.state_dict()["param_groups"]),
        }


def train_plan(
    plan: Plan, path: Path, *, threats: Mapping[str, Threat], watcher: Watcher | None = None
) -> list[Measured]:
    """Train as planned, into a new run folder, and measure the best checkpoint.

    The global random state, which draws the weights and the dropout, is seeded for the run and put
    back afterwards.

    Args:
        plan: see curricula.training.plan.make_plan.
        path: the run folder.
        threats: to measure it under, by name.
        watcher: who follows.

    Returns:
        The accuracies on the test split, a result a threat.

    Raises:
        UserError: when the folder holds a run already, or the loss is no longer a number.
    """
    watcher = watcher or Nobody()
    run = Run.create(path, plan.config)
    devices = [plan.device] if plan.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(plan.config.seed)
            state = _begin(plan)
            _train(plan, state, run, watcher)
            run.load_weights(BEST, state.model)
        return _final_evaluation(plan, state.model, threats, run, watcher)
    finally:
        watcher.ended()


def _begin(plan: Plan) -> TrainingState:
    model = plan.build_model()
    seed, device = plan.config.seed, plan.device
    return TrainingState(
        model=model,
        optimizer=_optimizer(plan, model),
        generators={
            "order": torch.Generator().manual_seed(seed),
            "augmentation": torch.Generator(device).manual_seed(seed + 1),
            "perturbation": torch.Generator(device).manual_seed(seed + 2),
        },
        schedules=plan.curriculum.start(len(plan.data.train), device),
    )


def _optimizer(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    config = plan.config
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def _train(plan: Plan, state: TrainingState, run: Run, watcher: Watcher) -> None:
    config = plan.config
    steps_per_epoch = len(plan.data.train) // config.batch_size
    watcher.began(run, plan, config.epochs * steps_per_epoch)
    threats = validation_threats(plan.curriculum.bound, plan.data.budgets)
    victim = ModelVictim(state.model, loss=plan.objective.attack_loss, precision=plan.precision)
    running = AtPrecision(state.model, plan.precision)
    for epoch in range(config.epochs):
        began = time.perf_counter()
        loss_sum = torch.zeros((), device=plan.device)
        correct = torch.zeros((), dtype=torch.int64, device=plan.device)
        strengths: Mapping[str, Strength] = {}
        for progress, strengths, loss, correct_N in _updates(
            plan, state, running, victim, steps_per_epoch, epoch
        ):
            loss_sum += loss
            correct += correct_N.sum()
            watcher.stepped(progress, loss, strengths)
        trained = time.perf_counter()
        mean_loss = float(loss_sum) / steps_per_epoch
        if not math.isfinite(mean_loss):
            raise UserError(
                f"the loss is no longer a number in epoch {epoch + 1} (run {run.path}); "
                f"lower --lr (now {config.lr:g}) or use --precision float32"
            )
        measured = measure(
            state.model,
            plan.data,
            plan.validation,
            threats,
            seed=EVALUATION_SEED,
            batch_size=BATCH_SIZE,
        )
        validation = {result.name: result.accuracy for result in measured}
        state.schedules = plan.curriculum.after_epoch(state.schedules, validation)
        state.epoch = epoch + 1
        best = validation["joint"] >= state.best_joint
        if best:
            state.best_joint = validation["joint"]
            run.save(BEST, prefixed("model", state.model.state_dict()))
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
        watcher.ended_epoch(metrics)


def _updates(
    plan: Plan,
    state: TrainingState,
    running: nn.Module,
    victim: ModelVictim,
    steps_per_epoch: int,
    epoch: int,
) -> Iterator[tuple[Progress, Mapping[str, Strength], Tensor, Tensor]]:
    """One epoch of updates; after each (progress, strengths, loss, correct_N), all detached."""
    config, curriculum = plan.config, plan.curriculum
    total = config.epochs * steps_per_epoch
    for indices, batch in batches(
        plan.data.train, config.batch_size, generator=state.generators["order"]
    ):
        progress = Progress(
            step=state.step, total_steps=total, epoch=epoch, total_epochs=config.epochs
        )
        for group in state.optimizer.param_groups:
            group["lr"] = config.lr * plan.learning_rate(progress)
        augmented = plan.augmentation(
            plan.data.images(batch.pixels),
            batch.labels,
            strengths=plan.augmentation.strengths(progress),
            victim=victim,
            generator=state.generators["augmentation"],
        )
        strengths = curriculum.strengths(progress, states=state.schedules, indices_N=indices)
        views = curriculum(
            augmented.natural,
            batch.labels,
            strengths=strengths,
            victim=victim,
            generator=state.generators["perturbation"],
        )
        running.train()
        loss = plan.objective(running, views, batch.labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.value.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        correct_N = loss.logits.argmax(1) == batch.labels
        state.schedules = curriculum.after_batch(
            state.schedules, indices_N=indices, correct_N=correct_N, strengths=strengths
        )
        state.step += 1
        yield progress, strengths, loss.value.detach(), correct_N


def _final_evaluation(
    plan: Plan, model: nn.Module, threats: Mapping[str, Threat], run: Run, watcher: Watcher
) -> list[Measured]:
    watcher.evaluating(len(threats) * math.ceil(len(plan.data.test) / BATCH_SIZE))
    began = time.perf_counter()
    results = measure(
        model,
        plan.data,
        plan.data.test,
        threats,
        seed=EVALUATION_SEED,
        batch_size=BATCH_SIZE,
        after_batch=watcher.evaluated_batch,
    )
    run.write_json(EVALUATION, [result.as_json() for result in results])
    run.append(TIMING, {"evaluation_seconds": time.perf_counter() - began})
    return results
