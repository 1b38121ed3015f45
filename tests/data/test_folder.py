"""A folder of images from someone else: damaged, full of links, or made to exhaust the machine."""

import os
import shutil
import struct
import time
import unicodedata
import zlib

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from torchvision.datasets import ImageFolder

from curricula.cli.main import program
from curricula.data.dataset import load_data, resolve_data
from curricula.data.identity import identity_of
from curricula.errors import DataWarning, UserError


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
    with (
        pytest.warns(DataWarning, match=r"passed over other folders \(test-cats, train-cats\)$"),
        pytest.raises(UserError, match=r"gone.png cannot be read as an image: No such file"),
    ):
        load(root)
    (root / "train" / "bee" / "gone.png").unlink()
    with pytest.warns(DataWarning):
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


def write_images(folder, *names, value=0):
    """Write small PNG files of different greys, in folders that are made."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((9, 9, 3), value + 2 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(path, "PNG")


def values(split):
    """Return the first pixel of each image."""
    return split.pixels[:, 0, 0, 0].tolist()


def test_val_beside_test_is_the_validation_split(root):
    for name in ("Val", "validation", "valid"):
        write_images(root / name, "bee/0.png", "cat/0.png", value=100)
        data = load(root)
        assert values(data.validation) == [100, 102]
        assert (len(data.train), len(data.test)) == (4, 4)
        training, validation = data.with_validation()
        assert values(validation) == [100, 102]
        assert len(training.train) == 4
        shutil.rmtree(root / name)


def test_val_without_test_holds_the_test_images_and_says_so(root):
    shutil.rmtree(root / "test")
    write_images(root / "val", "bee/0.png", "cat/0.png", value=100)
    with pytest.warns(DataWarning, match="val holds the test images, since there is no folder te"):
        data = load(root)
    assert values(data.test) == [100, 102]
    assert data.validation is None


def test_names_of_splits_may_be_in_capitals(root):
    (root / "train").rename(root / "TRAIN")
    (root / "test").rename(root / "Test")
    assert len(load(root).train) == 4


def test_one_folder_of_classes_is_split_as_stated(tmp_path):
    names = [f"{name}/{number}.png" for name in ("ant", "bee") for number in range(10)]
    write_images(tmp_path, *names)
    with pytest.raises(
        UserError, match=r"no folder train .*, but ant, bee; if .* write split=80:20"
    ):
        load(tmp_path)

    def split(text, root=tmp_path):
        data = load_data(f"folder(size=8, {text})", root=root)
        assert data.train.labels.bincount().tolist() == [len(data.train) // 2] * 2
        assert sorted(values(data.train) + values(data.test)) == list(range(0, 40, 2))
        return values(data.train), values(data.test)

    first = split("split=80:20")
    assert list(map(len, first)) == [16, 4]
    assert split("split=0.8:0.2") == first
    assert split("split=80:20, split_seed=1") != first
    assert list(map(len, split("split=1:1"))) == [10, 10]
    assert list(map(len, split("split=1e308:1e308"))) == [10, 10]
    assert list(map(len, split("split=1000:1"))) == [18, 2]  # a test image of each class at least
    copied = tmp_path / "elsewhere"
    shutil.copytree(tmp_path, copied)
    assert split("split=80:20", copied) == first  # the place does not matter
    shutil.rmtree(copied)
    write_images(tmp_path, "cow/0.png", "cow/1.png", value=200)  # nor do other classes
    data = load_data("folder(size=8, split=80:20)", root=tmp_path)
    assert [value for value in values(data.train) if value < 200] == first[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split=80:0", "two numbers above 0, the shares TRAIN:TEST, such as 80:20, not 80:0"),
        ("split=-1:2", "not -1:2"),
        ("split=0.2", "split must be a pair NUMBER:NUMBER or none, not 0.2"),
        ("split=80:20, split_seed=-1", "split_seed must be 0 or more, not -1"),
    ],
)
def test_a_wrong_split_is_one_line(tmp_path, text, message):
    write_images(tmp_path, "ant/0", "ant/1", "bee/0", "bee/1")
    with pytest.raises(UserError, match=message):
        load_data(f"folder(size=8, {text})", root=tmp_path)


def test_a_split_takes_a_folder_of_classes_with_two_images_each(root):
    with pytest.raises(UserError, match=r"has a folder train; leave split out, or name \S*train"):
        load_data("folder(size=8, split=80:20)", root=root)
    shutil.rmtree(root / "test")
    with pytest.raises(UserError, match=r"has train, but neither test nor val; add one, or name"):
        load(root)
    train = root / "train"
    assert len(load_data("folder(size=8, split=50:50)", root=train).test) == 2
    (train / "bee" / "1.png").unlink()
    with pytest.raises(UserError, match="class bee has a single image; a class to split needs two"):
        load_data("folder(size=8, split=50:50)", root=train)


@pytest.mark.parametrize("names", [("invalid", "valid"), ("car", "train"), ("test", "train")])
def test_classes_may_have_the_names_of_splits(tmp_path, names):
    write_images(tmp_path, *[f"{name}/{n}" for name in names for n in "01"], value=20)
    data = load_data("folder(size=8, split=50:50)", root=tmp_path)
    assert data.classes == names
    with pytest.raises(UserError, match="if these are the classes, write split=80:20"):
        load(tmp_path)


def test_two_folders_of_one_split_are_refused(root):
    write_images(root, "val/bee/0", "val/cat/0", "validation/bee/0", "validation/cat/0")
    with pytest.raises(UserError, match="has both val and validation; keep one of them"):
        load(root)


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_levels_of_12_bits_in_files_of_16_are_refused(root, keep):
    files = sorted(root.rglob("*.png"))
    for path in files:
        Image.fromarray(np.full((9, 9), 4095, dtype=np.uint16)).save(path)
    text = f"folder(size=8, keep={keep})"
    with pytest.raises(UserError, match=r"no image has a pixel above 15 of 255, .* 12 bits"):
        load_data(text, root=root)
    Image.fromarray(np.full((9, 9), 4400, dtype=np.uint16)).save(files[-1])
    load_data(text, root=root)
    for path in files:
        Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(path)  # black is black in any scale
    load_data(text, root=root)


def test_images_need_not_be_square(root):
    data = load_data("folder(size=24:16)", root=root)
    assert (data.image_size, data.train.shape) == ((24, 16), (3, 24, 16))
    assert load_data("folder(size=16:16)", root=root).image_size == 16
    for size in ("24:7", "5000:24", "24.5:24", "7"):
        with pytest.raises(UserError, match="size must"):
            load_data(f"folder(size={size})", root=root)


def test_images_are_found_by_their_content_or_by_their_ending(root):
    bee = root / "train" / "bee"
    for number, (ending, kind) in enumerate(
        {"GIF": "GIF", "jfif": "JPEG", "tiff": "TIFF", "TGA": "TGA", "bmp": "BMP", "Webp": "WEBP",
         "jp2": "JPEG2000", "dat": "PNG", "txt": "JPEG", "jpg_large": "JPEG"}.items()
    ):  # fmt: skip
        Image.new("RGB", (9, 9), (9 * number,) * 3).save(bee / f"more.{ending}", kind)
    Image.new("RGB", (9, 9)).save(bee / "without an ending", "PNG")
    assert len(load(root).train) == 4 + 11


PASSED_OVER = {
    ".DS_Store": "hidden", "._0.png": "hidden", "Thumbs.db": "hidden", "THUMBS.DB": "hidden",
    "desktop.ini": "hidden", ".hidden/0.png": "hidden", "__MACOSX/bee/0.png": "hidden",
    "#recycle/0.png": "hidden", "@Recycle/0.png": "hidden", "lost+found/0.png": "hidden",
    ".ipynb_checkpoints/0-checkpoint.png": "hidden", "@eaDir/0.png": "hidden",
    "notes.txt": ".txt", "BMW.txt": ".txt", "P6.txt": ".txt", "film.mp4": ".mp4",
    "labels.csv": ".csv", "README": "without an ending", "drawing.svg": ".svg",
    "icon.ico": ".ico", "page.pdf": ".pdf", "art.eps": ".eps",
}  # fmt: skip


@pytest.mark.parametrize("where", ["", "train", "train/bee", "train/bee/inner"])
@pytest.mark.parametrize("name", PASSED_OVER)
def test_what_is_no_image_is_passed_over_and_counted(root, where, name):
    before = load(root)
    path = root / where / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes({"P6.txt": b"P6 of the notes", "art.eps": POSTSCRIPT}.get(name, b"BMW"))
    what = PASSED_OVER[name]
    expected = (
        r"hidden files and folders \(1\)$"
        if what == "hidden"
        else rf"files that are not images \(1 {what}\)$"
    )
    with pytest.warns(DataWarning, match=rf"^folder \S+: passed over {expected}") as caught:
        data = load(root)
    assert len(caught) == 1
    assert identity_of(data) == identity_of(before)


def test_what_is_passed_over_is_counted_in_one_line(root):
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / ".DS_Store").touch()
    (root / "readme.md").touch()
    write_images(root / "train", "loose.png", "loose.jpg")
    (root / "test" / "__MACOSX").mkdir()
    for number in range(7):
        (root / "test" / "bee" / f"a.{number}").touch()
    (root / "unlabelled").mkdir()
    with pytest.warns(DataWarning) as caught:
        load(root)
    (line,) = map(str, [each.message for each in caught])
    assert line.endswith(
        ": passed over other folders (unlabelled); passed over hidden files and folders (2), files "
        "that are not images (1 .0, 1 .1, 1 .2, 1 .3, 1 .4, 3 more), images outside of a class's "
        "folder (2), folders without an image (dog)"
    )


def test_the_command_line_prints_a_note_once(root, monkeypatch):
    (root / "train" / ".DS_Store").touch()
    ran = CliRunner().invoke(
        program, ["preview", "--data", "folder(size=8)", "--data-root", str(root), "--perturb",
               "rot:30", "--images", "1", "-o", str(root / "preview.png")]
    )  # fmt: skip
    assert ran.exit_code == 0
    note = f"Note: folder {root}: passed over hidden files and folders (1)\n"
    assert note in ran.stderr
    twice = click.Command("twice", callback=lambda: (load(root), load(root)))
    monkeypatch.setattr(program, "get_command", lambda *_: twice)
    assert CliRunner().invoke(program, ["twice"]).stderr.count("Note: ") == 1


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.dng", "a.CR2", "a.jxl"])
def test_a_photo_that_cannot_be_read_is_an_error(root, name):
    (root / "train" / "bee" / name).write_bytes(b"II*\0photo")
    with pytest.raises(UserError, match=rf"bee/{name} is a photo in a format that is not read; co"):
        load(root)


def test_a_single_class_is_refused(root):
    for part in ("train", "test"):
        shutil.rmtree(root / part / "cat")
    with pytest.raises(UserError, match="train has images of one class, bee; it must hold two or"):
        load(root)
    for number in range(2):
        (root / "train" / "bee" / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"train has no images \(passed over .*\(bee\)\); it must"):
        load(root)


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_classes_that_differ_between_splits_are_refused(root, split):
    write_images(root / "val", "bee/0.png", "cat/0.png")
    write_images(root / split, "dog/0.png")
    with pytest.raises(UserError, match=r"has no images of dog; give both the same folders"):
        load(root)


@pytest.mark.parametrize(("one", "two"), [("Bee", "bee"), ("Zo\u00eb", "Zoe\u0308"), ("ß", "SS")])
def test_two_classes_of_nearly_the_same_name_are_refused(root, one, two):
    write_images(root / "train", f"{one}/0.png")
    if (root / "train" / two).exists() and two != "bee":
        pytest.skip("this file system does not tell the names apart")
    write_images(root / "train", f"{two}/0.png")
    with pytest.raises(UserError, match=r"two folders \S+ and \S+, whose names differ only in ca"):
        load(root)


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_the_form_of_unicode_changes_nothing(tmp_path, keep):
    """macOS stores names decomposed, Linux as they are typed."""

    def data(form):
        folder = tmp_path / form
        names = [f"{name}/\u00e9{n}.png" for name in ("Zo\u00eb", "z") for n in range(9)]
        write_images(folder, *[unicodedata.normalize(form, name) for name in names])
        return load_data(f"folder(size=8, split=60:40, keep={keep})", root=folder)

    composed, decomposed = data("NFC"), data("NFD")
    assert composed.classes == decomposed.classes == ("Zo\u00eb", "z")
    assert identity_of(composed) == identity_of(decomposed)


@pytest.mark.parametrize("name", ["日本語", "عربي", "🐝", "Zoë", "a b", "1", "-", "$x$", "ı"])
def test_classes_have_names_in_any_language(root, name):
    for part in ("train", "test"):
        (root / part / "bee").rename(root / part / name)
    assert set(load(root).classes) == {name, "cat"}


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "/"])
def test_a_link_to_a_folder_above_is_refused_at_once(root, target):
    load(root)
    (root / "train" / "bee" / "up").symlink_to(target)
    began = time.perf_counter()
    with pytest.raises(UserError, match=r"bee/up is a link to a folder that is there already"):
        load(root)
    assert time.perf_counter() - began < 1


def test_test_images_that_are_the_training_images_are_refused(root):
    shutil.rmtree(root / "test")
    (root / "test").symlink_to(root / "train")
    with pytest.raises(UserError, match=r"test is a link to a folder that is there already"):
        load(root)
    (root / "test").unlink()
    write_images(root / "test", "cat/0.png")
    (root / "test" / "bee").symlink_to(root / "train" / "bee")
    with pytest.raises(UserError, match=r"test/bee is a link to a folder that is there already"):
        load(root)


def test_links_that_lead_nowhere_or_to_themselves_are_one_line(root):
    bee = root / "train" / "bee"
    (bee / "loop").symlink_to("loop")
    (bee / "gone").symlink_to("absent")
    with pytest.warns(DataWarning, match=r"not images \(2 without an ending\)"):
        load(root)
    (bee / "loop").unlink()
    (bee / "gone").unlink()
    (bee / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"loop.png cannot be read as an image: Too many levels"):
        load(root)
    for keep in ("memory", "disk"):
        (bee / "loop.png").unlink()
        (bee / "loop.png").symlink_to("absent")
        with pytest.raises(UserError, match=r"loop.png cannot be read as an image: No such file"):
            identity_of(load_data(f"folder(size=8, keep={keep})", root=root))


def test_images_are_in_the_order_of_torchvision(root):
    """So that runs of earlier versions find their data set again."""
    bee = root / "train" / "bee"
    write_images(bee, "a/1.png", "a-b/0.png", "a.png", "Z/0.png", "a/b/c.png", "10.png", "2.png")
    data = load_data("folder(size=8, keep=disk)", root=root)
    expected = ImageFolder(str(root / "train"))
    paths = data.train.reader.read.paths[data.train.numbers.numpy()]
    assert [os.fsdecode(path) for path in paths] == [path for path, _ in expected.samples]
    assert data.train.labels.tolist() == expected.targets
    assert list(data.classes) == expected.classes


def test_a_file_without_an_ending_that_never_ends_is_passed_over(root):
    os.mkfifo(root / "train" / "bee" / "pipe")
    (root / "train" / "bee" / "zero").symlink_to("/dev/zero")
    with pytest.warns(DataWarning, match=r"not images \(2 without an ending\)"):
        load(root)


def test_the_ground_is_stated_in_the_expression(root):
    Image.new("RGBA", (9, 9)).save(root / "train" / "bee" / "0.png")
    built = resolve_data("folder(size=8, ground=grey)", root=root, download=False)
    assert "ground=grey" in str(built.call)
    assert values(built.value.train)[0] == 128
    assert values(load(root).train)[0] == 255
    with pytest.raises(UserError, match="ground must be white or grey or black, not pink"):
        load_data("folder(size=8, ground=pink)", root=root)
