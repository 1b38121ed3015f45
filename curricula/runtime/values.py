"""Checks of single values that a caller gives, each reported in one line."""

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from curricula.errors import UserError, did_you_mean, shown

if TYPE_CHECKING:
    import attrs

P = ParamSpec("P")
T = TypeVar("T")


def known_keywords(*more: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that raises a UserError for an unknown keyword and suggests similar names.

    Args:
        more: keywords that the function takes as ``**values``.

    Example:
        >>> @known_keywords()
        ... def measure(*, threats): ...
        >>> measure(threat=["rot:30"])
        Traceback (most recent call last):
        curricula.errors.UserError: measure has no argument 'threat'; did you mean threats?
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(function).parameters.values()
        known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD] + [*more]

        @functools.wraps(function)
        def checked(*arguments: P.args, **keywords: P.kwargs) -> T:
            for name in keywords:
                if name not in known:
                    verb = function.__qualname__
                    fix = did_you_mean(name, known, otherwise=f"help({verb}) lists all")
                    raise UserError(f"{verb} has no argument {shown(name)}; {fix}")
            return function(*arguments, **keywords)

        return checked

    return decorate


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Check that a value is a whole number from ``low`` to ``high``; None means no upper limit.

    Raises:
        UserError: it is not.

    Example:
        >>> check_whole("limit", 1.5, 1)
        Traceback (most recent call last):
        curricula.errors.UserError: limit must be a whole number, 1 or more, not 1.5
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{name} must be a whole number, {_range(low, high)}, not {shown(value)}")
    _check_range(name, value, low, high)


def check_number(name: str, value: Any, low: float, high: float | None = None) -> None:
    """Check that a value is a finite number from ``low`` to ``high``; None means no upper limit.

    Raises:
        UserError: it is not.

    Example:
        >>> check_number("strength", 7, 0, 1)
        Traceback (most recent call last):
        curricula.errors.UserError: strength must lie from 0 to 1, not 7
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UserError(f"{name} must be a number, {_range(low, high)}, not {shown(value)}")
    _check_range(name, value, low, high)


def _check_range(name: str, value: Any, low: float, high: float | None) -> None:
    if value < low or (high is not None and value > high):
        verb = "be" if high is None else "lie"
        given = shown(value) if isinstance(value, int) else value  # short, even of 5,000 digits
        raise UserError(f"{name} must {verb} {_range(low, high)}, not {given}")


def _range(low: float, high: float | None) -> str:
    return f"{low} or more" if high is None else f"from {low} to {high:,}"


def check_flag(name: str, value: Any) -> None:
    """Check that a value is True or False: a text such as "no" would count as True.

    Raises:
        UserError: it is not.

    Example:
        >>> check_flag("baseline", "no")
        Traceback (most recent call last):
        curricula.errors.UserError: baseline must be True or False, not 'no'
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, not {shown(value)}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Check that a value is one of the given texts.

    Raises:
        UserError: it is not.

    Example:
        >>> check_choice("split", "tset", ("test", "validation"))
        Traceback (most recent call last):
        curricula.errors.UserError: split must be test or validation, not 'tset'
    """
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{name} must be {' or '.join(choices)}, not {shown(value)}")


def check_printable(record: Any, field: "attrs.Attribute[Any]", value: str) -> None:
    """Check that a record's text can be shown on a terminal (a validator of attrs).

    Raises:
        ValueError: it has a character that ends the line, controls a terminal or has no form.
    """
    if not value.isprintable():
        raise ValueError(f"{field.name} must be text that can be printed, not {shown(value)}")


def described(value: Any) -> str:
    """Return the type and the shape of a tensor of torch, or any other value, as text for a
    message."""
    if str(getattr(value, "dtype", "")).startswith("torch."):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return shown(value)


def as_path(name: str, value: Any) -> Path:
    """Return a text or a path as a `Path`.

    Raises:
        UserError: it is neither, or empty.

    Example:
        >>> as_path("output", "")
        Traceback (most recent call last):
        curricula.errors.UserError: output must be a path, not ''; write . for the current folder
    """
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(f"{name} must be a path, not {shown(value)}")
    if not os.fspath(value):
        raise UserError(f"{name} must be a path, not ''; write . for the current folder")
    return Path(value)
