"""How many images went through a training's networks, and which way."""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from curricula.training.step import Networks


@attrs.define(kw_only=True)
class PassCounter:
    """Images that passed, counted from `watching` on, until `stop`.

    Attributes:
        gradient: forward, and backward to the image: a step of an attack.
        forward: forward alone.
        training: forward, and backward to the weights.
    """

    gradient: int = 0
    forward: int = 0
    training: int = 0
    hooks: list[RemovableHandle] = attrs.field(factory=list, repr=False, eq=False)

    @classmethod
    def attach(cls, networks: Networks) -> "PassCounter":
        """Those of a training's networks from now on."""
        passes = cls()
        passes.hooks = [
            networks.victim.as_module().register_forward_pre_hook(passes._attacked()),
            networks.running.register_forward_pre_hook(passes._trained()),
        ]
        return passes

    def _attacked(self) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].requires_grad and torch.is_grad_enabled():
                self.gradient += len(inputs[0])
            else:
                self.forward += len(inputs[0])

        return see

    def _trained(self) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.training += len(inputs[0])

        return see

    def pop(self) -> dict[str, int]:
        """The counts by name, and back to zero."""
        counts = {"gradient": self.gradient, "forward": self.forward, "training": self.training}
        self.gradient = self.forward = self.training = 0
        return counts

    def stop(self) -> None:
        """Count no more."""
        for hook in self.hooks:
            hook.remove()
