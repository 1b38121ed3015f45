"""Optimisers: torch's, without the import of torch's compiler, and those of plugins.

torch wraps some methods of its optimisers to keep its compiler out of them, and that wrapper
imports the compiler (`torch._dynamo`), which takes longer than torch itself. curricula compiles
networks, never an optimiser, so these classes use the methods inside the wrappers: the numbers are
the same, bit for bit.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from curricula.errors import UserError, message_of, shown
from curricula.expressions import factories
from curricula.expressions.given import is_given
from curricula.expressions.syntax import error_in, parse_call
from curricula.training.config import TrainConfig
from curricula.training.learning_rate import parse_learning_rate

Groups: TypeAlias = Sequence[dict[str, Any]]
"""Groups of parameters, each with its ``params``, ``lr`` and ``base_lr``."""

Factory: TypeAlias = Callable[..., Optimizer]
"""A class or function that returns an optimiser for groups of parameters."""

SETTINGS = ("lr", "momentum", "weight_decay")  # fields of the configuration
TRIED_SHAPES = ((4, 3, 2, 2), (3, 4), (4,))  # of the parameters on which an optimiser is tried
TRIED_UPDATES = 2


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


def sgd(
    params: Groups, lr: float, momentum: float, weight_decay: float, nesterov: bool = False
) -> Optimizer:
    """Return stochastic gradient descent with momentum, as `torch.optim.SGD`.

    Args:
        nesterov: use Nesterov momentum, which needs a momentum above 0.

    Raises:
        ValueError: Nesterov momentum without momentum.
    """
    if nesterov and not momentum:
        raise ValueError("nesterov=true needs a momentum (--momentum) above 0")
    return SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def adamw(
    params: Groups,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.

    Args:
        beta1: decay rate of the mean of the gradients, from 0 to below 1.
        beta2: decay rate of the mean of their squares, from 0 to below 1.
        eps: number added to the denominator, above 0.

    Raises:
        ValueError: a value out of range.
    """
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie from 0 to below 1, not {value:g}")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, not {eps:g}")
    return AdamW(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)


def build_optimizer(
    config: TrainConfig, groups: Groups, factory: Factory | None = None
) -> factories.Built:
    """Return the optimiser of a configuration for groups of parameters, and its expression with
    every default stated.

    The factory receives those of the fields ``lr``, ``momentum`` and ``weight_decay`` that it has
    parameters for. An optimiser without momentum ignores the field, whose default is not 0.

    Args:
        config: the configuration.
        groups: the groups of parameters.
        factory: an optimiser's class or function that was handed over in Python.

    Raises:
        UserError: an argument is unknown, missing, out of range or a field of the configuration;
            the optimiser has no weight decay and the field is not 0; it is not one of torch's.
    """
    call = parse_call(config.optimizer)
    if factory is not None:
        return factories.Built(value=_given(config, groups, factory), call=call)
    for argument in call.arguments:
        if argument.key in SETTINGS:
            flag = argument.key.replace("_", "-")
            raise error_in(call, f"{argument.key} is a setting; write {argument.key} (--{flag})")
    known = factories.parameters_of("optimizer", call.name)
    if "weight_decay" not in known and config.weight_decay:
        raise error_in(
            call,
            f"it has no weight decay: set weight_decay (--weight-decay) to 0, not "
            f"{config.weight_decay:g}",
        )
    fields = {name: getattr(config, name) for name in SETTINGS if name in known}
    built = factories.build("optimizer", call, supplied={"params": list(groups), **fields})
    if not isinstance(built.value, Optimizer):
        raise error_in(call, f"it must be a torch.optim.Optimizer, not {shown(built.value)}")
    return built


def _given(config: TrainConfig, groups: Groups, factory: Factory) -> Optimizer:
    """Return the optimiser of a factory that was handed over in Python, which receives those fields
    that it has parameters for.

    Raises:
        UserError: it fails, or returns something else.
    """
    try:
        known = inspect.signature(factory).parameters
        found = factory(
            list(groups), **{name: getattr(config, name) for name in SETTINGS if name in known}
        )
    except Exception as error:  # of third-party code
        raise UserError(
            f"optimizer {config.optimizer} failed ({message_of(error)}): it must be a class or "
            "function of (params), and of lr, momentum and weight_decay if it has them"
        ) from error
    if not isinstance(found, Optimizer):
        raise UserError(
            f"optimizer {config.optimizer} must return a torch.optim.Optimizer, not {shown(found)}"
        )
    return found


def resolve_optimizer(config: TrainConfig, factory: Factory | None = None) -> str:
    """Return the expression of a configuration's optimiser with every default stated, after trying
    it on a few small parameters.

    Args:
        config: the configuration.
        factory: as for `build_optimizer`.

    Raises:
        UserError: as `build_optimizer`; it fails; it keeps a state that no checkpoint holds.
    """
    with torch.random.fork_rng(devices=[]):
        parameters = [nn.Parameter(torch.ones(shape)) for shape in TRIED_SHAPES]
        groups = [{"params": parameters, "lr": config.lr, "base_lr": config.lr}]
        built = build_optimizer(config, groups, factory)
        problem = state_problem(built.value)
    if problem:
        raise error_in(built.call, problem)
    return str(built.call)


def with_defaults(config: TrainConfig) -> TrainConfig:
    """Return a configuration that states every default of its optimiser and its learning-rate
    schedule, which earlier versions did not. What was given in Python stays as it is.

    Raises:
        UserError: one of them is wrong.
    """
    optimizer, rate = config.optimizer, config.lr_schedule
    return attrs.evolve(
        config,
        optimizer=optimizer if is_given(optimizer) else resolve_optimizer(config),
        lr_schedule=rate if is_given(rate) else str(parse_learning_rate(rate).call),
    )


def state_problem(optimizer: Optimizer) -> str | None:
    """Return in words why a checkpoint cannot hold the state of an optimiser, or why it fails; None
    if it can.

    Args:
        optimizer: a new optimiser, which makes a few updates of its parameters.
    """
    before = _kept_elsewhere(optimizer)
    try:
        _update(optimizer)
    except Exception as error:
        return f"its step() fails ({type(error).__name__}: {message_of(error)})"
    for name, value in _kept_elsewhere(optimizer).items():
        if name not in before or not _equal(before[name], value):
            return (
                f"its updates change {name}, which a checkpoint does not hold; it must keep "
                "tensors in state[parameter]"
            )
    for key, of_key in optimizer.state_dict()["state"].items():
        if not isinstance(key, int):
            return f"its state has {shown(key)}, which is not of a parameter"
        for name, value in of_key.items():
            if not isinstance(value, Tensor):
                return f"its state {name} is {shown(value)}, not a tensor"
    return None


def tried(config: TrainConfig, groups: Groups, factory: Factory | None = None) -> Optimizer:
    """Return an optimiser of a configuration after updates of copies of some parameters, so that
    its state has the form of every such optimiser's."""
    optimizer: Optimizer = build_optimizer(config, _copied(groups), factory).value
    _update(optimizer)
    return optimizer


def _copied(groups: Groups) -> list[dict[str, Any]]:
    """Return groups of copies of parameters, with the same rates."""
    return [
        {
            "params": [nn.Parameter(each.detach().clone()) for each in group["params"]],
            "lr": group["lr"],
            "base_lr": group["base_lr"],
        }
        for group in groups
    ]


def _update(optimizer: Optimizer) -> None:
    for _ in range(TRIED_UPDATES):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()


def _kept_elsewhere(optimizer: Optimizer) -> dict[str, Any]:
    """Return copies of the values of an optimiser that are not in its state: those of its groups
    and its attributes, by name."""
    values = {
        f"param_groups[{number}][{name!r}]": value
        for number, group in enumerate(optimizer.param_groups)
        for name, value in group.items()
        if name != "params"
    }
    attributes = {
        name: value for name, value in vars(optimizer).items() if name not in ("state", "defaults")
    }
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in {**values, **attributes}.items()
        if isinstance(value, (Tensor, int, float, str, tuple, type(None)))
    }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)
