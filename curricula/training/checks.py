"""Check a configuration's values before torch is imported.

Values that pass here can still fail in `curricula.training.plan.make_plan`, which builds the
objects.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from curricula.errors import UserError, shown
from curricula.expressions import factories
from curricula.expressions.checks import (
    check_call,
    check_perturbation,
    listed,
    parse_schedule,
    schedules_by_label,
)
from curricula.expressions.given import GIVEN, is_given
from curricula.training.config import FIELDS, check_fields
from curricula.training.learning_rate import parse_learning_rate
from curricula.training.weight_averaging import parse_averaging

_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu|hpu|mtia|maia|npu|privateuseone)(:\d+)?")


def check_values(values: Mapping[str, Any]) -> None:
    """Check a configuration's keys, names, types, ranges and syntax.

    Schedules and averages are built. Other names are only looked up, because their factories import
    torch; so do the adaptive schedules, which are built last.

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
    if values.get("init_head") == "new" and not values.get("init"):
        raise UserError(
            "init_head new (--init-head new) needs the weights of the other layers: name their run "
            "or file with init (--init)"
        )
    for key, check in _CHECKS.items():
        if key in values:
            check(values[key])
    labels = check_perturbation(values.get("perturb", FIELDS["perturb"].default))
    schedules = listed(values.get("schedule", ()))
    schedules_by_label(schedules, labels)
    for _, call in map(parse_schedule, schedules):
        if call.name == GIVEN:
            continue
        factories.build("schedule", call)


def check_device_name(name: Any) -> None:
    """Check that some build of torch has a device of this name. This machine's devices are checked
    later.

    Raises:
        UserError: an unknown name.
    """
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UserError(
            f"device {shown(name)} is not available; choose from auto, cpu, cuda, cuda:1, mps or "
            "xpu"
        )


_CHECKS: Mapping[str, Callable[[str], object]] = {
    "data": lambda text: check_call("dataset", text),
    "model": lambda text: check_call("model", text),
    "objective": lambda text: check_call("objective", text),
    "optimizer": lambda text: check_call("optimizer", text),
    "augmentation": check_perturbation,
    "lr_schedule": lambda text: is_given(text) or parse_learning_rate(text),
    "average": parse_averaging,
    "device": check_device_name,
}
