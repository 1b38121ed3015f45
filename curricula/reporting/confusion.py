"""Draw which classes a model takes for which, under each threat."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from curricula.errors import UserError
from curricula.evaluation.results import ClassResult, Evaluation
from curricula.reporting.figures import (
    FAINT_TEXT,
    PIXELS_PER_INCH,
    TEXT,
    as_label,
    folded,
    plain_text,
)
from curricula.reporting.inline import InlineFigure

MAX_CLASSES = 12  # classes of a figure
MAX_PANELS = 6  # threats of a figure
MAX_NAME = 18  # characters of a class's name beside a panel
OTHER = "(other)"
HEAT = "cividis"
DARK = 50  # %, below which digits are white


def confusions(evaluation: Evaluation, threat: str) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, number of images) of every pair of different classes
    that a threat confuses, the most frequent first."""
    labels_N, predicted_N = evaluation.labels, evaluation.predictions[threat]
    wrong_N = labels_N != predicted_N
    pairs_M = np.stack([labels_N[wrong_N], predicted_N[wrong_N]])
    found, counts = np.unique(pairs_M, axis=1, return_counts=True)
    triples = zip(*found.tolist(), counts.tolist(), strict=True)
    return sorted(triples, key=lambda triple: (-triple[2], *triple[:2]))


def worst_classes(evaluation: Evaluation) -> list[ClassResult]:
    """Return the result of each class under the last threat, the lowest accuracy first."""
    found = evaluation.per_class(evaluation[-1].name)
    return sorted(found, key=lambda each: (each.accuracy, each.label))


@plain_text()
def confusion_figure(evaluation: Evaluation) -> Figure:
    """Return a figure with a heat map for each threat, of the first 6: the share in % of each true
    class, by rows, that the model takes for each class, by columns.

    Of more than 12 classes, those of the most frequent confusions under the last threat are shown;
    a last column has all other predictions.

    Raises:
        UserError: an evaluation without threats.
    """
    if not len(evaluation):
        raise UserError("the evaluation has no threats: there is no confusion to draw")
    shown = _shown_classes(evaluation)
    everything = len(shown) == evaluation.num_classes
    threats = list(evaluation.predictions)[:MAX_PANELS]
    columns = min(len(threats), 2)
    rows = -(-len(threats) // columns)
    side = max(3.0, 0.36 * (len(shown) + 1)) + 1.0
    figure = InlineFigure(
        figsize=(side * columns + 0.6, side * rows + 0.6), dpi=PIXELS_PER_INCH, layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(threats) :]:
        axes.set_visible(False)
    names = [as_label(evaluation.class_name(label), MAX_NAME) for label in shown]
    for axes, threat in zip(panels.flat, threats, strict=False):
        shares = _shares(evaluation, threat, shown, others=not everything)
        _draw(axes, shares, names, [*names, *([] if everything else [OTHER])])
        accuracy = 100 * evaluation[threat].accuracy
        axes.set_title(f"{as_label(threat, 30)}: {accuracy:.1f} %", fontsize=9, color=TEXT)
        axes.set_xlabel("predicted class", fontsize=9, color=TEXT)
    for axes in panels[:, 0]:
        axes.set_ylabel("true class", fontsize=9, color=TEXT)
    lines = folded(_note(evaluation, len(shown), len(threats)), figure.get_figwidth(), 8)
    figure.suptitle("\n".join(lines), fontsize=8, color=FAINT_TEXT)
    return figure


def _note(evaluation: Evaluation, classes: int, threats: int) -> str:
    """Return what the figure shows and what it leaves out, as text."""
    text = f"% of the images of each class, {len(evaluation.labels):,} images."
    if classes < evaluation.num_classes:
        text += (
            f" The {classes} of {evaluation.num_classes:,} classes in the most frequent "
            f"confusions under {as_label(evaluation[-1].name, 30)}."
        )
    if threats < len(evaluation):
        text += f" The first {threats} of {len(evaluation)} threats."
    return text


def _shown_classes(evaluation: Evaluation) -> list[int]:
    """Return the classes to show, ascending."""
    if evaluation.num_classes <= MAX_CLASSES:
        return list(range(evaluation.num_classes))
    found: dict[int, None] = {}
    for true, predicted, _ in confusions(evaluation, evaluation[-1].name):
        if len({*found, true, predicted}) <= MAX_CLASSES:
            found |= {true: None, predicted: None}
    for worst in worst_classes(evaluation):  # where hardly anything is confused
        if len(found) < MAX_CLASSES:
            found |= {worst.label: None}
    return sorted(found)


def _shares(
    evaluation: Evaluation, threat: str, shown: list[int], *, others: bool
) -> NDArray[np.float64]:
    """Return the share in % of each shown class that is taken for each shown class and, if
    requested, for all others; NaN for a class without images."""
    rows = evaluation.confusion(threat)[shown]
    counts = rows[:, shown].astype(float)
    if others:
        counts = np.column_stack([counts, rows.sum(1) - counts.sum(1)])
    totals = counts.sum(1, keepdims=True)
    return np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def _draw(
    axes: Axes, shares: NDArray[np.float64], names: list[str], predicted_names: list[str]
) -> None:
    axes.imshow(shares, cmap=colormaps[HEAT], vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # rounds to 0 otherwise
            color = "white" if share < DARK else "black"
            axes.text(
                column, row, f"{share:.0f}", color=color, fontsize=7, ha="center", va="center"
            )
    axes.set_xticks(range(len(predicted_names)), predicted_names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(colors=TEXT, labelsize=8, length=0)
    axes.spines[:].set_visible(False)
