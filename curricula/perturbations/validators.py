"""Validators of the numbers that perturbations take, each in one place."""

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from attrs.validators import and_, ge, gt, le, optional

MAX_BUDGET = 1e6  # pixel units or pixels; far beyond any image, far below float32's largest number

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], Any]


def between(low: float, high: float) -> Validator:
    """Return a validator of numbers from ``low`` to ``high``, both included."""
    return and_(ge(low), le(high))


def above_zero(high: float = MAX_BUDGET) -> Validator:
    """Return a validator of numbers above 0 and up to ``high``."""
    return and_(gt(0.0), le(high))


valid_budget = between(0.0, MAX_BUDGET)
valid_eot = optional(between(1, 10_000))
