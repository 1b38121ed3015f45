"""Check a configuration's values before torch is imported.

Values that pass here can still fail in `curricula.training.plan.make_plan`, which builds the
objects.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from curricula.errors import UserError
from curricula.expressions.checks import check_call, check_perturbation, schedules_by_label
from curricula.expressions.syntax import Call, Pair, parse_call
from curricula.training.config import FIELDS, check_fields

LR_SCHEDULES = ("cosine", "one-cycle", "constant", "step")
AVERAGES = ("none", "ema", "swa")

_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu|hpu|mtia|maia|npu|privateuseone)(:\d+)?")


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse unknown keys and names, wrong types, values out of range and wrong syntax.

    Names are only looked up: neither a factory nor torch is imported.

    >>> check_values({"perturb": "rot:30+pgd", "schedule": ["pgd=linear"], "epochs": 3})
    >>> check_values({"epochs": 0})
    Traceback (most recent call last):
    curricula.errors.UserError: configuration: epochs must be 1 or more, not 0

    Args:
        values: any of the fields of `TrainConfig`.

    Raises:
        UserError: one line with the value, what is allowed and the fix.
    """
    check_fields(values)
    for key, check in _CHECKS.items():
        if key in values:
            check(values[key])
    labels = check_perturbation(values.get("perturb", FIELDS["perturb"].default))
    schedules_by_label(values.get("schedule", ()), labels)


def check_lr_schedule(text: str) -> Call:
    """Return the call of a learning-rate schedule, such as ``one-cycle(warmup=0.3)``.

    Raises:
        UserError: an unknown name, or a ``step`` without stages.
    """
    call = parse_call(text)
    if call.name not in LR_SCHEDULES:
        raise UserError(f"unknown lr_schedule {call.name!r}; known: {', '.join(LR_SCHEDULES)}")
    if call.name == "step" and not any(isinstance(a.value, Pair) for a in call.arguments):
        raise UserError("lr_schedule step needs its stages, for example step(0:1, 0.5:0.1)")
    return call


def check_average(text: str) -> Call:
    """Return the call of an average of the weights, such as ``ema(decay=0.99)`` or ``none``.

    Raises:
        UserError: an unknown name, or arguments of ``none``.
    """
    call = parse_call(text)
    if call.name not in AVERAGES or (call.name == "none" and call.arguments):
        raise UserError(f"unknown average {text!r}; known: {', '.join(AVERAGES)}")
    return call


def check_device_name(name: Any) -> None:
    """Refuse a device name that no build of torch has. This machine's devices are checked later.

    Raises:
        UserError: an unknown name.
    """
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UserError(
            f"device {name!r} is not available; choose from auto, cpu, cuda, cuda:1, mps or xpu"
        )


_CHECKS: Mapping[str, Callable[[str], object]] = {
    "data": lambda text: check_call("dataset", text),
    "model": lambda text: check_call("model", text),
    "objective": lambda text: check_call("objective", text),
    "augmentation": check_perturbation,
    "lr_schedule": check_lr_schedule,
    "average": check_average,
    "device": check_device_name,
}
