"""What this distribution offers. Imports neither torch nor escnn."""

from collections.abc import Iterable

from curricula.hooks import Record, hookimpl


@hookimpl
def curricula_models() -> Iterable[Record]:
    yield Record(
        name="p4cnn",
        factory="curricula_escnn.models:p4cnn",
        summary="equivariant to 90-degree turns, the P4CNN of Cohen and Welling",
        install="uv pip install curricula[escnn]",
    )
