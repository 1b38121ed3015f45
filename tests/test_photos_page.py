"""Photos of every kind lead to a classifier and its answer for a new photo: by the commands of the
page on photos, and in a few lines of Python."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY
from fixtures.programs import run_commands, run_python
from PIL import Image

from curricula.cli.main import program

PAGE = Path(__file__).parents[1] / "docs" / "photos.md"
SCRIPT = re.compile(r"`make_photos.py`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ curricula (.*)$", re.MULTILINE)


def test_the_commands_of_the_page_work_in_their_order(tmp_path, monkeypatch):
    """With one epoch on fewer photos: the accuracies on the page are not tested."""
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (script,) = SCRIPT.findall(page)
    exec(script.replace("range(100)", "range(10)"), {})
    commands = [
        command.replace("--epochs 30", "--epochs 1")
        for command in COMMAND.findall(page.replace("\\\n", ""))
    ]
    outputs = []
    for command in commands:
        done = CliRunner().invoke(program, shlex.split(command))
        assert done.exit_code == 0, f"{command}\n{done.output}"
        outputs.append(done.output)
    assert len(commands) == 3
    assert "lemon" in outputs[-1]
    assert "new.jpg" in outputs[-1]


def write_photos(folder, level):
    """Write photos of one grey in every way that phones, cameras and scanners know."""
    folder.mkdir(parents=True)
    grey = Image.fromarray(np.full((40, 30), level, np.uint8))
    colour, turned = grey.convert("RGB"), Image.Exif()
    turned[0x0112] = 6
    colour.save(folder / "phone.JPG", exif=turned)
    Image.fromarray(np.full((40, 30), level << 8, np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((40, 30), level / 255, np.float32)).save(folder / "float.tiff")
    Image.fromarray(np.full((40, 30), level << 8, np.uint16)).save(folder / "deep.pgm")
    grey.save(folder / "film.gif", save_all=True, append_images=[grey.point(lambda x: 255 - x)])
    colour.convert("RGBA").save(folder / "alpha.png")
    colour.quantize(8).save(folder / "palette.png")
    colour.convert("CMYK").save(folder / "print.jpg")
    colour.save(folder / "web.webp", lossless=True)
    grey.save(folder / "without an ending", "PNG")


@pytest.mark.filterwarnings("ignore::curricula.errors.DataWarning")
def test_photos_of_every_kind_are_learnt_and_a_new_one_is_recognised(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    for name, level in {"dark": 40, "light": 210}.items():
        write_photos(photos / name, level)
        (photos / name / ".DS_Store").touch()
    write_photos(tmp_path / "new", 200)
    shutil.copy(tmp_path / "new" / "phone.JPG", "new.jpg")
    damaged = photos / "dark" / "damaged.jpg"
    damaged.write_bytes((photos / "dark" / "phone.JPG").read_bytes()[:-30])
    (refused,) = run_commands("photos.sh", "--plugin", str(TINY))
    assert refused.exit_code == 2
    assert "dark/damaged.jpg cannot be read as an image" in refused.output
    damaged.unlink()
    *_, predicted = run_commands("photos.sh", "--plugin", str(TINY))
    assert predicted.exit_code == 0, predicted.output
    assert predicted.stdout.splitlines()[-1].startswith("new.jpg,1,light,"), predicted.output
    printed = run_python("copied_run.py", capsys, monkeypatch)
    assert [line[-1] for line in printed] == ["light"] * len(list((tmp_path / "new").iterdir()))
