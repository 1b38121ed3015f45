"""Gradient passes of a frozen network on a GPU, replayed as CUDA graphs."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from curricula.victim.equivalence import TOLERANCE, equal_up_to
from curricula.victim.outputs import logits_of

DEVICES = ("cuda",)  # types of devices that have such graphs
MAX_GRADIENT_DIFFERENCE = 0.05
"""Norm of the difference of two passes' gradients over the gradient's norm: bf16 sums vary."""


class ReplayedPasses:
    """Run the forward and the backward pass of a frozen network as CUDA graphs, for batches of one
    size.

    A graph starts all kernels of a pass at once. Started one by one, as Python reaches them, the
    kernels of a small network or batch take longer to start than to run. A graph reads the
    network's tensors in their memory, so it follows changes of weights that are made in place. It
    does not follow numbers that Python reads, such as a variable outside the network.

    The results of a pass are overwritten by the next one: copy them, and run the backward pass
    before the next forward pass.

    The graph is compared with the network before it is used. The network itself is run, as for
    batches of other sizes, if its logits change from pass to pass, if it cannot be captured
    (because it waits for the device, say), or if its results are not the graph's. While its
    gradient is zero nothing can be compared; that is tried again on later batches.

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
        self._batches = 0

    def replays(self, x_NCHW: Tensor) -> bool:
        """Return whether the graph runs this batch; the first batch is captured."""
        if (
            self._failed
            or x_NCHW.device.type not in DEVICES
            or len(x_NCHW) != self.batch_size
            or not (x_NCHW.requires_grad and torch.is_grad_enabled())
        ):
            return False
        if self._graph is None:
            self._batches += 1
            if self._batches & (self._batches - 1):  # tried on batches 1, 2, 4, 8, ...
                return False
            try:
                self._graph = _captured(self.network, x_NCHW)
            except _NothingToCompareError:
                return False
            self._failed = self._graph is None
            self._form = _form(x_NCHW)
        return not self._failed and _form(x_NCHW) == self._form

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Return the network's logits (N, K) of a batch that the graph runs."""
        assert self._graph is not None
        return self._graph(x_NCHW)


class _NothingToCompareError(Exception):
    """The network's gradient is zero."""


def _form(x_NCHW: Tensor) -> tuple[object, ...]:
    """Return what must be the same in all batches of a graph."""
    device = x_NCHW.device.type
    precision = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
    return (x_NCHW.shape, x_NCHW.stride(), x_NCHW.dtype, x_NCHW.device, precision)


def _captured(network: nn.Module, x_NCHW: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return a function that replays a network's passes for batches like the given one; None if
    they cannot be replayed.

    Raises:
        _NothingToCompareError: the gradient is zero.
    """

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
            expected, again = ([_Pass.of(run, x) for x in batches] for _ in range(2))
        except Exception:  # as without a gradient: the caller runs the network, and reports it
            return None
        if not all(
            torch.equal(one.logits, other.logits)
            for one, other in zip(expected, again, strict=True)
        ):
            return None  # it draws random numbers
        if not all(one.gradient.any() for one in expected):
            raise _NothingToCompareError
        try:
            with _capture(device):
                graph: Any = torch.cuda.make_graphed_callables(
                    run, (x_NCHW.detach().clone().requires_grad_(),)
                )
            found = [_Pass.of(graph, x) for x in batches]
        except Exception:  # code that runs in a pass may raise anything in a capture
            return None
    same = all(one.equals(other) for one, other in zip(found, expected, strict=True))
    return cast("Callable[[Tensor], Tensor]", graph) if same else None


@contextmanager
def _capture(device: torch.device) -> Iterator[None]:
    """Prepare the process for a capture on a device inside the block, and restore it afterwards,
    also after a failure."""
    collects = gc.isenabled()
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
            stack.enter_context(torch.cuda.stream(torch.cuda.current_stream(device)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # where they are errors, they would end the capture
        gc.collect()  # an earlier graph that is freed during a capture ends it
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


@attrs.frozen(kw_only=True, eq=False)
class _Pass:
    """A pass and copies of what it returned.

    Attributes:
        logits: (N, K), as the network returned them.
        gradient: of the sum of their squares in the images, NCHW.
    """

    logits: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, run: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> "_Pass":
        """Return a pass of a batch."""
        x = x_NCHW.detach().clone().requires_grad_()
        logits = run(x)
        (gradient,) = torch.autograd.grad(logits.float().square().sum(), x)
        return cls(logits=logits.detach().clone(), gradient=gradient.float().clone())

    def equals(self, other: "_Pass") -> bool:
        """Return whether the results of two passes are the same up to rounding."""
        tolerance = max(TOLERANCE, 2 * torch.finfo(other.logits.dtype).eps)
        difference = (self.gradient - other.gradient).norm()
        return equal_up_to(self.logits.float(), other.logits.float(), tolerance) and bool(
            difference <= MAX_GRADIENT_DIFFERENCE * other.gradient.norm()
        )
