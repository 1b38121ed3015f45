"""Count the images that pass forward and backward through the networks of a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from curricula.runtime.processes import place, sum_over
from curricula.training.metrics import PassCounts
from curricula.training.step import Networks
from curricula.victim.frozen import FrozenModel

_Count = Callable[[nn.Module, tuple[Tensor, ...]], None]


@attrs.define(kw_only=True)
class PassCounter:
    """Count the images that pass through a training's networks, by kind of pass, from `attach`
    until `stop`.

    Attributes:
        totals: the counts of this process, by field of `PassCounts`.
        hooks: the hooks that count.
    """

    totals: dict[str, int] = attrs.field(factory=lambda: attrs.asdict(PassCounts()))
    hooks: list[RemovableHandle] = attrs.field(factory=list, repr=False, eq=False)

    @classmethod
    def attach(cls, networks: Networks) -> "PassCounter":
        """Return a counter of the images that pass through a training's networks from now on."""
        counter = cls()
        victim = networks.victim.as_module()
        counter.hooks = [
            victim.register_forward_pre_hook(counter._counting("gradient", "forward")),
            networks.running.register_forward_pre_hook(counter._count_training),
        ]
        return counter

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Also count the images that meanwhile pass through frozen copies of any network, as those
        of the validation."""
        count = self._counting("validation_gradient", "validation_forward")

        def count_frozen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if isinstance(module, FrozenModel):
                count(module, inputs)

        hook = register_module_forward_pre_hook(count_frozen)
        try:
            yield
        finally:
            hook.remove()

    def _counting(self, with_gradient: str, without: str) -> _Count:
        """Return a hook that counts images under one of two kinds, by whether their gradient is
        wanted."""

        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            wanted = inputs[0].requires_grad and torch.is_grad_enabled()
            self.totals[with_gradient if wanted else without] += len(inputs[0])

        return count

    def _count_training(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.totals["training" if torch.is_grad_enabled() else "forward"] += len(inputs[0])
        if inputs[0].requires_grad:  # by an objective that differentiates the gradient there
            self.totals["gradient"] += len(inputs[0])

    def counts(self) -> PassCounts:
        """Return the numbers of images counted so far in all processes, by kind of pass."""
        summed = sum_over(torch.tensor(list(self.totals.values()))).tolist()
        return PassCounts(**dict(zip(self.totals, summed, strict=True)))

    def set(self, counts: PassCounts) -> None:
        """Set the counts of all processes together, and continue counting from there."""
        own = counts if place().is_first else PassCounts()  # they are summed
        self.totals = attrs.asdict(own)

    def pop(self) -> PassCounts:
        """Return the numbers of images counted so far in all processes, by kind of pass, and reset
        them to zero."""
        counts = self.counts()
        self.set(PassCounts())
        return counts

    def stop(self) -> None:
        """Stop counting the images that pass through the networks."""
        for hook in self.hooks:
            hook.remove()
