"""The figure that ``curricula theory`` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from curricula.reporting.figures import FAINT_TEXT, PALETTE, PIXELS_PER_INCH, TEXT, style_axes
from curricula_theory.closed_forms import (
    adversarial_accuracy,
    critical_ratio,
    frontier,
    spatial_accuracy,
)
from curricula_theory.study import Study, Trained

MARKERS = {"plain": "o", "augmented": "s", "adversarial": "^", "both": "P", "either": "D"}
COLOURS = dict(zip(MARKERS, PALETTE, strict=False))
RATIOS = torch.logspace(0, 4, 2001, dtype=torch.float64)  # points of a curve, to its end


def frontier_figure(studies: Sequence[Study]) -> Figure:
    """Return a figure of adversarial over spatial accuracy: classifiers w = (rho, 1, ..., 1) as a
    curve, trained models as points.

    Each setting has a column, and each classifier of the trained models a row.

    Args:
        studies: one or more.
    """
    classifiers = list(dict.fromkeys(each.classifier for each in studies[0].trained)) or [""]
    size = (max(3.4 * len(studies), 6.0), 3.0 * len(classifiers) + 0.9)
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, layout="constrained")
    panels = figure.subplots(
        len(classifiers), len(studies), sharex=True, sharey=True, squeeze=False
    )
    for row, classifier in zip(panels, classifiers, strict=True):
        for axes, study in zip(row, studies, strict=True):
            _draw_family(axes, study)
            for model in study.trained:
                if model.classifier == classifier:
                    _draw_model(axes, model)
            setting = study.setting
            heading = f"c = {setting.c:g}, ε = {setting.eps:.3g}"
            axes.set_title(
                f"{classifier}, {heading}" if classifier else heading, fontsize=9, color=TEXT
            )
    for axes in panels[-1]:
        axes.set_xlabel("spatial accuracy (uniform cyclic shift)", fontsize=9, color=TEXT)
    for axes in panels[:, 0]:
        axes.set_ylabel("adversarial accuracy", fontsize=9, color=TEXT)
    figure.legend(
        handles=_legend(studies),
        loc="outside lower center",
        ncols=3 if len(studies) > 1 else 2,
        frameon=False,
        fontsize=8,
    )
    return figure


def _draw_family(axes: Axes, study: Study) -> None:
    setting = study.setting
    spatial = spatial_accuracy(setting, RATIOS).numpy()
    adversarial = adversarial_accuracy(setting, RATIOS).numpy()
    axes.axhline(0.5, color="#bbbbbb", linewidth=0.8, linestyle=":", zorder=1)
    axes.plot(spatial, adversarial, color="#888888", linewidth=1.6, zorder=2)
    axes.plot(*frontier(setting), color="#888888", linewidth=0.9, linestyle="--", zorder=2)
    marked = {row.rho: f"ρ = {row.rho:.4g}" for row in study.rows if row.rho >= 1}
    critical = critical_ratio(setting)
    if 1 <= critical < np.inf:
        marked[critical] = f"ρ* = {critical:.3g}"
    for rho, label in marked.items():
        at = (float(spatial_accuracy(setting, rho)), float(adversarial_accuracy(setting, rho)))
        axes.plot(*at, marker=".", color="#555555", markersize=5, zorder=3)
        # No line crosses a label below the curve or, at its right end, above the frontier.
        place, side = ((-7, -8), "right") if at[0] < 0.9 else ((12, 14), "right")
        if at[1] > 0.9:
            place, side = (-4, -15), "center"
        axes.annotate(
            label, at, xytext=place, textcoords="offset points", fontsize=7, color=FAINT_TEXT,
            ha=side,
        )  # fmt: skip
    axes.set(xlim=(0.45, 1.03), ylim=(-0.04, 1.04))
    style_axes(axes, small=True)


def _draw_model(axes: Axes, model: Trained) -> None:
    axes.plot(
        model.accuracies.spatial.accuracy,
        model.accuracies.adversarial.accuracy,
        zorder=5 if model.method.curriculum else 4,
        **_style(model.method.name, model.method.curriculum, model.collapsed),
    )


def _style(method: str, curriculum: bool, collapsed: bool) -> dict[str, Any]:
    """Return matplotlib's arguments for a marker: filled for full strength, a ring for a
    curriculum, a cross if collapsed."""
    colour = COLOURS[method]
    style: dict[str, Any] = {"color": colour, "linestyle": "none"}
    if collapsed:
        return {**style, "marker": "+" if curriculum else "x", "markersize": 6}
    if curriculum:
        ring = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.1}
        return {**style, "marker": MARKERS[method], **ring}
    size = 7 if method == "plain" else 5  # augmented models may cover it
    return {**style, "marker": MARKERS[method], "markersize": size, "markeredgewidth": 0}


def _legend(studies: Sequence[Study]) -> list[Line2D]:
    trained = [model for study in studies for model in study.trained]
    entries = [Line2D([], [], color="#888888", linewidth=1.6, label="w = (ρ, 1, ..., 1), by ρ")]
    coin = "frontier: a coin between two ρ"
    entries.append(Line2D([], [], color="#888888", linewidth=0.9, linestyle="--", label=coin))
    seen = {(each.method.name, each.method.curriculum, each.collapsed) for each in trained}
    for method in MARKERS:
        for curriculum in (False, True):
            for collapsed in (False, True):
                if (method, curriculum, collapsed) in seen:
                    label = f"{method}{', curriculum' if curriculum else ''}"
                    style = _style(method, curriculum, collapsed)
                    entries.append(
                        Line2D(
                            [], [], label=f"{label}{': collapsed' if collapsed else ''}", **style
                        )
                    )
    return entries
