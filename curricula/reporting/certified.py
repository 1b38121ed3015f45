"""Draw certified accuracy as a curve over the l-2 radius."""

import numpy as np
from matplotlib.figure import Figure

from curricula.evaluation.certify import Certificates
from curricula.evaluation.intervals import wilson_interval
from curricula.reporting.figures import PALETTE, PIXELS_PER_INCH, plain_text, style_axes
from curricula.reporting.inline import InlineFigure


@plain_text()
def certified_figure(found: Certificates) -> Figure:
    """Return a figure of the certified accuracy in %, with its 95 % interval, over the l-2
    radius."""
    figure = InlineFigure(figsize=(6.4, 3.6), dpi=PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    # The accuracy falls at each image's radius, and holds from there.
    radii = np.unique([0.0, *found.correct_radii, found.max_radius])
    ordered, n = np.sort(found.correct_radii), len(found.images)
    counts = n - np.searchsorted(ordered, radii, side="right")
    ends = [wilson_interval(int(count), n) for count in counts]
    lows, highs = (100 * np.array(values) for values in zip(*ends, strict=True))
    color = PALETTE[0]
    axes.fill_between(radii, lows, highs, step="post", color=color, alpha=0.18, linewidth=0)
    axes.plot(radii, 100 * counts / n, drawstyle="steps-post", color=color, linewidth=1.6)
    axes.set(ylim=(-3, 103), yticks=range(0, 101, 20), xlim=(0, 1.02 * found.max_radius))
    axes.set_xlabel(f"l-2 radius (sigma {found.sigma:g}; {found.draws:,} draws end the curve)")
    axes.set_ylabel("certified accuracy, %")
    style_axes(axes, small=True)
    return figure
