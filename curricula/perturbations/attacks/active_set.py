"""The images of a batch that an iterative attack is still moving."""

from collections.abc import Iterator

import torch
from torch import Tensor


class ActiveSet:
    """Iterate over an attack's steps, yielding the indices of the images that each step moves.

    If each image has its own number of steps, the batch is sorted once, most steps first. The
    images still active at any step are then the head of the batch: a slice, which copies nothing.

    Args:
        y_N: the labels of the batch.
        steps: number of steps for all images, or (N,).
        tau: if given, an image leaves the set once it is misclassified and has taken ``tau`` steps
            while misclassified (Zhang et al. 2020, algorithm 1).

    Attributes:
        order: the position in the batch of each image of the sorted batch, (N,).

    Example:
        >>> active = ActiveSet(torch.arange(3), steps=torch.tensor([1, 3, 2]))
        >>> active.sort(torch.tensor([10, 11, 12]))
        tensor([11, 12, 10])
        >>> [active.order[at].tolist() for at in active]
        [[1, 2, 0], [1, 2], [1]]
    """

    def __init__(self, y_N: Tensor, steps: int | Tensor, tau: int | None = None) -> None:
        self.order = torch.arange(len(y_N), device=y_N.device)
        self._is_sorted = isinstance(steps, Tensor)
        if isinstance(steps, Tensor):
            self.order = steps.argsort(descending=True, stable=True)
            # Reading the counts is the only time that the host waits for the device.
            steps_N = steps.cpu()
            is_active = steps_N[:, None] > torch.arange(int(steps_N.max()))
            self._sizes = is_active.sum(0).tolist()
        else:
            self._sizes = [len(y_N)] * steps
        self._index = None if tau is None else torch.arange(len(y_N), device=y_N.device)
        self._patience_N = torch.full_like(y_N, tau or 0)

    def sort(self, batch: Tensor) -> Tensor:
        """Return a batch's tensor (N, ...) in the order of this set: images with most steps
        first."""
        return batch[self.order] if self._is_sorted else batch

    def unsort(self, batch: Tensor) -> Tensor:
        """Return a sorted tensor (N, ...) in the batch's original order."""
        if not self._is_sorted:
            return batch
        return torch.empty_like(batch).index_copy_(0, self.order, batch)

    def __iter__(self) -> Iterator[slice | Tensor]:
        """Yield, for each step, the indices in the sorted batch of the images that it moves."""
        for size in self._sizes:
            if self._index is None:
                if size == 0:
                    return
                yield slice(size)
            else:
                # The host waits for the device here, so that finished images cost nothing more.
                self._index = self._index[self._index < size]
                if len(self._index) == 0:
                    return
                yield self._index

    def drop_misclassified(self, wrong: Tensor) -> Tensor:
        """Drop the images that are misclassified and have used up ``tau``, and return the mask of
        the images that stay, among those yielded last.

        Args:
            wrong: bool, which of the images yielded last are misclassified.
        """
        assert self._index is not None, "only with tau"
        stays = ~wrong | (self._patience_N[self._index] > 0)
        self._patience_N[self._index] -= wrong.to(self._patience_N)
        self._index = self._index[stays]
        return stays
