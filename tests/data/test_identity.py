"""A data set that has changed is distinguished from the one that a run was trained on."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from curricula.data.dataset import Split, load_data
from curricula.data.identity import fingerprint, identity_of


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
