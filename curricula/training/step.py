"""One update of a training, and the state that it changes."""

from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from curricula.curriculum import ScheduleStates
from curricula.data.dataset import Split
from curricula.expressions.batch_rows import BatchRows
from curricula.expressions.random_streams import Streams
from curricula.interfaces import Progress, Strength, Victim, Views
from curricula.runtime.compile import Compiled
from curricula.runtime.processes import (
    mean_gradients,
    mean_over,
    place,
    share_state,
    sum_over,
)
from curricula.runtime.random_state import reseed
from curricula.training import optimizers
from curricula.training.at_precision import AtPrecision
from curricula.training.awp import adversarial_weight_perturbation
from curricula.training.plan import BatchPart, Plan
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
        zero_gradient: whether all gradients of the last update of the last epoch were zero.
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
    zero_gradient: bool = False
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
    groups = plan.layers.groups(model, config.lr, config.head_lr)
    optimizer: torch.optim.Optimizer = optimizers.build_optimizer(
        config, groups, plan.objects.optimizer
    ).value
    return optimizer


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
            running = Compiled(running, plan.part_size)
        return cls(
            running=running,
            victim=ModelVictim(
                model,
                loss=plan.objective.attack_loss,
                precision=plan.precision,
                compiled=plan.part_size if plan.config.compile == "on" else None,
                replayed=plan.part_size,
                check_finite=False,  # the loop checks the loss
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
        parts: views of the batch's images, in the parts that it was processed in; of several
            processes, each has those of its share.
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

    Several processes each handle their share of the batch, and return the same.

    Args:
        plan: the training.
        state: changed in place.
        networks: the networks of ``state.model``.
        indices_N: indices of the batch's images in the training set.
        batch: the images and labels of this process's share, in the order of `Plan.parts`.
        progress: the progress of training, which sets the strengths and the learning rate.
    """
    if place().count > 1:  # so that dropout differs, and a continued training draws the same
        reseed(_seed(plan.config.seed, state.step, place().rank))
    _set_learning_rate(plan, state, progress)
    strengths = plan.curriculum.strengths(progress, states=state.schedules, indices_N=indices_N)
    strengths = _milder(plan, state, strengths, len(indices_N))
    shares, begin = [], 0
    for part in plan.parts(len(indices_N)):
        count = part.own.stop - part.own.start
        images = batch[slice(begin, begin + count)]
        views = _perturb(
            plan,
            state,
            networks,
            images,
            _part_of(strengths, part.own),
            progress,
            _rows(plan, part),
        )
        share_state(state.generators["augmentation"], state.generators["perturbation"])
        shares.append(_Share(views=views, labels_N=images.labels, part=part))
        begin += count
    loss, correct_N = _descend(plan, state, networks, shares)
    if plan.averaging and state.average and plan.averaging.joins_after == "update":
        state.average.update_parameters(state.model)
    state.schedules = plan.curriculum.after_batch(
        state.schedules,
        indices_N=indices_N,
        correct_N=correct_N,
        strengths=strengths,
        progress=progress,
        chance=plan.chance,
    )
    state.step += 1
    return Update(
        progress=progress,
        strengths=strengths,
        loss=loss,
        lr=state.optimizer.param_groups[0]["lr"],
        correct_N=correct_N,
        parts=[share.views for share in shares],
    )


def _seed(seed: int, step: int, rank: int) -> int:
    """Return a seed of the global random states for an update of one process, which no other
    update, process or neighbouring seed has."""
    key = Streams.of(seed, torch.tensor([step])).fold_in(torch.tensor([0]), torch.tensor([rank]))
    return int(key.key_N) % 2**63


def _rows(plan: Plan, part: BatchPart) -> BatchRows | None:
    """Return which rows of a part of a batch this process holds; None if it holds them all."""
    if place().count == 1:
        return None
    own = torch.arange(part.own.start, part.own.stop, device=plan.device) - part.begin
    return BatchRows(own, part.count)


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
    """Set the learning rate of each of the optimiser's groups to the schedule's value at this
    progress, halved once per rollback."""
    multiple = plan.learning_rate(progress)
    for group in state.optimizer.param_groups:
        group["lr"] = group["base_lr"] * multiple * 0.5**state.rollbacks


@attrs.frozen(kw_only=True, eq=False)
class _Share:
    """This process's images of one part of a batch, with their labels.

    Attributes:
        views: its images.
        labels_N: their labels.
        part: the part.
    """

    views: Views
    labels_N: Tensor
    part: BatchPart


def _part_of(strengths: Mapping[str, Strength], part: slice) -> dict[str, Strength]:
    """Return the strengths by label; those with a value per image are cut to some images of the
    batch."""
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
    rows: BatchRows | None,
) -> Views:
    """Return the clean, transformed and perturbed views of the augmented images of a part of a
    batch, or of the given rows of it."""
    augmented = plan.augmentation(
        plan.data.images(batch.pixels),
        batch.labels,
        strengths=plan.augmentation.strengths(progress),
        victim=networks.victim,
        generator=state.generators["augmentation"],
        rows=rows,
        check_values=False,
    )
    return plan.curriculum(
        augmented.transformed,
        batch.labels,
        strengths=strengths,
        victim=networks.victim,
        generator=state.generators["perturbation"],
        rows=rows,
        check_values=False,
    )


def _descend(
    plan: Plan, state: TrainingState, networks: Networks, shares: Sequence[_Share]
) -> tuple[Tensor, Tensor]:
    """Take one step of the optimiser along the gradient of a batch's mean loss.

    Returns:
        The loss that was minimised, and which perturbed images (N,) of the batch were classified
        correctly at the weights before the step; both detached.
    """
    networks.running.train()
    plan.layers.rest(state.model)
    total = sum(share.part.count for share in shares)  # images of the batch
    logits: list[Tensor] = []  # with AWP twice: at the weights, then at the perturbed weights

    def loss_of(share: _Share) -> Tensor:
        """Return the mean loss of a share's images times their part of the batch. The gradient is
        a mean over the processes, so of several it is larger by their number."""
        loss = plan.objective(networks.running, share.views, share.labels_N)
        logits.append(loss.logits.detach())
        images = len(share.labels_N) * place().count
        return loss.value * (images / total)

    def gradients_of(weights: Sequence[Tensor]) -> Sequence[Tensor]:
        of_shares = [
            torch.autograd.grad(loss_of(share), weights, materialize_grads=True) for share in shares
        ]
        gradients = [torch.stack(each).sum(0) for each in zip(*of_shares, strict=True)]
        mean_over(gradients)
        return gradients

    with adversarial_weight_perturbation(state.model, plan.config.awp, gradients_of):
        state.optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=plan.device)
        for share in shares:
            loss = loss_of(share)
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.detach()
    mean_gradients(state.model.parameters())
    if plan.config.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), plan.config.clip_norm)
    state.optimizer.step()
    mean_over([buffer for buffer in state.model.buffers() if buffer.is_floating_point()])
    return _gathered(value, total, shares, logits[: len(shares)])


def _gathered(
    loss: Tensor, total: int, shares: Sequence[_Share], logits: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and which of its ``total`` images (N,) were classified correctly,
    from the processes' losses and logits."""
    correct = [
        logits_NK.argmax(1) == share.labels_N
        for share, logits_NK in zip(shares, logits, strict=True)
    ]
    if place().count == 1:
        return loss, torch.cat(correct)
    found = loss.new_zeros(1 + total)
    found[0] = loss / place().count
    for share, correct_N in zip(shares, correct, strict=True):
        found[1:][share.part.own] = correct_N.to(found.dtype)
    sum_over(found)
    return found[0], found[1:] > 0.5
