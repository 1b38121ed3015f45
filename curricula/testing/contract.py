"""A contract is a tuple of clauses: functions that raise an error if an object breaks them."""

from collections.abc import Callable, Iterable
from typing import Any


def broken_clauses(
    clauses: Iterable[Callable[..., None]], subject: Any, **keywords: Any
) -> dict[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    broken = {}
    for clause in clauses:
        try:
            clause(subject, **keywords)
        except Exception as error:
            broken[clause.__name__] = f"{type(error).__name__}: {error}"
    return broken
