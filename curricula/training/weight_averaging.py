"""Averages of the weights over training: what is validated, kept and measured in their place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import attrs
import torch
from attrs.validators import and_, ge, lt
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from curricula.expressions import factories
from curricula.training.checks import check_average


class Averaging(Protocol):
    """Which weights are averaged, and how.

    Attributes:
        each: after what the weights join the average.
        start: from which fraction of training on, in [0, 1).
    """

    @property
    def each(self) -> Literal["update", "epoch"]: ...
    @property
    def start(self) -> float: ...

    def share(self, n: int) -> float:
        """Of the weights in the average that they join, after n others, 1 or more."""
        ...


@attrs.frozen(kw_only=True)
class ExponentialAverage:
    """`ema`: after each update, ``decay`` times the average plus the rest of the weights. After n
    updates the decay is (1 + n) / (10 + n) at most, so that the fresh weights are soon forgotten.

    Args:
        decay: from 0 to below 1.
    """

    each: ClassVar[Literal["update"]] = "update"
    start: ClassVar[float] = 0.0

    decay: float = attrs.field(default=0.999, validator=and_(ge(0.0), lt(1.0)))

    def share(self, n: int) -> float:
        return 1 - min(self.decay, (1 + n) / (10 + n))


@attrs.frozen(kw_only=True)
class StochasticAverage:
    """`swa`: the mean of the weights at the end of each epoch (Izmailov et al. 2018), as Chen et
    al. 2021 take it against robust overfitting.

    Args:
        start: the fraction of training after which epochs count, from 0 to below 1.
    """

    each: ClassVar[Literal["epoch"]] = "epoch"

    start: float = attrs.field(default=0.5, validator=and_(ge(0.0), lt(1.0)))

    def share(self, n: int) -> float:
        return 1 / (n + 1)


def averaged(model: nn.Module, averaging: Averaging) -> AveragedModel:
    """An average that no weights have joined yet. Batch norm's statistics are averaged, too;
    whole numbers are those of the last weights that joined."""

    def join(average: Sequence[Tensor], weights: Sequence[Tensor], _: Any) -> None:
        share = averaging.share(int(result.n_averaged))  # on the CPU: no device is waited for
        if average[0].is_floating_point():
            torch._foreach_lerp_(list(average), list(weights), share)
        else:
            torch._foreach_copy_(list(average), list(weights))

    result = AveragedModel(model, multi_avg_fn=join, use_buffers=True)
    return result


FACTORIES: Mapping[str, Callable[..., Averaging]] = {
    "ema": ExponentialAverage,
    "swa": StochasticAverage,
}


def parse_averaging(text: str) -> factories.Built:
    """An average from its expression, such as ``ema(decay=0.99)``: the object, None for ``none``,
    and the call that states every default.

    Raises:
        UserError: an unknown name or argument, a value out of range.
    """
    call = check_average(text)
    if call.name not in FACTORIES:
        return factories.Built(value=None, call=call)
    return factories.call_factory(FACTORIES[call.name], "average", call)
