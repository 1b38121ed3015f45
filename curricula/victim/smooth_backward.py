"""A network whose backward pass is that of smooth relatives of its activations.

The gradient of a network is of no use where its activations are constant by pieces (rounding, sign,
thresholds), saturated, or sparse (the k largest of a layer): it is zero, or that of one piece. So
on the way back each activation is replaced by a smooth relative, while on the way forward it stays
as it is (backward pass differentiable approximation, BPDA; Athalye et al. 2018, "Obfuscated
gradients give a false sense of security", section 4.1).

The relative is not chosen for each activation. It is the activation averaged over a window, and its
derivative is a difference of two values, (f(x + d) - f(x - d)) / 2d, averaged over the half widths
d of ``WIDTHS``. So one rule serves every function of single values, by name (``ACTIVATIONS``) or in
a module of third-party code without weights. Such a module may also combine its values, as the k
largest do; each value is therefore moved up or down at random.

A comparison, such as ``x >= threshold``, has the relative of a step. Its derivative reaches what
the network makes of the mask: a conversion to numbers, a product, ``where`` or ``masked_fill``. Max
pooling has that of the logarithm of the mean exponential. An ``autograd.Function`` called by a
module with weights is not replaced.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from curricula.interfaces import AttackLoss, Victim
from curricula.runtime.random_state import seeded
from curricula.victim.wrapped import WrappedVictim

WIDTHS = (0.25, 0.5, 1.0, 2.0)  # standard deviations of an image's values: half a window
LEAST_WIDTH = 1e-4  # share of an image's largest value: its standard deviation, if it is below
SEED = 0  # of the random directions
# Names of functions of single values whose derivative is zero on an interval, or everywhere.
ACTIVATIONS = {
    "sign", "sgn", "round", "floor", "ceil", "trunc", "fix", "frac", "relu", "relu6", "hardtanh",
    "hardsigmoid", "hardswish", "clamp", "clip", "clamp_min", "clamp_max", "hardshrink",
    "softshrink", "threshold", "_threshold", "sigmoid", "tanh",
}  # fmt: skip
COMPARISONS = dict.fromkeys(("gt", "ge", "greater", "greater_equal"), 1.0)
COMPARISONS |= dict.fromkeys(("lt", "le", "less", "less_equal"), -1.0)
CONVERSIONS = {"float", "double", "half", "bfloat16", "to", "type", "type_as"}
PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__"}


def with_smooth_backward(victim: Victim) -> Victim:
    """Return a victim with the same logits and losses, whose gradients are those of smooth
    relatives of the network's activations.

    Example:
        >>> from curricula import ModelVictim
        >>> class Steps(nn.Module):
        ...     def forward(self, x):
        ...         return (4 * x).round().flatten(1)
        >>> victim = ModelVictim(Steps())
        >>> x, y = torch.rand(2, 1, 1, 3), torch.tensor([0, 1])
        >>> victim.gradient(x, y)[0].any().item()
        False
        >>> with_smooth_backward(victim).gradient(x, y)[0].any().item()
        True
    """
    return _SmoothVictim(victim)


@attrs.frozen
class _SmoothVictim(WrappedVictim):
    """A victim whose gradients are those of smooth relatives of the network's activations."""

    def logits(self, x_NCHW: Tensor) -> Tensor:
        return self.victim.logits(x_NCHW)

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with _smooth_backward():
            return self.victim.gradient(x_NCHW, y_N, loss)


@contextmanager
def _smooth_backward() -> Iterator[None]:
    """Give the passes inside the block that record gradients the backward pass of smooth
    relatives."""
    entered: list[tuple[nn.Module, Tensor]] = []  # modules to replace whose pass has begun

    def before(module: nn.Module, args: Any) -> Any:
        if not _is_foreign_activation(module, args):
            return None
        entered.append((module, args[0]))
        return (args[0].clone(),)  # the module may write to it

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if not (entered and entered[-1][0] is module):
            return None
        x = entered.pop()[1]
        if not (isinstance(output, Tensor) and output.shape == x.shape):
            return None
        return _straight_through(output.detach(), x, _slope(module.forward, x, mixed=True))

    hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after)
    try:
        with _SmoothFunctions():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_foreign_activation(module: nn.Module, args: tuple[Any, ...]) -> bool:
    """Return whether a module is third-party code without weights that is given one tensor; torch's
    own modules call functions that are replaced themselves."""
    return (
        len(args) == 1
        and _is_recorded(args[0])
        and not type(module).__module__.startswith("torch.nn.")
        and next(module.parameters(), None) is None
    )


def _is_recorded(x: Any) -> bool:
    """Return whether a value is a batch of numbers whose gradients are recorded."""
    return (
        isinstance(x, Tensor)
        and torch.is_grad_enabled()
        and x.requires_grad
        and x.ndim > 1
        and x.is_floating_point()
    )


def _straight_through(value: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """Return ``value``, whose gradient in x is ``slope``."""
    return value + (x - x.detach()) * slope


def _slope(function: Callable[[Tensor], Tensor], x: Tensor, *, mixed: bool = False) -> Tensor:
    """Return the derivative of a function averaged over windows around each value of x.

    Args:
        function: returns a tensor of the shape of x.
        x: values, with an axis of images before the others.
        mixed: move each value up or down at random; otherwise all move up, then down.
    """
    with torch.no_grad():
        values = x.detach()
        flat = values.flatten(1)
        least = (LEAST_WIDTH * flat.abs().amax(1)).clamp_min(1e-6)
        spread = flat.std(1, correction=0).maximum(least).reshape(-1, *[1] * (x.ndim - 1))
        generator = torch.Generator(x.device).manual_seed(SEED)
        slope = torch.zeros_like(values)
        for width in WIDTHS:
            move = width * spread
            if mixed:
                shape = (1, *values.shape[1:])
                signs = torch.randint(2, shape, generator=generator, device=x.device) * 2 - 1
                move = move * signs
            with seeded(SEED, x.device):
                upper = function(values + move)
            with seeded(SEED, x.device):
                lower = function(values - move)
            slope += (upper - lower) / (2 * move)
        return slope / len(WIDTHS)


class _SmoothFunctions(TorchFunctionMode):
    """Give functions of torch the backward pass of a smooth relative, where gradients are
    recorded."""

    def __init__(self) -> None:
        super().__init__()
        # Each mask of a comparison, by its id, with a tensor of zeros that has its gradient.
        self.masks: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not args:
            return func(*args, **kwargs)
        name, x = getattr(func, "__name__", ""), args[0]
        if name in ACTIVATIONS and _is_recorded(x):
            kwargs = kwargs | {"inplace": False} if "inplace" in kwargs else kwargs
            rest = args[1:]

            def function(values: Tensor) -> Tensor:
                found: Tensor = func(values, *rest, **kwargs)
                return found

            return _straight_through(function(x).detach(), x, _slope(function, x))
        result = func(*args, **kwargs)
        if func is F.max_pool2d and _is_recorded(x) and isinstance(result, Tensor):
            return _smooth_max(result.detach(), x, *args[1:], **kwargs)
        if name in COMPARISONS and len(args) == 2:
            self._compared(result, x, args[1], COMPARISONS[name])
        elif isinstance(result, Tensor) and result.is_floating_point():
            return result + self._gradient_of_masks(name, args, result)
        elif name in ("logical_not", "bitwise_not", "__invert__") and id(x) in self.masks:
            self.masks[id(result)] = (result, -self.masks[id(x)][1])
        return result

    def _compared(self, mask: Tensor, x: Any, other: Any, sign: float) -> None:
        """Remember the gradient of a mask, that of a smooth step."""
        if not (_is_recorded(x) or _is_recorded(other)):
            return
        difference = x - other
        if not _is_recorded(difference):
            return
        step = _slope(lambda values: (values > 0).to(values.dtype), difference)
        zero = sign * (difference - difference.detach()) * step
        self.masks[id(mask)] = (mask, zero)

    def _gradient_of_masks(
        self, name: str, args: tuple[Any, ...], result: Tensor
    ) -> Tensor | float:
        """Return zeros with the gradient that a result has by a mask among its arguments."""
        for place, arg in enumerate(args):
            if id(arg) not in self.masks:
                continue
            zero = self.masks[id(arg)][1]
            if name in CONVERSIONS and place == 0:
                return zero.to(result.dtype)
            if name in PRODUCTS:
                other = args[1 - place]
                return zero * (other.detach() if isinstance(other, Tensor) else other)
            if name == "where" and place == 0 and len(args) == 3:
                return zero * _finite(args[1], result) - zero * _finite(args[2], result)
            if name == "masked_fill" and place == 1:
                return zero * _finite(args[2], result) - zero * _finite(args[0], result)
        return 0.0


def _finite(value: Any, like: Tensor) -> Tensor:
    """Return what a mask chooses, a tensor or a number, without gradient and with 0 for what is not
    finite."""
    found = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return found.detach().nan_to_num(0.0, 0.0, 0.0)


def _smooth_max(
    result: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Return the result of max pooling, with the gradient of the logarithm of the mean exponential
    in units of an image's standard deviation."""
    if dilation not in (1, (1, 1)):
        return F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    flat = x.detach().flatten(1)
    scale = 0.25 * flat.std(1, correction=0).clamp_min(1e-6).reshape(-1, 1, 1, 1)
    largest = flat.amax(1).reshape(-1, 1, 1, 1)
    mean = F.avg_pool2d(((x - largest) / scale).exp(), kernel_size, stride, padding, ceil_mode)
    smooth = scale * mean.clamp_min(torch.finfo(x.dtype).tiny).log()
    return result + (smooth - smooth.detach())
