"""Suites: named lists of threats, which plugins may offer.

The factory of a suite returns one of two things:

- a mapping of names to expressions. In place of an expression may be a mapping of columns to
  expressions: it is a row of the suite's table. Columns that are whole numbers are severities.
- a list of the names of other suites.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from curricula.curriculum import Threat, check_channels
from curricula.errors import Notice, UserError, shown
from curricula.evaluation.suite_tables import Position
from curricula.evaluation.threats import standard_threats
from curricula.expressions.binding import bind
from curricula.expressions.checks import check_call
from curricula.expressions.factories import build, parameters_of
from curricula.plugins import registry
from curricula.runtime.processes import place

ALL = "all"  # the suite of all others
WORST_OF = 10  # draws of the worst random transformation in Engstrom et al. (2019)


@attrs.frozen(kw_only=True, repr=False)
class SuiteThreat(Threat):
    """A threat in the table of a suite.

    Attributes:
        position: its position there.
    """

    position: Position


def position_of(threat: Threat) -> Position | None:
    """Return the position of a threat in the table of its suite; None if it has none."""
    return threat.position if isinstance(threat, SuiteThreat) else None


def standard(*, curriculum: str, budgets: Mapping[str, str]) -> dict[str, str]:
    """Return the standard threats, ``clean``, ``spatial``, ``adversarial`` and ``joint``, at the
    budgets of the run's curriculum or else of the data set. An evaluation without threats uses
    them."""
    found = standard_threats(bind(curriculum), budgets)
    return {name: str(threat) for name, threat in found.items()}


def spatial() -> dict[str, str | dict[str, str]]:
    """Return rotations and translations within the data set's budgets, together and each alone, as
    in Engstrom et al. (2019): a random one, the worst of 10 random ones, and the worst point of a
    grid, which has 31 angles and 5 shifts along each axis."""
    rows = {"rotation, translation": "rot+trans", "rotation": "rot", "translation": "trans"}
    return {
        "clean": "clean",
        **{
            name: {
                "random": text,
                f"worst of {WORST_OF}": f"worst({text}, k={WORST_OF})",
                "grid": f"grid({text})",
            }
            for name, text in rows.items()
        },
    }


def every_suite() -> list[str]:
    """Return the names of all other registered suites."""
    return [name for name in registry.current().records("suite") if name != ALL]


def suite_threats(
    texts: Iterable[str],
    *,
    curriculum: str,
    budgets: Mapping[str, str],
    in_channels: int,
    data: str,
) -> dict[str, Threat]:
    """Return the threats of some suites by name, in order.

    A threat is named as its suite names it, one of a table ``ROW COLUMN``; after the suite and
    ``/`` if a different threat has that name. Threats that need other channels than the images have
    are left out, and a notice says which.

    Args:
        texts: suites, such as ``standard``.
        curriculum: expression that the network is trained under.
        budgets: the data set's standard budgets, by unit.
        in_channels: channels of the images.
        data: name of the data set, for messages.

    Raises:
        UserError: an unknown suite; a suite that returns something else, or a wrong expression, or
            nothing that suits the images.

    Example:
        >>> found = suite_threats(
        ...     ["standard"], curriculum="rot:10", budgets={"linf": "1/10"}, in_channels=1, data=""
        ... )
        >>> [*found]
        ['clean', 'spatial', 'adversarial', 'joint']
    """
    context = {"curriculum": curriculum, "budgets": budgets, "in_channels": in_channels}
    found: dict[str, Threat] = {}
    for suite, members in _members(texts, context, []):
        left_out: dict[str, UserError] = {}
        before = len(found)
        for row, column, text in members:
            try:
                threat = Threat.parse(text, budgets=budgets)
            except UserError as error:
                raise UserError(f"suite {suite}: threat {row}: {error}") from error
            try:
                check_channels(threat.tree, in_channels, data=data)
            except UserError as error:
                left_out.setdefault(row, error)
                continue
            name = row
            if column is not None:
                name = f"{row} {column}"
                position = Position(suite=suite, row=row, column=column)
                threat = SuiteThreat(tree=threat.tree, position=position)
            if name in found and not _equal(found[name], threat):
                name = f"{suite}/{name}"
            if name in found and not _equal(found[name], threat):
                raise UserError(f"suite {suite}: two different threats are named {shown(name)}")
            found[name] = threat
        if left_out and place().is_first:
            reason = next(iter(left_out.values()))
            warnings.warn(
                Notice(f"suite {suite}: without {', '.join(left_out)}, as {reason}"), stacklevel=3
            )
        if left_out and len(found) == before:
            raise UserError(
                f"suite {suite} has no threat for {data}, whose images have {in_channels} channels"
            )
    return found


def with_threats(of_suites: Mapping[str, Threat], named: Mapping[str, Threat]) -> dict[str, Threat]:
    """Return the threats of suites, followed by those that the user names.

    Raises:
        UserError: one of these has the name of a different threat of a suite.
    """
    for name, threat in named.items():
        if name in of_suites and str(of_suites[name]) != str(threat):
            raise UserError(
                f"the threat {shown(name)} is {shown(str(threat))}, and a suite has a different "
                "one of that name; choose another name"
            )
    return {**of_suites, **{name: named[name] for name in named if name not in of_suites}}


def _equal(one: Threat, other: Threat) -> bool:
    """Return whether two threats are the same, in the same position."""
    return str(one) == str(other) and position_of(one) == position_of(other)


def _members(
    texts: Iterable[str], context: Mapping[str, Any], seen: list[str]
) -> Iterator[tuple[str, Sequence[tuple[str, str | None, str]]]]:
    """Yield each suite once with its threats: (row, column, expression), where a threat outside the
    table has no column. Suites of other suites are replaced by these.

    Args:
        texts: suites.
        context: values that a factory receives if it has a parameter of that name.
        seen: suites that were yielded; grows.
    """
    for text in texts:
        call = check_call("suite", text)
        if str(call) in seen:
            continue
        seen.append(str(call))
        known = parameters_of("suite", call.name)
        supplied = {name: value for name, value in context.items() if name in known}
        found = build("suite", call, supplied=supplied).value
        if isinstance(found, (list, tuple)) and all(isinstance(each, str) for each in found):
            yield from _members(found, context, seen)
        else:
            yield str(call), members_of(str(call), found)


def members_of(suite: str, found: Any) -> list[tuple[str, str | None, str]]:
    """Return the threats that the factory of a suite has returned: (row, column, expression).

    Raises:
        UserError: it has returned something else, or nothing.
    """
    wrong = UserError(
        f"suite {suite} returned {shown(found)}; it must return expressions by name, or by row and "
        "column, such as {'clean': 'clean', 'fog': {'1': 'fog:1', '2': 'fog:2'}}, or a list of "
        "names of suites"
    )
    if not isinstance(found, Mapping) or not found:
        raise wrong
    members: list[tuple[str, str | None, str]] = []
    for row, value in found.items():
        columns = value if isinstance(value, Mapping) else {None: value}
        if not columns:
            raise wrong
        for column, text in columns.items():
            names = [row, text] if column is None else [row, column, text]
            if not all(isinstance(name, str) and name.isprintable() and name for name in names):
                raise wrong
            members.append((row, column, text))
    return members
