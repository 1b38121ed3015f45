"""Name what was handed over in Python in a configuration: ``given(NAME)``. Needs no torch."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curricula.errors import UserError, shown
from curricula.expressions.syntax import MAX_NAME, parse_call
from curricula.plugins.names import NAME_PATTERN

if TYPE_CHECKING:
    from curricula.interfaces import Schedule

GIVEN = "given"
"""Name of the call that represents an object handed over in Python."""


def given(value: Any) -> str:
    """Return how a configuration names an object that was handed over in Python: ``given(NAME)``,
    by the name of a function or of the object's class.

    >>> given(3), given(len), given(lambda: 0)
    ('given(int)', 'given(len)', 'given(lambda)')
    """
    name = getattr(value, "__name__", None)
    if not isinstance(name, str):
        name = type(value).__name__
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name.strip("<>"))[:MAX_NAME]
    return f"{GIVEN}({name if re.fullmatch(NAME_PATTERN, name) else 'object'})"


def is_given(text: str) -> bool:
    """Return whether an expression is ``given(NAME)``, for an object handed over in Python.

    Raises:
        ExpressionError: the text is not a call.
    """
    return parse_call(text).name == GIVEN


def split_schedules(schedules: Any) -> "tuple[Any, dict[str | None, Schedule]]":
    """Return schedules as texts, and the objects among them by label (None for all labels).

    Args:
        schedules: texts, one object for all labels, or texts and objects by label.
    """
    if isinstance(schedules, Mapping):
        texts, objects = [], {}
        for label, value in schedules.items():
            texts.append(f"{label}={value if isinstance(value, str) else given(value)}")
            if not isinstance(value, str):
                objects[label] = _checked_schedule(value)
        return texts, objects
    if isinstance(schedules, str) or not callable(schedules):
        return schedules, {}
    return [given(schedules)], {None: _checked_schedule(schedules)}


def _checked_schedule(value: Any) -> Any:
    if isinstance(value, type) or not callable(value):
        raise UserError(
            f"schedule must be text or a function of (progress, state), not {shown(value)}"
        )
    return value
