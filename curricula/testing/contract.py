"""A contract is a tuple of clauses: functions of the thing, each raising when it is broken."""

from collections.abc import Callable, Iterable
from typing import Any


def broken_clauses(
    clauses: Iterable[Callable[..., None]], thing: Any, **keywords: Any
) -> dict[str, str]:
    """Every clause at once: what is broken, by the clause's name; empty if all is well."""
    broken = {}
    for clause in clauses:
        try:
            clause(thing, **keywords)
        except Exception as error:
            broken[clause.__name__] = f"{type(error).__name__}: {error}"
    return broken
