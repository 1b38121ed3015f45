"""The configuration of a training: its fields, their checks, and TOML. Needs no torch."""

import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import tomli_w
from attrs.validators import and_, ge, gt, le, lt

from curricula.errors import UserError, did_you_mean, message_of, shown
from curricula.expressions.checks import listed
from curricula.expressions.model_files import names_file
from curricula.expressions.syntax import parse_call
from curricula.models.normalisation import OWN, parse_normalisation
from curricula.plugins.names import CLEAN
from curricula.runtime.parsing import MAX_TOML, parse_toml, read_text
from curricula.runtime.records import from_json, to_json
from curricula.runtime.values import check_choice

PrecisionChoice = Literal["auto", "float32", "bf16"]
CollapseAction = Literal["warn", "stop", "rollback"]
CompileChoice = Literal["auto", "on", "off"]
InitialHead = Literal["load", "new"]
SplitName = Literal["test", "validation"]
"""Splits of a data set that a run can be measured on."""

TRAINING_IMAGES = "images"  # argument of data sets that changes the training images only
MAX_SEED = 2**62  # largest seed
MAX_EPOCHS = 1_000_000  # epochs
MAX_BATCH_SIZE = 1_000_000  # images
MAX_LIMIT = 1_000_000_000  # images of a measurement
MAX_FACTOR = 1e35  # learning rate, weight decay, AWP; far below float32's largest number
EVALUATION_SEED = 0  # seed; the same for every run, so that all have the same draws
COMMON_TRAINING: Mapping[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.0001,
    "epochs": 30,
    "batch_size": 128,
    "lr_schedule": "one-cycle",
    "augmentation": "clean",
}
"""Defaults of the fields that neither the user nor the data set states."""


def _valid(*validators: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], None]:
    """Return a validator that runs attrs' validators and raises their errors as user errors."""

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        try:
            and_(*validators)(instance, attribute, value)
        except ValueError as error:
            raise UserError(f"configuration: {message_of(error)}") from error

    return check


def _is_normalisation(instance: Any, attribute: "attrs.Attribute[Any]", value: str) -> None:
    parse_normalisation(value)


@attrs.frozen(kw_only=True)
class ModelConfig:
    """The data set and the network of a run, whether it was trained or only measured.

    Attributes:
        data: expression of the data set.
        data_root: folder of its files.
        model: expression of the model.
        normalise: normalisation of the model's images, in place of the model's first one:
            ``cifar10``, ``cifar100``, ``imagenet``, ``mnist``, ``none`` or ``MEAN/STD``; ``own``
            for that of the model.
        perturb: expression of the curriculum's perturbations; ``clean`` for none.

    Raises:
        ValueError: an unknown normalisation.
    """

    data: str = "digits"
    data_root: str = "data"
    model: str
    normalise: str = attrs.field(default=OWN, validator=_is_normalisation)
    perturb: str = CLEAN


@attrs.frozen(kw_only=True)
class MeasuredConfig(ModelConfig):
    """The settings of a model from elsewhere whose weights and results a folder keeps, as a run's.

    Attributes:
        weights: file or folder that its weights come from; empty for those that the model had.
    """

    weights: str


@attrs.frozen(kw_only=True)
class TrainConfig(ModelConfig):
    """All settings of a training run. Every field is stated; `merge` fills in what a user leaves
    out.

    Attributes:
        data, data_root, model, normalise: as in `ModelConfig`.
        init: run folder or file of the weights that the training starts from, followed by their
            digest (``#DIGEST``) in the configuration of a run; empty for random weights.
        init_head: ``load``, or ``new`` for a last layer with new weights.
        perturb: expression of the curriculum's perturbations; ``clean`` for none.
        schedule: each ``[LABEL=]SCHEDULE``; at most one for each leaf, and one for all others.
        objective: expression of the training loss.
        epochs: passes over the training images, 1 to 1,000,000.
        batch_size: images per update, from 1 to the number of training images, at most 1,000,000.
        freeze: patterns of layers that are not trained, as of `fnmatch`: names of parameters or
            modules, such as ``layer1.*``, or ``backbone`` for all layers but the last. They stay in
            eval mode, so that batch norm keeps its statistics and dropout is off.
        optimizer: expression of the optimiser, such as ``sgd(nesterov=true)`` or ``adamw``.
        lr: learning rate that the learning-rate schedule scales, above 0 to 1e35.
        head_lr: learning rate of the last layer, which the schedule scales in the same way, to
            1e35; 0 for ``lr``.
        momentum: momentum of optimisers that have it, such as sgd, in [0, 1).
        weight_decay: weight decay, from 0 to 1e35; decoupled in adamw.
        lr_schedule: expression of the learning-rate schedule, such as ``cosine(warmup=0.05)``,
            ``one-cycle`` or ``step(0:1, 0.5:0.1)``.
        awp: size of the adversarial weight perturbation relative to each weight tensor's norm, from
            0 to 1e35; 0 for none.
        average: average of the weights, which is validated, saved and evaluated in their place:
            ``none``, ``ema(decay=0.999)`` or ``swa(start=0.5)``.
        shuffle: visit the images in a new random order each epoch, not in the stored order.
        augmentation: expression of perturbations at full strength before those of ``perturb``, such
            as ``crop+flip``; ``clean`` for none.
        seed: seed of the weights, the order and every random draw, from 0 to 2**62.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for the first accelerator.
        precision: ``float32`` or ``bf16``, for training and its attacks; ``auto`` for bf16 if the
            processor supports it natively.
        compile: ``on`` or ``off``: whether torch.compile compiles the trained and the attacked
            network; ``auto`` for on if the training is long enough and compiled updates are
            faster.
        on_collapse: what happens when the training collapses (catastrophic overfitting,
            divergence): ``warn``; ``stop``, and evaluate the best checkpoint so far; ``rollback``
            to the last good checkpoint, and continue with a milder attack and learning rate.
        accumulate: parts that a batch is processed in, one after another, so that less memory is
            needed; 1 or more. The update is that of the whole batch, except for batch norm, whose
            statistics are a part's.
        sync_batchnorm: compute the statistics of batch norm over the whole batch when several
            processes share it (on GPUs only), instead of over each process's share.
        clip_norm: largest l-2 norm of all gradients together, to which larger ones are scaled; 0
            for no limit.
        stop_after: epochs at full strength without a better joint validation accuracy after which
            the training ends; 0 for never.
        validation_limit: largest number of validation images that are evaluated after an epoch, of
            each class its share; 0 for all of them.

    Raises:
        ValueError: a value out of range.
    """

    init: str = ""
    init_head: InitialHead = "load"
    schedule: tuple[str, ...] = ()
    objective: str = "at"
    epochs: int = attrs.field(validator=_valid(ge(1), le(MAX_EPOCHS)))
    batch_size: int = attrs.field(validator=_valid(ge(1), le(MAX_BATCH_SIZE)))
    freeze: tuple[str, ...] = ()
    optimizer: str
    lr: float = attrs.field(validator=_valid(gt(0.0), le(MAX_FACTOR)))
    head_lr: float = attrs.field(default=0.0, validator=_valid(ge(0.0), le(MAX_FACTOR)))
    momentum: float = attrs.field(default=0.9, validator=_valid(ge(0), lt(1)))
    weight_decay: float = attrs.field(validator=_valid(ge(0.0), le(MAX_FACTOR)))
    lr_schedule: str
    awp: float = attrs.field(default=0.0, validator=_valid(ge(0.0), le(MAX_FACTOR)))
    average: str = "none"
    shuffle: bool = True
    augmentation: str
    seed: int = attrs.field(default=0, validator=_valid(ge(0), le(MAX_SEED)))
    device: str = "auto"
    precision: PrecisionChoice = "auto"
    compile: CompileChoice = "auto"
    on_collapse: CollapseAction = "warn"
    accumulate: int = attrs.field(default=1, validator=_valid(ge(1), le(MAX_BATCH_SIZE)))
    sync_batchnorm: bool = False
    clip_norm: float = attrs.field(default=0.0, validator=_valid(ge(0.0), le(MAX_FACTOR)))
    stop_after: int = attrs.field(default=0, validator=_valid(ge(0), le(MAX_EPOCHS)))
    validation_limit: int = attrs.field(default=0, validator=_valid(ge(0), le(MAX_LIMIT)))


FIELDS: Mapping[str, "attrs.Attribute[Any]"] = {
    field.name: field for field in attrs.fields(TrainConfig)
}
MODEL_FIELDS = tuple(field.name for field in attrs.fields(ModelConfig))
"""Names of the fields that a training and a measured model share."""


def merge(*layers: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration from layers of fields; later layers override earlier ones.

    >>> merge(COMMON_TRAINING, {"model": "lenet"}, {"epochs": 5}).epochs
    5

    Raises:
        UserError: an unknown key (it suggests a known one), a wrong type, a value out of range.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            values[key] = _checked(key, value)
    missing = [
        name
        for name, field in FIELDS.items()
        if field.default is attrs.NOTHING and name not in values
    ]
    if missing:
        raise UserError(f"configuration: no value for {', '.join(missing)}")
    return TrainConfig(**values)


def check_keys(layer: Mapping[str, Any]) -> None:
    """Check that all keys of some configuration values are known, and that each value has its key's
    type.

    Raises:
        UserError: an unknown key (it suggests a known one), a wrong type.
    """
    for key, value in layer.items():
        _checked(key, value)


def check_fields(layer: Mapping[str, Any]) -> None:
    """Check that all keys of some configuration values are known, and that each value has its key's
    type and range.

    Raises:
        UserError: an unknown key (it suggests a known one), a wrong type, a value out of range.
    """
    for key, value in layer.items():
        checked = _checked(key, value)
        if _has_surrogates(checked):
            raise UserError(
                f"configuration: {key} {shown(value)} is not valid UTF-8, and config.toml cannot "
                "hold it; rename the file or folder"
            )
        field = FIELDS[key]
        if field.validator is not None:
            field.validator(None, field, checked)


def _has_surrogates(value: Any) -> bool:
    """Return whether a text, or one of a tuple of texts, is a name of bytes that are not UTF-8."""
    texts = value if isinstance(value, tuple) else (value,)
    return any(
        "\ud800" <= letter <= "\udfff" for text in texts if isinstance(text, str) for letter in text
    )


def _checked(key: str, value: Any) -> Any:
    """Return a field's value after checking it, in the field's own type: a list of texts as a
    tuple, 1 as 1.0.

    Raises:
        UserError: an unknown key, a wrong type.
    """
    field = FIELDS.get(key)
    if field is None:
        raise UserError(f"configuration: unknown key {shown(key)}; {did_you_mean(key, FIELDS)}")
    if typing.get_origin(field.type) is Literal:
        check_choice(f"configuration: {key}", value, typing.get_args(field.type))
        return value
    if field.type == tuple[str, ...]:
        return tuple(listed(value, key, "linear" if key == "schedule" else "layer1.*"))
    try:
        return from_json(cast(type[Any], field.type), value)
    except (TypeError, ValueError) as error:
        raise UserError(f"configuration: {key} {error}") from error


def baseline_values(config: TrainConfig) -> dict[str, Any]:
    """Return the values that configure a run's baseline: the same run without perturbations."""
    values = {name: getattr(config, name) for name in FIELDS}
    return values | {"perturb": CLEAN, "schedule": (), "objective": "at"}


def images_of(data: str, split: SplitName) -> str:
    """Return a name for the images of a data set's split; runs measured on the same images have
    equal names.

    >>> images_of("mnist(images=10000)", "test")
    'test images of mnist'

    Args:
        data: expression of the data set, every default stated.
        split: the split.
    """
    call = parse_call(data)
    if split == "test":
        kept = tuple(argument for argument in call.arguments if argument.key != TRAINING_IMAGES)
        call = attrs.evolve(call, arguments=kept)
    return f"{split} images of {call}"


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a configuration file of a training, by field.

    Raises:
        UserError: no such file, not TOML, an unknown key or a wrong type, or the configuration of
            a measured model.
    """
    values = read_values(path)
    if is_measured(values):
        raise UserError(
            f"configuration {path}: it is of a model that was measured, not trained; train one "
            "with --model, --data and --init"
        )
    try:
        check_keys(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return values


def is_measured(values: Mapping[str, Any]) -> bool:
    """Return whether the values of a configuration file are of a `MeasuredConfig`."""
    return "weights" in values and "epochs" not in values


def read_values(path: Path) -> dict[str, Any]:
    """Return the values of a configuration file, unchecked.

    Raises:
        UserError: no such file, not TOML, or the file of a sweep or search.
    """
    try:
        values = parse_toml(read_text(path, MAX_TOML))
    except FileNotFoundError as error:
        raise UserError(f"configuration {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        fix = f"; name a file, such as {path / 'config.toml'}" if path.is_dir() else ""
        raise UserError(f"configuration {path}: cannot be read ({error}){fix}") from error
    except ValueError as error:
        raise UserError(f"configuration {path}: not TOML ({error})") from error
    if isinstance(values.get("base"), dict):
        kind = "search" if "ranges" in values else "sweep"
        raise UserError(f"configuration {path}: it holds a {kind}; run curricula {kind} {path}")
    model = values.get("model")
    if isinstance(model, str) and names_file(model):
        raise UserError(
            f"configuration {path}: model {shown(model)} runs a file, which only you can name: "
            "leave it out, and write --model"
        )
    return values


def measured_config(values: Mapping[str, Any]) -> MeasuredConfig:
    """Return the settings of a measured model from those of its file.

    Raises:
        UserError: a missing key, a wrong type, an unknown normalisation.
    """
    try:
        return from_json(MeasuredConfig, values)
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"configuration: {message_of(error)}") from error


def to_toml(config: ModelConfig) -> str:
    """Return a configuration as TOML, the text of a configuration file."""
    return tomli_w.dumps(to_json(config))
