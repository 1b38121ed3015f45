"""Check expressions against the grammar and the registered names, without importing a factory or
torch.

An expression that passes here can still fail when it is bound, because the factories check
arguments, types and ranges.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from curricula.errors import UnknownNameError, UserError, shortened, shown
from curricula.expressions.given import GIVEN
from curricula.expressions.model_files import model_meant
from curricula.expressions.syntax import (
    Call,
    Chain,
    Expression,
    Union,
    error_in,
    parse,
    parse_call,
)
from curricula.plugins import registry
from curricula.plugins.hookspecs import Kind
from curricula.plugins.names import CLEAN, RESERVED

DEFAULT_SCHEDULE = "linear"
MAX_LEAVES = 200  # perturbations in an expression
MAX_SCHEDULES = 1000  # schedules of a curriculum, one for each leaf and some for all


def check_call(kind: Kind, text: str) -> Call:
    """Parse a text such as ``wrn(depth=28)`` into a call, and check that its name is registered.

    >>> check_call("objective", "trades(beta=6)").name
    'trades'

    Raises:
        ExpressionError: the text is not a single call.
        UnknownNameError: no plugin registered the name.
        UserError: a path in place of a data set, or a file in place of a model.
    """
    try:
        call = parse_call(text)
        if call.name != GIVEN:
            registry.current().find(kind, call.name)
    except UserError as error:
        if fix := model_meant(str(text)) if kind == "model" else "":
            kind_of_error = UnknownNameError if isinstance(error, UnknownNameError) else UserError
            raise kind_of_error(f"unknown model {shown(text)}: {fix}") from error
        name = _reader_of(str(text)) if kind == "dataset" else None
        if name is None:
            raise
        raise UserError(
            f"data (--data) {shortened(text)!r} is a path: write {name}, and the path into "
            f"data_root (--data {name} --data-root {shlex.quote(shortened(text))})"
        ) from error
    return call


def _reader_of(text: str) -> str | None:
    """Return the data set that reads the file or folder at a path, or None if a text is no path."""
    if "(" in text:
        return None
    if text.endswith(".npz"):
        return "npz"
    return "folder" if "/" in text or os.path.isdir(text) else None


def check_perturbation(text: str) -> tuple[str, ...]:
    """Parse a text such as ``rot+pgd``, check that its perturbations are registered, and return
    their labels, left to right.

    >>> check_perturbation("rot:30+(pgd|worst(rot, k=5))")
    ('rot', 'pgd', 'rot.2')

    Raises:
        ExpressionError: the text is not an expression.
        UnknownNameError: no plugin registered one of the names.
        UserError: ``clean`` was given arguments.
    """
    labels = LeafLabels()
    for call in _leaves(parse(text)):
        registry.current().find("perturbation", call.name)
        labels.add(call.short_name)
    return tuple(labels.found)


def perturbation_names(text: str) -> list[str]:
    """Return the names of the perturbations in an expression, left to right.

    >>> perturbation_names("rot:30+(pgd|worst(rot, k=5))")
    ['rot', 'pgd', 'rot']

    Raises:
        ExpressionError: the text is not an expression.
        UserError: ``clean`` was given arguments.
    """
    return [call.name for call in _leaves(parse(text)) if call.name != CLEAN]


class LeafLabels:
    """Labels for the perturbations of an expression, left to right: ``rot``, ``rot.2``, ``rot.3``.

    Attributes:
        found: the labels so far.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> str:
        """Return a new label for a perturbation: its name without the provider, or ``NAME.2`` for
        the second of that name.

        Raises:
            UserError: there are too many leaves.
        """
        if len(self.found) == MAX_LEAVES:
            raise UserError(
                f"an expression has at most {MAX_LEAVES} perturbations; this one has more: leave "
                "some out"
            )
        self._counts[name] += 1
        count = self._counts[name]
        self.found.append(name if count == 1 else f"{name}.{count}")
        return self.found[-1]


def parse_schedule(text: str) -> tuple[str | None, Call]:
    """Return the label (None for all perturbations) and the schedule's call of a text
    ``[LABEL=]SCHEDULE``.

    >>> label, call = parse_schedule("pgd=linear(until=0.2)")
    >>> label, str(call)
    ('pgd', 'linear(until=0.2)')

    Raises:
        UserError: the text is not of this form.
    """
    label, separator, rest = text.partition("=")
    if not text.strip() or (separator and not rest.strip()):
        raise UserError(
            f"schedule {shown(text)}: write [LABEL=]SCHEDULE, such as linear or "
            "pgd=linear(until=0.2)"
        )
    if separator and "(" not in label:
        return label.strip(), parse_call(rest)
    return None, parse_call(text)


def listed(texts: Any, name: str = "schedule", example: str = "linear") -> Sequence[str]:
    """Return a configuration's schedules, or another list of texts, as a sequence of texts, after
    checking their type and number; a single text becomes a tuple of one.

    Args:
        texts: the value.
        name: its name, for messages.
        example: an example of a text.

    Raises:
        UserError: they are neither.
    """
    if isinstance(texts, str):
        return (texts,)
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{name} must be a list of texts, such as [{example!r}], not {shown(texts)}"
        )
    if len(texts) > MAX_SCHEDULES:
        raise UserError(
            f"{name} must be a list of at most {MAX_SCHEDULES:,} texts, not of {len(texts):,}"
        )
    return texts


def schedules_by_label(texts: str | Sequence[str], labels: Iterable[str]) -> Mapping[str, Call]:
    """Return the call of each perturbation's schedule, by label.

    Args:
        texts: ``SCHEDULE`` for all leaves, and ``LABEL=SCHEDULE`` for single ones, which comes
            first; or a single text.
        labels: labels of the leaves. A leaf without a schedule gets ``linear``.

    Raises:
        UnknownNameError: no plugin registered a schedule of that name.
        UserError: no leaf has a given label; two schedules for all leaves, or for one label.
    """
    labels = tuple(labels)
    given: dict[str | None, Call] = {}
    for text in listed(texts):
        label, call = parse_schedule(text)
        if call.name != GIVEN:
            registry.current().find("schedule", call.name)
        if label is not None and label not in labels:
            raise UserError(
                f"schedule {shortened(text)}: no perturbation is called {shown(label)} here; "
                f"there is {shortened(', '.join(labels) or 'none')}"
            )
        if label in given:
            fix = f", or write LABEL={call.name}" if label is None else ""
            raise UserError(
                f"schedule {shortened(text)}: {label or 'every perturbation'} has the schedule "
                f"{shortened(given[label])} already; leave one out{fix}"
            )
        given[label] = call
    for_all = given.get(None, parse_call(DEFAULT_SCHEDULE))
    return {label: given.get(label, for_all) for label in labels}


def _leaves(expression: Expression) -> Iterator[Call]:
    """Yield the calls of the perturbations in an expression, left to right."""
    match expression:
        case Chain(parts) | Union(parts):
            for part in parts:
                yield from _leaves(part)
        case Call(name=name, arguments=arguments) if name in RESERVED:
            if arguments and name == CLEAN:
                raise error_in(expression, f"{CLEAN} takes no arguments")
            for argument in arguments:
                if argument.key is None and isinstance(argument.value, (Call, Chain, Union)):
                    yield from _leaves(argument.value)
        case Call():
            yield expression
