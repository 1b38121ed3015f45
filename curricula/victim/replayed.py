"""Gradient passes of a frozen network on a GPU, replayed as CUDA graphs."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from curricula.victim.equivalence import TOLERANCE
from curricula.victim.outputs import logits_of

DEVICES = ("cuda",)  # types of devices that have such graphs
MAX_GRADIENT_DIFFERENCE = 0.05
"""Norm of the difference of two passes' gradients over the gradient's norm: bf16 sums vary."""


class ReplayedPasses:
    """Run the forward and the backward pass of a frozen network as CUDA graphs, for batches of one
    size.

    A graph starts all kernels of a pass at once. Started one by one, as Python reaches them, the
    kernels of a small network or batch take longer to start than to run. A graph reads the
    network's tensors in their memory, so it follows changes of weights that are made in place.

    The results of a pass are overwritten by the next one: copy them, and run the backward pass
    before the next forward pass.

    On its first batch the graph is compared with the network. The network itself is run, as for
    batches of other sizes, if it draws random numbers, if it cannot be captured (because it waits
    for the device, say), or if its results are not the graph's.

    Args:
        network: the network, whose weights require no gradients; in a mode that does not change.
        batch_size: number of images of the batches.
    """

    def __init__(self, network: nn.Module, batch_size: int) -> None:
        self.network = network
        self.batch_size = batch_size
        self._graph: Callable[[Tensor], Tensor] | None = None
        self._form: tuple[object, ...] = ()
        self._failed = False

    def replays(self, x_NCHW: Tensor) -> bool:
        """Return whether the graph runs this batch; the first batch is captured."""
        if (
            self._failed
            or x_NCHW.device.type not in DEVICES
            or len(x_NCHW) != self.batch_size
            or not (x_NCHW.requires_grad and torch.is_grad_enabled())
        ):
            return False
        device = x_NCHW.device.type
        precision = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        form = (x_NCHW.shape, x_NCHW.stride(), x_NCHW.dtype, x_NCHW.device, precision)
        if not self._form:
            self._form = form
            self._graph = _captured(self.network, x_NCHW)
            self._failed = self._graph is None
        return form == self._form and not self._failed

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Return the network's logits (N, K) of a batch that the graph runs."""
        assert self._graph is not None
        return self._graph(x_NCHW)


def _captured(network: nn.Module, x_NCHW: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return a function that replays a network's passes for batches like the given one; None if
    they cannot be replayed."""

    def run(x: Tensor) -> Tensor:
        logits: Tensor = logits_of(network(x))
        return logits

    device = x_NCHW.device
    uncached = torch.autocast(
        device.type,
        torch.get_autocast_dtype(device.type),
        torch.is_autocast_enabled(device.type),
        cache_enabled=False,  # a cached copy of a weight would not follow it
    )
    with uncached, torch.random.fork_rng([device] if x_NCHW.is_cuda else []):
        batches = (x_NCHW, x_NCHW.flip(0))
        try:
            expected, again = ([_pass(run, x) for x in batches] for _ in range(2))
        except Exception:  # as without a gradient: the caller runs the network, and reports it
            return None
        if not all(
            torch.equal(one, other) for (one, _), (other, _) in zip(expected, again, strict=True)
        ):
            return None  # it draws random numbers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where they are errors, they would end the capture
            try:
                graph: Any = torch.cuda.make_graphed_callables(
                    run, (x_NCHW.detach().clone().requires_grad_(),)
                )
                found = [_pass(graph, x) for x in batches]
            except Exception:  # code that runs in a pass may raise anything in a capture
                return None
    same = all(_same(one, other) for one, other in zip(found, expected, strict=True))
    return cast("Callable[[Tensor], Tensor]", graph) if same else None


def _same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    """Return whether two passes returned the same logits and gradients, up to rounding."""
    (logits, gradient), (expected_logits, expected_gradient) = found, expected
    difference = (logits - expected_logits).abs().amax()
    return bool(difference <= TOLERANCE * expected_logits.abs().amax()) and bool(
        (gradient - expected_gradient).norm() <= MAX_GRADIENT_DIFFERENCE * expected_gradient.norm()
    )


def _pass(run: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of the logits of a pass, and of the gradient of the sum of their squares."""
    x = x_NCHW.detach().clone().requires_grad_()
    logits = run(x).float()
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach().clone(), gradient.float().clone()
