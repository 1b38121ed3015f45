"""Draw one strip of pictures for each perturbation of the catalogue.

A strip is one image at strengths 0 (the original), 0.25, 0.5, 0.75 and 1, from left to right.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from curricula.curriculum import Curriculum
from curricula.data.dataset import DataSet, load_data
from curricula.interfaces import Perturbation, Victim
from curricula.reporting.previews import STRENGTHS, at_strengths
from curricula.runtime.files import write_output
from curricula.training.loading import load_model
from curricula.training.loop import train_plan
from curricula.training.plan import make_plan
from curricula.training.run import Run
from curricula.victim.model_victim import ModelVictim

BUDGETS: Mapping[str, str] = {
    "degrees": "45",
    "pixels": "4",
    "share": "0.5",
    "probability": "1",
    "turns": "0.5",
    "sigma": "0.2",
    "std": "0.2",
    "severity": "5",
    "linf": "0.2",
    "l2": "4",
    "switch": "1",
}
"""Budget of a strip by the unit of its perturbation: large enough to be visible."""

BUDGETS_BY_NAME: Mapping[str, str] = {"brightness": "0.9", "contrast": "0.9", "saturation": "1"}

# Configuration of the training of the attacked network.
TARGET = {"data": "digits", "epochs": 5, "compile": "off", "device": "cpu"}
DIGIT = 2  # index of the test image
SEED = 1  # seed; the first draw of seed 0 is close to 0, so the image hardly moves
COLOUR_SIDE = 32  # pixels
COLOUR_BOX = (200, 20, 580, 400)  # of the photograph: left, upper, right and lower edge, in pixels
NUM_COLOURS = 64  # colours of a strip in colour, which keep its file small
ZOOM, GAP = 3, 6  # screen pixels: side of an image pixel, gap between pictures


def expression_of(name: str, perturbation: Perturbation) -> str:
    """Return the expression, with a budget for its unit, that the catalogue's strip shows for a
    perturbation; empty for an attack on colours, since the attacked network takes grey images."""
    if perturbation.kind == "pixel" and perturbation.channels == frozenset({3}):
        return ""
    return f"{name}:{BUDGETS_BY_NAME.get(name) or BUDGETS[perturbation.unit]}"


def write_strips(expressions: Mapping[str, str], folder: Path) -> None:
    """Draw a strip of pictures for each expression, at growing strengths, and write it as a PNG
    file.

    The same versions of the libraries write the same bytes.

    Args:
        expressions: expressions, by the name of their file without its suffix.
        folder: where to write; it is made if it is missing.
    """
    folder.mkdir(exist_ok=True)
    digits = load_data("digits")
    victim = _trained(digits)
    for name, text in expressions.items():
        curriculum = Curriculum.parse(text, defaults=digits.attack_defaults)
        in_colour = any(
            leaf.perturbation.channels == frozenset({3}) or leaf.perturbation.unit == "severity"
            for leaf in curriculum.tree.leaves.values()
        )
        one = digits.test[slice(DIGIT, DIGIT + 1)].load()
        x_1CHW = _photograph() if in_colour else digits.images(one.pixels)
        views_S1CHW = at_strengths(
            curriculum, x_1CHW, one.labels, strengths=STRENGTHS, victim=victim, seed=SEED
        )
        picture = _strip([x_1CHW[0], *views_S1CHW[:, 0]])
        path = folder / f"{name}.png"
        with tempfile.SpooledTemporaryFile() as drawn:
            picture.save(drawn, format="png", optimize=True)
            drawn.seek(0)
            write_output(path, drawn.read())


def _trained(data: DataSet) -> Victim:
    """Return a network trained on the digits for a few epochs, as a victim."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train_plan(make_plan(TARGET), run, threats={})
        return ModelVictim(load_model(Run.open(run), data=data))


def _photograph() -> Tensor:
    """Return a small picture of a flower, (1, 3, H, W) in [0, 1]."""
    from sklearn.datasets import load_sample_image

    whole = Image.fromarray(load_sample_image("flower.jpg"))
    small = whole.crop(COLOUR_BOX).resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


def _strip(images_CHW: Iterable[Tensor]) -> Image.Image:
    """Return a picture of the images (C, H, W) side by side, enlarged."""
    cells = [_pixels(x_CHW) for x_CHW in images_CHW]
    gap = np.full((cells[0].shape[0], GAP, *cells[0].shape[2:]), 255, dtype=np.uint8)
    parts = [part for cell in cells for part in (cell, gap)][:-1]
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    return picture if picture.mode == "L" else picture.quantize(NUM_COLOURS)


def _pixels(x_CHW: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (x_CHW * 255).round().to(torch.uint8).numpy(force=True)
    pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return pixels.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
