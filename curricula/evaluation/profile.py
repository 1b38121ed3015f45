"""What a robustness profile is: accuracies and fooling rates over growing ranges."""

from collections.abc import Mapping
from typing import ClassVar

import attrs

from curricula.evaluation.results import ThreatResult, wilson_interval
from curricula.expressions.syntax import Number, parse_number
from curricula.runtime.records import fields_of, register_json

LEVELS = 255  # of a pixel's 8 bits: the field writes eps so


@attrs.frozen(kw_only=True)
class Series:
    """One threat over a growing range.

    Attributes:
        name: ``random`` or ``worst of 10`` of rotations and translations; ``PGD-40``.
        unit: of the values: ``degrees``, ``pixels`` or ``linf``.
        values: the ranges, ascending from 0, which is the clean image.
        measured: at each of them.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    measured: tuple[ThreatResult, ...]


@attrs.frozen(kw_only=True)
class JointGrid:
    """A random rotation and then the attack, over both ranges.

    Attributes:
        degrees: the ranges of the rotation, ascending from 0.
        linf: the radii of the attack, ascending from 0.
        rows: a row a radius, in each a cell a range.
    """

    degrees: tuple[float, ...]
    linf: tuple[float, ...]
    rows: tuple[tuple[ThreatResult, ...], ...]


@attrs.frozen(kw_only=True)
class Average:
    """The mean of two threats' accuracies, and of their fooling rates, on the same images.

    It is no threat: no adversary averages. It stands beside the union because the field reports
    both (Tramer and Boneh 2019).

    Attributes:
        first, second: the two.
    """

    first: ThreatResult
    second: ThreatResult

    name: ClassVar[str] = "average"

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return (self.first.accuracy + self.second.accuracy) / 2

    @property
    def fooling_rate(self) -> float:
        """In [0, 1]."""
        return (self.first.fooling_rate + self.second.fooling_rate) / 2

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval: Wilson's for n images, which is what it would be if the two fell
        together. Otherwise the mean varies less, and the interval is too wide."""
        return wilson_interval((self.first.correct + self.second.correct) / 2, self.first.n)


register_json(
    Average,
    lambda average: {
        "name": average.name,
        "of": (average.first.name, average.second.name),
        "accuracy": average.accuracy,
        "interval_95": average.interval,
        "fooling_rate": average.fooling_rate,
        "n": average.first.n,
    },
)


@attrs.frozen(kw_only=True)
class Profile:
    """What a classifier withstands, and how much of it.

    Attributes:
        model: whose profile it is, for captions.
        data: the name of the data set.
        n: how many images.
        seed: of the random draws.
        budgets: by unit, as written in expressions: ``{"degrees": "30", "linf": "8/255"}``.
        clean: on the images as they are.
        series: rotations, random and the worst of 10; translations likewise; PGD-40.
        joint: rotation x eps.
        combined: at the budgets, the ``rotation`` and the ``attack`` alone, ``rotation, then
            attack``, the ``worst of 10, each attacked`` and the ``union``; then the grid and the
            worst of 10 of its range, if it was asked for.
    """

    model: str
    data: str
    n: int
    seed: int
    budgets: Mapping[str, str]
    clean: ThreatResult
    series: tuple[Series, ...]
    joint: JointGrid
    combined: tuple[ThreatResult, ...]

    @property
    def average(self) -> Average:
        """Of the rotation and the attack at the budgets."""
        return Average(first=self.combined[0], second=self.combined[1])

    def of_unit(self, unit: str) -> tuple[Series, ...]:
        """The series over one axis."""
        return tuple(series for series in self.series if series.unit == unit)

    def budget(self, unit: str) -> float:
        """As a number."""
        return parse_number(self.budgets[unit]).value

    def shown(self, unit: str, value: float) -> str:
        """A value of an axis: in 255ths where the budget is written so."""
        return written(value, parse_number(self.budgets[unit]))


register_json(Profile, lambda profile: {**fields_of(profile), "average": profile.average})


def written(value: float, budget: Number) -> str:
    """A value of an axis: in 255ths where the budget is."""
    if budget.denominator == LEVELS:
        return f"{value * LEVELS:.4g}/{LEVELS}"
    return f"{value:.4g}"
