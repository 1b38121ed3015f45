"""The contract of an optimiser: one function for each clause, which raises AssertionError.

A clause takes the factory, and the arguments of the call. Under pytest::

    @pytest.mark.parametrize("clause", OPTIMIZER_CLAUSES)
    def test_lion_keeps_the_contract(clause):
        clause(Lion)
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from curricula.testing.contract import broken_clauses
from curricula.training.optimizers import Groups, state_problem

SETTINGS: Mapping[str, float] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}
SHAPES = ((4, 3, 2, 2), (3, 4), (4,))  # of the parameters
UPDATES = 40


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def _groups(parameters: list[nn.Parameter], lr: float = SETTINGS["lr"]) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": lr, "base_lr": lr}]


def _make(factory: Callable[..., Any], groups: Groups, arguments: Mapping[str, Any]) -> Optimizer:
    """Return the optimiser that a factory builds, given the settings that it has parameters for."""
    known = inspect.signature(factory).parameters
    settings = {name: value for name, value in SETTINGS.items() if name in known}
    optimizer = factory(params=groups, **settings, **arguments)
    assert isinstance(optimizer, Optimizer), (
        f"a {type(optimizer).__name__}, not a torch.optim.Optimizer"
    )
    return optimizer


def _make_with_parameters(
    factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[Optimizer, list[nn.Parameter]]:
    """Return the optimiser of new parameters in one group, and these parameters."""
    parameters = _parameters()
    return _make(factory, _groups(parameters), arguments), parameters


def _update(optimizer: Optimizer, parameters: list[nn.Parameter], count: int) -> None:
    """Take a number of updates on the sum of squares."""
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        torch.stack([each.square().sum() for each in parameters]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def groups_keep_their_rates(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that the factory takes `params` and `lr`, and that each group keeps its own rate."""
    known = inspect.signature(factory).parameters
    for name in ("params", "lr"):
        assert name in known, f"the factory has no parameter {name}"
    first, *others = _parameters()
    groups = [*_groups([first], 0.5), *_groups(others, 0.25)]
    optimizer = _make(factory, groups, arguments)
    rates = [(group.get("lr"), group.get("base_lr")) for group in optimizer.param_groups]
    assert rates == [(0.5, 0.5), (0.25, 0.25)], f"lr and base_lr of the groups are {rates}"


def updates_lower_the_loss(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that the sum of squares falls, and that every parameter stays finite."""
    optimizer, parameters = _make_with_parameters(factory, arguments)
    before = sum(float(each.detach().square().sum()) for each in parameters)
    _update(optimizer, parameters, UPDATES)
    for each in parameters:
        assert each.isfinite().all(), "a parameter is not finite"
    after = sum(float(each.detach().square().sum()) for each in parameters)
    assert after < before, f"the loss rose from {before:g} to {after:g} in {UPDATES} updates"


def updates_follow_the_learning_rate(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that a group whose `lr` is set to 0, as a schedule may do, does not move."""
    optimizer, parameters = _make_with_parameters(factory, arguments)
    _update(optimizer, parameters, 1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [each.detach().clone() for each in parameters]
    _update(optimizer, parameters, 1)
    for each, was in zip(parameters, before, strict=True):
        assert torch.equal(each.detach(), was), "a parameter moves at a learning rate of 0"


def parameters_without_gradient_stay(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that a parameter whose gradient is None does not change."""
    optimizer, parameters = _make_with_parameters(factory, arguments)
    before = parameters[1].detach().clone()
    _update(optimizer, [parameters[0], parameters[2]], 3)
    assert torch.equal(parameters[1].detach(), before), "a parameter without gradient changed"


def state_is_tensors_of_parameters(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that everything that updates change is a tensor in `state[parameter]`."""
    optimizer, _ = _make_with_parameters(factory, arguments)
    problem = state_problem(optimizer)
    assert problem is None, problem


def checkpoint_restores_the_optimizer(factory: Callable[..., Any], **arguments: Any) -> None:
    """Check that a new optimiser continues identically from the saved tensors of its state."""
    optimizer, parameters = _make_with_parameters(factory, arguments)
    _update(optimizer, parameters, UPDATES)
    copies = [nn.Parameter(each.detach().clone()) for each in parameters]
    resumed = _make(factory, _groups(copies), arguments)
    resumed.state.clear()
    for each, copied in zip(parameters, copies, strict=True):
        resumed.state[copied] = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in optimizer.state[each].items()
        }
    _update(optimizer, parameters, UPDATES)
    _update(resumed, copies, UPDATES)
    for each, copied in zip(parameters, copies, strict=True):
        assert torch.equal(each, copied), "a continued optimiser takes other updates"


OPTIMIZER_CLAUSES: tuple[Callable[..., None], ...] = (
    groups_keep_their_rates,
    updates_lower_the_loss,
    updates_follow_the_learning_rate,
    parameters_without_gradient_stay,
    state_is_tensors_of_parameters,
    checkpoint_restores_the_optimizer,
)


def check_optimizer(factory: Callable[..., Any], **arguments: Any) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold.

    Args:
        factory: the factory of the optimiser's record.
        arguments: arguments of the call.
    """
    return broken_clauses(OPTIMIZER_CLAUSES, factory, **arguments)
