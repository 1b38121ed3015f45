"""A folder of images from someone else: damaged, full of links, or made to exhaust the machine."""

import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from curricula.data.dataset import load_data
from curricula.data.identity import identity_of
from curricula.errors import UserError


@pytest.fixture
def root(tmp_path):
    for part in ("train", "test"):
        for name in ("bee", "cat"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((9, 9, 3), 40 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def load(root):
    return load_data("folder(size=8)", root=root)


def bomb(width, height):
    """Return a PNG of a few bytes with many pixels."""

    def chunk(kind, content):
        length = struct.pack(">I", len(content))
        return length + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + width)) * 2
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
DAMAGED = {
    "empty": b"",
    "a text": b"not an image",
    "half a PNG": bomb(9, 9)[:40],
    "PostScript": POSTSCRIPT,
    "a bomb": bomb(100_000, 1_001),
    "a larger bomb": bomb(100_000, 100_000),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_one_line_at_once(root, name, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # nothing is run
    load(root)  # imports torchvision
    path = root / "train" / "bee" / "0.png"
    path.write_bytes(DAMAGED[name])
    began = time.perf_counter()
    with pytest.raises(UserError, match=rf"^folder: {path} (cannot be read as an|has .* pix)"):
        load(root)
    assert time.perf_counter() - began < 1


def test_the_bomb_is_refused_for_its_pixels(root):
    (root / "train" / "bee" / "0.png").write_bytes(bomb(100_000, 1_001))
    with pytest.raises(
        UserError, match=r"has 100000 x 1001 pixels, more than 20,\d+,\d+ in \d+ bytes"
    ):
        load(root)


def test_a_pipe_or_a_device_in_place_of_an_image_does_not_hang(root):
    os.mkfifo(root / "train" / "bee" / "2.png")
    with pytest.raises(UserError, match=r"2.png cannot be read as an image"):
        load(root)
    (root / "train" / "bee" / "2.png").unlink()
    (root / "train" / "bee" / "2.png").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"2.png cannot be read as an image"):
        load(root)


def test_links_that_lead_in_circles_are_refused_at_once(root):
    load(root)  # imports torchvision
    for name in "abcdefgh":
        (root / "train" / "bee" / name).symlink_to(root / "train")
    began = time.perf_counter()
    with pytest.raises(UserError, match="is a link to a folder that is there already"):
        load(root)
    assert time.perf_counter() - began < 1


def test_links_that_double_at_each_level_are_refused_at_once(root):
    load(root)  # imports torchvision
    for level in range(30):
        folder = root / "deep" / str(level)
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / name).symlink_to(root / "deep" / str(level + 1))
    (root / "train" / "bee" / "more").symlink_to(root / "deep" / "0")
    began = time.perf_counter()
    with pytest.raises(UserError, match="is a link to a folder that is there already"):
        load(root)
    assert time.perf_counter() - began < 1


def test_classes_and_files_may_be_links(root, tmp_path):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / f"{part}-cats")
        (root / part / "cat").symlink_to(root / f"{part}-cats")
    (root / "train" / "bee" / "2.png").symlink_to(root / "test" / "bee" / "0.png")
    (root / "train" / "bee" / "gone.png").symlink_to(root / "absent")
    with pytest.raises(UserError, match=r"gone.png cannot be read as an image: No such file"):
        load(root)
    (root / "train" / "bee" / "gone.png").unlink()
    assert len(load(root).train) == 5


def test_names_that_are_not_utf_8_are_read_or_refused(root):
    folder = os.fsencode(root / "train" / "bee")
    os.rename(folder + b"/0.png", folder + b"/\xff$%<\n'.png")
    assert len(identity_of(load(root)).train) == 32
    lazy = load_data("folder(size=8, keep=disk)", root=root)
    assert len(identity_of(lazy).train) == 32
    for part in ("train", "test"):
        os.rename(os.fsencode(root / part / "bee"), os.fsencode(root / part) + b"/\xff")
    with pytest.raises(UserError, match=r"the name of class '.udcff' cannot be shown; rename it"):
        load(root)
