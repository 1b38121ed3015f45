"""One update of a training, and the state that it changes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from curricula.curriculum import ScheduleStates
from curricula.data.dataset import Split
from curricula.interfaces import Progress, Strength, Victim, Views
from curricula.runtime.compile import Compiled
from curricula.runtime.precision import AtPrecision
from curricula.training.awp import adversarial_weight_perturbation
from curricula.training.optimizers import SGD, AdamW
from curricula.training.plan import Plan
from curricula.training.weight_averaging import averaged
from curricula.victim.model_victim import ModelVictim


@attrs.define(kw_only=True)
class EpochSums:
    """Loss and number of correct images summed over the updates of an epoch, kept on the device.

    Attributes:
        loss: sum of the updates' losses.
        correct: number of perturbed images classified correctly.
        strengths: strengths of the last update, by label.
    """

    loss: Tensor
    correct: Tensor
    strengths: Mapping[str, Strength] = attrs.field(factory=dict)

    @classmethod
    def zero(cls, device: torch.device) -> "EpochSums":
        """Return sums of zero on the device, to start an epoch with."""
        return cls(
            loss=torch.zeros((), device=device),
            correct=torch.zeros((), dtype=torch.int64, device=device),
        )

    def means(self) -> dict[str, float]:
        """Return each leaf's strength at the last update, averaged over the batch, by label."""
        return _means(self.strengths)


def _means(strengths: Mapping[str, Strength]) -> dict[str, float]:
    """Return strengths averaged over the images of a batch, by label."""
    return {
        label: float(torch.as_tensor(strength).float().mean())
        for label, strength in strengths.items()
    }


@attrs.define(kw_only=True)
class TrainingState:
    """Everything that updates change: weights, optimiser, random generators and counts.
    `curricula.training.checkpoint` saves and restores it.

    Attributes:
        model: the network.
        optimizer: optimiser of its parameters.
        generators: generators by name; ``order`` is on the CPU, the others on the device.
        schedules: states of the adaptive schedules, by label.
        average: average of the weights, if any.
        step: number of updates done.
        epoch: number of epochs done.
        best_joint: highest validation accuracy under the joint threat so far; below 0 before any.
        sums: sums over the updates of the current epoch.
        order_began: state of the ``order`` generator before it drew the current epoch's order; None
            between epochs.
        seconds: wall time of the current epoch's updates before an interruption.
        passes: images that went through the networks in the epochs done, in all kinds of passes.
        probe_passes: images that went through the network in the monitor's probes.
        rollbacks: number of times that the training went back to a checkpoint.
        stopped: whether the training ends before its last epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    schedules: ScheduleStates
    sums: EpochSums
    average: AveragedModel | None = None
    step: int = 0
    epoch: int = 0
    best_joint: float = -1.0
    order_began: Tensor | None = None
    seconds: float = 0.0
    passes: int = 0
    probe_passes: int = 0
    rollbacks: int = 0
    stopped: bool = False

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated and saved: the weight average, or the trained model while
        the average has no snapshot yet."""
        if self.average is None or not self.average.n_averaged:
            return self.model
        return self.average.module


def start(plan: Plan) -> TrainingState:
    """Return a training's initial state, with weights from torch's global random state."""
    model = plan.build_model()
    seed, device = plan.config.seed, plan.device
    return TrainingState(
        model=model,
        optimizer=build_optimizer(plan, model),
        generators={
            "order": torch.Generator().manual_seed(seed),
            "augmentation": torch.Generator(device).manual_seed(seed + 1),
            "perturbation": torch.Generator(device).manual_seed(seed + 2),
        },
        schedules=plan.curriculum.start(len(plan.data.train), device),
        sums=EpochSums.zero(device),
        average=averaged(model, plan.averaging) if plan.averaging else None,
    )


def build_optimizer(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser that the plan configures, for a model's parameters."""
    config = plan.config
    if config.optimizer == "sgd":
        return SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


@attrs.frozen(kw_only=True, eq=False)
class Networks:
    """Two forms of a network: the one that is trained, and the one that perturbations attack.

    Attributes:
        running: the network that is trained, at the plan's precision, compiled if configured.
        victim: the network that is attacked.
    """

    running: nn.Module
    victim: Victim

    @classmethod
    def of(cls, plan: Plan, model: nn.Module) -> "Networks":
        """Return the trained and the attacked form of a model, compiled if the plan says so."""
        running: nn.Module = AtPrecision(model, plan.precision)
        if plan.config.compile == "on":
            running = Compiled(running, plan.part_size, graphs=False)
        return cls(
            running=running,
            victim=ModelVictim(
                model,
                loss=plan.objective.attack_loss,
                precision=plan.precision,
                compiled=plan.part_size if plan.config.compile == "on" else None,
            ),
        )

    @property
    def compile_failed(self) -> bool:
        """True if compiling the trained or the attacked network failed."""
        parts = (*self.running.modules(), *self.victim.as_module().modules())
        return any(isinstance(part, Compiled) and part.failed for part in parts)


@attrs.frozen(kw_only=True, eq=False)
class Update:
    """Loss, strengths, learning rate and images of one update, all detached and on the device.

    Attributes:
        progress: progress of the training before the update.
        strengths: strength of each leaf, by label.
        loss: the training loss, a scalar.
        lr: the learning rate.
        correct_N: bool, which perturbed images the network classified correctly before the update.
        parts: views of the batch's images, in the parts that it was processed in.
    """

    progress: Progress
    strengths: Mapping[str, Strength]
    loss: Tensor
    lr: float
    correct_N: Tensor
    parts: Sequence[Views]

    def mean_strengths(self) -> dict[str, float]:
        """Return each leaf's strength, averaged over the batch, by label."""
        return _means(self.strengths)

    def views(self, limit: int) -> Views:
        """Return copies of the clean (augmented), transformed and perturbed views of the batch's
        first ``limit`` images."""

        def first(view: Callable[[Views], Tensor]) -> Tensor:
            return torch.cat([view(part)[:limit] for part in self.parts])[:limit]

        return Views(
            clean=first(lambda part: part.clean),
            transformed=first(lambda part: part.transformed),
            perturbed=first(lambda part: part.perturbed),
        )


def update(
    plan: Plan,
    state: TrainingState,
    networks: Networks,
    indices_N: Tensor,
    batch: Split,
    progress: Progress,
) -> Update:
    """Update the network on one batch, and return its loss, strengths and images.

    Args:
        plan: the training.
        state: changed in place.
        networks: the networks of ``state.model``.
        indices_N: indices of the batch's images in the training set.
        batch: the images and labels.
        progress: the progress of training, which sets the strengths and the learning rate.
    """
    _set_learning_rate(plan, state, progress)
    strengths = plan.curriculum.strengths(progress, states=state.schedules, indices_N=indices_N)
    strengths = _milder(plan, state, strengths, len(indices_N))
    parts = [
        _Part(
            views=_perturb(plan, state, networks, batch[part], _part_of(strengths, part), progress),
            labels_N=batch.labels[part],
            share=len(batch.labels[part]) / len(batch),
        )
        for part in plan.parts(len(batch))
    ]
    loss, logits_NK = _descend(plan, state, networks, parts)
    if plan.averaging and state.average and plan.averaging.joins_after == "update":
        state.average.update_parameters(state.model)
    correct_N = logits_NK.argmax(1) == batch.labels
    state.schedules = plan.curriculum.after_batch(
        state.schedules, indices_N=indices_N, correct_N=correct_N, strengths=strengths
    )
    state.step += 1
    return Update(
        progress=progress,
        strengths=strengths,
        loss=loss,
        lr=state.optimizer.param_groups[0]["lr"],
        correct_N=correct_N,
        parts=[part.views for part in parts],
    )


def average_epoch(plan: Plan, state: TrainingState, epoch: int) -> None:
    """Merge the weights into their average after an epoch, if the plan averages over epochs."""
    averaging, average = plan.averaging, state.average
    if averaging is None or average is None or averaging.joins_after != "epoch":
        return
    if (epoch + 1) / plan.config.epochs > averaging.start:
        average.update_parameters(state.model)


def _milder(
    plan: Plan, state: TrainingState, strengths: dict[str, Strength], count: int
) -> dict[str, Strength]:
    """Return the strengths to use after a rollback: each image's pixel attack gets a random
    strength from 0 to the given one, halved from the second rollback on.

    Attacks of all sizes keep the network from masking its gradients along the direction of one
    attack (Kim et al. 2021).
    """
    if not state.rollbacks:
        return strengths
    milder = dict(strengths)
    generator = state.generators["perturbation"]
    for label, leaf in plan.curriculum.tree.leaves.items():
        if leaf.perturbation.kind == "pixel":
            share_N = torch.rand(count, generator=generator, device=plan.device)
            milder[label] = share_N * strengths[label] * 0.5 ** (state.rollbacks - 1)
    return milder


def _set_learning_rate(plan: Plan, state: TrainingState, progress: Progress) -> None:
    """Set the optimiser's learning rate to the schedule's value at this progress, halved once per
    rollback."""
    for group in state.optimizer.param_groups:
        group["lr"] = plan.config.lr * plan.learning_rate(progress) * 0.5**state.rollbacks


@attrs.frozen(kw_only=True, eq=False)
class _Part:
    """Images, labels and share of one part of a batch.

    Attributes:
        views: its images.
        labels_N: their labels.
        share: its share of the batch's images.
    """

    views: Views
    labels_N: Tensor
    share: float


def _part_of(strengths: Mapping[str, Strength], part: slice) -> dict[str, Strength]:
    """Return the strengths by label; those with a value per image are cut to the images of one
    part."""
    return {
        label: strength[part] if isinstance(strength, Tensor) and strength.ndim else strength
        for label, strength in strengths.items()
    }


def _perturb(
    plan: Plan,
    state: TrainingState,
    networks: Networks,
    batch: Split,
    strengths: Mapping[str, Strength],
    progress: Progress,
) -> Views:
    """Return the clean, transformed and perturbed views of the augmented images of a part of a
    batch."""
    augmented = plan.augmentation(
        plan.data.images(batch.pixels),
        batch.labels,
        strengths=plan.augmentation.strengths(progress),
        victim=networks.victim,
        generator=state.generators["augmentation"],
    )
    return plan.curriculum(
        augmented.transformed,
        batch.labels,
        strengths=strengths,
        victim=networks.victim,
        generator=state.generators["perturbation"],
    )


def _descend(
    plan: Plan, state: TrainingState, networks: Networks, parts: Sequence[_Part]
) -> tuple[Tensor, Tensor]:
    """Take one step of the optimiser along the gradient of a batch's mean loss.

    Returns:
        The loss that was minimised, and the logits_NK of the perturbed images at the weights before
        the step; both detached.
    """
    networks.running.train()
    logits: list[Tensor] = []  # with AWP twice: at the weights, then at the perturbed weights

    def losses() -> Iterator[Tensor]:
        """Yield each part's loss times the part's share of the batch; their sum is the mean
        loss."""
        for part in parts:
            loss = plan.objective(networks.running, part.views, part.labels_N)
            logits.append(loss.logits.detach())
            yield loss.value * part.share

    def gradients_of(weights: Sequence[Tensor]) -> Sequence[Tensor]:
        of_parts = [torch.autograd.grad(loss, weights, materialize_grads=True) for loss in losses()]
        return [torch.stack(gradients).sum(0) for gradients in zip(*of_parts, strict=True)]

    with adversarial_weight_perturbation(state.model, plan.config.awp, gradients_of):
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=plan.device)
        for loss in losses():
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    if plan.config.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), plan.config.clip_norm)
    state.optimizer.step()
    return total, torch.cat(logits[: len(parts)])
