"""Averages of the weights over training; they are validated, saved and evaluated instead.

Only `averaged` imports torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import attrs
from attrs.validators import and_, ge, lt

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel


class Averaging(Protocol):
    """A rule that says which snapshots of the weights are averaged, and with which share.

    Attributes:
        joins_after: when the weights join the average: after each update or each epoch.
        start: fraction of training after which weights join, in [0, 1).
    """

    @property
    def joins_after(self) -> Literal["update", "epoch"]: ...
    @property
    def start(self) -> float: ...

    def share(self, n: int) -> float:
        """Return the share, in [0, 1], of the newest snapshot in an average with ``n`` earlier
        ones.

        Args:
            n: number of earlier snapshots, 1 or more.
        """
        ...


@attrs.frozen(kw_only=True)
class ExponentialAverage:
    """`ema`: an exponential moving average of the weights over updates.

    After n updates the decay is at most (1 + n) / (10 + n), so that the initial weights are soon
    forgotten.

    >>> [round(ExponentialAverage(decay=0.9).share(n), 2) for n in (1, 10, 1000)]
    [0.82, 0.45, 0.1]

    Args:
        decay: weight of the old average at each update, in [0, 1).

    Raises:
        ValueError: a value out of range.
    """

    joins_after: ClassVar[Literal["update"]] = "update"
    start: ClassVar[float] = 0.0

    decay: float = attrs.field(default=0.999, validator=and_(ge(0.0), lt(1.0)))

    def share(self, n: int) -> float:
        return 1 - min(self.decay, (1 + n) / (10 + n))


@attrs.frozen(kw_only=True)
class StochasticAverage:
    """`swa`: the mean of the weights at the end of each epoch (Izmailov et al. 2018).

    Chen et al. 2021 use it against robust overfitting.

    Args:
        start: fraction of training after which epochs count, in [0, 1).

    Raises:
        ValueError: a value out of range.
    """

    joins_after: ClassVar[Literal["epoch"]] = "epoch"

    start: float = attrs.field(default=0.5, validator=and_(ge(0.0), lt(1.0)))

    def share(self, n: int) -> float:
        return 1 / (n + 1)


def averaged(model: "nn.Module", averaging: Averaging) -> "AveragedModel":
    """Return an average of a model's weights that contains no snapshot yet.

    Batch-norm statistics are averaged too; integer buffers are copied from the newest snapshot.
    """

    import torch
    from torch.optim.swa_utils import AveragedModel

    from curricula.victim.copies import copied

    def join(average: "Sequence[Tensor]", weights: "Sequence[Tensor]", _: Any) -> None:
        share = averaging.share(int(average_model.n_averaged))  # on the CPU: no wait for the device
        if average[0].is_floating_point():
            torch._foreach_lerp_(list(average), list(weights), share)
        else:
            torch._foreach_copy_(list(average), list(weights))

    with torch.no_grad():  # otherwise its copies of TorchScript's weights are no leaves
        average_model = AveragedModel(copied(model), multi_avg_fn=join, use_buffers=True)
    return average_model


NONE = "none"
"""The name of no average."""
FACTORIES: Mapping[str, Callable[..., Averaging]] = {
    "ema": ExponentialAverage,
    "swa": StochasticAverage,
}


def parse_averaging(text: str) -> factories.Built:
    """Return the average that an expression such as ``ema(decay=0.99)`` describes (None for
    ``none``), and the expression with every default stated.

    Raises:
        UserError: an unknown name or argument, a value out of range.
    """
    call = parse_call(text)
    if call.name == NONE and not call.arguments:
        return factories.Built(value=None, call=call)
    if call.name not in FACTORIES:
        raise UserError(f"unknown average {text!r}; known: {', '.join((NONE, *FACTORIES))}")
    return factories.call_factory(FACTORIES[call.name], "average", call)
