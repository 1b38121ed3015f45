"""The contract of a data set: one function for each clause, which raises AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", DATASET_CLAUSES)
    def test_stripes_keeps_the_contract(clause):
        clause(stripes(root="data", download=False))
"""

import inspect
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

import attrs
import torch
from torch import Tensor

from curricula.data.dataset import DataSet, Split, SplitLike, in_order
from curricula.data.lazy_split import LazySplit
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.expressions.syntax import parse_number
from curricula.interfaces import Norm
from curricula.models.build import build_model
from curricula.plugins import registry
from curricula.testing.contract import broken_clauses
from curricula.training.config import COMMON_TRAINING, FIELDS, merge
from curricula.training.learning_rate import parse_learning_rate

NUM_SAMPLED = 16  # images, if not all are needed
BATCH_SIZE = 256  # images in memory, if all are needed


def _splits(dataset: DataSet) -> Iterator[tuple[str, SplitLike]]:
    yield "train", dataset.train
    yield "test", dataset.test
    if dataset.validation is not None:
        yield "validation", dataset.validation


def splits_are_standard(dataset: DataSet) -> None:
    """Check that all splits have pixels NCHW, uint8 or floating-point numbers, int64 labels (N,),
    and images of one size."""
    shapes = set()
    for name, split in _splits(dataset):
        labels = split.labels
        assert labels.dtype == torch.int64, f"{name}: labels of {labels.dtype}, not torch.int64"
        assert labels.ndim == 1, f"{name}: labels of shape {tuple(labels.shape)}, not (N,)"
        assert len(split) == len(labels), f"{name}: {len(split)} images, {len(labels)} labels"
        assert len(labels) > 0, f"{name}: no image"
        if isinstance(split, Split):  # with a wrong number of axes it has no shape
            assert split.pixels.ndim == 4, (
                f"{name}: pixels of shape {tuple(split.pixels.shape)}, not NCHW"
            )
            assert len(split.pixels) == len(labels), (
                f"{name}: {len(split.pixels)} images, {len(labels)} labels"
            )
        try:
            pixels = next(in_order(split[slice(NUM_SAMPLED)], NUM_SAMPLED)).pixels
        except UserError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert pixels.dtype == torch.uint8 or pixels.is_floating_point(), (
            f"{name}: pixels of {pixels.dtype}, not torch.uint8 or floating-point numbers"
        )
        expected = (min(NUM_SAMPLED, len(labels)), *split.shape)
        assert pixels.shape == expected, (
            f"{name}: pixels of shape {tuple(pixels.shape)}, not {expected}"
        )
        shapes.add(split.shape)
    assert len(shapes) == 1, f"the splits' images differ in shape: {sorted(shapes)}"


def labels_match_the_classes(dataset: DataSet) -> None:
    """Check that there are two or more classes, each with its own name and a training image, and
    that no label lies outside them."""
    classes = dataset.classes
    assert len(classes) >= 2, f"{len(classes)} classes"
    assert all(map(str.strip, classes)), "a class without a name"
    assert len(set(classes)) == len(classes), "two classes have the same name"
    for name, split in _splits(dataset):
        low, high = int(split.labels.min()), int(split.labels.max())
        assert low >= 0, f"{name}: a label of {low}"
        assert high < len(classes), f"{name}: a label of {high}, but {len(classes)} classes"
    images_K = torch.bincount(dataset.train.labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, images_K.tolist(), strict=True) if not count]
    assert not missing, f"no training image of {', '.join(missing)}"


def max_value_bounds_the_pixels(dataset: DataSet) -> None:
    """Check that `max_value`, the stored uint8 value of 1.0, is in [1, 255], and no pixel exceeds
    it; floating-point pixels must be in [0, 1]."""
    assert 1 <= dataset.max_value <= 255, f"max_value is {dataset.max_value}"
    for name, split in _splits(dataset):
        for batch in in_order(split, BATCH_SIZE):
            most = 1 if batch.pixels.is_floating_point() else dataset.max_value
            low, high = map(float, batch.pixels.aminmax())
            assert 0 <= low <= high <= most, (  # NaN fails too
                f"{name}: pixels from {low:g} to {high:g}; they must be from 0 to {most}"
            )


def images_are_floats_in_0_to_1(dataset: DataSet) -> None:
    """Check that `images` returns float32 NCHW of image_size in [0, 1], not constant, in new
    memory, and does not write to the stored pixels."""
    for name, split in _splits(dataset):
        pixels = split[slice(NUM_SAMPLED)].load().pixels
        before = pixels.clone()
        x = dataset.images(pixels)
        assert torch.equal(pixels, before), f"{name}: the stored pixels were written to"
        expected = (len(pixels), *dataset.image_shape)
        assert x.shape == expected, f"{name}: images of shape {tuple(x.shape)}, not {expected}"
        assert x.dtype == torch.float32, f"{name}: images of {x.dtype}"
        low, high = float(x.min()), float(x.max())
        assert 0 <= low < high <= 1, f"{name}: images from {low:g} to {high:g}"
        x.zero_()  # as a network that normalises in place would write
        assert torch.equal(pixels, before), f"{name}: images share the memory of the pixels"


def budgets_are_numbers_of_known_units(dataset: DataSet) -> None:
    """Check that each budget is a number of 0 or more in the unit of a registered perturbation."""
    known = {*get_args(Norm), *_units()}
    for unit, text in dataset.budgets.items():
        assert unit in known, f"no perturbation has the unit {unit!r}; known: {_listed(known)}"
        try:
            value = parse_number(text).value
        except UserError as error:
            raise AssertionError(f"budget {text!r} in {unit}: {error}") from error
        assert value >= 0, f"a budget of {text} {unit}"


def _units() -> Iterator[str]:
    for registered in registry.current().records("perturbation").values():
        try:
            factory = registered.load()
            unit = getattr(factory, "unit", None)
            yield unit if isinstance(unit, str) else factory(budget=1.0).unit
        except Exception:
            continue  # a perturbation that cannot be imported is not the data set's fault


def attack_defaults_are_accepted(dataset: DataSet) -> None:
    """Check that each attack default is a parameter of a registered perturbation, and that every
    perturbation with this parameter accepts the value."""
    takers: dict[str, list[str]] = {parameter: [] for parameter in dataset.attack_defaults}
    for name, registered in registry.current().records("perturbation").items():
        try:
            parameters = inspect.signature(registered.load()).parameters
            bind(f"{name}(budget=1)")
        except (UserError, ValueError):
            continue  # likewise, or it needs more than a budget
        for parameter in takers.keys() & parameters.keys():
            takers[parameter].append(name)
    for parameter, text in dataset.attack_defaults.items():
        assert takers[parameter], f"no perturbation has a parameter {parameter!r}"
        for name in takers[parameter]:
            try:
                bind(f"{name}(budget=1)", defaults={parameter: text})
            except UserError as error:
                raise AssertionError(f"attack default {parameter}={text!r}: {error}") from error


def training_defaults_are_valid(dataset: DataSet) -> None:
    """Check that the training defaults and the common ones together are a valid `TrainConfig`, and
    that the model, the learning-rate schedule and the batch size work for the images."""
    own = {"data", "data_root", "device", "seed"} & set(dataset.training_defaults)
    assert not own, f"{_listed(own)}: the user chooses these, not a data set"
    try:
        config = merge(COMMON_TRAINING, dataset.training_defaults)
        parse_learning_rate(config.lr_schedule)
        with torch.random.fork_rng([]):
            build_model(config.model, dataset)
    except UserError as error:
        raise AssertionError(f"{error} (known keys: {_listed(set(FIELDS))})") from error
    images = len(dataset.with_validation()[0].train)
    assert config.batch_size <= images, f"batches of {config.batch_size} from {images} images"


def splits_share_no_memory(dataset: DataSet) -> None:
    """Check that images and labels of two splits share no memory, and no image number if both have
    the same reader."""
    for (name, one), (other_name, other) in itertools.combinations(_splits(dataset), 2):
        both = f"{name} and {other_name}"
        of_both = [("labels", one.labels, other.labels)]
        if isinstance(one, Split) and isinstance(other, Split):
            of_both.append(("pixels", one.pixels, other.pixels))
        for what, tensor, other_tensor in of_both:
            (begin, end), (other_begin, other_end) = _span(tensor), _span(other_tensor)
            assert end <= other_begin or other_end <= begin, (
                f"the {what} of {both} lie in the same memory: are they the same images?"
            )
        if (
            isinstance(one, LazySplit)
            and isinstance(other, LazySplit)
            and one.reader is other.reader
        ):
            common = torch.isin(one.numbers, other.numbers)
            assert not common.any(), f"{int(common.sum())} images are in both {both}"


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the memory addresses of a tensor's first byte and of the byte after its last."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in strides)
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def validation_images_are_separate(dataset: DataSet) -> None:
    """Check that `with_validation` returns the data set's own validation images, or splits the
    training images in two; this needs ten or more."""
    if dataset.validation is not None:
        rest, validation = dataset.with_validation()
        assert validation is dataset.validation, "with_validation returns others than validation"
        assert len(rest.train) == len(dataset.train), "with_validation holds out training images"
        return
    numbers = torch.arange(len(dataset.train))
    blank = torch.zeros((len(numbers), dataset.in_channels, 1, 1), dtype=torch.uint8)
    numbered = attrs.evolve(dataset, train=Split(pixels=blank, labels=numbers))
    rest, validation = numbered.with_validation()
    assert len(validation) > 0, f"{len(dataset.train)} training images leave none for validation"
    both = torch.cat([rest.train.labels, validation.labels])
    assert torch.equal(both.sort().values, numbered.train.labels), (
        "the training and validation images together are not the training images once each"
    )


def splits_repeat_their_images(dataset: DataSet) -> None:
    """Check that an image has the same pixels and label in batches of any order, by index, by slice
    and loaded, in every pass, and that a reader can be pickled for a worker process."""
    for name, split in _splits(dataset):
        count = min(NUM_SAMPLED, len(split))
        order = torch.arange(count).flip(0)
        held = split[slice(count)].load()
        found = list(split.batches(order, max(1, count // 3)))
        indices = torch.cat([indices for indices, _ in found]).cpu()
        assert torch.equal(indices, order), f"{name}: batches in a different order than requested"
        batches = [batch for _, batch in found]
        ways = {
            "in batches": _joined(batches)[order],
            "by index": split[order].load()[order],
            "in a second pass": _joined([batch for _, batch in split.batches(order, 5)])[order],
        }
        for way, images in ways.items():
            assert torch.equal(images.labels, held.labels), f"{name}: different labels {way}"
            assert torch.equal(images.pixels, held.pixels), f"{name}: different pixels {way}"
        if isinstance(split, LazySplit):
            _can_be_sent(name, split)


def _joined(batches: list[Split]) -> Split:
    return Split(
        pixels=torch.cat([batch.pixels for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
    )


def _can_be_sent(name: str, split: LazySplit) -> None:
    try:
        sent = pickle.loads(pickle.dumps(split.reader.read))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise AssertionError(
            f"{name}: its reader cannot be pickled, and macOS and Windows need that: {error}"
        ) from error
    number = int(split.numbers[0])
    assert torch.equal(sent(number), split.reader.read(number)), (
        f"{name}: its reader reads something else after it was pickled"
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


DATASET_CLAUSES: tuple[Callable[[DataSet], None], ...] = (
    splits_are_standard,
    labels_match_the_classes,
    max_value_bounds_the_pixels,
    images_are_floats_in_0_to_1,
    budgets_are_numbers_of_known_units,
    attack_defaults_are_accepted,
    training_defaults_are_valid,
    splits_share_no_memory,
    validation_images_are_separate,
    splits_repeat_their_images,
)


def check_dataset(dataset: DataSet) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(DATASET_CLAUSES, dataset)
