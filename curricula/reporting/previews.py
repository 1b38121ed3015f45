"""Draw the effect of a curriculum on real images.

Shapes: S strengths; the other letters are those of curricula.interfaces.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from curricula.curriculum import Curriculum, check_channels
from curricula.data.dataset import DataSet, classes_in_turn, load_data
from curricula.errors import UserError, shown
from curricula.interfaces import Victim
from curricula.models.build import build_model
from curricula.reporting import MAX_IMAGES, MAX_STRENGTHS
from curricula.reporting.figures import FAINT_TEXT, PIXELS_PER_INCH, TEXT, folded, plain_text
from curricula.reporting.fonts import drawable
from curricula.reporting.inline import InlineFigure
from curricula.runtime.random_state import seed_torch
from curricula.runtime.values import check_number, check_whole
from curricula.training.config import EVALUATION_SEED, FIELDS, MAX_SEED
from curricula.training.loading import load_model
from curricula.training.run import Run
from curricula.victim.model_victim import ModelVictim

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
NUM_IMAGES = 6  # images, by default
CHANGES = "RdBu_r"  # safe for colour-blind readers, white at 0


def preview(
    perturb: str | Curriculum,
    *,
    data: DataSet | str | None = None,
    run: Run | str | Path | None = None,
    strengths: Sequence[float] = STRENGTHS,
    images: int = NUM_IMAGES,
    seed: int = EVALUATION_SEED,
    data_root: str | Path | None = None,
) -> Figure:
    """Return a figure of test images of a data set, its classes in turn, under a curriculum's
    expression at growing strengths.

    Attacks ascend cross-entropy unless they name a loss, and take the data set's training
    defaults.

    Args:
        perturb: the expression, such as ``rot:30+pgd:8/255``, or a curriculum.
        data: the data set or its expression; by default the run's, or else ``digits``.
        run: a run whose best checkpoint attacks are aimed at; by default they are aimed at an
            untrained network, the data set's default model.
        strengths: one column each, in [0, 1].
        images: number of images, 1 to 50.
        seed: seed of the random draws, and of an untrained network's weights.
        data_root: folder of the data set's files; by default the run's, or else ``data``.

    Raises:
        UserError: a wrong value.
    """
    if not isinstance(strengths, Iterable):
        raise UserError(f"strengths must be a list of numbers from 0 to 1, not {shown(strengths)}")
    strengths = list(itertools.islice(strengths, MAX_STRENGTHS + 1))
    check_whole("the number of strengths", len(strengths), 1, MAX_STRENGTHS)
    for strength in strengths:
        check_number("strengths", strength, 0, 1)
    check_whole("images", images, 1, MAX_IMAGES)
    check_whole("seed", seed, 0, MAX_SEED)
    if run is not None and not isinstance(run, Run):
        run = Run.open(run)
    found = _data(data, run, data_root)
    curriculum = perturb
    if not isinstance(curriculum, Curriculum):
        curriculum = Curriculum.parse(
            curriculum, budgets=found.budgets, defaults=found.attack_defaults
        )
    check_channels(curriculum.tree, found.in_channels, data=found.name)
    if images > len(found.test):
        raise UserError(f"images: {found.name} has {len(found.test)} test images, not {images}")
    victim, aim = _victim(run, found, seed)
    split = found.test[classes_in_turn(found.test.labels, images)].load()
    x_NCHW = found.images(split.pixels)
    return preview_figure(
        x_NCHW,
        at_strengths(
            curriculum, x_NCHW, split.labels, strengths=strengths, victim=victim, seed=seed
        ),
        headings=[f"strength {strength:.3g}" for strength in strengths],
        names=[found.classes[label] for label in split.labels.tolist()],
        title=str(curriculum),
        caption=f"Test images of {found.name}, the classes in turn; seed {seed}."
        + (f" Attacks are aimed at {aim}." if uses_network(curriculum) else ""),
    )


def uses_network(curriculum: Curriculum) -> bool:
    """Return whether a curriculum attacks a network or searches for its worst parameters."""
    tree = curriculum.tree
    attacked = any(leaf.perturbation.kind == "pixel" for leaf in tree.leaves.values())
    return attacked or tree.max_passes > 0


def _data(data: DataSet | str | None, run: Run | None, root: str | Path | None) -> DataSet:
    if isinstance(data, DataSet):
        return data
    defaults = {name: FIELDS[name].default for name in ("data", "data_root")}
    if run is not None:
        if data is None:
            run.check_plugins("data")
        defaults = {name: getattr(run.model_config, name) for name in defaults}
    return load_data(data or str(defaults["data"]), root=root or str(defaults["data_root"]))


def _victim(run: Run | None, data: DataSet, seed: int) -> tuple[Victim, str]:
    """Return the network to attack, as a victim, and a description of it."""
    if run is not None:
        return ModelVictim(load_model(run, data=data)), f"the run {run.path}"
    model = data.training_defaults.get("model")
    if model is None:
        raise UserError(f"{data.name} has no default model: name a trained run (--run)")
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        network = build_model(model, data)
    return ModelVictim(network), f"an untrained {model}: only the size of their change matters"


def at_strengths(
    curriculum: Curriculum,
    x_NCHW: Tensor,
    y_N: Tensor,
    *,
    strengths: Sequence[float],
    victim: Victim,
    seed: int,
) -> Tensor:
    """Return the images perturbed by a curriculum with all its leaves at each strength in turn,
    SNCHW.

    The random draws are the same at each strength, so that the change grows from column to column.
    """
    views = [
        curriculum(
            x_NCHW,
            y_N,
            strengths=dict.fromkeys(curriculum.tree.leaves, strength),
            victim=victim,
            generator=torch.Generator(x_NCHW.device).manual_seed(seed),
        )
        for strength in strengths
    ]
    return torch.stack([view.perturbed for view in views])


def largest_change(before_NCHW: Tensor, after_NCHW: Tensor) -> Tensor:
    """Return the signed change of each pixel, in the channel that changed most, NHW in [-1, 1].

    A mean would cancel channels that move against each other.
    """
    change = after_NCHW - before_NCHW
    return change.gather(1, change.abs().argmax(1, keepdim=True)).squeeze(1)


@plain_text()
def preview_figure(
    x_NCHW: Tensor,
    perturbed_SNCHW: Tensor,
    *,
    headings: Sequence[str],
    names: Sequence[str],
    title: str,
    caption: str,
) -> Figure:
    """Return a figure with one row for each image: the original, then a column for each perturbed
    version, with its change from the original below.

    Images of one channel are grey and images of three in colour. Others show the mean channel.

    Args:
        x_NCHW: the originals, in [0, 1].
        perturbed_SNCHW: S perturbed versions of them.
        headings: headings of these S columns, of one or more lines.
        names: name of each image, shown at its left.
        title: text above, wrapped if it is long.
        caption: text below, wrapped if it is long.
    """
    n, _, height, width = x_NCHW.shape
    columns = len(headings) + 1
    changes = [largest_change(x_NCHW, after).numpy(force=True) for after in perturbed_SNCHW]
    limit = float(np.abs(changes).max()) or 1.0
    # A square-root scale keeps an attack of 8/255 visible beside the edges that a rotation moves.
    scale = FuncNorm((_signed_root, _signed_square), -limit, limit)

    # In inches from the lower left corner, so that no text is cut off.
    cell, gap, between, left, right = 1.05, 0.05, 0.2, 0.45, 1.25
    tall = cell * height / width
    grid_width = columns * (cell + gap) - gap
    page_width = max(left + grid_width + right, 5.5)
    left += (page_width - left - grid_width - right) / 2
    title_lines, caption_lines = (
        folded(drawable(text), page_width, points) for text, points in ((title, 9), (caption, 8))
    )
    foot = 0.3 + 0.15 * len(caption_lines)
    grid_height = n * (2 * tall + gap + between) - between
    heading_lines = max(heading.count("\n") for heading in headings)
    head = 0.5 + 0.17 * (len(title_lines) + heading_lines)
    page_height = foot + grid_height + head
    figure = InlineFigure(figsize=(page_width, page_height), dpi=PIXELS_PER_INCH)

    # One pair of axes, in inches, holds all cells: a pair for each would take most of the time.
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, page_width), ylim=(0, page_height))
    sheet.set_axis_off()
    figure.suppressComposite = True  # a vector format would merge the images into one, of 72 dpi

    def show(pixels: NDArray[Any], x: float, y: float, **colours: Any) -> None:
        sheet.imshow(
            pixels, extent=(x, x + cell, y, y + tall), interpolation="nearest", aspect="auto",
            **colours,
        )  # fmt: skip
        sheet.add_patch(
            Rectangle((x, y), cell, tall, fill=False, linewidth=0.5, edgecolor="#999999")
        )

    for row in range(n):
        top = foot + grid_height - row * (2 * tall + gap + between)
        for column in range(columns):
            x, y = left + column * (cell + gap), top - tall
            shown = x_NCHW[row] if column == 0 else perturbed_SNCHW[column - 1, row]
            show(_pixels(shown), x, y, cmap="gray", vmin=0, vmax=1)
            if row == 0:
                heading = headings[column - 1] if column else "original"
                sheet.text(x + cell / 2, top + 5 / 72, heading, fontsize=9, color=TEXT, ha="center")
            if column == 0:
                _name(sheet, x - 4 / 72, y + tall / 2, names[row])
                sheet.text(
                    x + 0.94 * cell, y - gap - tall / 2, "change", fontsize=8, color=FAINT_TEXT,
                    ha="right", va="center",
                )  # fmt: skip
            else:
                show(changes[column - 1][row], x, y - gap - tall, cmap=CHANGES, norm=scale)

    high = min(grid_height, 3.0)
    bar_x, bar_y = left + grid_width + 0.22, foot + grid_height - high
    beside = figure.add_axes(
        (bar_x / page_width, bar_y / page_height, 0.13 / page_width, high / page_height)
    )
    _explain(beside, scale, several=x_NCHW.shape[1] > 1)
    figure.text(
        0.5, 1 - 0.12 / page_height, "\n".join(title_lines), fontsize=9, color=TEXT, ha="center",
        va="top", weight="bold",
    )  # fmt: skip
    figure.text(
        0.5, 0.12 / page_height, "\n".join(caption_lines), fontsize=8, color=FAINT_TEXT,
        ha="center", va="bottom",
    )  # fmt: skip
    return figure


def _signed_root(value: NDArray[Any]) -> NDArray[Any]:
    root: NDArray[Any] = np.sign(value) * np.sqrt(np.abs(value))
    return root


def _signed_square(value: NDArray[Any]) -> NDArray[Any]:
    square: NDArray[Any] = value * np.abs(value)
    return square


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _pixels(x_CHW: Tensor) -> NDArray[Any]:
    """Return an image as an array for matplotlib: (H, W, 3) for three channels, else the channels'
    mean (H, W)."""
    pixels: NDArray[np.float32] = x_CHW.numpy(force=True)
    return pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)


def _name(sheet: Axes, x: float, y: float, name: str) -> None:
    """Write the name of an image to the left of a position: upright if it is short, else
    rotated."""
    name = drawable(name)
    short = name if len(name) <= 16 else f"{name[:15]}…"
    sheet.text(
        x, y, short, fontsize=9, color=TEXT, ha="right", va="center",
        rotation=0 if len(name) < 3 else 90,
    )  # fmt: skip


def _explain(axes: Axes, scale: FuncNorm, *, several: bool) -> None:
    """Draw a colour bar that explains the colours of the changes.

    Args:
        axes: the axes of the bar.
        scale: the scale.
        several: whether images have more than one channel.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    assert scale.vmax is not None
    bar = figure.colorbar(ScalarMappable(scale, CHANGES), cax=axes)
    ticks = [scale.vmax * share for share in (-1, -0.25, 0, 0.25, 1)]
    bar.set_ticks(ticks, labels=[_signed(tick) for tick in ticks])
    axes.tick_params(labelsize=8, colors=TEXT, length=2)
    what = "largest channel's change" if several else "change of a pixel"
    label = f"{what}, coloured by\nits square root to show small ones"
    bar.set_label(label, fontsize=8, color=TEXT)
    bar.outline.set_linewidth(0.5)
