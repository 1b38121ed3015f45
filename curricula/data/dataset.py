"""Data sets: labelled images, in memory or read when needed, and their conventions."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.data.spec import ImageSize, as_image_size, height_width
from curricula.errors import UserError, shown
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.runtime.values import as_path, check_flag, check_whole, described, known_keywords

VALIDATION_SEED = 0  # seed; the held-out images are the same for every training seed


@runtime_checkable
class SplitLike(Protocol):
    """Labelled images, either in memory (`Split`) or read when needed
    (`curricula.data.LazySplit`)."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 (N,), on the device that pixels are copied to."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of each image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> "SplitLike":
        """Return a split of the images at the given indices, in their order."""
        ...

    def to(self, device: torch.device) -> "SplitLike":
        """Return a split whose labels and pixels are on a device, or are copied there when read."""
        ...

    def load(self) -> "Split":
        """Return a split with the pixels of all images in memory, on the device of the labels."""
        ...

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, "Split"]]:
        """Yield (indices_N, batch), both on the device of the labels, for the images ``order_N``.

        Args:
            order_N: indices of the images, int64, on the CPU.
            batch_size: images per batch; the last batch can be smaller.
        """
        ...


@attrs.frozen(kw_only=True, eq=False)
class Split:
    """Labelled images in memory.

    >>> split = Split(pixels=torch.zeros(5, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(5))
    >>> [len(batch) for _, batch in split.batches(torch.arange(5), 2)]
    [2, 2, 1]

    Attributes:
        pixels: pixels_NCHW: uint8 from 0 to the data set's ``max_value``, or floating-point numbers
            in [0, 1], which are the images themselves.
        labels: labels_N, int64.
    """

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of each image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Return a split whose pixels and labels are on a device."""
        return Split(pixels=self.pixels.to(device), labels=self.labels.to(device))

    def load(self) -> "Split":
        """Return the split itself, because its pixels are in memory already."""
        return self

    def batches(self, order_N: Tensor, batch_size: int) -> Iterator[tuple[Tensor, "Split"]]:
        """Yield (indices_N, batch) for the images ``order_N``, ``batch_size`` at a time."""
        order_N = order_N.to(self.labels.device)  # once per pass: the host waits for it
        for begin in range(0, len(order_N), batch_size):
            indices = order_N[begin : begin + batch_size]
            yield indices, self[indices]


@attrs.frozen(kw_only=True, eq=False)
class DataSet:
    """Training and test images, their class names, and standard budgets and training settings.

    Attributes:
        name: name of the data set.
        train: training images.
        test: test images.
        validation: validation images; None to hold out a part of the training images.
        classes: class names, by label.
        image_size: height and width in pixels, as one number or, if they differ, as ``(height,
            width)``; stored images of a different size are resized bilinearly when read.
        max_value: stored uint8 value that means 1.0.
        budgets: standard budget of each unit, as written in expressions:
            ``{"degrees": "30", "pixels": "3", "linf": "8/255"}``.
        attack_defaults: defaults of training attacks, by parameter: ``{"steps": "10"}``.
        training_defaults: defaults of the training configuration, by field of
            `curricula.TrainConfig`: ``{"epochs": 30}``.
    """

    name: str
    train: SplitLike
    test: SplitLike
    validation: SplitLike | None = None
    classes: tuple[str, ...]
    image_size: ImageSize = attrs.field(converter=as_image_size)
    max_value: int = 255
    budgets: Mapping[str, str]
    attack_defaults: Mapping[str, str]
    training_defaults: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Number of channels of each image."""
        return self.train.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that networks receive."""
        return self.in_channels, *height_width(self.image_size)

    def images(self, pixels_NCHW: Tensor) -> Tensor:
        """Return stored pixels as float32 images NCHW in [0, 1], in new memory.

        Raises:
            UserError: pixels on the CPU are NaN, above `max_value` or, if they are floating-point
                numbers, outside [0, 1].
        """
        if pixels_NCHW.is_floating_point():
            if pixels_NCHW.device.type == "cpu":  # elsewhere the host would wait for the device
                check_fractions(pixels_NCHW, self.name)
            x = pixels_NCHW.to(torch.float32, copy=True)
        else:
            if self.max_value < 255 and pixels_NCHW.device.type == "cpu":
                _check_whole_pixels(pixels_NCHW, self)
            x = pixels_NCHW.float().div_(self.max_value)
        size = height_width(self.image_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x

    def with_validation(self) -> tuple["DataSet", SplitLike]:
        """Return the data set without its validation images, and the split of validation images.

        If it has no validation images, a tenth of the training images is held out, at most 1,000,
        the same for every training seed.
        """
        if self.validation is not None:
            return attrs.evolve(self, validation=None), self.validation
        count = min(len(self.train) // 10, 1000)
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        order = torch.randperm(len(self.train), generator=generator)
        held_out, rest = order[:count], order[count:].sort().values
        return attrs.evolve(self, train=self.train[rest]), self.train[held_out]

    def to(self, device: torch.device) -> "DataSet":
        """Return a data set whose labels and pixels are on a device, or are copied there when
        read."""
        return attrs.evolve(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            validation=None if self.validation is None else self.validation.to(device),
        )


def _check_values(data: DataSet) -> None:
    """Check that a data set's labels are among its classes, and the pixels that are in memory from
    0 to `max_value`.

    Raises:
        UserError: they are not; the message has the value.
    """
    check_whole(f"max_value of {data.name}", data.max_value, 1, 255)
    parts = {"training": data.train, "test": data.test, "validation": data.validation}
    for part, split in parts.items():
        if split is None or not len(split):
            continue
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= data.num_classes:
            raise UserError(
                f"{data.name} has {part} labels from {low} to {high}; they must be from 0 to "
                f"{data.num_classes - 1}, for its {data.num_classes} classes"
            )
        if not isinstance(split, Split) or not split.pixels.numel():
            continue
        if split.pixels.is_floating_point():
            check_fractions(split.pixels, data.name)
        elif data.max_value < 255:
            _check_whole_pixels(split.pixels, data)


def _check_whole_pixels(pixels: Tensor, data: DataSet) -> None:
    """Check that uint8 pixels are at most the data set's `max_value`. Waits for the device.

    Raises:
        UserError: one is not; the message has the value.
    """
    highest = int(pixels.max()) if pixels.numel() else 0
    if highest > data.max_value:
        raise UserError(
            f"{data.name} has a pixel of {highest}; uint8 pixels must be from 0 to its max_value, "
            f"{data.max_value}"
        )


def check_fractions(pixels: Tensor, name: str) -> None:
    """Check that floating-point pixels are in [0, 1]. Waits for the device.

    Args:
        pixels: the pixels.
        name: name of the data set in the message.

    Raises:
        UserError: one is not, such as NaN; the message has the value and the fix.
    """
    if not pixels.numel():
        return
    low, high = map(float, torch.aminmax(pixels))
    if low >= 0 and high <= 1:
        return
    if low != low:
        fix = "replace what is not a number"
    elif low >= 0 and 1 < high <= 255:
        fix = "divide them: pixels / 255"
    else:
        fix = "undo their normalisation (pixels * std + mean), and give it to the model: normalise="
    value = low if not low >= 0 else high
    raise UserError(
        f"{name} has a pixel of {value:g}; floating-point pixels must be from 0 to 1: {fix}"
    )


def first(split: SplitLike, limit: int | None) -> SplitLike:
    """Return the first ``limit`` images of a split, or all images if ``limit`` is None.

    Raises:
        UserError: a limit below 1, or a split without images.
    """
    if limit is not None:
        check_whole("limit", limit, 1)
    if not len(split):
        raise UserError("split has no images: give one or more")
    return split if limit is None else split[slice(min(limit, len(split)))]


def check_split(split: SplitLike, data: DataSet) -> None:
    """Check that labelled images are those of a data set: of its channels and classes.

    Raises:
        UserError: pixels or labels of another type or shape, other channels, or a label beyond
            the classes of the data set.
    """
    pixels: Any = split.pixels if isinstance(split, Split) else None
    labels: Any = split.labels
    if isinstance(split, Split) and not _is_tensor(pixels, 4, torch.uint8):
        raise UserError(f"pixels must be a uint8 tensor NCHW, not {described(pixels)}")
    if not _is_tensor(labels, 1, torch.int64):
        raise UserError(f"labels must be an int64 tensor (N,), not {described(labels)}")
    if pixels is not None and len(pixels) != len(labels):
        raise UserError(
            f"there are {len(pixels)} images and {len(labels)} labels; give each image its label"
        )
    if not len(labels):
        return
    if split.shape[0] != data.in_channels:
        raise UserError(
            f"the images have {split.shape[0]} channels; those of {data.name} have "
            f"{data.in_channels}"
        )
    low, high = map(int, labels.aminmax())
    if low < 0 or high >= data.num_classes:
        raise UserError(
            f"labels must lie from 0 to {data.num_classes - 1}, since {data.name} has "
            f"{data.num_classes} classes, not from {low} to {high}"
        )


def _is_tensor(value: Any, ndim: int, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.ndim == ndim and value.dtype == dtype


@known_keywords()
def load_data(text: str, *, root: str | Path = "data", download: bool = False) -> DataSet:
    """Return the data set that an expression names, such as ``mnist`` or ``folder(size=64)``.

    >>> data = load_data("random(size=8, images=100)")
    >>> len(data.train), data.in_channels, data.image_size
    (100, 3, 8)

    Args:
        text: the expression.
        root: folder of the files.
        download: fetch missing files into ``root``.

    Raises:
        UserError: an unknown name or argument, or missing files.
    """
    loaded: DataSet = resolve_data(text, root=root, download=download).value
    return loaded


def resolve_data(text: str, *, root: str | Path, download: bool) -> factories.Built:
    """Return the data set of an expression such as ``folder(size=64)``, with the expression in
    which every default is written out."""
    check_flag("download", download)
    supplied = {"root": os.path.expanduser(as_path("root", root)), "download": download}
    built = factories.build("dataset", parse_call(text), supplied=supplied)
    _check_values(built.value)
    return built


def as_dataset(data: Any, *, root: str | Path = "data") -> DataSet:
    """Return ``data`` if it is a data set, or load the data set that its text names.

    Raises:
        UserError: it is neither; as `load_data` does.
    """
    if isinstance(data, str):
        return load_data(data, root=root)
    if not isinstance(data, DataSet):
        raise UserError(f"data must be a DataSet or its name, such as 'digits', not {shown(data)}")
    _check_values(data)
    return data


@known_keywords()
def batches(
    split: SplitLike,
    batch_size: int,
    *,
    generator: torch.Generator | None,
    skip: int = 0,
    rows: Tensor | None = None,
) -> Iterator[tuple[Tensor, Split]]:
    """Yield (indices_N, batch) for one epoch in random or stored order, without the last incomplete
    batch.

    Args:
        split: the images.
        batch_size: images per batch, 1 or more.
        generator: draws the order, on the CPU, so that it does not depend on the device; None
            keeps the stored order.
        skip: number of first batches to leave out, without reading them.
        rows: positions in each batch of the images to read, int64 on the CPU, ascending; by default
            all. The indices are those of the whole batch.

    Raises:
        UserError: a split without labels, a batch size below 1, a generator that is not torch's.
    """
    if not isinstance(split, SplitLike):
        raise UserError(f"split must be labelled images, not {shown(split)}")
    check_whole("batch_size", batch_size, 1)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise UserError(
            f"generator must be a torch.Generator or None, not {shown(generator)}; write "
            "torch.Generator().manual_seed(SEED)"
        )
    if generator is None:
        order_N = torch.arange(len(split))
    else:
        order_N = torch.randperm(len(split), generator=generator)
    whole = len(split) // batch_size
    order_N = order_N[skip * batch_size : whole * batch_size]
    if rows is None:
        yield from split.batches(order_N, batch_size)
        return
    order_BN = order_N.reshape(-1, batch_size)
    own = split.batches(order_BN[:, rows].flatten(), len(rows))
    for indices_N, (_, batch) in zip(order_BN.to(split.labels.device), own, strict=True):
        yield indices_N, batch


def in_order(split: SplitLike, batch_size: int) -> Iterator[Split]:
    """Yield the images of a split in batches, in their stored order; the last batch may be
    smaller."""
    for _, batch in split.batches(torch.arange(len(split)), batch_size):
        yield batch


def missing_data_error(name: str, root: str, fix: str) -> UserError:
    """Return a UserError that a data set's files are missing from a folder, with the fix.

    Args:
        name: name of the data set.
        root: the folder without its files.
        fix: text that follows "name its folder in data_root (--data-root)".
    """
    return UserError(f"{name} is not in {root!r}: name its folder in data_root (--data-root){fix}")
