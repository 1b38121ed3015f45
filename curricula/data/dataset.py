"""What a data set is: labelled uint8 images, in memory or to be read, and its customs."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call

VALIDATION_SEED = 0  # the held-out images are the same for every training seed


class SplitLike(Protocol):
    """Labelled images, wherever they are: held in memory (`Split`), or read as they are needed
    (`curricula.data.LazySplit`). Their pixels are uint8."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,), on the device to which the pixels go."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each image: channels, height, width."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> "SplitLike":
        """Some of the images, in the index's order."""
        ...

    def to(self, device: torch.device) -> "SplitLike":
        """The same for a device."""
        ...

    def load(self) -> "Split":
        """The same with all its images in memory, on the device."""
        ...

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, "Split"]]:
        """One pass over the images that ``order_N`` names (int64, on the CPU), in that order:
        (indices_N, batch), both on the device; the last batch as small as it comes."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class Split:
    """Labelled images that are held in memory: pixels_NCHW uint8, labels_N int64."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each image: channels, height, width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """The same on a device."""
        return Split(pixels=self.pixels.to(device), labels=self.labels.to(device))

    def load(self) -> "Split":
        """Itself."""
        return self

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, "Split"]]:
        """(indices_N, batch) of the images in a given order."""
        order_N = order_N.to(self.labels.device)  # once a pass: the host waits for it
        for begin in range(0, len(order_N), batch_size):
            indices = order_N[begin : begin + batch_size]
            yield indices, self[indices]


@attrs.frozen(kw_only=True, eq=False)
class DataSet:
    """A data set: its images, and the field's customs for it.

    Attributes:
        name: of the data set.
        train, test: the two published splits.
        classes: names, by label.
        image_size: height and width of the images, in pixels; stored pixels of another size are
            resized bilinearly as they are read.
        max_value: the stored value that means 1.0.
        budgets: the standard budget of each unit, as written in expressions:
            ``{"degrees": "30", "pixels": "3", "linf": "8/255"}``.
        attack_defaults: defaults of training attacks, by parameter: ``{"steps": "10"}``.
        training_defaults: defaults of the training configuration: epochs, optimiser and so on.
    """

    name: str
    train: SplitLike
    test: SplitLike
    classes: tuple[str, ...]
    image_size: int
    max_value: int = 255
    budgets: Mapping[str, str]
    attack_defaults: Mapping[str, str]
    training_defaults: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.train.shape[0]

    def images(self, pixels_NCHW: Tensor) -> Tensor:
        """Stored pixels as float32 images in [0, 1], NCHW."""
        x = pixels_NCHW.float().div_(self.max_value)
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, size=self.image_size, mode="bilinear", align_corners=False)
        return x

    def with_validation(self) -> tuple["DataSet", SplitLike]:
        """The data set less its validation images, and those: a tenth of the training images, at
        most 1,000, the same ones for every seed."""
        count = min(len(self.train) // 10, 1000)
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        order = torch.randperm(len(self.train), generator=generator)
        held_out, rest = order[:count], order[count:].sort().values
        return attrs.evolve(self, train=self.train[rest]), self.train[held_out]

    def to(self, device: torch.device) -> "DataSet":
        """The same with its images, or their batches, on a device."""
        return attrs.evolve(self, train=self.train.to(device), test=self.test.to(device))


def first(split: SplitLike, limit: int | None) -> SplitLike:
    """The first so many images of a split; None is all.

    Raises:
        UserError: a limit below 1.
    """
    if limit is None:
        return split
    if limit < 1:
        raise UserError(f"limit must be 1 or more, not {limit}")
    return split[slice(limit)]


def load_data(text: str, *, root: str = "data", download: bool = False) -> DataSet:
    """The data set that an expression names, such as ``mnist`` or ``folder(size=64)``.

    Args:
        text: the expression.
        root: folder of the files.
        download: fetch missing files into root.

    Raises:
        UserError: an unknown name, or files that are not there.
    """
    loaded: DataSet = resolve_data(text, root=root, download=download).value
    return loaded


def resolve_data(text: str, *, root: str, download: bool) -> factories.Built:
    """`load_data`, with the expression that states every default."""
    supplied = {"root": root, "download": download}
    return factories.build("dataset", parse_call(text), supplied=supplied)


def batches(
    split: SplitLike, batch_size: int, *, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, Split]]:
    """One epoch: (indices_N, batch), the last incomplete batch left out.

    Args:
        split: the images.
        batch_size: images in a batch.
        generator: draws the order, on the CPU, so that it does not depend on the device; None is
            the order in which the images lie.
    """
    if generator is None:
        order_N = torch.arange(len(split))
    else:
        order_N = torch.randperm(len(split), generator=generator)
    yield from split.batches(order_N[: len(split) // batch_size * batch_size], batch_size)


def in_order(split: SplitLike, batch_size: int) -> Iterator[Split]:
    """All images in their order, the last batch as small as it comes."""
    for _, batch in split.batches(torch.arange(len(split)), batch_size):
        yield batch


def not_there(name: str, root: str, flag: str) -> UserError:
    """The one line for a data set whose files are missing."""
    return UserError(f"{name} is not in {root!r}: name its folder with --data-root{flag}")
