"""From what a user asked for to everything that a run needs, checked before anything is written."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn

from curricula.curriculum import Curriculum
from curricula.data.dataset import DataSet, SplitLike, build_data
from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.nodes import Node
from curricula.expressions.syntax import Call, parse_call
from curricula.interfaces import Objective, Progress
from curricula.losses import ATTACK_LOSSES
from curricula.runtime.devices import resolve_device, resolve_precision
from curricula.runtime.precision import Precision
from curricula.training.checks import check_values
from curricula.training.config import FIELDS, TrainConfig, merge
from curricula.training.learning_rate import LearningRate, parse_learning_rate
from curricula.training.weight_averaging import Averaging, parse_averaging
from curricula.victim.equivalence import MAX_IMAGES, to_device
from curricula.victim.model_checks import check_classifier

TRIED_ON = 32  # images that a model is tried on, so that few of its units are silent on all
COMMON_TRAINING: Mapping[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.0001,
    "epochs": 30,
    "batch_size": 128,
    "lr_schedule": "one-cycle",
    "augmentation": "clean",
}


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """A resolved configuration and the objects that it names.

    Attributes:
        config: every value stated, device and precision decided.
        data: the data set without its validation images, for the device.
        validation: those images, for the device.
        curriculum, objective, learning_rate: as configured.
        averaging: of the weights, if any.
        augmentation: a curriculum that is at full strength throughout.
        device: of the tensors.
        precision: of training and its attacks.
    """

    config: TrainConfig
    data: DataSet
    validation: SplitLike
    curriculum: Curriculum
    augmentation: Curriculum
    objective: Objective
    learning_rate: LearningRate
    averaging: Averaging | None
    device: torch.device
    precision: Precision

    def build_model(self) -> nn.Module:
        """The model with fresh weights, drawn from torch's global random state, on the device."""
        first = self.data.images(self.data.train[slice(MAX_IMAGES)].load().pixels)
        return to_device(build_model(self.config.model, self.data), first, self.device)


def build_model(text: str, data: DataSet) -> nn.Module:
    """The model that an expression names, for the images and classes of a data set, with fresh
    weights drawn from torch's global random state.

    Raises:
        UserError: an unknown model or argument, or an image size that it cannot take.
    """
    model: nn.Module = _model(text, data).value
    return model


def _model(text: str, data: DataSet) -> factories.Built:
    supplied = {
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
    }
    return factories.build("model", parse_call(text), supplied=supplied)


def make_plan(values: Mapping[str, Any], *, download: bool = False) -> Plan:
    """Resolve a configuration: the data set's defaults under the given values.

    Args:
        values: any of the fields of `TrainConfig`.
        download: fetch missing data.

    Raises:
        UserError: whatever is wrong with a value.
    """
    check_values(values)
    data_text = values.get("data", FIELDS["data"].default)
    loaded = build_data(
        data_text, root=values.get("data_root", FIELDS["data_root"].default), download=download
    )
    data: DataSet = loaded.value
    config = merge(COMMON_TRAINING, data.training_defaults, values)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    curriculum = Curriculum.parse(
        config.perturb, config.schedule, budgets=data.budgets, defaults=data.attack_defaults
    )
    check_channels(curriculum.tree, data)
    augmentation = _augmentation(config.augmentation, data)
    objective = factories.build("objective", parse_call(config.objective))
    if objective.value.attack_loss not in ATTACK_LOSSES:
        raise UserError(
            f"objective {objective.call}: its attack loss {objective.value.attack_loss!r} is "
            f"unknown; known: {', '.join(ATTACK_LOSSES)}"
        )
    learning_rate = parse_learning_rate(config.lr_schedule)
    averaging = parse_averaging(config.average)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the same weights are refused each time, or never
        model = _model(config.model, data)
    data, validation = data.with_validation()
    if not len(validation) or not len(data.test):
        raise UserError(
            f"{data.name} has {len(data.train)} training and {len(data.test)} test images; 10 and "
            "1 are the fewest"
        )
    if config.batch_size > len(data.train):
        raise UserError(
            f"batch_size {config.batch_size} is larger than the {len(data.train)} training images"
            f" of {data.name}; give from 1 to {len(data.train)}"
        )
    begin = Progress(step=0, total_steps=config.epochs, epoch=0, total_epochs=config.epochs)
    curriculum.check_schedules(len(data.train), begin)
    some = data.images(data.train[slice(min(TRIED_ON, config.batch_size))].load().pixels)
    check_classifier(model.value, some.to(device), data.num_classes, name=f"model {model.call}")
    return Plan(
        config=attrs.evolve(
            config,
            data=str(loaded.call),
            lr_schedule=str(learning_rate.call),
            average=str(averaging.call),
            model=str(model.call),
            augmentation=str(augmentation),
            perturb=str(curriculum),
            schedule=tuple(f"{label}={call}" for label, call in curriculum.schedule_calls.items()),
            objective=str(objective.call),
            device=str(device),
            precision=precision,
        ),
        data=data.to(device),
        validation=validation.to(device),
        curriculum=curriculum,
        augmentation=augmentation,
        objective=objective.value,
        learning_rate=learning_rate.value,
        averaging=averaging.value,
        device=device,
        precision=precision,
    )


def _augmentation(text: str, data: DataSet) -> Curriculum:
    augmentation = Curriculum.parse(text, ["constant"], budgets=data.budgets)
    for leaf in augmentation.tree.leaves.values():
        if leaf.perturbation.kind == "pixel":
            raise UserError(
                f"augmentation {text}: {leaf.call.name} is an attack; write it into perturb"
            )
    check_channels(augmentation.tree, data)
    return augmentation


def check_channels(tree: Node, data: DataSet) -> None:
    """Refuse a perturbation that cannot work on the images' channels."""
    for leaf in tree.leaves.values():
        channels = leaf.perturbation.channels
        if channels is not None and data.in_channels not in channels:
            allowed = " or ".join(map(str, sorted(channels)))
            raise UserError(
                f"{leaf.call.name} works on images of {allowed} channels; those of {data.name} "
                f"have {data.in_channels}"
            )


def baseline_values(config: TrainConfig) -> dict[str, Any]:
    """The values of the same run without a curriculum, to compare with."""
    values = {name: getattr(config, name) for name in FIELDS}
    return values | {"perturb": str(Call("clean")), "schedule": (), "objective": "at"}
