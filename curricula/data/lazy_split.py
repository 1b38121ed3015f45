"""Splits that are too large for memory: worker processes read the images ahead of their use."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from curricula.data.arrays import Origin, Stack, as_fractions, check_dense
from curricula.data.dataset import Split
from curricula.errors import UserError, shown
from curricula.runtime.processes import place
from curricula.runtime.signals import deferred
from curricula.runtime.values import described

WORKERS_VARIABLE = "CURRICULA_WORKERS"
MAX_PROCESSES = 512  # worker processes that can be requested
MAX_WORKERS = 8  # worker processes by default
PREFETCHED = 2  # batches that each worker reads ahead
LOAD_BATCH = 256  # images per batch when a whole split is read into memory


def number_of_workers() -> int:
    """Return the number of processes that read images: the environment variable
    ``CURRICULA_WORKERS``, or one per core, at most 8, shared among the processes of a training. It
    changes the speed, never the result.

    Raises:
        UserError: the variable is not a whole number from 0 to 512.
    """
    text = os.environ.get(WORKERS_VARIABLE, "")
    if not text:
        # A container or a batch system can allow fewer cores than the machine has.
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return min(max(cores // place().local_count, 1), MAX_WORKERS)
    whole = text.isascii() and text.isdecimal() and len(text) < 10
    if not whole or int(text) > MAX_PROCESSES:
        raise UserError(
            f"{WORKERS_VARIABLE} must be a whole number, from 0 to {MAX_PROCESSES}, not "
            f"{shown(text)}"
        )
    return int(text)


@attrs.frozen(kw_only=True, eq=False)
class Reader:
    """Reads images by number in worker processes, which persist between passes over the images.

    A pass that is left early (an error, Ctrl-C, ``break``) ends its workers. Two passes at the same
    time have separate workers. Workers exit when the reader is garbage-collected.

    Attributes:
        read: returns the pixels_CHW of an image, given its number: uint8, or floating-point
            numbers in [0, 1]; the same at each call, without drawing from any random state. It
            raises `UserError`, which names the file, for what the user can fix, such as a damaged
            file. It is pickled where Python spawns its processes (macOS, Windows).
        workers: number of worker processes; with 0, and for a single batch, the current process
            reads.
        stamp: returns a text that changes when the image's file does, such as its name and size;
            cheap, since it is called for every image. None if there is no such text.
    """

    read: Callable[[int], Tensor]
    workers: int = attrs.field(factory=number_of_workers, validator=attrs.validators.ge(0))
    stamp: Callable[[int], str] | None = None
    _idle: list[tuple["_Groups", "DataLoader[Any]"]] = attrs.field(factory=list, init=False)

    def batches(self, groups: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each group of numbers, in order, as pixels_NCHW on the CPU.

        Args:
            groups: the numbers of each group's images, int64 (N,).

        Raises:
            UserError: an image cannot be read, or a worker was killed.
        """
        if not self.workers or len(groups) < 2:
            read = _ReadGroup(self.read)
            yield from (_pixels(read[group.tolist()]) for group in groups)
            return
        sampler, loader = self._idle.pop() if self._idle else self._start()
        sampler.groups = groups
        try:
            with deferred(), _start_errors():  # a Ctrl-C here would be swallowed
                iter(loader)
            for found in loader:
                yield _pixels(found)
            self._idle.append((sampler, loader))
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):  # a dead worker
                raise
            raise UserError(
                "a process that reads images ended early (memory may have run out, or a script "
                "lacks `if __name__ == '__main__'`); use fewer workers, or none with "
                f"{WORKERS_VARIABLE}=0"
            ) from error
        finally:
            with deferred():
                del loader  # ends its workers, even if a traceback keeps this frame alive

    def _start(self) -> tuple["_Groups", "DataLoader[Any]"]:
        """Return a sampler, on which the groups of a pass are set, and a loader with new workers
        that reads them."""
        sampler = _Groups()
        loader: DataLoader[Any] = DataLoader(
            _ReadGroup(self.read),  # type: ignore[arg-type]
            batch_size=None,  # each item is a batch already
            sampler=sampler,
            num_workers=self.workers,
            prefetch_factor=PREFETCHED,
            persistent_workers=True,
            collate_fn=_identity,
            worker_init_fn=_init_worker,
            # A loader draws a seed per pass, which must not move the global random state.
            generator=torch.Generator(),
        )
        return sampler, loader


@contextmanager
def _start_errors() -> Iterator[None]:
    """Turn an OSError from starting processes in the block into a UserError with the fix."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the processes that read images cannot be started ({error}): /dev/shm or the number "
            f"of processes may be exhausted; use fewer, or none with {WORKERS_VARIABLE}=0"
        ) from error


class _Groups:
    """A sampler that yields the groups of image numbers to read in a loader's next pass."""

    groups: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (group.tolist() for group in self.groups)

    def __len__(self) -> int:
        return len(self.groups)


@attrs.frozen
class _ReadGroup:
    """Reads a group of images in a worker as an array (N, C, H, W), which is sent through a pipe.

    A tensor would be sent through shared memory. A container has 64 MiB of it, and when it is full,
    the loader hangs.
    """

    read: Callable[[int], Tensor]

    def __getitem__(self, numbers: list[int]) -> "np.ndarray[Any, Any] | UserError":
        try:
            pixels = _stacked(numbers, [self.read(number) for number in numbers])
            if pixels.dtype == torch.bfloat16:  # unknown to NumPy
                pixels = pixels.float()
            return pixels.numpy()
        except UserError as error:
            return error  # raised here, its text would become a traceback


def _stacked(numbers: list[int], images: list[Any]) -> Tensor:
    """Return images as one tensor.

    Raises:
        UserError: one is no tensor of numbers, or its shape or type differs from the first one's.
    """
    first = images[0]
    for number, image in zip(numbers, images, strict=True):
        if not isinstance(image, Tensor):
            raise UserError(f"image {number} was read as {shown(image)}; a reader returns a tensor")
        check_dense(image, f"pixels of image {number}")
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"image {number} was read as {described(image)}, another as {described(first)}; a "
                "reader returns the same for all"
            )
    return torch.stack(images)


def _init_worker(worker: int) -> None:
    """Make a worker ignore Ctrl-C, and exit when its parent does.

    Ctrl-C reaches every process of a terminal, but only the parent should handle it. A worker that
    has read ahead would wait forever for a killed parent to empty its pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Wait for the parent process to exit, then exit at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _identity(found: Any) -> Any:
    return found


def _pixels(found: "np.ndarray[Any, Any] | UserError") -> Tensor:
    """Return a worker's array as a tensor, or raise the UserError that the worker returned."""
    if isinstance(found, UserError):
        raise found
    return torch.from_numpy(found)


@attrs.frozen(kw_only=True, eq=False)
class LazySplit:
    """Labelled images that worker processes read when needed.

    >>> reader = Reader(read=lambda number: torch.full((1, 2, 2), number, dtype=torch.uint8))
    >>> numbers = torch.arange(10, 15)
    >>> split = LazySplit(reader=reader, numbers=numbers, labels=numbers % 2, shape=(1, 2, 2))
    >>> split[torch.tensor([3, 0])].load().pixels[:, 0, 0, 0]
    tensor([13, 10], dtype=torch.uint8)

    Attributes:
        reader: reads the images; the splits of a data set share it, and so its workers.
        numbers: the images' numbers for the reader, int64 (N,), on the CPU.
        labels: labels, int64 (N,); the pixels of a batch go to their device.
        shape: channels, height and width of each image.
    """

    reader: Reader
    numbers: Tensor
    labels: Tensor
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "LazySplit":
        numbers = self.numbers[index.cpu() if isinstance(index, Tensor) else index]
        return attrs.evolve(self, numbers=numbers, labels=self.labels[index])

    def to(self, device: torch.device) -> "LazySplit":
        """Return a split with its labels on a device, to which pixels are copied when read."""
        return attrs.evolve(self, labels=self.labels.to(device))

    def load(self) -> Split:
        """Return a split with the pixels of all images in memory, on the device of the labels.

        Raises:
            UserError: images of different types.
        """
        if not len(self):
            shape = (0, *self.shape)
            pixels = torch.empty(shape, dtype=torch.uint8, device=self.labels.device)
            return Split(pixels=pixels, labels=self.labels)
        stack = Stack(Origin(""), len(self))
        for _, batch in self.batches(torch.arange(len(self)), LOAD_BATCH):
            stack.add(batch.pixels)
        return Split(pixels=stack.images(), labels=self.labels)

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Split]]:
        """Yield (indices_N, batch), both on the device of the labels, for the images ``order_N``
        (on the CPU)."""
        device = self.labels.device
        begins = range(0, len(order_N), batch_size)
        numbers_N = self.numbers[order_N]
        pixels = self.reader.batches([numbers_N[begin : begin + batch_size] for begin in begins])
        order_N = order_N.to(device)
        for begin, pixels_NCHW in zip(begins, pixels, strict=True):
            pixels_NCHW = self._checked(pixels_NCHW)
            indices_N = order_N[begin : begin + batch_size]
            yield (
                indices_N,
                Split(pixels=_to_device(pixels_NCHW, device), labels=self.labels[indices_N]),
            )

    def _checked(self, pixels_NCHW: Tensor) -> Tensor:
        """Return pixels that were read, after checking that they have the shape and one of the
        types of a split.

        Raises:
            UserError: they have not.
        """
        shape, dtype = tuple(pixels_NCHW.shape[1:]), pixels_NCHW.dtype
        if shape != tuple(self.shape):
            raise UserError(
                f"an image was read with the shape {shape}; a reader returns (channels, height, "
                f"width), {tuple(self.shape)}"
            )
        if dtype.is_floating_point:
            return as_fractions(pixels_NCHW, "images read")
        if dtype != torch.uint8:
            raise UserError(
                f"an image was read with pixels of {dtype}; a reader returns torch.uint8, from 0 "
                "to max_value, or floating-point numbers from 0 to 1"
            )
        return pixels_NCHW


def _to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Return the pixels on a device; if they are in pinned memory, the copy runs asynchronously."""
    if device.type in ("cpu", "mps"):  # the same memory, or without pinned memory in torch
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)
