"""Data sets: labelled images, in memory or read when needed, and their conventions."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.data.arrays import (
    Labelled,
    Layout,
    Origin,
    as_classes,
    as_labels,
    as_pixels,
    check_fractions,
    check_labels,
    check_whole_pixels,
    classes_of,
    in_order_of,
    labelled,
    named_classes,
    note,
)
from curricula.data.conventions import (
    COLOUR_BUDGETS,
    COLOUR_TRAINING,
    GREY_BUDGETS,
    GREY_TRAINING,
    PARTS,
)
from curricula.data.spec import ImageSize, as_image_size, height_width
from curricula.errors import UserError, printable, shortened, shown
from curricula.expressions import factories
from curricula.expressions.checks import check_call
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.tables import html_values
from curricula.runtime.values import (
    as_path,
    check_choice,
    check_flag,
    check_whole,
    described,
    known_keywords,
)

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


MAX_NAMES, MAX_NAME = 20, 40  # class names, and characters of one, in a notebook


@attrs.frozen(kw_only=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        return f"Split({len(self):,} images, {'x'.join(map(str, self.shape))})"

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


@attrs.frozen(kw_only=True, eq=False, repr=False)
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
            `curricula.training.TrainConfig`: ``{"epochs": 30}``.
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

    @classmethod
    @known_keywords()
    @cpu_by_default()
    def from_arrays(
        cls,
        *,
        train: tuple[Any, Any],
        test: tuple[Any, Any],
        validation: tuple[Any, Any] | None = None,
        classes: Sequence[str] | None = None,
        layout: Layout | None = None,
        name: str = "arrays",
        budgets: Mapping[str, str] | None = None,
        attack_defaults: Mapping[str, str] | None = None,
        training_defaults: Mapping[str, Any] | None = None,
    ) -> "DataSet":
        """Return a data set of images and labels in memory, which are not written to.

        >>> x, y = torch.rand(40, 24, 32, 3), torch.arange(40) % 4
        >>> data = DataSet.from_arrays(train=(x[:30], y[:30]), test=(x[30:], y[30:]))
        >>> data.in_channels, data.image_size, data.classes
        (3, (24, 32), ('0', '1', '2', '3'))

        Images are tensors, arrays or sequences of images: integers from 0 to 255 or floating-point
        numbers from 0 to 1, of shape (N, C, H, W), (N, H, W, C) or (N, H, W). Labels are whole
        numbers from 0 of any type, (N,) or (N, 1), one-hot rows (N, K), or class names.

        Args:
            train: training images and labels.
            test: test images and labels.
            validation: validation images and labels; by default a part of the training images is
                held out.
            classes: class names, by label; by default the numbers of the labels or, where the
                training labels are text, these texts, sorted.
            layout: order of the images' axes, ``NCHW`` or ``NHWC``; by default recognised from the
                shape, where that has a number of channels from 1 to 4 in one place only.
            name: name of the data set.
            budgets: standard budgets by unit; by default those of MNIST for grey images, else those
                of CIFAR.
            attack_defaults, training_defaults: as the attributes; by default likewise.

        Raises:
            UserError: images or labels of another type, shape or range; the message has the fix.
        """
        parts = {"training": train, "test": test, "validation": validation}
        for part, pair in parts.items():
            value: Any = pair
            if value is not None and not (isinstance(value, (tuple, list)) and len(value) == 2):
                raise UserError(
                    f"the {part} data must be a pair (images, labels), not {described(pair)}; "
                    "DataSet.from_torch takes torch and Hugging Face data sets"
                )
        return from_parts(
            parts,
            classes=classes,
            layout=layout,
            name=name,
            budgets=budgets,
            attack_defaults=attack_defaults,
            training_defaults=training_defaults,
        )

    @classmethod
    @known_keywords()
    @cpu_by_default()
    def from_torch(
        cls,
        *,
        train: Any,
        test: Any,
        validation: Any = None,
        classes: Sequence[str] | None = None,
        layout: Layout | None = None,
        name: str = "torch",
        budgets: Mapping[str, str] | None = None,
        attack_defaults: Mapping[str, str] | None = None,
        training_defaults: Mapping[str, Any] | None = None,
    ) -> "DataSet":
        """Return a data set of the images of torch data sets or loaders, or of Hugging Face data
        sets, which are read into memory once.

        >>> from torch.utils.data import TensorDataset
        >>> x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> train, test = TensorDataset(x[:30], y[:30]), TensorDataset(x[30:], y[30:])
        >>> data = DataSet.from_torch(train=train, test=test, classes=["cat", "dog"])
        >>> len(data.train), data.classes
        (30, ('cat', 'dog'))

        Each item is a pair (image, label) or has the keys ``image`` and ``label``; images are
        Pillow's, tensors or arrays, all of one size. Random transforms are applied once, so an
        augmentation belongs into `curricula.train` instead, and a normalisation into the model.

        Args:
            train: training images with labels.
            test: test images with labels.
            validation: validation images with labels; by default a part of the training images is
                held out.
            classes: class names, by label; by default those that the data state, such as
                torchvision's, or the numbers of the labels.
            layout, name, budgets, attack_defaults, training_defaults: as for `from_arrays`.

        Raises:
            UserError: as `from_arrays` does.
        """
        return from_parts(
            {"training": train, "test": test, "validation": validation},
            classes=classes,
            layout=layout,
            name=name,
            budgets=budgets,
            attack_defaults=attack_defaults,
            training_defaults=training_defaults,
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self._counts().items())
        return f"DataSet({self.name!r}: {counts}, {self._shape()})"

    def _repr_html_(self) -> str:
        shown = (printable(name)[:MAX_NAME] for name in self.classes[:MAX_NAMES])
        names = ", ".join([*shown, *(["..."] if self.num_classes > MAX_NAMES else [])])
        budgets = ", ".join(f"{value} {unit}" for unit, value in self.budgets.items())
        values = {
            **{name: f"{count:,}" for name, count in self._counts().items()},
            "channels x height x width": self._shape(),
            "names": names,
            "budgets": budgets,
        }
        return html_values(f"Data set {self.name}", values)

    def _counts(self) -> dict[str, int]:
        """Return the numbers of images and of classes, by what they are."""
        splits = {
            "training images": self.train,
            "validation images": self.validation,
            "test images": self.test,
        }
        counts = {name: len(split) for name, split in splits.items() if split is not None}
        return {**counts, "classes": self.num_classes}

    def _shape(self) -> str:
        """Return the shape of an image as text, such as ``3x32x32``."""
        return "x".join(map(str, self.image_shape))

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
                check_fractions(pixels_NCHW, f"images of {self.name}")
            x = pixels_NCHW.to(torch.float32, copy=True)
        else:
            if self.max_value < 255 and pixels_NCHW.device.type == "cpu":
                check_whole_pixels(pixels_NCHW, self.max_value, f"images of {self.name}")
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


def _checked(data: DataSet) -> DataSet:
    """Return a data set after checking its values, with the pixels and labels in memory converted
    to their standard types and order of axes, where that is beyond doubt.

    Every data set passes here once, whether from a plugin or from the caller.

    Raises:
        UserError: a value is wrong; the message has it.
    """
    check_whole(f"max_value of {data.name}", data.max_value, 1, 255)
    classes = as_classes(data.classes)
    parts = {"train": "training", "test": "test", "validation": "validation"}
    changed: dict[str, Any] = {} if classes == data.classes else {"classes": classes}
    for field, name in parts.items():
        split = getattr(data, field)
        if split is None:
            continue
        origin = Origin(name, data.name)
        standard = _fitting(split, origin, classes, data.max_value)
        if standard is not split:
            changed[field] = standard
    found = attrs.evolve(data, **changed) if changed else data
    for split in (found.test, found.validation):
        if split is not None and split.shape[0] != found.in_channels:
            raise UserError(
                f"the training images of {data.name} have {found.in_channels} channels, others "
                f"{split.shape[0]}; give all the same number"
            )
    return found


def _standard(split: SplitLike, origin: Origin) -> SplitLike:
    """Return a split with uint8 or floating-point pixels NCHW, where they are in memory, and int64
    labels: the same object if it has them.

    Raises:
        UserError: it has other things, which cannot be converted beyond doubt.
    """
    if not isinstance(split, (Split, SplitLike)):
        raise UserError(f"the {origin} must be a Split or a LazySplit, not {shown(split)}")
    if isinstance(split, Split):
        pixels = as_pixels(split.pixels, origin, layout=None, stored=True)
        labels = as_labels(split.labels, origin)
        if pixels is split.pixels and labels is split.labels:
            return split
        return Split(pixels=pixels, labels=labels)
    labels = as_labels(split.labels, origin)
    if labels is not split.labels and attrs.has(type(split)):
        return attrs.evolve(split, labels=labels)  # type: ignore[misc]
    return split


def from_parts(
    parts: Mapping[str, Any],
    *,
    classes: Sequence[str] | None = None,
    layout: Layout | None = None,
    num_classes: int | None = None,
    name: str = "data",
    budgets: Mapping[str, str] | None = None,
    attack_defaults: Mapping[str, str] | None = None,
    training_defaults: Mapping[str, Any] | None = None,
) -> DataSet:
    """Return a data set of the images and labels that a caller gives.

    Args:
        parts: images with labels: ``test``, and perhaps ``training`` and ``validation``; or without
            a name, which are the test images.
        classes, layout, num_classes: as for `as_dataset`.
        name, budgets, attack_defaults, training_defaults: as for `DataSet.from_arrays`.

    Raises:
        UserError: as `DataSet.from_arrays` does.
    """
    if layout is not None:
        check_choice("layout", layout, get_args(Layout))
    given = {
        key: _labelled(data, Origin(key), layout)
        for key, data in parts.items()
        if data is not None or key in ("", "training", "test")
    }
    names = None if classes is None else as_classes(classes)
    stated = {each.classes for each in given.values() if each.classes is not None}
    if names is None and len(stated) > 1:
        lists = "; ".join(", ".join(each) for each in stated)
        raise UserError(f"the parts of the data have different classes: {lists}")
    names = names or next(iter(stated), None)
    if names is None and "training" in given:
        found = named_classes(given["training"].labels)
        names = None if found is None else as_classes(found)
    labels = {key: as_labels(each.labels, Origin(key), names) for key, each in given.items()}
    if names is not None:
        for key, each in given.items():
            own = each.classes or names
            if own == names or _is_renamed(own, names, stated):
                continue
            if not isinstance(each.images, Tensor) and isinstance(each.images, SplitLike):
                raise UserError(f"classes must be {', '.join(own)}, as the {Origin(key)} state")
            labels[key] = in_order_of(names, labels[key], own, Origin(key))
    for key, y_N in labels.items():
        if not len(y_N):
            raise UserError(f"there are no {Origin(key)}: give one or more")
    if num_classes is not None:
        check_whole("num_classes", num_classes, 2)
        names = names or tuple(map(str, range(num_classes)))
    if names is None:
        names = classes_of([*labels.values()], all_present="training" in given)
    names = as_classes(names)
    splits: dict[str, SplitLike] = {}
    for key, each in given.items():
        origin = Origin(key)
        if not isinstance(each.images, Tensor) and isinstance(each.images, SplitLike):
            splits[key] = _standard(each.images, origin)
        else:
            pixels = as_pixels(each.images, origin, layout=each.layout)
            splits[key] = Split(pixels=pixels, labels=labels[key])
        check_labels(labels[key], names, origin, images=_count(splits[key]))
    if "training" in labels:
        _note_missing(labels, names)
    shapes = {key: split.shape for key, split in splits.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{key} {'x'.join(map(str, each))}" for key, each in shapes.items())
        raise UserError(f"the images have different channels or sizes: {listed}; give all the same")
    test = splits["test"] if "test" in splits else splits[""]
    channels, height, width = test.shape
    is_grey = channels == 1
    budgets_of_kind = GREY_BUDGETS if is_grey else COLOUR_BUDGETS
    training_of_kind = GREY_TRAINING if is_grey else COLOUR_TRAINING
    attack_of_kind = {"steps": "5" if is_grey else "10"}
    return DataSet(
        name=name,
        train=splits.get("training", test[slice(0)]),
        test=test,
        validation=splits.get("validation"),
        classes=names,
        image_size=(height, width),
        budgets=budgets_of_kind if budgets is None else budgets,
        attack_defaults=attack_of_kind if attack_defaults is None else attack_defaults,
        training_defaults=training_of_kind if training_defaults is None else training_defaults,
    )


def _is_renamed(
    own: Sequence[str], names: Sequence[str], stated: Collection[Sequence[str]]
) -> bool:
    """Return whether class names replace those that all parts of the data state, one by one."""
    return len(stated) == 1 and len(own) == len(names) and not {*own} & {*names}


def _note_missing(labels: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Tell the user which classes other images have and the training images lack."""
    train = set(labels["training"].unique().tolist())  # type: ignore[no-untyped-call]
    others = torch.cat([y_N.cpu() for part, y_N in labels.items() if part != "training"])
    missing = sorted(set(others.unique().tolist()) - train)  # type: ignore[no-untyped-call]
    if missing:
        names = shortened(", ".join(classes[label] for label in missing))
        note(f"the training images have none of classes that others have: {names}")


def _parts_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a mapping with the keys ``test`` and perhaps ``train`` and
    ``validation`` (or ``val``, ``valid``), such as a DatasetDict of Hugging Face.

    Raises:
        UserError: there is no test part, or validation images are there twice.
    """
    if "test" not in data:
        raise UserError(
            f"data has the keys {', '.join(map(str, data))}, and no test; add it to train, or give "
            "one of its parts to measure on that"
        )
    parts: dict[str, Any] = {}
    for key in filter(data.__contains__, PARTS):
        if PARTS[key] in parts:
            raise UserError(
                f"data has two parts of {PARTS[key]} images, such as {key}; leave out one"
            )
        parts[PARTS[key]] = data[key]
    return parts


def _labelled(data: Any, origin: Origin, layout: Layout | None) -> Labelled:
    """Return the images and labels of one part of the data that a caller gives."""
    if isinstance(data, Split):
        return Labelled(images=data.pixels, labels=data.labels, layout=layout)
    if isinstance(data, SplitLike):
        return Labelled(images=data, labels=data.labels)
    return labelled(data, origin, layout)


def _fitting(split: SplitLike, origin: Origin, classes: Sequence[str], max_value: int) -> SplitLike:
    """Return a split with pixels and labels in their standard types, after checking its labels and
    whole pixels.

    Raises:
        UserError: a label is no class, a pixel is above ``max_value``, or one of them is of another
            type or shape.
    """
    found = _standard(split, origin)
    check_labels(found.labels, classes, origin, images=_count(found))
    if isinstance(found, Split) and max_value < 255:
        check_whole_pixels(found.pixels, max_value, str(origin))
    return found


def _count(split: SplitLike) -> int | None:
    """Return the number of images of a split, None if it is not known apart from that of labels."""
    if isinstance(split, Split):
        return len(split.pixels)
    numbers = getattr(split, "numbers", None)
    return None if numbers is None else len(numbers)


def first(split: SplitLike, limit: int | None) -> SplitLike:
    """Return the first ``limit`` images of a split, or all images if ``limit`` is None.

    Where the images are sorted by class and the first ones lack a class that would have fitted, a
    `curricula.errors.DataWarning` says so: their accuracy says little about the others.

    Raises:
        UserError: a limit below 1, or a split without images.
    """
    if limit is not None:
        check_whole("limit", limit, 1)
    if not len(split):
        raise UserError("split has no images: give one or more")
    if limit is None or limit >= len(split):
        return split
    labels_N = split.labels
    if bool((labels_N[1:] >= labels_N[:-1]).all()):
        chosen, classes = (len(set(part.tolist())) for part in (labels_N[:limit], labels_N))
        if chosen < min(limit, classes):
            note(
                f"the images are sorted by class, and the first {limit:,} of {len(split):,} are of "
                f"{chosen:,} of {classes:,} classes: raise limit (--limit), or measure all"
            )
    return split[slice(limit)]


def classes_in_turn(labels_N: Tensor, count: int) -> Tensor:
    """Return the indices of at most ``count`` images to look at: the first image of each class, in
    the order in which the classes appear, then the second of each, and so on.

    >>> classes_in_turn(torch.tensor([0, 0, 0, 1, 1]), 4)
    tensor([0, 3, 1, 4])
    """
    seen: dict[int, int] = {}
    ranks = []
    for label in labels_N.tolist():
        ranks.append(seen.get(label, 0))
        seen[label] = ranks[-1] + 1
    return torch.tensor(ranks).argsort(stable=True)[:count]


def in_proportion(labels_N: Tensor, count: int) -> Tensor:
    """Return the indices of ``count`` images to measure, of each class its share, class by class.

    >>> in_proportion(torch.tensor([1, 0, 0, 1, 0, 0]), 3)
    tensor([1, 4, 0])
    """
    by_class = labels_N.argsort(stable=True)
    return by_class[torch.arange(count, device=by_class.device) * len(by_class) // count]


def first_training(data: DataSet, images: int) -> DataSet:
    """Return a data set with only its first ``images`` training images.

    Raises:
        UserError: fewer than 10, or more than there are.
    """
    there_are = len(data.train)
    try:
        check_whole(f"{data.name}: images", images, 10, there_are)
    except UserError as error:
        everything = f"data {data.name} (--data {data.name}) takes all {there_are}"
        raise UserError(f"{error}; {everything}") from error
    return attrs.evolve(data, train=data.train[slice(images)])


def as_split(split: SplitLike, data: DataSet) -> SplitLike:
    """Return labelled images after checking that they are those of a data set, with pixels and
    labels in their standard types.

    Raises:
        UserError: pixels or labels of another type or shape, other channels, or a label beyond
            the classes of the data set.
    """
    found = _fitting(split, Origin(""), data.classes, data.max_value)
    if len(found) and found.shape[0] != data.in_channels:
        raise UserError(
            f"the images have {found.shape[0]} channels; those of {data.name} have "
            f"{data.in_channels}"
        )
    return found


@known_keywords()
@cpu_by_default()
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
    built = factories.build("dataset", check_call("dataset", text), supplied=supplied)
    if not isinstance(built.value, DataSet):
        raise UserError(f"data set {text}: its plugin returned {shown(built.value)}, no DataSet")
    return attrs.evolve(built, value=_checked(built.value))


def as_dataset(
    data: Any,
    *,
    root: str | Path = "data",
    layout: Layout | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> DataSet:
    """Return what a caller gives as data as a data set, with its images to measure on as test
    images.

    >>> x, y = torch.rand(6, 28, 28), [0, 1, 2, 0, 1, 2]
    >>> data = as_dataset((x, y), num_classes=10)
    >>> len(data.test), data.in_channels, data.image_size, data.num_classes
    (6, 1, 28, 10)

    Args:
        data: a data set or its text; or images with labels: a pair of tensors, arrays or lists, a
            torch data set or loader, a Hugging Face data set.
        root: folder of the files, where ``data`` is a text.
        layout: order of the images' axes, ``NCHW`` or ``NHWC``; by default recognised.
        classes: class names, by label; by default those that the data state.
        num_classes: number of classes, which names them "0", "1", ... where nothing else does.

    Raises:
        UserError: something else, or images or labels that are not as `DataSet.from_arrays` takes
            them; as `load_data` does.
    """
    if isinstance(data, str):
        loaded = load_data(data, root=root)
    elif isinstance(data, DataSet):
        loaded = _checked(data)
    else:
        parts = _parts_of(data) if isinstance(data, Mapping) else {"": data}
        return from_parts(parts, layout=layout, classes=classes, num_classes=num_classes)
    if layout is not None or classes is not None:
        raise UserError(f"layout and classes are for arrays: {loaded.name} states its own")
    return loaded


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
