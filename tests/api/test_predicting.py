"""Classify new photos by the network of a run, with and without its data."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import curricula
from curricula.cli.main import program
from curricula.data import ImageSpec
from curricula.data.dataset import load_data
from curricula.errors import Notice, UserError

COLOURS = {"blue": (40, 60, 220), "green": (50, 200, 60), "red": (220, 50, 40)}


def photo(colour, seed, size=(16, 16)):
    """Return a noisy picture of one colour, whose upper half is darker."""
    pixels = np.random.default_rng(seed).integers(-20, 20, (*size, 3)) + np.array(COLOURS[colour])
    pixels[: size[0] // 2] //= 2
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train on photos of three colours, then delete them; return the run's folder."""
    folder = tmp_path_factory.mktemp("colours")
    for split, count in (("train", 10), ("test", 3)):
        for colour in COLOURS:
            (folder / split / colour).mkdir(parents=True)
            for seed in range(count):
                photo(colour, seed).save(folder / split / colour / f"{seed}.png")
    trained = curricula.train(
        data="folder(size=16, ground=black)",
        data_root=folder,
        model="wrn(depth=10, width=1)",
        epochs=12,
        batch_size=9,
        lr=0.01,
        optimizer="adamw",
        lr_schedule="constant",
        augmentation="clean",
        compile="off",
        output=folder / "run",
    )
    assert trained.results[0].accuracy == 1, "the test needs a network that tells colours apart"
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test")
    return folder / "run"


@pytest.fixture
def photos(tmp_path):
    """Write photos of many kinds into a folder, and return it."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    photo("red", 90).save(folder / "a.png")
    photo("green", 91, (96, 48)).save(folder / "inner" / "b.jpg")
    photo("blue", 92).convert("RGBA").save(folder / "c.webp", lossless=True)
    (folder / "notes.txt").write_text("no image")
    photo("red", 93).save(folder / "__MACOSX" / "._a.png")
    return folder


def run(*arguments):
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


def test_a_folder_of_photos_is_classified_without_the_data(trained, photos):
    found = curricula.predict(trained, photos)
    paths = [photos / "a.png", photos / "c.webp", photos / "inner" / "b.jpg"]
    assert [each.image for each in found] == [str(path) for path in paths]
    assert [each.classes[0] for each in found] == ["red", "blue", "green"]
    assert [sorted(each.classes) for each in found] == [sorted(COLOURS)] * 3
    for each in found:
        assert sum(each.probabilities) == pytest.approx(1)
        assert list(each.probabilities) == sorted(each.probabilities, reverse=True)


def test_the_probabilities_are_the_softmax_of_the_networks_logits(trained, photos):
    (found,) = curricula.predict(trained, photos / "a.png", top=2)
    pixels = torch.from_numpy(np.array(Image.open(photos / "a.png"))).permute(2, 0, 1)
    with torch.no_grad():
        expected = curricula.load_model(trained)(pixels[None] / 255).softmax(1)[0]
    values, labels = expected.sort(descending=True)
    assert found.classes == tuple(sorted(COLOURS)[label] for label in labels[:2])
    assert found.probabilities == pytest.approx(values[:2].tolist(), abs=1e-6)


def test_a_photo_is_turned_upright_and_transparency_has_the_ground_of_the_training(
    trained, tmp_path
):
    upright = photo("red", 1)
    exif = Image.Exif()
    exif[0x0112] = 3  # shown turned by 180 degrees
    upright.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    clear = Image.new("RGBA", upright.size, (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    Image.new("RGB", upright.size, "black").save(tmp_path / "black.png")
    names = ("upright", "turned", "black", "clear")
    of = [
        each.probabilities
        for each in curricula.predict(trained, [tmp_path / f"{n}.png" for n in names])
    ]
    assert of[0] == of[1]
    assert of[2] == of[3]
    assert of[0] != of[2]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_tensors_and_arrays_give_what_files_give(trained, photos, batch_size):
    from_file = curricula.predict(trained, [photos / "a.png"] * 3, batch_size=batch_size)
    pixels = np.stack([np.array(Image.open(photos / "a.png"))] * 3)
    given = (
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        pixels,  # NHWC
    )
    for images in given:
        found = curricula.predict(trained, images, batch_size=batch_size)
        assert [each.image for each in found] == ["0", "1", "2"]
        for ours, theirs in zip(found, from_file, strict=True):
            assert ours.classes == theirs.classes
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)


def test_images_of_pillow_and_single_images_give_what_files_give(trained, photos):
    names = ("a.png", "c.webp", "inner/b.jpg")
    files = curricula.predict(trained, [photos / name for name in names])
    opened = [Image.open(photos / name) for name in names]
    found = curricula.predict(trained, opened)
    assert [each.image for each in found] == ["0", "1", "2"]
    assert [each.probabilities for each in found] == [each.probabilities for each in files]
    pixels = np.array(opened[0])
    for image in (opened[0], pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels) / 255):
        (one,) = curricula.predict(trained, image)
        assert one.probabilities == pytest.approx(files[0].probabilities, abs=1e-6)
    both = curricula.predict(trained, [opened[0], photos / "a.png"])
    assert both[0].probabilities == both[1].probabilities


def test_a_single_grey_array_needs_no_axis_of_channels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x = torch.rand(8, 8)
    (one,) = curricula.predict(model, x, data=SPEC)
    (same,) = curricula.predict(model, x[None, None], data=SPEC)
    assert one == same


def test_whole_numbers_are_read_as_in_the_data_set():
    data = load_data("digits")
    pixels = (16 * data.images(data.test.pixels[:3])).round().to(torch.uint8)
    assert data.max_value == pixels.max() == 16
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    found = curricula.predict(network, pixels, data=data)
    assert found == curricula.predict(network, pixels / 16, data=data)
    with pytest.raises(UserError, match=r"have a pixel of 17; .* from 0 to max_value, 16"):
        curricula.predict(network, pixels + 1, data=data)


def test_a_module_is_neither_changed_nor_put_into_eval_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2)).train()
    spec = ImageSpec(classes=("cat", "dog"), channels=1, image_size=8)
    x = torch.rand(4, 1, 8, 8)
    first, again = (curricula.predict(model, x, data=spec) for _ in range(2))
    assert first == again
    assert model.training


def test_the_command_prints_a_table_csv_and_json(trained, photos):
    table = run(trained, photos, "--top", "2")
    assert table.exit_code == 0, table.output
    assert "blue" in table.output
    rows = list(csv.DictReader(io.StringIO(run(trained, photos, "--format", "csv").output)))
    assert len(rows) == 9
    assert [row["class"] for row in rows if row["rank"] == "1"] == ["red", "blue", "green"]
    listed = json.loads(run(trained, photos, "--format", "json", "--top", "1").output)
    assert [each["classes"][0]["class"] for each in listed] == ["red", "blue", "green"]
    assert float(rows[0]["probability"]) == listed[0]["classes"][0]["probability"]


def test_damaged_files_are_one_line_each_and_the_others_are_classified(trained, photos):
    (photos / "damaged.jpg").write_bytes((photos / "inner" / "b.jpg").read_bytes()[:200])
    (photos / "raw.heic").write_bytes(b"....")
    (photos / "empty").mkdir()
    done = run(trained, photos, photos / "notes.txt", photos / "gone.png", photos / "empty")
    assert done.exit_code == 1
    for name in ("a.png", "b.jpg", "c.webp"):
        assert name in done.stdout
    errors = done.stderr.splitlines()
    assert all(line.startswith("Error: ") for line in errors)
    for line, name in zip(
        errors, ("damaged.jpg", "raw.heic", "notes.txt", "gone.png", "empty"), strict=True
    ):
        assert name in line
    with pytest.raises(UserError, match=r"damaged\.jpg cannot be read as an image"):
        curricula.predict(trained, photos)


def test_nothing_that_can_be_read_prints_no_table(trained, tmp_path):
    done = run(trained, tmp_path / "gone.png")
    assert (done.exit_code, done.stdout) == (1, "")


def not_finite(x_NCHW):
    return torch.full((len(x_NCHW), 2), torch.nan)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x_NCHW):
        return self.function(x_NCHW)


SPEC = ImageSpec(classes=("cat", "dog"), channels=1, image_size=8)
PIXELS = torch.rand(3, 1, 8, 8)


def test_logits_in_a_mapping_are_found():
    model = Function(lambda x: {"logits": x.flatten(1)[:, :2], "loss": None})
    (found,) = curricula.predict(model, torch.full((1, 1, 8, 8), 0.5), data=SPEC)
    assert found.probabilities == (0.5, 0.5)


def test_a_random_network_is_said_and_its_dropout_layers_are_in_eval_mode():
    with pytest.warns(Notice, match="each probability is that of one draw"):
        curricula.predict(Function(lambda x: torch.randn(len(x), 2)).eval(), PIXELS, data=SPEC)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 2)).eval()
    expected = curricula.predict(model, PIXELS, data=SPEC)
    model[1].train()
    assert curricula.predict(model, PIXELS, data=SPEC) == expected
    assert model[1].training


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_have_the_dtype_of_the_weights(dtype):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).to(dtype)
    (found,) = curricula.predict(model, PIXELS[:1], data=SPEC)
    (expected,) = curricula.predict(model.float(), PIXELS[:1], data=SPEC)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=0.01)


@pytest.mark.parametrize(
    ("model", "images", "keywords", "message"),
    [
        (nn.Flatten(), PIXELS, {}, "a model does not state its classes: give data="),
        (
            nn.Flatten(),
            PIXELS,
            {"data": SPEC},
            r"output of shape \(3, 64\) for 3 images of 2 classes",
        ),
        (Function(not_finite), PIXELS, {"data": SPEC}, "not finite for image 0"),
        (
            nn.Flatten(),
            PIXELS[..., :6],
            {"data": SPEC},
            r"of shape \(1, 8, 6\).* takes \(1, 8, 8\)",
        ),
        (nn.Linear(3, 2), PIXELS, {"data": SPEC}, "cannot take 3 images of 1x8x8 .*build it for"),
        (nn.LazyConv2d(2, 8), PIXELS, {"data": SPEC}, "has a weight without a shape"),
        (nn.Flatten(), PIXELS * 255, {"data": SPEC}, "must be from 0 to 1"),
        (nn.Flatten(), PIXELS * torch.nan, {"data": SPEC}, "a pixel of nan"),
        (nn.Flatten(), [], {"data": SPEC}, "images is empty"),
        (nn.Flatten(), TensorDataset(PIXELS), {"data": SPEC}, "data set, give the images alone"),
        (nn.Flatten(), [Image.new("I", (8, 8))], {"data": SPEC}, "image 0 has pixels of 32 bits"),
        (nn.Flatten(), PIXELS, {"data": SPEC, "top": 0}, "top must be 1 or more"),
        (nn.Flatten(), PIXELS, {"data": SPEC, "batch_size": 0}, "batch_size must"),
        (nn.Flatten(), PIXELS, {"data": SPEC, "checkpoint": "first"}, "checkpoint must be"),
        (3, PIXELS, {"data": SPEC}, "model must be a run, its folder or a torch.nn.Module"),
        ("runs/none", PIXELS, {}, "no such folder"),
        ("runs/none", PIXELS, {"data": SPEC}, "data is for a model"),
    ],
)
def test_mistakes_are_one_line(model, images, keywords, message):
    with pytest.raises(UserError, match=message) as caught:
        curricula.predict(model, images, **keywords)
    assert "\n" not in str(caught.value)


def test_files_for_a_network_of_four_channels_are_refused(photos):
    spec = ImageSpec(classes=("cat", "dog"), channels=4, image_size=8)
    with pytest.raises(UserError, match="files have 1 or 3: give the images as a tensor"):
        curricula.predict(nn.Flatten(), photos, data=spec)
