"""The part that victims around a different one have in common."""

from typing import Self

import attrs
from torch import Tensor, nn

from curricula.interfaces import Victim


@attrs.frozen
class WrappedVictim:
    """Base of the victims around another one: it decides which images are active and which module
    they attack.

    Attributes:
        victim: the other victim.
    """

    victim: Victim

    def with_reference(self, x_NCHW: Tensor) -> Self:
        return attrs.evolve(self, victim=self.victim.with_reference(x_NCHW))

    def subset(self, index: Tensor) -> Self:
        return attrs.evolve(self, victim=self.victim.subset(index))

    def active(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        return self.victim.active(logits_NK, y_N)

    def as_module(self) -> nn.Module:
        return self.victim.as_module()
