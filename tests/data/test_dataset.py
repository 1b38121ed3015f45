"""Data sets are read from small files in their own formats, split and batched."""

import os
import pickle
import struct
import warnings
from urllib.error import URLError

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import curricula
from curricula import Record, hookimpl
from curricula.data.dataset import Split, as_dataset, batches, in_order, load_data
from curricula.data.lazy_split import LazySplit, Reader
from curricula.errors import DataWarning, UserError
from curricula.plugins import registry
from curricula.plugins.registry import Provider


def write_idx(path, array):
    """Write LeCun's format: zero, zero, type 8 (uint8), number of axes; each axis big-endian."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root, folder):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, n in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (n, 28, 28))
        labels = np.arange(n) % 10
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels)
        arrays[prefix] = images, labels
    return arrays


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_mnist_like_sets(tmp_path, name, folder):
    arrays = write_mnist(tmp_path, folder)
    data = load_data(name, root=str(tmp_path))
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 28)
    for split, prefix in ((data.train, "train"), (data.test, "t10k")):
        images, labels = arrays[prefix]
        assert split.pixels.dtype == torch.uint8
        np.testing.assert_array_equal(split.pixels[:, 0].numpy(), images)
        np.testing.assert_array_equal(split.labels.numpy(), labels)
    x = data.images(data.train.pixels)
    torch.testing.assert_close(x, torch.from_numpy(arrays["train"][0] / 255).float()[:, None])
    assert data.budgets["linf"] == "0.3"


def damage_magic(content):
    return b"\0\0\x0d" + content[3:]


def longer(content):
    return content + b"\0"


def huge(content):
    return content[:4] + b"\xff\xff\xff\xff" * 3 + content[16:]


def empty(content):
    return content[:4] + struct.pack(">3I", 0, 28, 28)


def flat(content):
    return content[:4] + struct.pack(">3I", 30, 14, 56) + content[16:]


def high(content):
    return content[:-1] + b"\x0a"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train-images-idx3-ubyte", damage_magic, "is not a file of 3 dimensions in idx format"),
        ("train-images-idx3-ubyte", lambda content: b"", "is not a file of 3 dimensions"),
        ("train-images-idx3-ubyte", lambda content: content[:999], "is empty, cut off or too long"),
        ("train-images-idx3-ubyte", longer, "is empty, cut off or too long"),
        ("train-images-idx3-ubyte", huge, "is empty, cut off or too long"),
        ("t10k-images-idx3-ubyte", empty, "is empty, cut off or too long"),
        ("train-images-idx3-ubyte", flat, r"images of \(14, 56\) pixels, not of 28 x 28"),
        ("t10k-labels-idx1-ubyte", high, "t10k has a label of 10, above 9"),
        (
            "t10k-labels-idx1-ubyte",
            lambda content: content[:4] + struct.pack(">I", 1) + b"\0",
            "t10k has 12 images and 1 labels",
        ),
    ],
)
def test_damaged_mnist_is_one_line(tmp_path, file, damage, message):
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^mnist in .* is damaged \(.*{message}.*fetch it by"):
        load_data("mnist", root=tmp_path)


def test_mnist_is_not_read_from_pickles_or_pipes(tmp_path):
    write_mnist(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "processed").mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1), torch.zeros(1)), tmp_path / "MNIST" / "processed" / file)
    assert len(load_data("mnist", root=tmp_path).train) == 30
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(UserError, match="mnist is not in"):
        load_data("mnist", root=tmp_path)
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"is damaged .not a regular file"):
        load_data("mnist", root=tmp_path)


def write_cifar(root, name, monkeypatch):
    """Write the pickles of Krizhevsky, and replace the check sums of torchvision."""
    import hashlib

    import torchvision.datasets as sets

    source = sets.CIFAR10 if name == "cifar10" else sets.CIFAR100
    key, count = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    folder = root / source.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = {}

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content))
        return file, hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(file):
        data = rng.integers(0, 256, (4, 3072)).astype(np.uint8)
        rows[file] = data
        return write(file, {"data": data, key: [1, 0, 3, 2]})

    monkeypatch.setattr(source, "train_list", [batch(file) for file, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [batch(file) for file, _ in source.test_list])
    names = [f"class {i}" for i in range(count)]
    file, digest = write(source.meta["filename"], {source.meta["key"]: names})
    monkeypatch.setattr(source, "meta", {**source.meta, "filename": file, "md5": digest})
    return rows


@pytest.mark.parametrize(("name", "classes", "n"), [("cifar10", 10, 20), ("cifar100", 100, 4)])
def test_cifar_sets(tmp_path, monkeypatch, name, classes, n):
    rows = write_cifar(tmp_path, name, monkeypatch)
    data = load_data(name, root=str(tmp_path))
    assert (data.num_classes, data.in_channels, data.image_size) == (classes, 3, 32)
    assert len(data.train) == n
    first = next(iter(rows.values())).reshape(4, 3, 32, 32)
    np.testing.assert_array_equal(data.train.pixels[:4].numpy(), first)
    assert data.train.labels[:4].tolist() == [1, 0, 3, 2]
    assert data.budgets["linf"] == "8/255"
    assert data.training_defaults["model"] == "resnet18"
    if name == "cifar10":
        part = load_data("cifar10(images=12)", root=str(tmp_path))
        assert torch.equal(part.train.pixels, data.train.pixels[:12])
        assert torch.equal(part.train.labels, data.train.labels[:12])
        assert len(part.test) == len(data.test)
        for wrong in (9, 21):
            with pytest.raises(UserError, match=f"must lie from 10 to 20, not {wrong}"):
                load_data(f"cifar10(images={wrong})", root=str(tmp_path))


def write_folder(root, classes=("cat", "dog"), parts=("train", "test")):
    rng = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (20, 14, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def test_a_folder_of_images(tmp_path):
    write_folder(tmp_path)
    data = load_data("folder(size=16)", root=str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.train.pixels.shape == (6, 3, 16, 16)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load_data("folder(size=16, grey=true)", root=str(tmp_path)).in_channels == 1


@pytest.fixture(scope="module")
def sklearns():
    """Return scikit-learn's digits; its import takes half a second, which one process pays."""
    from sklearn.datasets import load_digits

    return load_digits()


def test_digits_are_exact_and_enlarged_bilinearly(sklearns):
    data = load_data("digits")
    assert len(data.train) + len(data.test) == 1797
    assert len(data.test) == 500
    originals = torch.from_numpy(sklearns.images)
    both = torch.cat((data.train.pixels, data.test.pixels))[:, 0]
    # The same images in a different order.
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, originals.to(torch.uint8).numpy()))
    found = data.images(data.train.pixels[:5])
    exact = F.interpolate(
        data.train.pixels[:5].double() / 16, size=28, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)
    assert data.budgets["degrees"] == "30"
    assert data.budgets["pixels"] == "3"
    assert data.budgets["linf"] == "0.1"


def test_digits_are_those_of_scikit_learn_bit_for_bit(sklearns):
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    data = load_data("digits")
    for split, indices in ((data.test, order[:500]), (data.train, order[500:])):
        pixels = torch.from_numpy(sklearns.images.astype(np.uint8)).unsqueeze(1)[indices]
        assert torch.equal(split.pixels, pixels)
        assert torch.equal(
            split.labels, torch.from_numpy(sklearns.target.astype(np.int64))[indices]
        )


def test_validation_images_are_held_out_of_training_and_always_the_same():
    whole = load_data("digits")
    data, validation = whole.with_validation()
    assert len(validation) == len(whole.train) // 10
    assert len(data.train) + len(validation) == len(whole.train)
    together = torch.cat((data.train.pixels, validation.pixels))[:, 0].numpy()
    assert sorted(map(bytes, together)) == sorted(map(bytes, whole.train.pixels[:, 0].numpy()))
    again = load_data("digits").with_validation()[1]
    assert torch.equal(validation.pixels, again.pixels)


def test_an_epoch_visits_each_image_once_in_random_order_without_the_last_incomplete_batch():
    train = load_data("digits").train[slice(103)]
    seen = []
    for indices, batch in batches(train, 20, generator=torch.Generator().manual_seed(0)):
        assert len(batch) == 20
        assert torch.equal(batch.pixels, train.pixels[indices])
        seen += indices.tolist()
    assert len(set(seen)) == len(seen) == 100
    assert seen != sorted(seen)
    assert sum(len(batch) for batch in in_order(train, 20)) == 103


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_missing_files_are_one_line(tmp_path, name):
    with pytest.raises(
        UserError, match=rf"{name} is not in .*data_root \(--data-root\), or fetch it by download"
    ):
        load_data(name, root=str(tmp_path / "absent"))
    (tmp_path / "file.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=rf"{name} is not in .*file.npz': name its folder"):
        load_data(name, root=str(tmp_path / "file.npz"))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("error", [URLError("no network"), KeyboardInterrupt()])
def test_a_failed_download_leaves_no_empty_folder(tmp_path, monkeypatch, name, error):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", fail)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "mine").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for root in ("absent/data", "empty", "other"):
        with pytest.raises((UserError, KeyboardInterrupt), match=r"could not be fetched|^$"):
            load_data(name, root=tmp_path / root, download=True)
        assert sorted(tmp_path.rglob("*")) == before


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", ["data_batch_1", "test_batch", "batches.meta"]),
        ("cifar100", ["train", "test", "meta"]),
    ],
)
def test_pickles_of_someone_else_are_not_opened(tmp_path, name, files):
    folder = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir()
    for file in [*files, *(f"data_batch_{number}" for number in range(2, 6))]:
        (folder / file).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UserError, match=f"{name} is not in"):
        load_data(name, root=tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((folder / files[0]).read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


def test_wrong_folders_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"it must hold train/CLASS/\* and test/CLASS/\*"):
        load_data("folder", root=str(tmp_path))
    write_folder(tmp_path, ("cat", "dog"), ("train",))
    write_folder(tmp_path, ("cat", "cow"), ("test",))
    with pytest.raises(UserError, match=r"test has no images of dog and train has .* of cow; give"):
        load_data("folder", root=str(tmp_path))
    with pytest.raises(UserError, match="size must lie from 8 to 4,096, not 2"):
        load_data("folder(size=2)", root=str(tmp_path))


def test_an_unknown_data_set():
    with pytest.raises(UserError, match="unknown dataset 'mnits': did you mean mnist"):
        load_data("mnits")


def spoilt(value, *, lazy):
    """Return a small data set with float pixels, one of them with a given value."""
    data = load_data("random(size=8, channels=1, images=100)")
    pixels = data.train.pixels / 255
    pixels[40, 0, 3, 3] = value
    train = Split(pixels=pixels, labels=data.train.labels)
    if lazy:
        train = LazySplit(
            reader=Reader(read=lambda number: pixels[number], workers=0),
            numbers=torch.arange(100),
            labels=data.train.labels,
            shape=(1, 8, 8),
        )
    test = Split(pixels=data.test.pixels / 255, labels=data.test.labels)
    return attrs.evolve(data, name="spoilt", train=train, test=test, max_value=1)


class Spoilt:
    def __init__(self, *arguments, **settings):
        self.data = spoilt(*arguments, **settings)

    @hookimpl
    def curricula_datasets(self):
        return [Record(name="spoilt", factory=lambda root, download: self.data, summary="NaN")]


FIXES = {
    float("nan"): "replace what is not a number",
    float("inf"): "undo their normalisation .*normalise=",
    -0.25: "undo their normalisation .*normalise=",
    1.5: r"clip them: pixels.clip\(0, 1\)",
    17.0: "divide them: pixels / 255",
}


@pytest.mark.parametrize("value", FIXES)
def test_a_pixel_that_is_nan_or_out_of_range_is_said_before_the_training(tmp_path, value):
    registry.current().add(Spoilt(value, lazy=False), Provider(name="spoilt", source="file"))
    message = rf"images of spoilt have a pixel of {value:g}; .* from 0 to 1: {FIXES[value]}"
    with pytest.raises(UserError, match=message):
        curricula.train(data="spoilt", model="lenet", epochs=1, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=message):
        as_dataset(spoilt(value, lazy=False))


def test_a_pixel_that_is_read_when_needed_is_checked_then():
    data = spoilt(float("nan"), lazy=True)
    with pytest.raises(UserError, match=r"^the images read have a pixel of nan; floating-point"):
        list(in_order(as_dataset(data).train, 20))
    with pytest.raises(UserError, match=r"^the images read have a pixel of nan; floating-point"):
        data.train.load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_value": 0}, "max_value of random.* from 1 to 255, not 0"),
        ({"max_value": 99}, r"of random have a pixel of \d+; .* from 0 to max_value, 99"),
        (
            {"classes": ("a", "b")},
            "training labels of random are from 0 to 9; they must be from 0 to 1,",
        ),
    ],
)
def test_values_that_do_not_suit_a_data_set_are_refused(change, message):
    data = attrs.evolve(load_data("random(size=8, images=100)"), **change)
    with pytest.raises(UserError, match=message):
        as_dataset(data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_pixels_are_the_images_and_are_never_written_to(dtype):
    data = load_data("random(size=8, images=20)")
    x = (data.train.pixels.double() / 255).to(dtype)
    floats = attrs.evolve(data, train=Split(pixels=x, labels=data.train.labels))
    before = x.clone()
    found = as_dataset(floats).images(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, before.float())
    found.zero_()  # as a network that normalises in place would do
    assert torch.equal(x, before)


def test_own_validation_images_win_over_held_out_ones():
    whole = load_data("digits")
    own = whole.test[slice(50)]
    data, validation = attrs.evolve(whole, validation=own).with_validation()
    assert validation is own
    assert len(data.train) == len(whole.train)
    assert data.validation is None


def test_image_sizes():
    data = load_data("digits")
    assert attrs.evolve(data, image_size=(28, 28)).image_size == 28
    wide = attrs.evolve(data, image_size=(20, 28))
    assert wide.image_shape == (1, 20, 28)
    assert wide.images(wide.train.pixels[:2]).shape == (2, 1, 20, 28)
    for wrong in (0, (28,), (28, 0), "28", 2.5, (1, 2, 3)):
        with pytest.raises(UserError, match=r"image_size must be .* \(height, width\), not"):
            attrs.evolve(data, image_size=wrong)


@pytest.mark.parametrize(
    ("labels", "limit", "classes"),
    [
        ([0, 0, 0, 1, 1, 1, 2, 2], 3, "the first 3 of 8 are of 1 of 3 classes"),
        ([0, 0, 0, 1, 1, 1, 2, 2], 6, "the first 6 of 8 are of 2 of 3 classes"),
        ([0, 0, 0, 1, 1, 1, 2, 2], 7, None),
        ([0, 0, 0, 1, 1, 1, 2, 2], 8, None),
        ([0, 0, 0, 1, 1, 1, 2, 2], 1, None),  # a single image is of one class in any order
        ([0, 0, 1, 0, 1, 2, 1, 2], 2, None),
        ([1, 1, 1, 1, 1, 1, 1, 1], 2, None),
    ],
)
def test_the_first_images_of_sorted_classes_are_no_sample_and_a_line_says_so(
    labels, limit, classes
):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    pair = torch.rand(8, 1, 8, 8), torch.tensor(labels)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        (found,) = curricula.evaluate(model, pair, ["clean"], limit=limit, progress=False)
    assert found.n == limit
    lines = [str(each.message) for each in caught if "sorted by class" in str(each.message)]
    assert len(lines) == (classes is not None)
    assert classes is None or classes in lines[0]
