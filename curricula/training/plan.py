"""Resolve a configuration into everything that a run needs, before anything is written."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from curricula.curriculum import Curriculum, check_channels
from curricula.data.dataset import DataSet, SplitLike, as_dataset, in_proportion, resolve_data
from curricula.data.identity import DataIdentity, identity_of
from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.checks import parse_schedule
from curricula.expressions.given import GIVEN
from curricula.expressions.syntax import Call, parse_call
from curricula.interfaces import Objective, Progress, Schedule
from curricula.losses import ATTACK_LOSSES
from curricula.models.build import resolve_model
from curricula.models.class_names import check_stated_classes
from curricula.models.kept_state import check_kept, load_kept, state_tensors
from curricula.models.normalise import with_normalisation
from curricula.runtime.devices import resolve_device
from curricula.runtime.precision import Precision
from curricula.runtime.processes import place
from curricula.runtime.random_state import seed_torch
from curricula.schedules.adaptive import SelfPaced
from curricula.training.checks import check_values
from curricula.training.config import COMMON_TRAINING, FIELDS, TrainConfig, merge
from curricula.training.initial import (
    Initial,
    Started,
    begin_with,
    is_of_object,
    read_initial,
    start_from,
)
from curricula.training.layers import Layers, choose_layers
from curricula.training.learning_rate import LearningRate, checked, parse_learning_rate
from curricula.training.loading import check_classes
from curricula.training.objects import Objects
from curricula.training.optimizers import resolve_optimizer
from curricula.training.precision_choice import choose_precision
from curricula.training.weight_averaging import Averaging, parse_averaging
from curricula.victim.copies import copied
from curricula.victim.equivalence import MAX_IMAGES, to_device
from curricula.victim.model_checks import check_classifier

MAX_CHECKED = 32  # images on which a model is checked; few units are zero on that many


@attrs.frozen
class BatchPart:
    """A part of each batch, as `accumulate` cuts it, and this process's share of it.

    Attributes:
        begin: position in the batch of its first image.
        count: number of its images.
        own: positions in the batch of those that this process handles.
    """

    begin: int
    count: int
    own: slice


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """A resolved configuration and the objects that it names, such as the data set and the training
    loss.

    Attributes:
        config: every value stated, device and precision resolved.
        data: the data set without its validation images, on the device.
        validation: the validation images, on the device.
        identity: identity of the data set, its validation images included.
        curriculum: the perturbations and their schedules.
        augmentation: perturbations at full strength throughout.
        objective: the training loss.
        learning_rate: multiple of ``config.lr`` at a progress.
        averaging: average of the weights, if any.
        layers: the frozen layers and the head.
        objects: objects that the caller handed over in Python.
        initial: tensors of the network that the training starts from, by name; those that are
            missing keep their random values, and None for all.
        notes: lines that tell the user what is trained, and how.
        device: device of the model and of every batch.
        precision: precision of training and of its attacks.
    """

    config: TrainConfig
    data: DataSet
    validation: SplitLike
    identity: DataIdentity
    curriculum: Curriculum
    augmentation: Curriculum
    objective: Objective
    learning_rate: LearningRate
    averaging: Averaging | None
    layers: Layers
    objects: Objects
    initial: Mapping[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    device: torch.device
    precision: Precision

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates in an epoch; the last incomplete batch is left out."""
        return len(self.data.train) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Number of updates in the training."""
        return self.config.epochs * self.steps_per_epoch

    @cached_property
    def chance(self) -> float:
        """Accuracy of the best constant answer: the most frequent class's share of the training
        images."""
        labels_N = self.data.train.labels
        return float(labels_N.bincount().max()) / len(labels_N)

    @cached_property
    def validated(self) -> SplitLike:
        """The validation images that are evaluated after each epoch; if they are limited, of each
        class its share."""
        limit = self.config.validation_limit
        if not 0 < limit < len(self.validation):
            return self.validation
        return self.validation[in_proportion(self.validation.labels, limit)]

    @property
    def part_size(self) -> int:
        """Largest number of images that go through the networks at once in this process."""
        parts = self.parts(self.config.batch_size)
        return max(len(range(self.config.batch_size)[part.own]) for part in parts)

    def parts(self, images: int) -> list[BatchPart]:
        """Return the parts that a batch of N images is processed in, one after another."""
        size = math.ceil(self.config.batch_size / self.config.accumulate)
        parts = []
        for begin in range(0, images, size):
            count = min(size, images - begin)
            own = place().rows(count)
            parts.append(BatchPart(begin, count, slice(begin + own.start, begin + own.stop)))
        return parts

    @property
    def rows(self) -> Tensor | None:
        """Positions in each batch of the images that this process handles, int64, on the CPU; None
        for all."""
        if place().count == 1:
            return None
        parts = self.parts(self.config.batch_size)
        own = (torch.arange(part.own.start, part.own.stop) for part in parts)
        return torch.cat([*own])

    def build_model(self) -> nn.Module:
        """Return the configured model on the device, with its initial weights: those that the plan
        has, and others from torch's global random state."""
        images = self.data.images(self.data.train[slice(MAX_IMAGES)].load().pixels)
        model = _network(self.config, self.data, self.objects, self.config.normalise)
        if self.initial is not None:
            state = state_tensors(model)
            beside = {name: each for name, each in self.initial.items() if name not in state}
            known = {name: self.initial.get(name, each) for name, each in state.items()}
            load_kept(model, known, beside)
        if self.config.sync_batchnorm and place().count > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return self.layers.freeze(to_device(model, images, self.device))


def make_plan(
    values: Mapping[str, Any],
    *,
    objects: Objects | None = None,
    download: bool = False,
    read_init: bool = True,
) -> Plan:
    """Return the plan that a configuration describes; the data set supplies the values left out.

    Args:
        values: any of the fields of `TrainConfig`.
        objects: objects for those that are ``given(NAME)``.
        download: fetch missing data.
        read_init: read the weights of ``init``; a training that continues from a checkpoint does
            without them.

    Raises:
        UserError: a value is wrong, or two values contradict each other.
    """
    check_values(values)
    objects = objects or Objects()
    initial: Initial | None = None
    if read_init and objects.model is not None and is_of_object(values.get("init", "")):
        began = begin_with(objects.model, values["model"], values.get("init", ""))
        values = {**values, "init": began}
    elif read_init and values.get("init"):
        if is_of_object(values["init"]):
            raise UserError(
                f"init {values['init']}: the network was given in Python, and a configuration "
                "cannot build it: give it again as model, or leave out init"
            )
        initial = read_initial(values["init"])
    if initial is not None:
        values = {**initial.defaults(values), **values}
    loaded = _data(values, objects, download=download)
    data: DataSet = loaded.value
    config = merge(COMMON_TRAINING, data.training_defaults, values)
    device = resolve_device(config.device)
    curriculum = Curriculum.parse(
        config.perturb,
        _schedules(config.schedule, objects),
        budgets=data.budgets,
        defaults=data.attack_defaults,
    )
    check_channels(curriculum.tree, data.in_channels, data=data.name)
    augmentation = _augmentation(config.augmentation, data)
    objective = _built(
        objects.objective,
        config.objective,
        lambda: factories.build("objective", parse_call(config.objective)),
    )
    _check_objective(objective)
    learning_rate = _built(
        objects.lr_schedule, config.lr_schedule, lambda: parse_learning_rate(config.lr_schedule)
    )
    optimizer = resolve_optimizer(config, objects.optimizer)
    averaging = parse_averaging(config.average)
    with torch.random.fork_rng(devices=[]):
        seed_torch(config.seed)  # so that the check below always sees the same weights
        call, network = _resolved(config, data, objects, config.normalise)
    if isinstance(network, nn.Module):  # else `check_classifier` says so
        check_stated_classes(network, data.classes, data.name)
    if initial is not None and initial.run is not None and config.init_head == "load":
        new = "let the last layer be new, init_head new (--init-head new)"
        check_classes(initial.run, data, f"name and order them alike, or {new}")
    identity = identity_of(data)
    data, validation = data.with_validation()
    _check_sizes(config, data, validation)
    begin = Progress(step=0, total_steps=config.epochs, epoch=0, total_epochs=config.epochs)
    curriculum.check_schedules(len(data.train), begin)
    checked(learning_rate)(begin)
    images = data.images(data.train[slice(min(MAX_CHECKED, config.batch_size))].load().pixels)
    _check_processes(config, device)
    name = f"model {call}"
    started: Started | None = None
    if initial is not None:
        if config.init_head == "new":
            check_classifier(network, images.to(device), data.num_classes, name=name)
        with torch.random.fork_rng(devices=[]):
            started = start_from(
                initial,
                lambda text: _network(config, data, objects, text),
                images,
                num_classes=data.num_classes,
                name=name,
                normalise=values.get("normalise"),
                new_head=config.init_head == "new",
            )
        network = started.model
        config = attrs.evolve(config, init=initial.text, normalise=started.normalise)
    check_classifier(network, images.to(device), data.num_classes, name=name)
    check_kept(network, name)
    precision, reasons = choose_precision(config.precision, network, images.to(device), device)
    layers = choose_layers(
        network,
        images,
        num_classes=data.num_classes,
        name=name,
        freeze=config.freeze,
        needs_head=bool(config.head_lr),
    )
    return Plan(
        config=attrs.evolve(
            config,
            data=str(loaded.call),
            optimizer=optimizer,
            lr_schedule=str(learning_rate.call),
            average=str(averaging.call),
            model=str(call),
            augmentation=str(augmentation),
            perturb=str(curriculum),
            schedule=tuple(f"{label}={call}" for label, call in curriculum.schedule_calls.items()),
            objective=str(objective.call),
            device=device.type if place().count > 1 else str(device),
            precision=precision,
        ),
        data=data.to(device),
        validation=validation.to(device),
        identity=identity,
        curriculum=curriculum,
        augmentation=augmentation,
        objective=objective.value,
        learning_rate=checked(learning_rate),
        averaging=averaging.value,
        layers=layers,
        objects=objects,
        initial=None if started is None else started.tensors,
        notes=(
            *(() if started is None else (started.note,)),
            *reasons,
            *layers.notes(config.freeze, config.head_lr),
            *_notes_of_order(config, curriculum),
        ),
        device=device,
        precision=precision,
    )


def _notes_of_order(config: TrainConfig, curriculum: Curriculum) -> list[str]:
    """Return a line for each schedule that needs images in random order and gets them in stored
    order."""
    if config.shuffle:
        return []
    return [
        f"{label}: its schedule {curriculum.schedule_calls[label]} needs images in random order: "
        "in stored order (shuffle off), a batch may have few classes, and a network that names "
        "one of them seems to learn"
        for label, schedule in curriculum.schedules.items()
        if isinstance(schedule, SelfPaced)
    ]


def _built(value: Any, text: str, build: Callable[[], factories.Built]) -> factories.Built:
    """Return an object that was handed over in Python, or else the one that ``build`` returns."""
    return build() if value is None else factories.Built(value=value, call=parse_call(text))


def _data(values: Mapping[str, Any], objects: Objects, *, download: bool) -> factories.Built:
    """Return the data set that was handed over, or that the configuration names."""
    text = values.get("data", FIELDS["data"].default)
    if objects.data is not None:
        return factories.Built(value=as_dataset(objects.data), call=parse_call(text))
    root = values.get("data_root", FIELDS["data_root"].default)
    return resolve_data(text, root=root, download=download)


def _schedules(
    texts: Sequence[str], objects: Objects
) -> Sequence[str] | Schedule | dict[str, str | Schedule]:
    """Return schedules by their texts, or by label if some were handed over in Python."""
    calls = dict(map(parse_schedule, texts))
    if not any(call.name == GIVEN for call in calls.values()):
        return texts
    if None in calls:
        return objects.schedule.get(None, texts)
    return {
        str(label): (objects.schedule_of(str(label)) if call.name == GIVEN else None) or str(call)
        for label, call in calls.items()
    }


def _resolved(
    config: TrainConfig, data: DataSet, objects: Objects, normalise: str
) -> tuple[Call, nn.Module]:
    """Return the expression of the model, with every default stated, and a new network; of a
    network that was handed over, a copy on the CPU."""
    if objects.model is None:
        # Weights of init replace pretrained ones, except in a new last layer.
        fetch = not config.init or config.init_head == "new"
        built = resolve_model(config.model, data, normalise=normalise, fetch=fetch)
        return built.call, built.value
    own = copied(objects.model).cpu()
    return parse_call(config.model), with_normalisation(own, normalise, data.in_channels)


def _network(config: TrainConfig, data: DataSet, objects: Objects, normalise: str) -> nn.Module:
    """Return a new network that normalises its images as a text says."""
    return _resolved(config, data, objects, normalise)[1]


def _check_processes(config: TrainConfig, device: torch.device) -> None:
    """Check that a training can be shared among the processes of this group.

    Raises:
        UserError: a part of the batch has too few images, or batch norm cannot be synchronised.
    """
    processes = place().count
    size = math.ceil(config.batch_size / config.accumulate)
    smallest = config.batch_size % size or size
    if smallest < processes:
        parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
        raise UserError(
            f"batch_size {config.batch_size}{parts} is too small for {processes} processes: each "
            "needs one image or more of every part"
        )
    if config.sync_batchnorm and processes > 1 and device.type == "cpu":
        raise UserError(
            "sync_batchnorm (--sync-batchnorm) needs GPUs: torch cannot synchronise batch norm on "
            "a CPU"
        )


def _augmentation(text: str, data: DataSet) -> Curriculum:
    """Return the augmentation that an expression describes, at full strength throughout training.

    Raises:
        UserError: it contains an attack, or does not suit the images.
    """
    augmentation = Curriculum.parse(text, ["constant"], budgets=data.budgets)
    for leaf in augmentation.tree.leaves.values():
        if leaf.perturbation.kind == "pixel":
            raise UserError(
                f"augmentation {text}: {leaf.call.name} is an attack; write it into perturb"
            )
    check_channels(augmentation.tree, data.in_channels, data=data.name)
    return augmentation


def _check_objective(objective: factories.Built) -> None:
    """Check that the attack loss of an objective is known, or a function."""
    loss = objective.value.attack_loss
    if not callable(loss) and loss not in ATTACK_LOSSES:
        raise UserError(
            f"objective {objective.call}: its attack loss {loss!r} is unknown; known: "
            f"{', '.join(ATTACK_LOSSES)}, or a function"
        )


def _check_sizes(config: TrainConfig, data: DataSet, validation: SplitLike) -> None:
    """Check that a data set has enough images, and that a batch is no larger than its training
    images."""
    if not len(validation) or not len(data.test):
        fix = "" if len(data.train) else "; in Python, give data={'train': ..., 'test': ...}"
        raise UserError(
            f"{data.name} has {len(data.train)} training and {len(data.test)} test images; "
            f"at least 10 and 1 are needed{fix}"
        )
    if config.accumulate > config.batch_size:
        raise UserError(
            f"accumulate (--accumulate) must be at most batch_size, {config.batch_size}, not "
            f"{config.accumulate}"
        )
    if config.batch_size > len(data.train):
        raise UserError(
            f"batch_size {config.batch_size} is larger than the {len(data.train)} training images"
            f" of {data.name}; give from 1 to {len(data.train)}"
        )
