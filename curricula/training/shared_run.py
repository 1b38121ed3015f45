"""The run folder of a training that several processes share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from curricula.runtime.processes import from_first, place
from curricula.training.run import Run

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen
class SharedRun(Run):
    """A run in which only the first process reads and writes files; the others receive from it what
    it has read.

    So all processes call its methods in the same order. The folder need not exist on the machines
    of the others.
    """

    def append(self, file: str, line: Mapping[str, Any]) -> None:
        if place().is_first:
            super().append(file, line)

    def copy(self, file: str, new: str) -> None:
        if place().is_first:
            super().copy(file, new)

    def remove(self, file: str) -> None:
        if place().is_first:
            super().remove(file)

    def holds(self, file: str) -> bool:
        held = super().holds
        return from_first(lambda: held(file))

    def save(
        self,
        file: str,
        tensors: "Mapping[str, Tensor]",
        metadata: Mapping[str, str] | None = None,
        *,
        previous: str | None = None,
    ) -> None:
        if place().is_first:
            super().save(file, tensors, metadata, previous=previous)

    def _write(self, file: str, content: bytes, *, previous: str | None = None) -> None:
        if place().is_first:
            super()._write(file, content, previous=previous)

    def _text(self, file: str) -> str | None:
        text = super()._text
        return from_first(lambda: text(file))

    def _content(self, file: str) -> bytes:
        content = super()._content
        return from_first(lambda: content(file))
