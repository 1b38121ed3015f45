"""A contract is a tuple of clauses: functions that raise an error if an object breaks them."""

from collections.abc import Callable, Iterable
from typing import Any

from curricula.errors import UserError, shown


def broken_clauses(
    clauses: Iterable[Callable[..., None]], subject: Any, **keywords: Any
) -> dict[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold.

    Raises:
        UserError: the subject is a text, a number or None.
    """
    if subject is None or isinstance(subject, (str, int, float)):
        raise UserError(
            f"a contract is checked on the object itself, not on {shown(subject)}; a plugin's is "
            "built by its factory, such as Haze(budget=0.5)"
        )
    broken = {}
    for clause in clauses:
        try:
            clause(subject, **keywords)
        except Exception as error:
            broken[clause.__name__] = f"{type(error).__name__}: {error}"
    return broken
