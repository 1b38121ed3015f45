"""The lines of a run's ``metrics.jsonl`` and ``timing.jsonl``. Needs no torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
from attrs.validators import and_, deep_mapping, ge, instance_of, le, optional

from curricula.evaluation.names import CLEAN, JOINT
from curricula.runtime.records import from_json, to_json

Finding: TypeAlias = Literal[
    "catastrophic overfitting", "robust overfitting", "divergence", "no gradient"
]
"""Names of the findings of the monitor of a training."""

MAX_LOSS = 3.5e38  # largest loss: that of float32
MAX_SECONDS = 1e10  # three hundred years

share: Any = and_(ge(0), le(1))  # validators of the records of a training
shares: Any = deep_mapping(instance_of(str), share)
seconds: Any = and_(ge(0), le(MAX_SECONDS))


@attrs.frozen(kw_only=True)
class PassCounts:
    """Images that went through the networks, by the kind of pass.

    Attributes:
        gradient: images passed forward, and backward to the image: a step of an attack.
        forward: images passed forward only.
        training: images passed forward, and backward to the weights.
        validation_gradient, validation_forward: the same of the validation after the epoch and of
            the monitor's probes, which no other kind includes.

    Images at which an objective differentiates a gradient count as ``gradient`` and ``training``.
    """

    gradient: int = attrs.field(default=0, validator=ge(0))
    forward: int = attrs.field(default=0, validator=ge(0))
    training: int = attrs.field(default=0, validator=ge(0))
    validation_gradient: int = attrs.field(default=0, validator=ge(0))
    validation_forward: int = attrs.field(default=0, validator=ge(0))

    def __add__(self, other: "PassCounts") -> "PassCounts":
        own = attrs.asdict(self)
        return PassCounts(**{kind: count + getattr(other, kind) for kind, count in own.items()})

    @property
    def of_updates(self) -> int:
        """The images that went through the networks in updates, in all kinds of passes."""
        return self.gradient + self.forward + self.training

    @property
    def one_way(self) -> int | None:
        """The number of images passed forward plus that passed backward, validation included; None
        for a run of an earlier version, which did not count the validation."""
        if self.validation_forward == 0:  # each validation classifies at least an image
            return None
        both = self.gradient + self.training + self.validation_gradient
        return 2 * both + self.forward + self.validation_forward


@attrs.frozen(kw_only=True)
class EpochMetrics:
    """Loss, accuracies and strengths of an epoch: a line of ``metrics.jsonl``.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean training loss.
        train_accuracy: accuracy on the perturbed training images during the epoch, in [0, 1].
        validation: accuracies on the validation images, in [0, 1], by threat: ``clean``, ``joint``.
        strength: strength of each leaf at the epoch's last update, in [0, 1], by label.
        lr: learning rate of the epoch's last update.
        passes: passes of the epoch.
        best: whether no earlier epoch had a higher joint accuracy.
        strong_accuracy: accuracy under PGD at the epoch's strengths, in [0, 1]; None if it was not
            measured.
        zero_gradient: whether all gradients of the last update were zero.
        findings: what the monitor found.
    """

    epoch: int = attrs.field(validator=ge(1))
    loss: float = attrs.field(validator=and_(ge(-MAX_LOSS), le(MAX_LOSS)))
    train_accuracy: float = attrs.field(validator=share)
    validation: Mapping[str, float] = attrs.field(validator=shares)
    strength: Mapping[str, float] = attrs.field(validator=shares)
    lr: float = attrs.field(validator=ge(0))
    passes: PassCounts
    best: bool
    strong_accuracy: float | None = attrs.field(default=None, validator=optional(share))
    zero_gradient: bool = False
    findings: tuple[Finding, ...] = ()

    @validation.validator
    def _has_both(self, attribute: Any, value: Mapping[str, float]) -> None:
        if value.keys() != {CLEAN, JOINT}:
            raise ValueError(f"validation must have {CLEAN} and {JOINT}")


@attrs.frozen(kw_only=True)
class EpochTimes:
    """Wall times of an epoch in seconds: a line of ``timing.jsonl``."""

    epoch: int = attrs.field(validator=ge(1))
    training_seconds: float = attrs.field(validator=seconds)
    validation_seconds: float = attrs.field(validator=seconds)


@attrs.frozen(kw_only=True)
class EvaluationTime:
    """Wall time of the final evaluation in seconds: the last line of ``timing.jsonl``."""

    evaluation_seconds: float = attrs.field(validator=seconds)


def metrics_of(lines: Sequence[Any]) -> list[EpochMetrics]:
    """Return the records that the lines of ``metrics.jsonl`` describe.

    Raises:
        KeyError, TypeError, ValueError: they are not what a training writes.
    """
    found = from_json(list[EpochMetrics], list(lines))
    _check_epochs(found)
    if any(line.strength.keys() != found[0].strength.keys() for line in found):
        raise ValueError("strength has different labels in different lines")
    if found and not found[0].best:
        raise ValueError("the first epoch must be the best one so far")
    return found


def flat(line: EpochMetrics) -> dict[str, Any]:
    """Return the metrics of an epoch with one value per column, such as ``validation_clean``, for a
    data frame."""
    found: dict[str, Any] = {}
    for name, value in to_json(line).items():
        if isinstance(value, dict):
            found |= {f"{name}_{key}": each for key, each in value.items()}
        else:
            found[name] = ", ".join(value) if isinstance(value, list) else value
    return found


def times_of(lines: Sequence[Any]) -> list[EpochTimes | EvaluationTime]:
    """Return the records that the lines of ``timing.jsonl`` describe.

    Raises:
        KeyError, TypeError, ValueError: they are not what a training writes.
    """
    found = [
        from_json(EvaluationTime, line)
        if isinstance(line, dict) and "evaluation_seconds" in line
        else from_json(EpochTimes, line)
        for line in lines
    ]
    _check_epochs([line for line in found if isinstance(line, EpochTimes)])
    return found


def _check_epochs(lines: Sequence[EpochMetrics | EpochTimes]) -> None:
    """Check that the lines' epoch numbers are 1, 2, 3, ..."""
    for number, line in enumerate(lines, start=1):
        if line.epoch != number:
            raise ValueError(f"epoch {line.epoch} is in the place of epoch {number}")


def forward_and_backward(metrics: Iterable[EpochMetrics]) -> int:
    """Return the number of images passed forward and backward in a run: the cost by which runs are
    compared.

    Forward-only passes are not counted.

    Args:
        metrics: the lines of ``metrics.jsonl``, one per epoch.
    """
    return sum(line.passes.gradient + line.passes.training for line in metrics)


def in_millions(passes: float) -> str:
    """Return a number of passes as text, in millions, to two decimals, or two digits below 0.1.

    >>> in_millions(1_234_567), in_millions(4_321)
    ('1.23', '0.0043')
    """
    millions = passes / 1e6
    return f"{millions:.2f}" if millions >= 0.1 else f"{millions:.2g}"
