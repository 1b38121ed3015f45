"""Errors that the user caused, each reported in one line."""

import re
import reprlib
from collections.abc import Iterable
from typing import Any

_COMPARED = re.compile(r"'(\w+)' must be (>=|>|<=|<) (\S+): (.+)")
_CHOSEN = re.compile(r"'(\w+)' must be in [(\[](.+?),?[)\]] \(got (.+)\)")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100  # characters
_ALLOWED = {">=": "{} or more", ">": "above {}", "<=": "at most {}", "<": "below {}"}


class UserError(ValueError):
    """Bad input: the message is one line with the value, what is allowed, and the fix.

    The command line prints the message and exits with status 2; a library caller may catch it as
    the ``ValueError`` that it is. A fault of curricula itself never raises this class.
    """


class UnknownNameError(UserError):
    """A name that no loaded plugin registered; the message has the nearest registered names."""


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return ``did you mean ...?`` with the registered names closest to an unknown one.

    Args:
        name: the unknown name.
        known: all known names.
        otherwise: the text where no known name is similar; by default it lists all of them.

    Example:
        >>> did_you_mean("smalcnn", ["smallcnn", "lenet"])
        'did you mean smallcnn?'
        >>> did_you_mean("vgg", ["smallcnn", "lenet"])
        'known: smallcnn, lenet'
    """
    import difflib  # here: few runs need it

    known = tuple(known)
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    return f"known: {', '.join(known)}" if otherwise is None else otherwise


def message_of(error: Exception) -> str:
    """Return an error's message on one line, with messages of attrs validators in plain words.

    Built-in factories and those of plugins check their arguments with attrs validators.

    Example:
        >>> message_of(ValueError("'epochs' must be >= 1: 0"))
        'epochs must be 1 or more, not 0'
        >>> message_of(ValueError("'norm' must be in ('linf', 'l2') (got 'l3')"))
        'norm must be linf or l2, not l3'
    """
    first = error.args[0] if error.args else None
    text = " ".join((first if isinstance(first, str) else str(error)).split())
    if match := _COMPARED.fullmatch(text):
        name, sign, bound, value = match.groups()
        is_finite = (sign, bound) == ("<", "inf")
        allowed = "finite" if is_finite else _ALLOWED[sign].format(bound.removesuffix(".0"))
        return f"{name} must be {allowed}, not {value.removesuffix('.0')}"
    if match := _CHOSEN.fullmatch(text):
        name, options, value = (part.replace("'", "") for part in match.groups())
        return f"{name} must be {options.replace(', ', ' or ')}, not {value}"
    return text


def shown(value: Any) -> str:
    """Return a value as a message shows it: on one line, and short.

    Example:
        >>> shown("best"), shown(list(range(100)))
        ("'best'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    return " ".join(_SHORT.repr(value).split())
