"""The contract of a suite, the value that its factory returns: one function for each clause, which
raises AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", SUITE_CLAUSES)
    def test_weather_keeps_the_contract(clause):
        clause(weather())
"""

from collections.abc import Callable, Mapping
from typing import Any

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.evaluation.suites import members_of
from curricula.expressions.checks import check_call
from curricula.testing.contract import broken_clauses

BUDGETS = {"degrees": "30", "pixels": "3", "linf": "8/255", "l2": "1/2", "l1": "12"}
"""Budgets of a data set."""


def names_threats_or_suites(suite: Any) -> None:
    """Check that it is a mapping of names to expressions, or to mappings of columns to expressions;
    or a list of names of registered suites."""
    try:
        if isinstance(suite, (list, tuple)):
            for name in suite:
                check_call("suite", name)
        else:
            members_of("of the factory", suite)
    except UserError as error:
        raise AssertionError(str(error)) from error


def expressions_are_threats(suite: Any) -> None:
    """Check that every expression is a threat, at the budgets of a data set."""
    if isinstance(suite, (list, tuple)):
        return
    for row, column, text in members_of("of the factory", suite):
        try:
            Threat.parse(text, budgets=BUDGETS)
        except UserError as error:
            raise AssertionError(f"{row} {column or ''}: {error}") from error


SUITE_CLAUSES: tuple[Callable[[Any], None], ...] = (
    names_threats_or_suites,
    expressions_are_threats,
)


def check_suite(suite: Any) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(SUITE_CLAUSES, suite)
