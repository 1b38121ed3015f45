"""Count the images that pass forward and backward through the networks of a training."""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from curricula.runtime.processes import sum_over
from curricula.training.metrics import PassCounts
from curricula.training.step import Networks


@attrs.define(kw_only=True)
class PassCounter:
    """Count the images that pass through a training's networks, by kind of pass, from `attach`
    until `stop`.

    Attributes:
        gradient, forward, training: the counts of this process.
        hooks: the hooks that count.
    """

    gradient: int = 0
    forward: int = 0
    training: int = 0
    hooks: list[RemovableHandle] = attrs.field(factory=list, repr=False, eq=False)

    @classmethod
    def attach(cls, networks: Networks) -> "PassCounter":
        """Return a counter of the images that pass through a training's networks from now on."""
        counter = cls()
        counter.hooks = [
            networks.victim.as_module().register_forward_pre_hook(counter._count_victim()),
            networks.running.register_forward_pre_hook(counter._count_training()),
        ]
        return counter

    def _count_victim(self) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].requires_grad and torch.is_grad_enabled():
                self.gradient += len(inputs[0])
            else:
                self.forward += len(inputs[0])

        return count

    def _count_training(self) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.training += len(inputs[0])
            if inputs[0].requires_grad:  # by an objective that differentiates the gradient there
                self.gradient += len(inputs[0])

        return count

    def counts(self) -> PassCounts:
        """Return the numbers of images counted so far in all processes, by kind of pass."""
        counts = sum_over(torch.tensor([self.gradient, self.forward, self.training])).tolist()
        return PassCounts(gradient=counts[0], forward=counts[1], training=counts[2])

    def set(self, counts: PassCounts) -> None:
        """Set the counts to those of an interrupted epoch, and continue counting from there."""
        self.gradient = counts.gradient
        self.forward = counts.forward
        self.training = counts.training

    def pop(self) -> PassCounts:
        """Return the numbers of images counted so far in all processes, by kind of pass, and reset
        them to zero."""
        counts = self.counts()
        self.gradient = self.forward = self.training = 0
        return counts

    def stop(self) -> None:
        """Stop counting the images that pass through the networks."""
        for hook in self.hooks:
            hook.remove()
