"""Accuracies do not depend on the form in which data are given, and changed data are refused."""

import contextlib

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import curricula
from curricula import DataSet, load_data
from curricula.data.dataset import Split, SplitLike
from curricula.data.lazy_split import LazySplit, Reader
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.plugins.registry import Provider
from curricula.reporting.previews import preview

THREATS = ["clean", "rot:30", "pgd(0.1, steps=3, random_start=false)"]
DIGITS = load_data("digits")
TEST = DIGITS.test[slice(100)]
X = DIGITS.images(TEST.pixels)
Y = TEST.labels


@pytest.fixture(scope="module")
def nearest():
    """Return a network whose logits are largest for the class of the nearest mean image."""
    x, y = DIGITS.images(DIGITS.train.pixels).flatten(1), DIGITS.train.labels
    means = torch.stack([x[y == label].mean(0) for label in range(10)])
    linear = nn.Linear(means.shape[1], 10)
    with torch.no_grad():
        linear.weight.copy_(means)
        linear.bias.copy_(-means.square().sum(1) / 2)
    return nn.Sequential(nn.Flatten(), linear)


def counts(model, data):
    return [result.correct for result in curricula.evaluate(model, data=data, threats=THREATS)]


@pytest.fixture(scope="module")
def expected(nearest):
    """Return the correct counts, computed from the small uint8 pixels that digits stores."""
    found = counts(nearest, attrs.evolve(DIGITS, test=TEST))
    with torch.no_grad():
        assert found[0] == int((nearest(X).argmax(1) == Y).sum())
    assert found[0] > 80 > found[2] > 0
    return found


def with_test(**changes):
    return attrs.evolve(DIGITS, test=Split(**{"pixels": X, "labels": Y, **changes}))


def read(number):
    return X[number]


LAZY = LazySplit(
    reader=Reader(read=read, workers=0), numbers=torch.arange(100), labels=Y, shape=(1, 28, 28)
)
FORMS = {
    "a data set of floats": with_test(),
    "a data set of doubles": with_test(pixels=X.double()),
    "a data set with the channels last": with_test(pixels=X.permute(0, 2, 3, 1)),
    "a data set of int32 labels": with_test(labels=Y.int()),
    "a data set of uint8 labels": with_test(labels=Y.to(torch.uint8)),
    "a data set of one-hot labels": with_test(labels=torch.eye(10)[Y]),
    "a data set of labels in a column": with_test(labels=Y[:, None]),
    "a data set whose images are read as floats": attrs.evolve(DIGITS, test=LAZY),
    "tensors": (X, Y),
    "arrays without an axis of channels": (X[:, 0].numpy(), Y.numpy().astype(np.uint8)),
    "images that are not contiguous": (X.transpose(2, 3).contiguous().transpose(2, 3), Y),
    "a torch data set": TensorDataset(X, Y),
    "a loader": DataLoader(TensorDataset(X, Y), batch_size=7),
}


@pytest.mark.parametrize("how", FORMS)
def test_the_accuracy_is_that_of_the_images_in_every_form(nearest, expected, how):
    before = X.clone(), Y.clone()
    assert counts(nearest, FORMS[how]) == expected
    assert torch.equal(X, before[0])
    assert torch.equal(Y, before[1])


class Rude(nn.Module):
    """Normalises its input in place."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x_NCHW):
        return self.network(x_NCHW.sub_(0.5).div_(0.25).mul_(0.25).add_(0.5).clone())


def test_a_network_that_writes_to_its_input_changes_no_stored_pixel(nearest):
    before = X.clone()
    rude = nn.Sequential(Rude(nn.Identity()), nearest)
    for data in (with_test(), (X, Y), TensorDataset(X, Y)):
        with contextlib.suppress(UserError):  # its result is tested with the victim
            curricula.evaluate(rude, data=data, threats=["clean"])
        assert torch.equal(X, before)


WRONG = {
    "labels from 1": (with_test(labels=Y + 1), "test labels of digits are from 1 to 10"),
    "unlabelled": (with_test(labels=Y - 1), "test labels of digits are from -1 to 8"),
    "ignored": (with_test(labels=Y.masked_fill(Y == 3, -100)), "labels of digits are from -100"),
    "too few labels": (with_test(labels=Y[:90]), "100 test images of digits and 90 labels"),
    "too many labels": (with_test(labels=Y.repeat(2)), "100 test images of digits and 200 labels"),
    "beyond the classes": (attrs.evolve(DIGITS, classes=tuple("abcde")), "from 0 to 9; they must"),
    "scaled to 255": (with_test(pixels=X * 255), "have a pixel of 255; .*: pixels / 255"),
    "from -1 to 1": (with_test(pixels=X * 2 - 1), "have a pixel of -1; .* undo their normalis"),
    "normalised": ((X - 0.13) / 0.31, "have a pixel of -0.4.*; .* undo their normalisation"),
    "NaN": (X.masked_fill(X == 0, float("nan")), "have a pixel of nan; "),
    "infinite": (X.masked_fill(X == 1, float("inf")), "have a pixel of inf; "),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_data_are_refused_before_anything_is_measured(nearest, how):
    data, message = WRONG[how]
    if isinstance(data, torch.Tensor):
        data = (data, Y)
    with pytest.raises(UserError, match=message):
        curricula.evaluate(nearest, data=data, threats=THREATS)


# Changed since a run was trained.

KINDS = ("bee", "cat", "dog")


def write_photos(root):
    """Write four tiny photos of each class and part, of one colour for each class."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number, kind in enumerate(KINDS):
            (root / part / kind).mkdir(parents=True)
            for name in range(5):
                pixels = rng.integers(0, 60, (12, 12, 3), dtype=np.uint8)
                pixels[..., number] += 190
                Image.fromarray(pixels).save(root / part / kind / f"{name}.png")


def write_data(root):
    write_photos(root / "folder")
    (root / "npz").mkdir()
    np.savez(root / "npz" / "own.npz", **arrays())


def arrays(names=KINDS, order=(0, 1, 2)):
    rng = np.random.default_rng(0)
    found = {"classes": np.array(names)}
    for part, count in (("train", 15), ("test", 6)):
        found[f"x_{part}"] = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        found[f"y_{part}"] = np.array(order)[np.arange(count) % 3]
    return found


@attrs.frozen
class Plugged:
    data: list[DataSet]

    @hookimpl
    def curricula_datasets(self):
        return [Record(name="plugged", factory=lambda root, download: self.data[-1], summary="")]


def rename(root, old, new):
    for part in ("train", "test"):
        (root / part / old).rename(root / part / new)


def swap(root):
    rename(root, "bee", "aside")
    rename(root, "cat", "bee")
    rename(root, "aside", "cat")


def relabelled(split: SplitLike) -> SplitLike:
    return attrs.evolve(split, labels=2 - split.labels)


def add(root):
    for part in ("train", "test"):
        (root / part / "ant").mkdir()
        Image.new("RGB", (12, 12)).save(root / part / "ant" / "0.png")


CHANGES = {
    "a class folder is renamed": ("folder", lambda root: rename(root, "bee", "wasp"), "classes"),
    "two class folders are swapped": ("folder", swap, "training images"),
    "a class folder is added": ("folder", add, "classes"),
    "the class names of a file have another order": (
        "npz",
        lambda root: np.savez(root / "own.npz", **arrays(names=("cat", "bee", "dog"))),
        "classes",
    ),
    "the labels of a file are renumbered": (
        "npz",
        lambda root: np.savez(root / "own.npz", **arrays(order=(1, 0, 2))),
        "training images",
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the runs that were trained on equal data, by the data set."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    runs = {}
    for name in ("folder", "npz"):
        data = "folder(size=12)" if name == "folder" else "npz"
        runs[name] = curricula.train(
            data=data, data_root=root / name, model="lenet", epochs=1, batch_size=5,
            augmentation="clean", output=root / f"run-{name}",
        ).run  # fmt: skip
    return runs


@pytest.mark.parametrize("how", CHANGES)
def test_classes_and_labels_that_have_changed_since_the_training_are_refused(
    trained, tmp_path, how
):
    name, change, what = CHANGES[how]
    write_data(tmp_path)
    root = tmp_path / name
    curricula.evaluate(trained[name], threats=["clean"], data_root=root)
    change(root)
    with pytest.raises(UserError, match=rf"the {what} of {name} have changed since run"):
        curricula.evaluate(trained[name], threats=["clean"], data_root=root)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: attrs.evolve(data, classes=data.classes[::-1]),
        lambda data: attrs.evolve(data, test=relabelled(data.test)),
        lambda data: attrs.evolve(data, train=relabelled(data.train)),
        lambda data: attrs.evolve(data, validation=data.test[slice(3)]),
    ],
)
def test_a_plugins_data_that_have_changed_are_refused(tmp_path, change):
    written = arrays()
    data = DataSet.from_arrays(
        train=(written["x_train"], written["y_train"]),
        test=(written["x_test"], written["y_test"]),
        classes=KINDS,
        training_defaults={"model": "lenet", "epochs": 1, "batch_size": 5},
    )
    versions = [data]
    registry.current().add(Plugged(versions), Provider(name="plugged", source="file"))
    run = curricula.train(data="plugged", output=tmp_path / "run").run
    versions.append(change(data))
    with pytest.raises(UserError, match="have changed since run"):
        curricula.evaluate(run, threats=["clean"])


def test_other_data_with_classes_in_another_order_are_refused(trained):
    written = arrays()
    pair = (written["x_test"], written["y_test"])
    for classes in (("cat", "bee", "dog"), ("bee", "cat", "dog", "elk"), ("Bee", "cat", "dog")):
        data = DataSet.from_arrays(train=pair, test=pair, classes=classes)
        with pytest.raises(UserError, match="name and order them alike, or train on these data"):
            curricula.evaluate(trained["npz"], data=data, threats=["clean"])
    same = DataSet.from_arrays(train=pair, test=pair, classes=KINDS)
    assert counts_of(trained["npz"], same) == counts_of(trained["npz"], None)


def counts_of(run, data):
    return [result.correct for result in curricula.evaluate(run, data=data, threats=["clean"])]


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_images_that_are_not_square_are_trained_on_measured_and_drawn(tmp_path, name):
    root = tmp_path / "data"
    if name == "npz":
        root.mkdir()
        wide, rng = arrays(), np.random.default_rng(0)
        for part, count in (("train", 15), ("test", 6)):
            wide[f"x_{part}"] = rng.integers(0, 256, (count, 12, 20, 3), dtype=np.uint8)
        np.savez(root / "own.npz", **wide)
    else:
        write_photos(root)
    trained = curricula.train(
        data={"npz": "npz", "folder": "folder(size=12:20)"}[name], data_root=root, model="lenet",
        perturb="rot+trans+pgd(steps=1)", epochs=1, batch_size=5, augmentation="crop+flip",
        output=tmp_path / "run",
    )  # fmt: skip
    assert curricula.load_model(trained.run)(torch.rand(2, 3, 12, 20)).shape == (2, 3)
    with pytest.raises(RuntimeError):  # it is no network for squares
        curricula.load_model(trained.run)(torch.rand(2, 3, 20, 20))
    threat = "worst(rot+trans, k=2)+pgd(steps=1)"
    assert curricula.evaluate(trained.run, threats=[threat])[0].n == (6 if name == "npz" else 15)
    figure = preview("rot:60+pgd:0.1", run=trained.run, images=1, strengths=[1.0])
    images = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    assert any(image.shape[:2] == (12, 20) for image in images)
