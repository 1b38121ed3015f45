"""Processes that share a training or a measurement: `torchrun` starts them, and they exchange
numbers through torch.distributed.

Outside `joined` there is one process, and every function returns at once. Only the functions that
exchange something import torch.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from curricula.errors import UserError, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

LAUNCHED = "TORCHELASTIC_RUN_ID"  # environment variable that torchrun sets
MAX_PROCESSES = 100_000  # processes of a group
_GROUPS = itertools.count()  # numbers of the groups that this program has joined, one after another


class FirstProcessError(UserError):
    """The error of the first process, raised in the others too."""


@attrs.frozen(kw_only=True)
class Place:
    """The place of this process among those of its group.

    Attributes:
        rank: its number in the group, from 0; process 0 writes the files.
        count: number of processes.
        local_rank: its number on its machine, from 0.
        local_count: number of processes on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """True for the process that writes the files and speaks to the user."""
        return self.rank == 0

    def rows(self, images: int) -> slice:
        """Return which of N images this process handles: neighbours, as equal a share as possible.

        >>> [Place(rank=rank, count=3).rows(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(images * self.rank // self.count, images * (self.rank + 1) // self.count)


_place = Place()


def place() -> Place:
    """Return this process's place in its group; the only one of one process outside `joined`."""
    return _place


def started() -> Place:
    """Return this process's place among those that torchrun has started, from its environment
    variables; the only one of one process if there are none.

    Raises:
        UserError: a variable is not a whole number in its range.
    """
    if LAUNCHED not in os.environ:
        return Place()
    count = _variable("WORLD_SIZE", 1, MAX_PROCESSES)
    local_count = _variable("LOCAL_WORLD_SIZE", 1, count)
    return Place(
        rank=_variable("RANK", 0, count - 1),
        count=count,
        local_rank=_variable("LOCAL_RANK", 0, local_count - 1),
        local_count=local_count,
    )


def launched_rank() -> str:
    """Return the number of this process as torchrun's environment variable has it, unchecked; ``0``
    without torchrun."""
    return os.environ.get("RANK", "0") if LAUNCHED in os.environ else "0"


def _variable(name: str, low: int, high: int) -> int:
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        raise UserError(
            f"{name} must be a whole number from {low} to {high}, not {shown(text)}: let torchrun "
            "set it"
        )
    return int(text)


@contextmanager
def joined() -> Iterator[Place]:
    """Share the work inside the block among the processes that torchrun has started, and yield this
    process's place; without torchrun there is one.

    Inside, `curricula.train`, `evaluate`, `robustness_profile`, `audit` and `certify` take part of
    the work each, so every process calls them in the same order. Only the first writes files.

    Raises:
        UserError: another process has ended.
    """
    global _place
    before, _place = _place, started()
    try:
        yield _place
        largest(0)  # none leaves before the others
    except RuntimeError as error:
        if _place.count == 1 or not _is_lost(error):
            raise
        raise UserError(
            "another process of the group has ended or cannot be reached; its own message says why"
        ) from error
    finally:
        _leave()
        _place = before


def _is_lost(error: RuntimeError) -> bool:
    """Return whether an error of torch.distributed says that another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _exchange() -> Any:
    """Return the module torch.distributed, after starting the exchange with the other processes
    unless it has begun."""
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    if not dist.is_initialized():
        # Without a GPU torch's default adds NCCL too, which aborted processes at their end.
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(_place.local_rank % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        # A second group of the same program would read the first one's addresses in the store.
        store, rank, count = next(rendezvous("env://"))
        own_store = PrefixStore(f"curricula-{next(_GROUPS)}", store)
        dist.init_process_group(backend, store=own_store, rank=rank, world_size=count)
    return dist


def _leave() -> None:
    """End the exchange; without that, its threads would abort the process at its end."""
    if _place.count == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over(tensor: "Tensor") -> "Tensor":
    """Return a tensor with its sum over all processes, in place.

    All processes get the same bits.
    """
    if _place.count > 1:
        _exchange().all_reduce(tensor)
    return tensor


def mean_over(tensors: "Sequence[Tensor]") -> None:
    """Set tensors of one floating-point type and device to their means over all processes, in one
    exchange."""
    if _place.count == 1 or not tensors:
        return
    import torch

    flat = sum_over(torch.cat([tensor.detach().reshape(-1) for tensor in tensors]))
    flat /= _place.count
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def mean_gradients(parameters: "Iterable[Tensor]") -> None:
    """Set the gradients of parameters to their means over all processes. A parameter that no
    process used keeps none."""
    if _place.count == 1:
        return
    import torch

    parameters = list(parameters)
    used = largest(*(parameter.grad is not None for parameter in parameters))
    gradients = []
    for parameter, is_used in zip(parameters, used, strict=True):
        if is_used and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    mean_over(gradients)


def largest(*numbers: float) -> tuple[float, ...]:
    """Return the largest value that any process gives for each number. The device is not waited
    for."""
    if _place.count == 1:
        return numbers
    import torch

    dist = _exchange()
    tensor = torch.tensor(numbers, dtype=torch.float64)  # on the CPU, whatever the device
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tuple(tensor.tolist())


def share_state(*generators: "torch.Generator") -> None:
    """Set random generators to their states in the first process: an attack may draw less in one
    process than in another, for example because it has fooled all images there."""
    if _place.count == 1:
        return
    dist = _exchange()
    for generator in generators:
        state = generator.get_state()  # on the CPU, whatever the device
        dist.broadcast(state, 0)
        generator.set_state(state)


def from_first(make: Callable[[], T]) -> T:
    """Return what ``make`` returns in the first process, in every process; only the first calls
    it.

    Args:
        make: returns bytes, or a value that JSON can hold. If it raises a `UserError`, all
            processes raise one.
    """
    if _place.count == 1:
        return make()
    content, value, failure = b"", None, None
    if _place.is_first:
        try:
            value = make()
            content = (
                b"b" + value if isinstance(value, bytes) else b"j" + json.dumps(value).encode()
            )
        except UserError as error:
            content, failure = b"e" + str(error).encode(), error
    content = _broadcast(content)
    if failure is not None:
        raise failure
    if _place.is_first:
        return value  # type: ignore[return-value]
    kind, rest = content[:1], content[1:]
    if kind == b"e":
        raise FirstProcessError(rest.decode())
    found: Any = rest if kind == b"b" else json.loads(rest)
    return found  # type: ignore[no-any-return]


def _broadcast(content: bytes) -> bytes:
    """Return the first process's bytes."""
    import torch

    dist = _exchange()
    length = torch.tensor(len(content))
    dist.broadcast(length, 0)
    tensor = torch.empty(int(length), dtype=torch.uint8)
    if _place.is_first:
        tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    dist.broadcast(tensor, 0)
    return tensor.numpy().tobytes()


def local_device(device: "torch.device") -> "torch.device":
    """Return the device for this process: of several processes on one machine, each takes a
    different GPU.

    Raises:
        UserError: the machine has fewer GPUs than processes.
    """
    if _place.count == 1 or device.type != "cuda":
        return device
    import torch

    if torch.cuda.device_count() < _place.local_count:
        raise UserError(
            f"this machine has {torch.cuda.device_count()} GPUs for {_place.local_count} "
            "processes: start at most one for each (--nproc-per-node)"
        )
    return torch.device("cuda", _place.local_rank)
