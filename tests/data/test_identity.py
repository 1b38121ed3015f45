"""A data set that has changed is distinguished from the one that a run was trained on."""

import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from curricula.data.dataset import Split, load_data
from curricula.data.identity import DataIdentity, fingerprint, identity_of
from curricula.data.spec import ImageSpec
from curricula.models.build import build_model
from curricula.runtime.records import from_json, to_json


@pytest.fixture
def folder(tmp_path):
    """Return a folder of tiny images: two classes, four images each."""
    values = iter(range(0, 160, 10))
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((8, 8), next(values), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def identity(folder, keep):
    return identity_of(load_data(f"folder(size=8, grey=true, keep={keep})", root=str(folder)))


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_other_files_give_another_identity(folder, keep):
    before = identity(folder, keep)
    assert identity(folder, keep) == before
    train = folder / "train"
    (train / "cat").rename(folder / "aside")
    (train / "dog").rename(train / "cat")
    (folder / "aside").rename(train / "dog")
    swapped = identity(folder, keep)
    assert swapped.train != before.train
    assert (swapped.test, swapped.classes) == (before.test, before.classes)
    (folder / "test" / "cat" / "0.png").unlink()
    assert identity(folder, keep).test != before.test


def test_one_replaced_file_among_many_is_noticed_on_disk(folder):
    before = identity(folder, "disk")
    path = folder / "train" / "dog" / "3.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert identity(folder, "disk").train != before.train


def test_every_pixel_and_label_in_memory_counts():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8, generator=generator)
    split = Split(pixels=pixels, labels=torch.arange(100) % 3)
    seen = {fingerprint(split)}
    for change in ("pixel", "label", "order", "count", "shape"):
        pixels, labels = split.pixels.clone(), split.labels.clone()
        if change == "pixel":
            pixels[57, 0, 3, 2] ^= 1
        elif change == "label":
            labels[57] = (labels[57] + 1) % 3
        elif change == "order":
            pixels, labels = pixels.flip(0), labels.flip(0)
        elif change == "count":
            pixels, labels = pixels[:99], labels[:99]
        else:
            pixels = pixels.reshape(100, 1, 4, 16)
        seen.add(fingerprint(attrs.evolve(split, pixels=pixels, labels=labels)))
    assert len(seen) == 6


def test_an_identity_states_what_a_network_is_built_for():
    data = load_data("digits")
    identity = identity_of(data)
    assert identity.spec == ImageSpec(classes=data.classes, channels=1, image_size=28)
    written = json.loads(json.dumps(to_json(identity)))
    assert (written["image_size"], written["max_value"]) == ([28, 28], 16)
    assert from_json(DataIdentity, written) == identity
    with torch.random.fork_rng([]):
        network = build_model("lenet", identity.spec)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_the_identity_of_an_earlier_version_is_read():
    old = {"classes": ["a", "b"], "train": "0", "test": "1"}
    identity = from_json(DataIdentity, old)
    assert (identity.spec, identity.validation) == (None, None)


@pytest.mark.parametrize(
    "change",
    [{"image_size": [28]}, {"image_size": [28, 0]}, {"channels": 0}, {"max_value": 256}],
)
def test_a_damaged_identity_is_refused(change):
    written = {**to_json(identity_of(load_data("digits"))), **change}
    with pytest.raises(ValueError, match=next(iter(change))):
        from_json(DataIdentity, written)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_pixels_are_identified_too(dtype):
    pixels = (torch.arange(40).reshape(10, 1, 2, 2) / 64).to(dtype)
    split = Split(pixels=pixels, labels=torch.arange(10) % 2)
    other = pixels.clone()
    other[7, 0, 1, 1] += 1 / 64
    assert fingerprint(split) != fingerprint(attrs.evolve(split, pixels=other))
    assert fingerprint(split) == fingerprint(attrs.evolve(split, pixels=pixels.clone()))


def test_own_validation_images_count():
    data = load_data("digits")
    own = attrs.evolve(data, validation=data.test[slice(100)], test=data.test[slice(100, None)])
    assert identity_of(own).validation == fingerprint(data.test[slice(100)])
    assert identity_of(data).validation is None
