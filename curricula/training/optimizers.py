"""torch's optimisers, without the import of torch's compiler.

torch wraps some methods of its optimisers to keep its compiler out of them, and that wrapper
imports the compiler (`torch._dynamo`), which takes longer than torch itself. curricula compiles
networks, never an optimiser, so these classes use the methods inside the wrappers: the numbers are
the same, bit for bit.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


class _Uncompiled(Optimizer):
    """A mixin for optimisers that leaves out the wrappers that import torch's compiler."""

    add_param_group: Any = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict: Any = inspect.unwrap(Optimizer.load_state_dict)
    state_dict: Any = inspect.unwrap(Optimizer.state_dict)
    zero_grad: Any = inspect.unwrap(Optimizer.zero_grad)


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW` without the wrappers that import torch's compiler."""

    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(_Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD` without the wrappers that import torch's compiler."""

    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


STATE_TENSORS: Mapping[type[Optimizer], tuple[str, ...]] = {
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
    SGD: ("momentum_buffer",),
}
"""Names of the tensors that an optimiser keeps for each parameter it has updated."""
