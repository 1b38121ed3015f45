"""What this distribution offers. Imports neither torch nor torchattacks."""

from collections.abc import Iterable

from curricula.hooks import Record, hookimpl


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    yield Record(
        name="torchattacks-pgd",
        factory="curricula_torchattacks.attacks:TorchattacksPGD",
        summary="torchattacks' PGD in the l-inf ball",
        install="uv pip install curricula[torchattacks]",
    )
