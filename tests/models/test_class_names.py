"""Class names that a network states beside those of data."""

import pytest
import torch
from torch import nn

import curricula
from curricula.data import DataSet, ImageSpec
from curricula.errors import UserError
from curricula.models.class_names import check_same_classes, same_classes, stated_classes

ANIMALS = ("cat", "dog", "cow")


def network(**attributes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


class Config:
    def __init__(self, names):
        self.id2label = dict(enumerate(names))

    @property
    def classes(self):
        raise RuntimeError("its code must not run")


FORMS = {
    "hugging face": lambda names: network(config=Config(names)),
    "read from json": lambda names: network(
        config={"id2label": {str(n): each for n, each in reversed([*enumerate(names)])}}
    ),
    "timm": lambda names: network(pretrained_cfg={"label_names": list(names), "classes": 3}),
    "own": lambda names: network(classes=list(names)),
    "wrapped": lambda names: nn.Sequential(nn.Identity(), network(class_names=names)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_whose_classes_are_in_a_different_order_is_refused_at_every_door(form, tmp_path):
    x, y = torch.rand(30, 1, 6, 6), torch.arange(30) % 3
    data = DataSet.from_arrays(train=(x, y), test=(x, y), classes=ANIMALS, name="photos")
    model = FORMS[form](ANIMALS)
    assert stated_classes(model, 3) == ANIMALS
    assert curricula.evaluate(model, data, ["clean"])[0].n == 30
    turned = FORMS[form](ANIMALS[::-1])
    for door in (
        lambda: curricula.evaluate(turned, data, ["clean"]),
        lambda: curricula.predict(turned, x, data=data),
        lambda: curricula.train(model=turned, data=data, epochs=1, output=tmp_path / "run"),
    ):
        with pytest.raises(
            UserError,
            match="classes of photos are in a different order from those of the model: "
            "label 0 is 'cat', not 'cow'; order and name",
        ):
            door()
    spec = ImageSpec(classes=ANIMALS, channels=1, image_size=6)
    with pytest.raises(UserError, match="different order"):
        curricula.predict(turned, x, data=spec)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ANIMALS, ("Cat", "DOG", "Cow")),
        (("fire truck", "ice-cream"), ("Fire_truck", "ice cream")),
        (("cafe\u0301", "the"), ("caf\u00e9", "the")),  # as macOS spells it in folders
        (ANIMALS, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (("0", "1", "2"), ANIMALS),
        (ANIMALS, ("cat", "dog")),  # another number: the check of outputs refuses it
    ],
)
def test_names_that_differ_in_spelling_or_tell_nothing_are_accepted(ours, theirs):
    check_same_classes(ours, "ours", theirs, "theirs", "fix")
    check_same_classes(theirs, "ours", ours, "theirs", "fix")


@pytest.mark.parametrize(
    ("ours", "theirs", "label"),
    [
        (("a", "A"), ("A", "a"), 0),  # letters: only their case tells them apart
        (("cat", "dog"), ("cat", "hound"), 1),
        (("apple", "Zebra"), ("Zebra", "apple"), 0),  # upper case sorts first
        (("0", "1", "10", "2"), ("0", "1", "2", "10"), 2),  # numbers that were sorted as text
        (("t-shirt", "coat"), ("coat", "T shirt"), 0),
    ],
)
def test_names_that_differ_are_refused(ours, theirs, label):
    with pytest.raises(UserError, match=f"label {label} is .*; fix"):
        check_same_classes(ours, "ours", theirs, "theirs", "fix")
    assert not same_classes(ours, theirs)


@pytest.mark.parametrize(
    "value",
    [3, "abc", {"cat": 0, "dog": 1, "cow": 2}, {0: "a", 7: "b", 9: "c"}, [1, 2, 3], torch.ones(3)],
)
def test_what_is_no_list_of_names_tells_nothing(value):
    assert stated_classes(network(classes=value), 3) is None
