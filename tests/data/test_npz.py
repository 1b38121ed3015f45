"""A file of NumPy arrays is read as a data set, or refused in one line."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from fixtures.programs import run_python

import curricula
from curricula import load_data
from curricula.errors import UserError

RNG = np.random.default_rng(0)
COUNTS = {"train": 30, "val": 6, "test": 9}


def images(count, *shape):
    pixels = RNG.integers(0, 256, (count, *shape), dtype=np.uint8)
    pixels[:, 0, 0] = 255
    return pixels


def medmnist(*shape, **changes):
    """Return arrays by MedMNIST's six keys."""
    arrays = {}
    for part, count in COUNTS.items():
        arrays[f"{part}_images"] = images(count, *(shape or (28, 28)))
        arrays[f"{part}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def write(path, arrays):
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("shape", "channels", "model"), [((28, 28), 1, "smallcnn"), ((28, 28, 3), 3, "resnet18")]
)
def test_a_file_of_medmnist(tmp_path, shape, channels, model):
    arrays = medmnist(*shape)
    path = write(tmp_path / "pathmnist.npz", arrays)
    for root in (path, tmp_path, str(path)):
        data = load_data("npz", root=root)
        assert (len(data.train), len(data.validation), len(data.test)) == (30, 6, 9)
        assert (data.in_channels, data.image_size, data.num_classes) == (channels, 28, 3)
        assert data.training_defaults["model"] == model
        for part, split in (("train", data.train), ("test", data.test), ("val", data.validation)):
            pixels = arrays[f"{part}_images"].reshape(-1, 28, 28, channels).transpose(0, 3, 1, 2)
            np.testing.assert_array_equal(split.pixels.numpy(), pixels)
            assert split.labels.tolist() == arrays[f"{part}_labels"][:, 0].tolist()
        assert data.with_validation()[1] is data.validation
    part = load_data("npz(images=12)", root=path)
    assert torch.equal(part.train.pixels, data.train.pixels[:12])
    with pytest.raises(UserError, match=r"npz: images must lie from 10 to 30, not 31.*data npz"):
        load_data("npz(images=31)", root=path)


def test_a_file_of_x_and_y_in_any_case_with_class_names(tmp_path):
    x, y = images(30, 3, 12, 20), np.arange(30) % 2
    names = np.array(["cat", "dog"])
    arrays = {"X_train": x, "y_train": y, "X_test": x[:9], "Y_TEST": y[:9], "class_names": names}
    data = load_data("npz", root=write(tmp_path / "own.npz", arrays))
    assert (data.classes, data.image_size, data.validation) == (("cat", "dog"), (12, 20), None)
    assert len(data.with_validation()[1]) == 3
    arrays |= {"x_valid": x[:5] / 255, "y_valid": np.eye(2)[y[:5]]}
    data = load_data("npz", root=write(tmp_path / "own.npz", arrays))
    assert len(data.validation) == 5


def test_a_layout_that_the_shape_does_not_tell_can_be_written(tmp_path):
    x, y = images(30, 16, 8, 8), np.arange(30) % 2
    path = write(tmp_path / "a.npz", {"x_train": x, "y_train": y, "x_test": x, "y_test": y})
    with pytest.raises(UserError, match=r"a.npz: the training images .*, which does not tell"):
        load_data("npz", root=path)
    assert load_data("npz(layout=NCHW)", root=path).in_channels == 16
    assert load_data("npz(layout=NHWC)", root=path).in_channels == 8


def test_test_images_alone_are_enough_to_measure(tmp_path):
    x, y = images(9, 12, 12), np.arange(9) % 3
    path = write(tmp_path / "own.npz", {"x_test": x, "y_test": y})
    data = load_data("npz", root=path)
    assert (len(data.train), len(data.test), data.num_classes) == (0, 9, 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 5))
    found = curricula.evaluate(model, "npz", ["clean"], data_root=path)
    assert (found[0].n, found.classes) == (9, tuple("01234"))
    with pytest.raises(UserError, match="npz has 0 training and 9 test images; at least 10 and 1"):
        curricula.train(data="npz", data_root=path, model="lenet", output=tmp_path / "run")


def test_labels_that_are_text_name_the_classes(tmp_path):
    x, y = images(30, 8, 8), np.array(["cat", "dog", "bee"] * 10)
    path = write(tmp_path / "own.npz", {"x_train": x, "y_train": y, "x_test": x, "y_test": y})
    data = load_data("npz", root=path)
    assert (data.classes, data.test.labels[:4].tolist()) == (("bee", "cat", "dog"), [1, 2, 0, 1])


def test_training_on_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.npz", medmnist(12, 12))
    *_, trained, validation = run_python("medmnist.py", capsys, monkeypatch)
    assert trained == ["npz(layout=auto)", str(COUNTS["test"]), "1"]
    assert validation == [str(COUNTS["val"])]
    write(tmp_path / "own.npz", medmnist(12, 12))
    with pytest.raises(UserError, match="the training images of npz have changed since run"):
        curricula.evaluate("run", threats=["clean"])


SIX = "train_images, train_labels, val_images, val_labels, test_images, test_labels"
WRONG = {
    "no training images": (
        {"train_images": None},
        r"no training images among its keys \(train_labels, val_images, .*it needs train_images,",
    ),
    "no test labels": ({"test_labels": None}, "no test labels among its keys"),
    "validation images alone": ({"val_labels": None}, "no validation labels among its keys"),
    "validation labels alone": ({"val_images": None}, "no validation images among its keys"),
    "two of a kind": (
        {"x_train": images(30, 28, 28)},
        "train_images and x_train both hold the training images; leave out one",
    ),
    "labels from 1": (
        {f"{part}_labels": np.arange(count) % 3 + 1 for part, count in COUNTS.items()},
        r"labels \[1, 2, 3\] are not the classes 0, 1, 2, ...; number them from 0: labels - 1",
    ),
    "several labels for an image": (
        {"train_labels": np.ones((30, 14), dtype=np.uint8)},
        r"training labels of shape \(30, 14\) are not one-hot",
    ),
    "fewer labels": (
        {"test_labels": np.zeros((7, 1), dtype=np.uint8)},
        "there are 9 test images and 7 labels",
    ),
    "volumes": (
        {"train_images": images(30, 28, 28, 28)},
        r"training images have the shape \(30, 28, 28, 28\), which does not tell where",
    ),
    "one class": (
        {f"{part}_labels": np.zeros(count, dtype=int) for part, count in COUNTS.items()},
        r"a classifier needs two or more classes, not 1 \(0\)",
    ),
    "normalised": (
        {"val_images": RNG.normal(size=(6, 28, 28))},
        r"validation images have a pixel of -\d.*; .* undo their normalisation",
    ),
    "objects": (
        {"test_labels": np.array([[0, 1], 2, [0]] * 3, dtype=object)},
        r"test_labels is an array of Python objects, which are not read",
    ),
    "too few class names": (
        {"classes": np.array(["cat", "dog"])},
        "training labels are from 0 to 2; they must be from 0 to 1, for the 2 classes",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_arrays_are_one_line(tmp_path, how):
    changes, message = WRONG[how]
    path = write(tmp_path / "own.npz", medmnist(**changes))
    with pytest.raises(UserError, match=rf"^npz {path}: .*{message}") as caught:
        load_data("npz", root=path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


ENDLESS = array_bytes(np.zeros((1, 2, 2), np.uint8)).replace(b"(1, 2, 2)", b"(10**9, 9)")
FILES = {
    "empty": (b"", "not a file of numpy.savez"),
    "text": (b"x_train,y_train\n", "not a file of numpy.savez"),
    "a single array": (array_bytes(np.zeros(3)), "not a file of numpy.savez"),
    "a pickle": (pickle.dumps(Trap()), "not a file of numpy.savez"),
    "pickles": (
        archive(**dict.fromkeys(medmnist(), pickle.dumps(Trap()))),
        "train_images is not a file of numpy.save",
    ),
    "a shape that lies": (archive(**dict.fromkeys(medmnist(), ENDLESS)), "cannot be read"),
    "no arrays": (archive(), r"no training images among its keys \(none\)"),
}


@pytest.mark.parametrize("how", FILES)
def test_other_files_are_one_line(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[how]
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^npz {path}: {message}"):
        load_data("npz", root=path)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "own.npz", medmnist())
    monkeypatch.setattr("curricula.runtime.memory.total_bytes", lambda: 1000)
    with pytest.raises(UserError, match=r"its images would take 1 GiB of memory; .*smaller file"):
        load_data("npz", root=path)


def test_a_folder_must_hold_one_file(tmp_path):
    with pytest.raises(UserError, match=r"npz: there is no file .*--data-root FILE.npz"):
        load_data("npz", root=tmp_path / "absent.npz")
    with pytest.raises(UserError, match=r"holds 0 files of the name \*.npz; name one in data_root"):
        load_data("npz", root=tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.npz", medmnist())
    with pytest.raises(UserError, match=rf"holds 2 files .*, such as {tmp_path}/a.npz"):
        load_data("npz", root=tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="not a regular file"):
        load_data("npz", root=tmp_path / "pipe.npz")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("own.npz", "npz"),
        ("./data/own.npz", "npz"),
        ("photos/", "folder"),
        ("/data/x", "folder"),
        ("photos", "folder"),
        ("my photos", "folder"),
    ],
)
def test_a_path_in_place_of_a_data_set_is_one_line(tmp_path, monkeypatch, text, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "my photos"):
        (tmp_path / folder).mkdir()
    for call in (load_data, lambda text: curricula.train(data=text)):
        with pytest.raises(
            UserError, match=rf"data .--data. '{text}' is a path: write {name}, and"
        ):
            call(text)
