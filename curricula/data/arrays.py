"""Convert images and labels that third-party code brings: tensors, arrays, lists, torch and Hugging
Face data sets, loaders.

What is beyond doubt is converted, the rest is refused in one line. Nothing is written to the
caller's memory.
"""

import math
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from curricula.data.photos import pixels_of
from curricula.errors import DataWarning, UserError, message_of, printable, shortened, shown
from curricula.runtime.memory import check_fits
from curricula.runtime.processes import place
from curricula.runtime.random_state import seeded

Layout = Literal["NCHW", "NHWC"]
"""Order of the axes of images: N images of C channels, H x W pixels."""

CHANNELS = range(1, 5)  # numbers of channels that differ from heights and widths
MAX_NAMED = 1000  # classes that are named by the numbers in the labels
ROUNDING = 1e-5  # how far floating-point pixels may be beyond [0, 1]
DARKEST = 16  # highest uint8 pixel of images that were certainly stored on a different scale
IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "target")
MAX_STREAMED = 10_000_000  # images of data that do not state their number
DENSE_TYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8}
    | {torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
"""Types of the tensors that images and labels are taken from."""


@attrs.frozen
class Origin:
    """The part and the name of a data set, as messages name them.

    >>> str(Origin("test", "digits")), str(Origin("training"))
    ('test images of digits', 'training images')

    Attributes:
        name: ``training``, ``test``, ``validation``, or empty.
        data: name of the data set; empty if it has none.
    """

    name: str
    data: str = ""

    def __str__(self) -> str:
        return self.of("images")

    def of(self, things: str) -> str:
        """Return what the part holds, with the names of the part and of the data set."""
        return " ".join(filter(None, (self.name, things, self.data and f"of {self.data}")))


@attrs.frozen(kw_only=True, eq=False)
class Labelled:
    """Images and labels as a caller gave them, and the class names that the data state.

    Attributes:
        images: tensor, array or sequence of images.
        labels: tensor, array or sequence of labels.
        classes: class names, by label; None if the data do not state them.
        layout: order of the axes of the images; None recognises it.
    """

    images: Any
    labels: Any
    classes: tuple[str, ...] | None = None
    layout: Layout | None = None


def labelled(data: Any, origin: Origin, layout: Layout | None) -> Labelled:
    """Return the images and labels that data hold, which are read once.

    Args:
        data: a pair (images, labels), a torch data set or loader, a Hugging Face data set, or a
            sequence of pairs (image, label).
        origin: names the data in messages.
        layout: order of the images' axes; None recognises it.

    Raises:
        UserError: data of a different kind, images of different sizes, or an item that cannot be
            read.
    """
    if _is_pair(data):
        return Labelled(images=data[0], labels=data[1], layout=layout)
    with seeded(0, torch.device("cpu")):  # transforms and orders that are drawn are repeatable
        return _read(data, origin, layout)


def _read(data: Any, origin: Origin, layout: Layout | None) -> Labelled:
    """Return the images and labels of data that are not a pair."""
    if isinstance(data, DataLoader):
        data = _in_stored_order(data)
        count, names = _length(data.sampler, origin), _class_names(data.dataset)
        found = _collect(data, origin, layout, batched=True, count=count, classes=names)
        if data.drop_last and len(found.labels) != count:
            of = "" if count is None else f" of {count:,}"
            note(
                f"the loader leaves out its last batch (drop_last=True): {len(found.labels):,}{of} "
                f"{origin} are used"
            )
        return found
    features, columns = getattr(data, "features", None), getattr(data, "column_names", None)
    if isinstance(columns, (list, tuple)) and hasattr(data, "__iter__"):
        image, label = _columns(columns, features, origin)
        rows = ((row[image], row[label]) for row in data)
        names = _as_names(getattr(features[label] if features else None, "names", None))
        return _collect(rows, origin, layout, count=_length(data, origin), classes=names)
    if isinstance(data, (str, bytes, Mapping, Tensor, np.ndarray)) or not _is_sequence(data):
        ours = "" if origin.name else "a DataSet or its name, such as 'digits', "
        raise UserError(
            f"{origin.of('data')} must be {ours}a pair (images, labels), a torch Dataset or "
            f"DataLoader, or a Hugging Face data set, not {_described(data)}"
        )
    count = _length(data, origin)
    is_map = hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)
    items = (data[index] for index in range(count)) if is_map and count is not None else iter(data)
    return _collect(items, origin, layout, count=count, classes=_class_names(data))


def _in_stored_order(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Return a loader of the same images in the order of its data set, if it only shuffles them;
    else the loader itself."""
    sampler = loader.sampler
    if type(loader) is not DataLoader or type(sampler) is not RandomSampler or sampler.replacement:
        return loader
    is_batched = type(loader.batch_sampler) in (BatchSampler, type(None))
    if not is_batched or len(sampler) != len(loader.dataset):  # type: ignore[arg-type]
        return loader
    batch: dict[str, Any] = {"batch_size": None}
    if loader.batch_sampler is not None:
        batch = {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
    return DataLoader(
        loader.dataset,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        **batch,
    )


def note(text: str) -> None:
    """Tell the user in one line how data were understood; once, if processes share the work."""
    if not place().rank:
        warnings.warn(text, DataWarning, stacklevel=3)


def _is_pair(data: Any) -> bool:
    """Return whether data are (images, labels), and not two items or two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    return not all(isinstance(item, Mapping) or _is_labelled(item) for item in data)


def _is_labelled(item: Any) -> bool:
    """Return whether an item is a pair (image, label), or a batch of them."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    image, label = item
    return label is None or isinstance(label, str) or _is_number(label) or _is_batch(image, label)


def _is_batch(images: Any, labels: Any) -> bool:
    """Return whether images and labels are several beyond doubt, by their axes."""
    is_array = isinstance(images, (Tensor, np.ndarray))
    if not is_array or not isinstance(labels, (Tensor, np.ndarray, list, tuple)):
        return False
    shape = tuple(images.shape)
    is_grey = len(shape) == 3 and shape[0] not in CHANNELS and shape[2] not in CHANNELS
    return _has_axes(labels) and (len(shape) == 4 or (is_grey and len(labels) == len(images)))


def _has_axes(value: Any) -> bool:
    """Return whether a list, an array or a tensor is not of a single number."""
    return bool(getattr(value, "ndim", 1))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) or (
        isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0
    )


def _is_sequence(data: Any) -> bool:
    has_items = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return not isinstance(data, type) and (hasattr(data, "__iter__") or has_items)


def _length(data: Any, origin: Origin) -> int | None:
    """Return the number of items, None if it is not known before they are read.

    Raises:
        UserError: third-party code fails, or returns something else.
    """
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None
    except Exception as error:
        raise UserError(f"the {origin} have no len(): {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what third-party code raised, as text for a message."""
    name, text = type(error).__name__, message_of(error)
    if "Original Traceback" in text:  # of a loader's worker, with its traceback
        text = text.rpartition(f"{name}: ")[2]
    return shortened(f"{name}: {text}".removesuffix(": "))


def _class_names(data: Any) -> tuple[str, ...] | None:
    """Return the class names of a torch data set, or of the one that it is a subset of."""
    for _ in range(100):
        names = _as_names(getattr(data, "classes", None))
        if names is not None or not hasattr(data, "dataset"):
            return names
        data = data.dataset
    return None


def _as_names(names: Any) -> tuple[str, ...] | None:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) or None


def _columns(columns: Sequence[str], features: Any, origin: Origin) -> tuple[str, str]:
    """Return the names of the columns of images and labels of a Hugging Face data set.

    Raises:
        UserError: none or several are possible.
    """
    found = []
    for keys, kind in ((IMAGE_KEYS, "Image"), (LABEL_KEYS, "ClassLabel")):
        of_kind = [
            name for name in columns if features and type(features.get(name)).__name__ == kind
        ]
        known = [name for name in keys if name in columns]
        if len(known) != 1 and len(of_kind) == 1:
            known = of_kind
        if len(known) != 1:
            raise UserError(
                f"the {origin} have the columns {', '.join(columns)}; rename that of the "
                f"{'images' if kind == 'Image' else 'labels'} to {keys[0]}, and drop others alike"
            )
        found += known
    return found[0], found[1]


def _collect(
    items: Iterable[Any],
    origin: Origin,
    layout: Layout | None,
    *,
    batched: bool = False,
    count: int | None = None,
    classes: tuple[str, ...] | None = None,
) -> Labelled:
    """Return the images and labels of items (image, label), read one after another into one block
    of memory, NCHW.

    Args:
        items: the items, or batches of them.
        origin: names the data in messages.
        layout: order of the axes of images that are not Pillow's; None recognises it.
        batched: the items are batches, except those of a single image and a single label;
            otherwise they are where their axes leave no doubt.
        count: number of items, if it is known.
        classes: class names.

    Raises:
        UserError: an item of a different form, images of different sizes, or no image.
    """
    stack = Stack(origin, count)
    labels: list[Any] = []
    name = "batch" if batched else "item"
    for number, item in enumerate(_read_items(items, name, origin, count)):
        image, label = _image_and_label(item, f"{name} {number} of the {origin}")
        order = layout
        label = label.tolist() if isinstance(label, (Tensor, np.ndarray, np.generic)) else label
        is_batch = (batched and isinstance(label, (list, tuple))) or _is_batch(image, label)
        if isinstance(image, Image.Image):
            image, order = pixels_of(image, f"image {number} of the {origin}"), "NCHW"
        elif is_batch and isinstance(image, (list, tuple)):
            rows = ((each, 0) for each in image)
            image, order = _collect(rows, origin, layout, count=len(image)).images, "NCHW"
        image = _as_tensor(image, str(origin))
        image = image if is_batch else image.unsqueeze(0)
        if is_batch and len(label) != len(image):
            raise UserError(
                f"{name} {number} of the {origin} has {len(image):,} images and {len(label):,} "
                "labels; give each image its label"
            )
        stack.add(_as_nchw(image, origin, order, stored=False))
        labels += label if is_batch else [label]
    return Labelled(images=stack.images(), labels=labels, classes=classes, layout="NCHW")


def _read_items(
    items: Iterable[Any], name: str, origin: Origin, count: int | None
) -> Iterator[Any]:
    """Yield the items, or batches, of third-party data.

    Raises:
        UserError: reading one of them fails, or their number is not the one that is stated.
    """
    number = 0
    try:
        for item in items:
            yield item
            number += 1
    except UserError:
        raise
    except Exception as error:
        fix = f"; is their len(), {count:,}, too large?" if isinstance(error, IndexError) else ""
        raise UserError(
            f"{name} {number} of the {origin} cannot be read: {_reason(error)}{fix}"
        ) from error
    if name == "item" and count is not None and number != count:
        raise UserError(
            f"the {origin} are {number:,} items, and their len() is {count:,}; correct __len__"
        )


def _image_and_label(item: Any, what: str) -> tuple[Any, Any]:
    """Return the image and the label of an item, or of a batch, of a data set.

    Raises:
        UserError: the item is of a different form.
    """
    if isinstance(item, Mapping):
        images = [key for key in IMAGE_KEYS if key in item]
        labels = [key for key in LABEL_KEYS if key in item]
        if len(images) == len(labels) == 1:
            return item[images[0]], item[labels[0]]
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    kind = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else _described(item)
    raise UserError(f"{what} must be (image, label), or have the keys image and label, not {kind}")


class Stack:
    """Images of one shape, copied into one block of memory as they come.

    Args:
        origin: names the images in messages.
        count: number of images to come, if it is known.
    """

    def __init__(self, origin: Origin, count: int | None) -> None:
        self._origin = origin
        self._count = count
        self._block: Tensor | None = None
        self._used = 0

    def add(self, images: Tensor) -> None:
        """Append a batch of images, NCHW.

        Raises:
            UserError: their shape differs from that of the first ones.
        """
        if self._block is None:
            self._block = self._allocated(images, self._count or len(images))
        block = self._block
        channels = block.shape[1], images.shape[1]
        if channels == (1, 3):  # a colour image after grey ones
            block = block.expand(-1, 3, -1, -1).contiguous()
        elif channels == (3, 1):
            images = images.expand(-1, 3, -1, -1)
        if block.shape[1:] != images.shape[1:]:
            raise UserError(
                f"image {self._used} of the {self._origin} has the shape "
                f"{tuple(images.shape[1:])}, those before it {tuple(block.shape[1:])}; give all "
                "the same size, such as with torchvision.transforms.Resize((HEIGHT, WIDTH))"
            )
        if images.dtype != block.dtype:
            raise UserError(
                f"image {self._used} of the {self._origin} is of {images.dtype}, those before it "
                f"of {block.dtype}; give all the same type"
            )
        end = self._used + len(images)
        if end > len(block):
            if self._count is None and end > MAX_STREAMED:
                raise UserError(
                    f"item {self._used:,} of the {self._origin} came, and no end; give a finite "
                    "part, such as a list: list(itertools.islice(data, 10_000))"
                )
            larger = self._allocated(block, max(end, 2 * len(block)))
            larger[: self._used] = block[: self._used]
            block = larger
        block[self._used : end] = images
        self._block, self._used = block, end

    def _allocated(self, images: Tensor, count: int) -> Tensor:
        """Return memory for ``count`` images that are like the given ones.

        Raises:
            UserError: it does not fit.
        """
        check_fits(
            f"{count:,} {self._origin}",
            count * math.prod(images.shape[1:]) * images.element_size(),
            fix="give fewer or smaller ones",
        )
        return images.new_empty((count, *images.shape[1:]))

    def images(self) -> Tensor:
        """Return all images, stacked.

        Raises:
            UserError: there are none.
        """
        if self._block is None:
            raise UserError(f"the {self._origin} are none: give one or more")
        return self._block[: self._used]


def _unwrapped(value: Any) -> Any:
    """Return a column of pandas as an array, and an array of Python objects as a list."""
    value = value.to_numpy() if hasattr(value, "to_numpy") else value
    is_objects = isinstance(value, np.ndarray) and value.dtype == object
    return value.tolist() if is_objects else value


def _as_tensor(value: Any, what: str) -> Tensor:
    """Return a tensor, an array or nested lists of numbers as a tensor, which may share memory.

    Raises:
        UserError: they are none.
    """
    if isinstance(value, Tensor):
        check_dense(value, what)
        return value.detach() if value.requires_grad else value
    if isinstance(value, Image.Image):
        raise UserError(f"the {what} are a single image of Pillow; give a list: [image]")
    if isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
        raise UserError(
            f"the {what} are masked in part, which would be lost; leave masked images out, or give "
            "what is behind the mask: array.data"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"the {what} must have one shape; {_described(value)} has not") from error
    dtype = array.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        fix = "; give one field: array['NAME']" if dtype.names else _FIXES.get(dtype.kind, "")
        raise UserError(f"the {what} must be numbers, not {_other(value)}{fix}")
    standard = np.dtype(f"{dtype.kind}{dtype.itemsize}")
    if not dtype.isnative or dtype.num != standard.num:  # a second name of the same type
        array = array.astype(standard)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch cannot share its memory
    return torch.from_numpy(array)


_FIXES: Mapping[str, str] = {
    "S": "; decode the bytes: np.char.decode(array)",
    "c": "; give the real part: array.real",
    "f": "; write array.astype(np.float64)",
}
"""Fixes for arrays that are refused, by the kind of their type."""


def check_dense(tensor: Tensor, what: str) -> None:
    """Check that a tensor has one value in memory for each of its elements, of a common type.

    Raises:
        UserError: it is sparse, nested, quantised, without values or of another type, such as
            complex numbers; the message has the fix.
    """
    dtype = tensor.dtype
    if tensor.is_nested:
        kind, fix = "a nested tensor", "give a list of tensors: list(tensor.unbind())"
    elif tensor.layout is not torch.strided:
        kind, fix = f"a tensor of layout {tensor.layout}", "write tensor.to_dense()"
    elif tensor.is_quantized:
        kind, fix = f"a quantised tensor of {dtype}", "write tensor.dequantize()"
    elif tensor.is_meta:
        kind, fix = "a tensor of the device meta, which has no values", "load them first"
    elif tensor.is_complex():
        kind, fix = f"of {dtype}, complex numbers", "give the real part: tensor.real"
    elif dtype not in DENSE_TYPES:
        kind, fix = f"of {dtype}", "write tensor.float(), if that type has numbers"
    else:
        return
    raise UserError(f"the {what} are {kind}; {fix}")


def _other(value: Any) -> str:
    """Return the description of the first item of nested lists that is not a number."""
    while isinstance(value, (list, tuple)):
        others = [item for item in value if not _is_number(item)]
        if not others:
            return shown(value)  # of more than 64 bits
        value = others[0]
    return _described(value)


def as_pixels(value: Any, origin: Origin, *, layout: Layout | None, stored: bool = False) -> Tensor:
    """Return images as pixels NCHW: uint8, or floating-point numbers in [0, 1].

    Args:
        value: images: a tensor, an array, nested lists, or a sequence of images; integers of other
            types from 0 to 255 become uint8, truth values 0 and 255.
        origin: names the images in messages.
        layout: order of the axes; None recognises it, where one of the two possible places of the
            channels has 1 to 4.
        stored: the images are those of a `Split`, which are NCHW unless the shape shows that
            they are not, and may have a different scale.

    Raises:
        UserError: images of another type or shape, pixels out of range, NaN, or axes in an order
            that the shape does not tell.
    """
    value = _unwrapped(value)
    if isinstance(value, (list, tuple)) and value and not _is_number(value[0]):
        items = ((image, 0) for image in value)
        value, layout = _collect(items, origin, layout, count=len(value)).images, "NCHW"
    x = _as_tensor(value, str(origin))
    if x.dtype == torch.bool:
        x = x.to(torch.uint8) * 255
    elif x.is_floating_point():
        x = as_fractions(x, str(origin))
        if not stored and x.numel() and 0 < float(x.max()) < 1.01 / 255:
            raise UserError(
                f"the {origin} have no pixel above {float(x.max()):.2g}: they seem to be divided "
                "by 255 twice; give floating-point pixels from 0 to 1"
            )
    else:
        x = _as_bytes(x, origin, stored=stored)
    return _as_nchw(x, origin, layout, stored=stored)


def _as_bytes(x: Tensor, origin: Origin, *, stored: bool) -> Tensor:
    """Return whole pixels as uint8.

    Raises:
        UserError: one is negative, above 255, or all are so low that they have another scale.
    """
    if x.dtype == torch.int8:  # half as bright, shifted or wrapped round: it does not tell
        raise UserError(
            f"the {origin} are of torch.int8, which ends at 127; give pixels from 0 to 255 as "
            "uint8, or from 0 to 1 as floating-point numbers"
        )
    if not x.numel() or (stored and x.dtype == torch.uint8):
        return x.to(torch.uint8)
    # torch.aminmax does not take all types, and int64 does not hold all numbers of uint64.
    low, high = map(int, torch.aminmax(x if x.dtype == torch.uint8 else x.double()))
    if low < 0 or high > 255:
        fix = ", such as pixels / 65535" if low >= 0 and high < 2**16 else ""
        raise UserError(
            f"the {origin} have pixels from {low} to {high}; whole pixels must be from 0 to 255: "
            f"give floating-point numbers from 0 to 1{fix}"
        )
    if not stored and 0 < high <= DARKEST:
        raise UserError(
            f"the {origin} have no pixel above {high} of 255; if {high} means white, give "
            f"floating-point numbers from 0 to 1: pixels / {high}"
        )
    return x.to(torch.uint8)


def _as_nchw(x: Tensor, origin: Origin, layout: Layout | None, *, stored: bool) -> Tensor:
    """Return images with their axes in the order NCHW.

    Raises:
        UserError: the number of axes is wrong, or their order is in doubt.
    """
    shape = tuple(x.shape)
    if x.ndim == 3 and min(shape[1:]) not in CHANNELS and shape[1:] != (0, 0):
        return x.unsqueeze(1)
    if x.ndim != 4 or 0 in shape[1:]:
        raise UserError(
            f"the {origin} must have the shape (N, C, H, W), (N, H, W, C) or, if grey, (N, H, W), "
            f"not {shape}; write images.reshape(...)"
        )
    if layout is None:
        first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
        if first == last and not stored:
            raise UserError(
                f"the {origin} have the shape {shape}, which does not tell where the channels are; "
                "write layout='NCHW' or layout='NHWC'"
            )
        layout = "NHWC" if last and not first else "NCHW"
    return x.permute(0, 3, 1, 2).contiguous() if layout == "NHWC" else x


def as_fractions(pixels: Tensor, what: str) -> Tensor:
    """Return floating-point pixels in [0, 1], in float32 if they are in float64, after checking
    that they differ from such numbers by rounding only, as after a resize. Waits for the device.

    Args:
        pixels: the pixels, which are not written to.
        what: the images, for the message.

    Raises:
        UserError: one is beyond [0, 1], or NaN; the message has the value and the fix.
    """
    x = pixels.float() if pixels.dtype == torch.float64 else pixels
    if not x.numel():
        return x
    low, high = map(float, torch.aminmax(x))
    if low >= 0 and high <= 1:
        return x
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return x.clamp(0, 1)
    check_fractions(x, what)  # raises, also for NaN
    return x


def check_fractions(pixels: Tensor, what: str) -> None:
    """Check that floating-point pixels are in [0, 1]. Waits for the device.

    Args:
        pixels: the pixels.
        what: the images, for the message.

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
    elif low >= 0 and high <= 2:
        fix = "clip them: pixels.clip(0, 1)"
    elif low >= 0 and high <= 255:
        fix = "divide them: pixels / 255"
    else:
        fix = "undo their normalisation (pixels * std + mean), and give it to the model: normalise="
    value = high if low >= 0 else low
    raise UserError(
        f"the {what} have a pixel of {value:g}; floating-point pixels must be from 0 to 1: {fix}"
    )


def check_whole_pixels(pixels: Tensor, max_value: int, what: str) -> None:
    """Check that uint8 pixels are at most ``max_value``. Waits for the device.

    Args:
        pixels: the pixels; floating-point ones are not looked at.
        max_value: stored value that means 1.0.
        what: the images, for the message.

    Raises:
        UserError: one is not; the message has the value.
    """
    if pixels.is_floating_point() or not pixels.numel():
        return
    highest = int(pixels.max())
    if highest > max_value:
        raise UserError(
            f"the {what} have a pixel of {highest}; uint8 pixels must be from 0 to max_value, "
            f"{max_value}"
        )


def in_order_of(
    names: Sequence[str], labels_N: Tensor, own: Sequence[str], origin: Origin
) -> Tensor:
    """Return labels that number the classes in the order of other names, (N,).

    >>> in_order_of(["dog", "cat"], torch.tensor([0, 1, 1]), ["cat", "dog"], Origin("test"))
    tensor([1, 0, 0])

    Raises:
        UserError: a label has no name in ``own``, or its name is not among ``names``.
    """
    check_labels(labels_N, own, origin, images=len(labels_N))
    present = [own[label] for label in labels_N.unique().tolist()]  # type: ignore[no-untyped-call]
    missing = [name for name in present if name not in names]
    if missing:
        raise UserError(
            f"the {origin} have the class {shown(missing[0])}, which classes lacks: name all of "
            f"{', '.join(own)}, in any order"
        )
    numbers = [names.index(name) if name in names else -1 for name in own]
    return torch.tensor(numbers, device=labels_N.device)[labels_N]


def as_labels(value: Any, origin: Origin, classes: Sequence[str] | None = None) -> Tensor:
    """Return labels as int64 (N,).

    Args:
        value: labels: a tensor, an array or a sequence of whole numbers of any type, of shape (N,)
            or (N, 1); one-hot rows (N, K); or class names.
        origin: names the labels in messages.
        classes: class names, which labels that are text are among.

    Raises:
        UserError: labels of another type or shape, or that are not whole.
    """
    what, value = origin.of("labels"), _unwrapped(value)
    names = _texts(value)
    y = _as_tensor(value if names is None else _numbered(names, what, classes), what)
    y = y.double() if y.dtype == torch.uint64 else y  # int64 does not hold all of its numbers
    while y.ndim > 1 and y.shape[-1] == 1:
        y = y.squeeze(-1)
    if y.ndim == 2:
        y = _from_one_hot(y, what)
    if y.ndim != 1:
        raise UserError(f"the {what} must have the shape (N,), not {tuple(y.shape)}")
    whole = y.to(torch.int64)
    if y.is_floating_point():
        wrong = (whole != y) | ~y.isfinite()
        if wrong.any():
            raise UserError(
                f"the {what} must be whole numbers, class by class from 0, not "
                f"{float(y[wrong][0]):g}"
            )
        largest = int(2 / torch.finfo(y.dtype).eps)  # the next whole number is rounded to it
        if len(whole) and int(whole.max()) >= largest:
            raise UserError(
                f"the {what} are from {int(whole.min())} to {int(whole.max())} in {y.dtype}, which "
                f"rounds whole numbers above {largest}; give them as int64"
            )
    return whole


def named_classes(labels: Any) -> tuple[str, ...] | None:
    """Return the sorted class names in labels that are text, or None if they are not. Whole numbers
    are in the order of their values.

    >>> named_classes(["dog", "cat", "dog"]), named_classes(["10", "9"])
    (('cat', 'dog'), ('9', '10'))
    """
    found = _texts(_unwrapped(labels))
    if found is None:
        return None
    names = {name for name in found if isinstance(name, str)}
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _texts(labels: Any) -> list[Any] | None:
    """Return labels as a flat list if the first of them is text, else None."""
    first = labels
    while isinstance(first, (list, tuple, np.ndarray)) and _has_axes(first) and len(first):
        first = first[0]
    if not isinstance(first, str) or first is labels:
        return None
    return list(np.asarray(labels, dtype=object).reshape(-1))


def _numbered(names: list[Any], what: str, classes: Sequence[str] | None) -> list[int]:
    """Return the number of each class name."""
    if classes is None:
        raise UserError(
            f"the {what} are text: name the classes in the order of the model's outputs, "
            "curricula.data.as_dataset(data, classes=[...])"
        )
    number = {name: index for index, name in enumerate(classes)}
    if len(number) < len(classes):
        twice = next(name for index, name in enumerate(classes) if number[name] != index)
        raise UserError(
            f"the {what} are text, and two classes are named {shown(twice)}; give the labels as "
            "numbers"
        )
    for name in names:
        if not isinstance(name, str) or name not in number:
            raise UserError(f"the {what} have {shown(name)}, which is not among the classes")
    return [number[name] for name in names]


def _from_one_hot(y_NK: Tensor, what: str) -> Tensor:
    """Return the number of the class in each one-hot row.

    Raises:
        UserError: a row has other numbers than a single 1 and zeros.
    """
    ones = y_NK == 1
    if y_NK.shape[1] and not ((ones.sum(1) == 1) & ((y_NK == 0).sum(1) == y_NK.shape[1] - 1)).all():
        raise UserError(
            f"the {what} of shape {tuple(y_NK.shape)} are not one-hot: a row must have a single 1, "
            "all else 0; give one class for each image, (N,)"
        )
    return ones.to(torch.int64).argmax(1)


def check_labels(
    y_N: Tensor, classes: Sequence[str], origin: Origin, *, images: int | None = None
) -> None:
    """Check that labels are among the classes, one for each image.

    Args:
        y_N: labels, int64 (N,).
        classes: class names.
        origin: names the labels in messages.
        images: number of images; None if it is not known.

    Raises:
        UserError: they are not; the message has the fix.
    """
    what = origin.of("labels")
    if images is not None and images != len(y_N):
        raise UserError(
            f"there are {images} {origin} and {len(y_N)} labels; give each image its label"
        )
    if not len(y_N):
        return
    low, high = map(int, y_N.aminmax())
    if low >= 0 and high < len(classes):
        return
    fix = ""
    if low < 0:
        fix = "; number them from 0, and leave out images without a class"
    elif low == 1 and high == len(classes):
        fix = "; number them from 0: labels - 1"
    raise UserError(
        f"the {what} are from {low} to {high}; they must be from 0 to {len(classes) - 1}, for the "
        f"{len(classes)} classes{fix}"
    )


def classes_of(labels: Sequence[Tensor], *, all_present: bool) -> tuple[str, ...]:
    """Return the class names "0", "1", ... of the numbers in labels (N,) of one or more parts.

    Args:
        labels: the labels of each part, one or more in all.
        all_present: each class must have an image, as for a training; else a class may have none,
            and there are two classes or more.

    Raises:
        UserError: a number is negative or, if all must be present, one is left out or there are
            more than 1,000.
    """
    found = torch.cat([y_N.cpu() for y_N in labels]).unique().tolist()  # type: ignore[no-untyped-call]
    numbers = list(range(len(found)))
    if found[0] >= 0 and not all_present:
        return tuple(map(str, range(max(found[-1] + 1, 2))))
    if found != numbers or len(found) > MAX_NAMED:
        fix = "name the classes by their labels: classes=[...]"
        if found == [number + 1 for number in numbers]:
            fix = "number them from 0: labels - 1"
        elif found[0] < 0:
            fix = "number them from 0, and leave out images without a class"
        raise UserError(f"the labels {shown(found)} are not the classes 0, 1, 2, ...; {fix}")
    return tuple(map(str, numbers))


def as_classes(names: Any) -> tuple[str, ...]:
    """Return class names as a tuple, after checking that there are two or more texts.

    Raises:
        UserError: fewer than two, or other values than texts that can be shown.
    """
    if isinstance(names, (str, bytes, Mapping)) or not isinstance(names, Iterable):
        raise UserError(f"classes must be the list of the class names, not {shown(names)}")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str) or not name or name != printable(name):
            raise UserError(f"the name of a class must be text on one line, not {shown(name)}")
    if len(found) < 2:
        raise UserError(
            f"a classifier needs two or more classes, not {len(found)} ({', '.join(found)})"
        )
    return tuple(map(str, found))


def _described(value: Any) -> str:
    """Return the type of a value, and its shape if it has one."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{kind} of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, (numbers.Number, str, bytes)):
        return shown(value)
    if isinstance(value, (tuple, list)):
        return f"{kind} of {len(value)}"
    return kind if shape is None else f"{kind} of shape {shape}"
