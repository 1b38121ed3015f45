"""Splits too large for memory: their images are read as they are needed, ahead of their use."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from curricula.data.dataset import Split
from curricula.errors import UserError

WORKERS_VARIABLE = "CURRICULA_WORKERS"
MOST_WORKERS = 8  # by default
AHEAD = 2  # batches that each worker reads before they are asked for
HELD_AT_ONCE = 256  # images of a batch, where all are read into memory


def number_of_workers() -> int:
    """How many processes read images: ``CURRICULA_WORKERS``, or else one a core, at most 8. It
    changes the speed, never the result.

    Raises:
        UserError: the variable is no whole number of 0 or more.
    """
    text = os.environ.get(WORKERS_VARIABLE, "")
    if not text:
        # A container or a batch system may lend fewer cores than the machine has.
        affinity = getattr(os, "sched_getaffinity", None)
        return min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_WORKERS)
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{WORKERS_VARIABLE} must be a whole number, 0 or more, not {text!r}")
    return int(text)


@attrs.frozen(kw_only=True, eq=False)
class Reader:
    """Reads images by their numbers, in worker processes that stay for the next pass.

    A pass that is left early (an error, Ctrl-C, ``break``) ends its workers; two passes at a time
    have workers of their own.

    Attributes:
        read: from an image's number to its pixels_CHW, uint8: the same each time, without drawing
            from any random state. What a user did (a damaged file) it raises as `UserError`, which
            names the file. Where Python starts its processes afresh (macOS, Windows) it is
            pickled.
        workers: how many processes; with 0, and for a single batch, this one reads.
    """

    read: Callable[[int], Tensor]
    workers: int = attrs.field(factory=number_of_workers, validator=attrs.validators.ge(0))
    _idle: list[tuple["_Pass", "DataLoader[Any]"]] = attrs.field(factory=list, init=False)

    def batches(self, groups: Sequence[Tensor]) -> Iterator[Tensor]:
        """pixels_NCHW, uint8, on the CPU, of each group of numbers, in their order.

        Raises:
            UserError: an image cannot be read, or a worker was killed.
        """
        if not self.workers or len(groups) < 2:
            read = _ReadGroup(self.read)
            yield from (_pixels(read[group.tolist()]) for group in groups)
            return
        a_pass, loader = self._idle.pop() if self._idle else self._start()
        a_pass.groups = groups
        try:
            for found in loader:
                yield _pixels(found)
            self._idle.append((a_pass, loader))
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):  # PyTorch's words for a dead one
                raise
            raise UserError(
                "a process that reads images ended early (memory may have run out, or a script "
                "lacks `if __name__ == '__main__'`); fewer may do, and none with "
                f"{WORKERS_VARIABLE}=0"
            ) from error
        finally:
            del loader  # and with it its workers, even where a traceback keeps this frame

    def _start(self) -> tuple["_Pass", "DataLoader[Any]"]:
        a_pass = _Pass()
        loader: DataLoader[Any] = DataLoader(
            _ReadGroup(self.read),  # type: ignore[arg-type]
            batch_size=None,  # each item is a batch already
            sampler=a_pass,
            num_workers=self.workers,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
            # It draws a seed for every pass, which must not move the global random state.
            generator=torch.Generator(),
        )
        return a_pass, loader


class _Pass:
    """What a loader goes through next; set anew for each pass."""

    groups: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (group.tolist() for group in self.groups)

    def __len__(self) -> int:
        return len(self.groups)


@attrs.frozen
class _ReadGroup:
    """A batch, as it leaves a worker: an array travels through a pipe. A tensor would travel
    through shared memory, of which a container has 64 MiB; when it is full, the loader hangs."""

    read: Callable[[int], Tensor]

    def __getitem__(self, numbers: list[int]) -> "np.ndarray[Any, Any] | UserError":
        try:
            return torch.stack([self.read(number) for number in numbers]).numpy()
        except UserError as error:
            return error  # raised in the worker, it would come with a traceback as its text


def _begin_worker(worker: int) -> None:
    """A worker leaves when it is told to, or when its parent is gone.

    Ctrl-C reaches every process of a terminal; it is for the parent. And a worker that has read
    ahead would wait for ever until its pipe is emptied, by a parent that was killed too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _as_it_is(found: Any) -> Any:
    return found


def _pixels(found: "np.ndarray[Any, Any] | UserError") -> Tensor:
    if isinstance(found, UserError):
        raise found
    return torch.from_numpy(found)


@attrs.frozen(kw_only=True, eq=False)
class LazySplit:
    """Labelled images that are read as they are needed.

    Attributes:
        reader: reads them; the splits of a data set share one, and with it the workers.
        numbers: what the reader calls these images, int64 (N,), on the CPU.
        labels: int64 (N,); the pixels of a batch go to their device.
        shape: of each image: channels, height, width.
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
        """The same, whose batches go to a device."""
        return attrs.evolve(self, labels=self.labels.to(device))

    def load(self) -> Split:
        """The same with all its images read, on the device."""
        pixels = torch.empty((len(self), *self.shape), dtype=torch.uint8, device=self.labels.device)
        for indices, batch in self.batches(torch.arange(len(self)), HELD_AT_ONCE):
            pixels[indices] = batch.pixels
        return Split(pixels=pixels, labels=self.labels)

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Split]]:
        """(indices_N, batch) of the images in a given order (on the CPU)."""
        device = self.labels.device
        begins = range(0, len(order_N), batch_size)
        numbers_N = self.numbers[order_N]
        pixels = self.reader.batches([numbers_N[begin : begin + batch_size] for begin in begins])
        order_N = order_N.to(device)
        for begin, pixels_NCHW in zip(begins, pixels, strict=True):
            indices_N = order_N[begin : begin + batch_size]
            yield (
                indices_N,
                Split(pixels=_to_device(pixels_NCHW, device), labels=self.labels[indices_N]),
            )


def _to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """On the device. From pinned memory the copy does not hold up the host."""
    if device.type in ("cpu", "mps"):  # one memory, or torch has no pinned one for it
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)
