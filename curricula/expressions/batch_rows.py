"""Draw the random numbers of a whole batch, of which this process holds only some images.

In training a perturbation draws from one generator for all images of a batch. If several processes
share the batch, each draws the numbers of all images and keeps those of its images: then the
result does not depend on the number of processes.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import Tensor

from curricula.expressions.random_interception import GeneratorCalls


@attrs.frozen(eq=False)
class BatchRows:
    """The rows of a larger batch that this process holds.

    Attributes:
        index_N: number of each row in the batch, int64.
        total: number of rows of the batch.

    Example:
        >>> generator = torch.Generator()
        >>> whole = torch.rand((4, 2), generator=generator.manual_seed(0))
        >>> rows = BatchRows(torch.tensor([1, 2]), 4)
        >>> with rows.drawing(generator.manual_seed(0)):
        ...     own = torch.rand((2, 2), generator=generator)
        >>> torch.equal(own, whole[1:3])
        True
    """

    index_N: Tensor
    total: int

    def drawing(self, generator: torch.Generator) -> AbstractContextManager[Any]:
        """Return a context manager in which ``torch.rand`` and other random calls with this
        generator draw for all rows of the batch, and return this process's rows."""
        return _Drawing(self, generator)

    def of(self, chosen: Tensor, total: int, index_M: Tensor) -> "BatchRows":
        """Return the rows of a smaller batch that this process holds.

        Args:
            chosen: mask of all rows of this batch: those of the smaller one.
            total: their number.
            index_M: positions, among this process's rows, of those in the smaller batch.
        """
        numbers = (chosen.cumsum(0) - 1).clamp_min_(0)
        return BatchRows(numbers[self.index_N[index_M]], total)

    def repeated(self, times: int) -> "BatchRows":
        """Return the rows of ``times`` copies of this batch, one after another."""
        begins = torch.arange(times, device=self.index_N.device)[:, None] * self.total
        return BatchRows((begins + self.index_N).flatten(), times * self.total)


class _Drawing(GeneratorCalls):
    def __init__(self, rows: BatchRows, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.rows = rows

    def answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if func in (torch.rand, torch.randn) and args and isinstance(args[0], int):
            args = (args,)  # rand(2, 3) is rand((2, 3))
        wide_args = [self._wide(value) for value in args]
        wide_kwargs = {name: self._wide(value) for name, value in kwargs.items()}
        drawn = func(*wide_args, **wide_kwargs)
        if not (isinstance(drawn, Tensor) and drawn.ndim and len(drawn) == self.rows.total):
            if isinstance(drawn, Tensor) and drawn.ndim and len(drawn) == len(self.rows.index_N):
                _warn_once(getattr(func, "__name__", str(func)))
            return drawn
        own = drawn[self.rows.index_N]
        into = args[0] if args and drawn is wide_args[0] else kwargs.get("out")
        return into.copy_(own) if isinstance(into, Tensor) else own

    def _wide(self, value: Any) -> Any:
        """Return a tensor or shape of this process's rows as one of all rows of the batch."""
        rows = self.rows
        n = len(rows.index_N)
        if isinstance(value, Tensor) and value.ndim and len(value) == n:
            wide = value.new_zeros((rows.total, *value.shape[1:]))
            return wide.index_copy_(0, rows.index_N, value)
        if isinstance(value, Sequence) and value and isinstance(value[0], int) and value[0] == n:
            return (rows.total, *value[1:])
        return value


@functools.cache
def _warn_once(function: str) -> None:
    """Warn, once per function, that a random call drew for this process's images alone."""
    warnings.warn(
        f"{function}: this draw depends on the number of processes; use rand, randn, randint, "
        "normal or bernoulli",
        UserWarning,
        stacklevel=3,
    )
