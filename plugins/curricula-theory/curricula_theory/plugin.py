"""The records of this distribution. The module imports neither torch nor matplotlib."""

from collections.abc import Iterable

from curricula.plugins.hookspecs import Record, hookimpl


@hookimpl
def curricula_commands() -> Iterable[Record]:
    yield Record(
        name="theory",
        factory="curricula_theory.command:command",
        summary="compute, simulate and draw a trade-off that has closed forms",
        install="pip install ./plugins/curricula-theory in a clone of curricula",
    )
