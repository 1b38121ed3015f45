"""The embedded data set keeps the contract, and each clause can be broken."""

import itertools
from pathlib import Path

import attrs
import pytest
import torch

from curricula import DataSet, load_data
from curricula.data import LazySplit, Reader, Split
from curricula.plugins import registry
from curricula.testing import DATASET_CLAUSES, check_dataset
from curricula.testing import data as clauses

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"


@pytest.mark.parametrize("clause", DATASET_CLAUSES)
def test_the_contract_is_kept(clause):
    clause(load_data("digits"))


def test_a_third_party_data_set_keeps_it_too():
    registry.use(registry.build_registry([TINY]))
    assert check_dataset(load_data("tiny")) == {}


def split(count, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(pixels=pixels, labels=torch.arange(count) % 4)


def right():
    return DataSet(
        name="noise",
        train=split(40, 0),
        test=split(12, 1),
        classes=("a", "b", "c", "d"),
        image_size=8,
        budgets={"degrees": "30", "linf": "8/255"},
        attack_defaults={"steps": "5"},
        training_defaults={"model": "resnet18", "batch_size": 20, "epochs": 1},
    )


@attrs.frozen
class FromMemory:
    """Reads the images of the correct one, the training images first."""

    offset: int = 0

    def __call__(self, number):
        whole = torch.cat([right().train.pixels, right().test.pixels])
        return whole[(number + self.offset) % len(whole)]


class Drifting(FromMemory):
    """Returns something different each time."""

    times = itertools.count()

    def __call__(self, number):
        return super().__call__(number + next(self.times))


class Forgetful(FromMemory):
    """Loses its argument when pickled."""

    def __reduce__(self):
        return FromMemory, ()


class Floating(FromMemory):
    def __call__(self, number):
        return super().__call__(number) / 255


class Unscaled(FromMemory):
    def __call__(self, number):
        return super().__call__(number).float()


class Wide(FromMemory):
    def __call__(self, number):
        return super().__call__(number).long()


class Smaller(FromMemory):
    def __call__(self, number):
        return super().__call__(number)[:, :6, :6]


class Hasty(LazySplit):
    """Yields its own order instead of the requested one."""

    def batches(self, order_N, batch_size):
        return super().batches(order_N.sort().values, batch_size)


class Mislabelled(LazySplit):
    def batches(self, order_N, batch_size):
        for indices_N, batch in super().batches(order_N, batch_size):
            yield indices_N, attrs.evolve(batch, labels=batch.labels.flip(0))


def read(*, reads=None, first_test=40, kind=LazySplit):
    """The correct one, read when needed."""
    reader = Reader(read=reads or FromMemory(), workers=0)
    test = right().test
    return attrs.evolve(
        right(),
        train=kind(reader=reader, numbers=torch.arange(40), labels=TRAIN.labels, shape=(3, 8, 8)),
        test=LazySplit(
            reader=reader,
            numbers=first_test + torch.arange(len(test)),
            labels=test.labels,
            shape=(3, 8, 8),
        ),
    )


class Greedy(DataSet):
    """Puts its validation images into both splits."""

    def with_validation(self):
        _, validation = super().with_validation()
        return self, validation


class Dark(DataSet):
    def images(self, pixels):
        return super().images(pixels) / 255 / 1e9 * 0


class Signed(DataSet):
    def images(self, pixels):
        return super().images(pixels) * 2 - 1


class Careless(DataSet):
    def images(self, pixels):
        pixels[0] = 0
        return super().images(pixels)


class Large(DataSet):
    def images(self, pixels):
        return pixels.float() / 255


class Sharing(DataSet):
    def images(self, pixels):
        return pixels


class Unheeding(DataSet):
    """Holds out training images although it has validation images."""

    def with_validation(self):
        return attrs.evolve(of(DataSet), train=self.train).with_validation()


def of(kind):
    """The correct one as an object of a different class."""
    fields = {field.name: getattr(right(), field.name) for field in attrs.fields(DataSet)}
    return kind(**fields)


def with_train(**changes):
    return attrs.evolve(right(), train=attrs.evolve(right().train, **changes))


def with_training(**changes):
    return attrs.evolve(right(), training_defaults={**right().training_defaults, **changes})


TRAIN = right().train
TRAIN_OTHER, SMALL = split(12, 3), split(9, 2)
BROKEN = {
    "float pixels up to 255": (
        with_train(pixels=TRAIN.pixels.float()),
        clauses.max_value_bounds_the_pixels,
    ),
    "a pixel of NaN": (
        with_train(pixels=(TRAIN.pixels / 255).masked_fill(TRAIN.pixels == 7, float("nan"))),
        clauses.max_value_bounds_the_pixels,
    ),
    "int64 pixels": (with_train(pixels=TRAIN.pixels.long()), clauses.splits_are_standard),
    "no channels": (
        with_train(pixels=TRAIN.pixels[:, 0]),
        clauses.splits_are_standard,
    ),
    "channels last": (
        with_train(pixels=TRAIN.pixels.permute(0, 2, 3, 1)),
        clauses.splits_are_standard,
    ),
    "int32 labels": (
        with_train(labels=TRAIN.labels.int()),
        clauses.splits_are_standard,
    ),
    "one-hot labels": (
        with_train(labels=torch.eye(4, dtype=torch.int64)[TRAIN.labels]),
        clauses.splits_are_standard,
    ),
    "a label short": (
        with_train(labels=TRAIN.labels[1:]),
        clauses.splits_are_standard,
    ),
    "no test image": (
        attrs.evolve(right(), test=right().test[slice(0)]),
        clauses.splits_are_standard,
    ),
    "smaller validation images": (
        attrs.evolve(right(), validation=attrs.evolve(SMALL, pixels=SMALL.pixels[..., 1:])),
        clauses.splits_are_standard,
    ),
    "labels from 1": (with_train(labels=TRAIN.labels + 1), clauses.labels_match_the_classes),
    "an unknown label in the test split": (
        attrs.evolve(right(), test=attrs.evolve(right().test, labels=torch.full((12,), -1))),
        clauses.labels_match_the_classes,
    ),
    "a class without an image": (
        attrs.evolve(right(), classes=(*"abcd", "e")),
        clauses.labels_match_the_classes,
    ),
    "a class twice": (
        attrs.evolve(right(), classes=tuple("abca")),
        clauses.labels_match_the_classes,
    ),
    "levels too few": (attrs.evolve(right(), max_value=16), clauses.max_value_bounds_the_pixels),
    "levels of zero": (attrs.evolve(right(), max_value=0), clauses.max_value_bounds_the_pixels),
    "images in -1 to 1": (of(Signed), clauses.images_are_floats_in_0_to_1),
    "black images": (of(Dark), clauses.images_are_floats_in_0_to_1),
    "writes to its pixels": (of(Careless), clauses.images_are_floats_in_0_to_1),
    "images of another size": (
        attrs.evolve(of(Large), image_size=16),
        clauses.images_are_floats_in_0_to_1,
    ),
    "a unit misspelt": (
        attrs.evolve(right(), budgets={"degree": "30"}),
        clauses.budgets_are_numbers_of_known_units,
    ),
    "a budget in words": (
        attrs.evolve(right(), budgets={"degrees": "many"}),
        clauses.budgets_are_numbers_of_known_units,
    ),
    "a budget below 0": (
        attrs.evolve(right(), budgets={"linf": "-8/255"}),
        clauses.budgets_are_numbers_of_known_units,
    ),
    "an attack default misspelt": (
        attrs.evolve(right(), attack_defaults={"stepps": "5"}),
        clauses.attack_defaults_are_accepted,
    ),
    "an attack default of the wrong type": (
        attrs.evolve(right(), attack_defaults={"steps": "many"}),
        clauses.attack_defaults_are_accepted,
    ),
    "an attack default out of range": (
        attrs.evolve(right(), attack_defaults={"steps": "0"}),
        clauses.attack_defaults_are_accepted,
    ),
    "an unknown training key": (with_training(epoch=3), clauses.training_defaults_are_valid),
    "a training value of the wrong type": (
        with_training(epochs="3"),
        clauses.training_defaults_are_valid,
    ),
    "no model": (
        attrs.evolve(right(), training_defaults={"epochs": 1}),
        clauses.training_defaults_are_valid,
    ),
    "a model for larger images": (
        with_training(model="smallcnn"),
        clauses.training_defaults_are_valid,
    ),
    "an unknown learning-rate schedule": (
        with_training(lr_schedule="steps"),
        clauses.training_defaults_are_valid,
    ),
    "batches too large": (with_training(batch_size=40), clauses.training_defaults_are_valid),
    "its own seed": (with_training(seed=1), clauses.training_defaults_are_valid),
    "test images that are training images": (
        attrs.evolve(right(), train=TRAIN, test=TRAIN[slice(30, None)]),
        clauses.splits_share_no_memory,
    ),
    "test labels in training labels": (
        attrs.evolve(
            right(), train=TRAIN, test=Split(pixels=right().test.pixels, labels=TRAIN.labels[:12])
        ),
        clauses.splits_share_no_memory,
    ),
    "test images that are read as training images": (
        read(first_test=30),
        clauses.splits_share_no_memory,
    ),
    "read as floats up to 255": (read(reads=Unscaled()), clauses.splits_are_standard),
    "read as int64": (read(reads=Wide()), clauses.splits_are_standard),
    "images that are the stored pixels": (
        attrs.evolve(
            of(Sharing),
            train=Split(pixels=TRAIN.pixels / 255, labels=TRAIN.labels),
            test=Split(pixels=right().test.pixels / 255, labels=right().test.labels),
        ),
        clauses.images_are_floats_in_0_to_1,
    ),
    "validation images that are test images": (
        attrs.evolve(right(), train=TRAIN, test=TRAIN_OTHER, validation=TRAIN_OTHER[slice(5)]),
        clauses.splits_share_no_memory,
    ),
    "validation images that are left out": (
        attrs.evolve(of(Unheeding), validation=split(9, 2)),
        clauses.validation_images_are_separate,
    ),
    "read smaller than it says": (
        read(reads=Smaller()),
        clauses.splits_are_standard,
    ),
    "read differently each time": (
        read(reads=Drifting()),
        clauses.splits_repeat_their_images,
    ),
    "a reader that stays where it is": (
        read(reads=lambda number: FromMemory()(number)),
        clauses.splits_repeat_their_images,
    ),
    "a reader that forgets on its way": (
        read(reads=Forgetful(offset=1)),
        clauses.splits_repeat_their_images,
    ),
    "batches in another order": (
        read(kind=Hasty),
        clauses.splits_repeat_their_images,
    ),
    "labels of other images": (
        read(kind=Mislabelled),
        clauses.splits_repeat_their_images,
    ),
    "nine training images": (
        attrs.evolve(right(), train=TRAIN[slice(9)]),
        clauses.validation_images_are_separate,
    ),
    "validation images that are trained on": (of(Greedy), clauses.validation_images_are_separate),
}


def test_the_example_is_right_except_where_it_is_broken():
    assert check_dataset(right()) == {}
    assert check_dataset(read()) == {}
    assert check_dataset(read(reads=Floating())) == {}
    assert check_dataset(attrs.evolve(right(), validation=split(9, 2))) == {}
    floats = Split(pixels=TRAIN.pixels / 255, labels=TRAIN.labels)
    assert check_dataset(attrs.evolve(right(), train=floats)) == {}


def test_images_need_not_be_square():
    def narrow(split):
        return attrs.evolve(split, pixels=split.pixels[..., :6].contiguous())

    wide = attrs.evolve(
        right(),
        train=narrow(TRAIN),
        test=narrow(right().test),
        image_size=(8, 6),
        training_defaults={**right().training_defaults, "model": "lenet"},
    )
    assert set(check_dataset(wide)) == {"training_defaults_are_valid"}  # lenet needs 12 pixels


@pytest.mark.parametrize("how", BROKEN)
def test_each_clause_catches_its_fault(how):
    dataset, clause = BROKEN[how]
    with pytest.raises(AssertionError):
        clause(dataset)


def test_two_slices_of_one_tensor_are_two_splits():
    whole = split(52, 0)
    parts = attrs.evolve(right(), train=whole[slice(12, None)], test=whole[slice(12)])
    assert check_dataset(parts) == {}


def test_every_clause_has_a_broken_example():
    assert {clause for _, clause in BROKEN.values()} == set(DATASET_CLAUSES)
