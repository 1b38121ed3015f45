"""One update of a training: what it moves, and what it runs."""

import json
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from curricula.curriculum import ScheduleStates
from curricula.data.dataset import Split
from curricula.interfaces import Progress, Strength, TrainingLoss, Victim
from curricula.runtime.compile import Compiled
from curricula.runtime.precision import AtPrecision
from curricula.training.awp import adversarial_weight_perturbation
from curricula.training.plan import Plan
from curricula.training.run import prefixed
from curricula.training.weight_averaging import averaged
from curricula.victim.model_victim import ModelVictim


@attrs.define(kw_only=True)
class TrainingState:
    """All that moves in training; what a checkpoint holds, and a resume would need.

    Attributes:
        model: the network.
        optimizer: of its parameters.
        generators: the random streams by name; ``order`` is on the CPU, the others on the device.
        schedules: the state of each schedule that listens.
        average: of the weights, if one is taken.
        step, epoch: how many are done.
        best_joint: the highest validation accuracy so far, below 0 if there is none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    schedules: ScheduleStates
    average: AveragedModel | None = None
    step: int = 0
    epoch: int = 0
    best_joint: float = -1.0

    @property
    def measured(self) -> nn.Module:
        """The network that is validated and kept: the average, once weights have joined it."""
        if self.average is None or not self.average.n_averaged:
            return self.model
        return self.average.module

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
        average = {} if self.average is None else self.average.state_dict()
        return (
            prefixed("model", self.model.state_dict())
            | prefixed("average", average)
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


def begin(plan: Plan) -> TrainingState:
    """The state before the first update; weights are drawn from torch's global random state."""
    model = plan.build_model()
    seed, device = plan.config.seed, plan.device
    return TrainingState(
        model=model,
        optimizer=optimizer_of(plan, model),
        generators={
            "order": torch.Generator().manual_seed(seed),
            "augmentation": torch.Generator(device).manual_seed(seed + 1),
            "perturbation": torch.Generator(device).manual_seed(seed + 2),
        },
        schedules=plan.curriculum.start(len(plan.data.train), device),
        average=averaged(model, plan.averaging) if plan.averaging else None,
    )


def optimizer_of(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a model's parameters, as configured."""
    config = plan.config
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


@attrs.frozen(kw_only=True, eq=False)
class Networks:
    """A network as training runs it, and as perturbations see it."""

    running: nn.Module
    victim: Victim

    @classmethod
    def of(cls, plan: Plan, model: nn.Module) -> "Networks":
        """Those of a plan's model, compiled where the plan says so."""
        running: nn.Module = AtPrecision(model, plan.precision)
        if plan.config.compile == "on":
            running = Compiled(running, plan.config.batch_size, graphs=False)
        return cls(
            running=running,
            victim=ModelVictim(
                model,
                loss=plan.objective.attack_loss,
                precision=plan.precision,
                compiled=plan.config.batch_size if plan.config.compile == "on" else None,
            ),
        )

    @property
    def failed(self) -> bool:
        """Whether one of them was to be compiled and could not be."""
        parts = (*self.running.modules(), *self.victim.as_module().modules())
        return any(isinstance(part, Compiled) and part.failed for part in parts)


@attrs.frozen(kw_only=True, eq=False)
class Update:
    """One update: its strengths by label, its loss and which images were classified right under
    the perturbation (N,), all detached."""

    progress: Progress
    strengths: Mapping[str, Strength]
    loss: Tensor
    correct_N: Tensor


def update(
    plan: Plan,
    state: TrainingState,
    networks: Networks,
    indices_N: Tensor,
    batch: Split,
    progress: Progress,
) -> Update:
    """One update of the network on a batch, at the strengths of a moment of training."""
    for group in state.optimizer.param_groups:
        group["lr"] = plan.config.lr * plan.learning_rate(progress)
    augmented = plan.augmentation(
        plan.data.images(batch.pixels),
        batch.labels,
        strengths=plan.augmentation.strengths(progress),
        victim=networks.victim,
        generator=state.generators["augmentation"],
    )
    strengths = plan.curriculum.strengths(progress, states=state.schedules, indices_N=indices_N)
    views = plan.curriculum(
        augmented.transformed,
        batch.labels,
        strengths=strengths,
        victim=networks.victim,
        generator=state.generators["perturbation"],
    )
    networks.running.train()

    losses: list[TrainingLoss] = []  # with worse weights two; the first is of the network itself

    def loss() -> Tensor:
        losses.append(plan.objective(networks.running, views, batch.labels))
        return losses[-1].value

    with adversarial_weight_perturbation(state.model, plan.config.awp, loss):
        descended = loss()
        state.optimizer.zero_grad(set_to_none=True)
        descended.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    if plan.averaging and state.average and plan.averaging.each == "update":
        state.average.update_parameters(state.model)
    correct_N = losses[0].logits.argmax(1) == batch.labels
    state.schedules = plan.curriculum.after_batch(
        state.schedules, indices_N=indices_N, correct_N=correct_N, strengths=strengths
    )
    state.step += 1
    return Update(
        progress=progress, strengths=strengths, loss=descended.detach(), correct_N=correct_N
    )
