"""The robustness profile: a classifier's accuracy and fooling rate over growing ranges of rotation,
translation and PGD.

Every number is an ordinary threat. So an expression that occurs twice runs once, an image is
rotated alike in all threats that begin with the same link, and a fooled image is not attacked
further. The union alone does not run: it counts the images that are robust to the rotation and to
the attack as measured, because a separate run would start the attack elsewhere.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import torch
from attrs.validators import in_, min_len
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike
from curricula.errors import UserError, did_you_mean, shown
from curricula.evaluation.accuracy import predictions
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.results import (
    ThreatResult,
    result_row,
    results_html,
    threat_result,
)
from curricula.evaluation.threats import TEST_STEPS, standard_attack
from curricula.expressions.binding import MAX_PIXEL_VALUE
from curricula.expressions.nodes import Leaf, Node
from curricula.expressions.syntax import Number, parse_number
from curricula.plugins.names import CLEAN, GRID, WORST
from curricula.runtime.records import fields_of, register_json
from curricula.runtime.tables import frame_of_rows

if TYPE_CHECKING:
    import pandas

CANDIDATES = 10  # candidates of the random search of Engstrom et al. 2019
ROTATIONS = tuple(range(0, 181, 15))  # degrees; Kamath et al. 2021 go by 30
# Shares of the budgets: whole pixels and 255ths at the usual budgets of 3 px and 8/255.
TRANSLATION_SHARES = tuple(Fraction(i, 3) for i in range(7))
EPS_SHARES = tuple(Fraction(i, 4) for i in range(7))
# A cell of the joint grid costs as much as a point of the eps axis, so the grid is coarser.
JOINT_ROTATIONS = tuple(range(0, 181, 30))  # degrees
JOINT_EPS_SHARES = tuple(Fraction(i, 2) for i in range(4))  # shares of the budget
# Engstrom et al. 2019, section 4.
GRID_RANGE = "rot:30+trans:3"  # degrees, pixels
GRID_POINTS = 31 * 5 * 5  # angles x shifts x shifts

PHRASES = {"degrees": "{} degrees", "pixels": "{} px", "linf": "eps {}"}
UNITS = tuple(PHRASES)
EXAMPLES = {"degrees": "30", "pixels": "3", "linf": "8/255"}

ROTATION, ATTACK, UNION = "rotation", "attack", "union"  # names of combined threats


MAX_POINTS = 30  # points of an axis
MAX_RANGE = 1_000_000  # largest value on an axis


def _axis(record: Any, field: "attrs.Attribute[Any]", values: tuple[float, ...]) -> None:
    """Check the number and the range of the values on an axis of a profile; an attrs validator."""
    if not 1 <= len(values) <= MAX_POINTS or not all(0 <= value <= MAX_RANGE for value in values):
        raise ValueError(
            f"{field.name} must be 1 to {MAX_POINTS} values from 0 to {MAX_RANGE:,}, not "
            f"{shown(list(values))}"
        )


@attrs.frozen(kw_only=True)
class Series:
    """Accuracies and fooling rates under one kind of threat, such as random rotation, one for each
    of several growing ranges.

    Attributes:
        name: ``random`` or ``worst of 10`` for rotations and translations; ``PGD-40``.
        unit: unit of the values: ``degrees``, ``pixels`` or ``linf``.
        values: the ranges, ascending from 0, which is the clean image.
        measured: the result at each range.
    """

    name: str
    unit: str = attrs.field(validator=in_(UNITS))
    values: tuple[float, ...] = attrs.field(validator=_axis)
    measured: tuple[ThreatResult, ...]

    def __attrs_post_init__(self) -> None:
        if len(self.measured) != len(self.values):
            raise ValueError(f"{len(self.values)} values have {len(self.measured)} results")


@attrs.frozen(kw_only=True)
class JointGrid:
    """Accuracies and fooling rates under a random rotation followed by PGD, for each pair of
    rotation range and radius.

    Attributes:
        degrees: ranges of the rotation, ascending from 0.
        linf: radii of the attack, ascending from 0.
        rows: one row for each radius, with one cell for each rotation range.
    """

    degrees: tuple[float, ...] = attrs.field(validator=_axis)
    linf: tuple[float, ...] = attrs.field(validator=_axis)
    rows: tuple[tuple[ThreatResult, ...], ...]

    def __attrs_post_init__(self) -> None:
        if [len(row) for row in self.rows] != [len(self.degrees)] * len(self.linf):
            raise ValueError("rows must have a result for each radius and range")


@attrs.frozen(kw_only=True)
class Average:
    """The mean of two threats' accuracies, and of their fooling rates, on the same images.

    It is not a threat, since no adversary averages. The field reports it beside the union (Tramer
    and Boneh 2019).

    Attributes:
        first, second: the two results.
    """

    first: ThreatResult
    second: ThreatResult

    name: ClassVar[str] = "average"

    @property
    def accuracy(self) -> float:
        """Mean accuracy, in [0, 1]."""
        return (self.first.accuracy + self.second.accuracy) / 2

    @property
    def fooling_rate(self) -> float:
        """Mean fooling rate, in [0, 1]."""
        return (self.first.fooling_rate + self.second.fooling_rate) / 2

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of a 95 % interval of the mean accuracy, in [0, 1], which may be wider
        than needed.

        It is Wilson's for n images, which is exact if both threats fool the same images. Otherwise
        the mean varies less.
        """
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


@attrs.frozen(kw_only=True, repr=False)
class RobustnessProfile:
    """A classifier's accuracies and fooling rates over growing ranges of rotation, translation and
    PGD, alone and jointly.

    Attributes:
        model: name of the classifier, for captions.
        data: name of the data set.
        n: number of images.
        seed: seed of the random draws.
        budgets: by unit, as expressions write them: ``{"degrees": "30", "linf": "8/255"}``.
        clean: the result on clean images.
        series: rotations, random and the worst of 10; translations likewise; PGD-40.
        joint: rotation x eps.
        combined: at the budgets, the ``rotation`` and the ``attack`` alone, ``rotation, then
            attack``, the ``worst of 10, each attacked`` and the ``union``; then, if requested, the
            grid and the worst of 10 of its range.
    """

    model: str
    data: str
    n: int
    seed: int
    budgets: Mapping[str, str]
    clean: ThreatResult
    series: tuple[Series, ...]
    joint: JointGrid
    combined: tuple[ThreatResult, ...] = attrs.field(validator=min_len(2))

    def __attrs_post_init__(self) -> None:
        for unit in UNITS:
            if unit not in self.budgets:
                raise ValueError(f"budgets must have {unit}")
            if not 0 < self.budget(unit) <= MAX_RANGE:
                raise ValueError(f"the budget in {unit} must be above 0 and at most {MAX_RANGE:,}")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the results as a data frame with a row per result.

        ``series`` is its name, ``joint`` or ``at the budgets``. ``degrees``, ``pixels`` and
        ``linf`` are the ranges, NaN where the result has its own.

        Raises:
            UserError: pandas is not installed.
        """
        rows = [_row("clean", {}, self.clean)]
        for series in self.series:
            for value, found in zip(series.values, series.measured, strict=True):
                rows.append(_row(series.name, {series.unit: value}, found))
        for eps, row in zip(self.joint.linf, self.joint.rows, strict=True):
            for degrees, found in zip(self.joint.degrees, row, strict=True):
                rows.append(_row("joint", {"degrees": degrees, "linf": eps}, found))
        none = dict.fromkeys(UNITS, math.nan)
        rows += [_row("at the budgets", none, found) for found in self.combined]
        return frame_of_rows(rows)

    def __repr__(self) -> str:
        joint = self.joint.rows[-1][-1]
        return (
            f"RobustnessProfile({self.model or 'model'} on {self.data}, {self.n:,} images: clean "
            f"{100 * self.clean.accuracy:.1f} %, {joint.name} {100 * joint.accuracy:.1f} %)"
        )

    def _repr_html_(self) -> str:
        budgets = ", ".join(f"{self.budgets[unit]} {unit}" for unit in UNITS)
        caption = f"Robustness profile at the budgets, accuracy in %, {self.n:,} images"
        note = f"Budgets: {budgets}. profile_figure draws it, to_pandas() has all results."
        return results_html(caption, [self.clean, *self.combined], note=note)

    @property
    def average(self) -> Average:
        """Mean of the accuracies, and of the fooling rates, under rotation alone and PGD alone,
        each at its budget."""
        return Average(first=self.combined[0], second=self.combined[1])

    def of_unit(self, unit: str) -> tuple[Series, ...]:
        """Return the series whose ranges are in a unit: ``degrees``, ``pixels`` or ``linf``."""
        return tuple(series for series in self.series if series.unit == unit)

    def budget(self, unit: str) -> float:
        """Return the budget in a unit, such as ``degrees``, as a float."""
        return parse_number(self.budgets[unit]).value

    def shown(self, unit: str, value: float) -> str:
        """Return a range in a unit as text: as a multiple of 1/255 if the budget in that unit is
        written so, otherwise as a decimal."""
        return _written(value, parse_number(self.budgets[unit]))


def _row(series: str, ranges: Mapping[str, float], found: ThreatResult) -> dict[str, Any]:
    """Return the row of a result in a data frame."""
    return {"series": series, **dict.fromkeys(UNITS, 0.0), **ranges, **result_row(found)}


register_json(RobustnessProfile, lambda profile: {**fields_of(profile), "average": profile.average})


def _written(value: float, budget: Number) -> str:
    """Return a range as text: as a multiple of 1/255 if ``budget`` is written so, otherwise as a
    decimal."""
    if budget.denominator == MAX_PIXEL_VALUE:
        return f"{value * MAX_PIXEL_VALUE:.4g}/{MAX_PIXEL_VALUE}"
    return f"{value:.4g}"


def measure_profile(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    *,
    budgets: Mapping[str, str] | None = None,
    grid: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    name: str = "",
    progress: Callable[[float], None] = lambda share: None,
) -> RobustnessProfile:
    """Return a classifier's accuracies and fooling rates over growing ranges of rotation,
    translation and PGD (Kamath et al. 2021), computed in float32.

    - Rotations within 0, 15, ..., 180 degrees, random and the worst of 10; translations within 0 to
      2 budgets, likewise; PGD-40 within 0 to 1.5 budgets.
    - A random rotation, then PGD-40, over both ranges: 0, 30, ..., 180 degrees and 0 to 1.5
      budgets by halves.
    - At the budgets: that chain; the worst of 10 rotations, each attacked; the union of rotation
      and attack, where an image counts if it is robust to both as measured alone; their average.

    An image costs at most 1,400 gradients and 257 forward passes, 787 more with the grid. The 10
    attacked rotations take 400 of the gradients, and stop at the one that fools the image.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: the data set of the images.
        split: the images.
        budgets: budgets by unit (``degrees``, ``pixels``, ``linf``), if not the data set's.
        grid: also measure the worst of the 775 rotations and translations of Engstrom et al. 2019
            (within 30 degrees and 3 px whatever the budgets), and of 10 random ones of that range.
        seed: seed of the random draws.
        batch_size: images at once; the figures do not depend on it. Default: as in
            `evaluate_threats`.
        name: name of the model, for captions.
        progress: called with the share of the work that is done, in [0, 1], after each batch.

    Raises:
        UserError: a budget that is missing or not above 0; logits that are NaN.
    """
    known = _checked({**data.budgets, **(budgets or {})}, data)
    lines, joint, combined = _lines(known), _joint(known), _combined(known, grid)
    expressions = [
        *(expression for line in lines for expression in line.expressions),
        *(expression for row in joint.rows for expression in row),
        *combined.values(),
    ]
    threats = {expression: Threat.parse(expression) for expression in (CLEAN, *expressions)}
    union = combined[UNION]
    running = {text: threat for text, threat in threats.items() if text != union}
    work = EvaluationProgress(running.values(), progress)
    predicted = predictions(
        model,
        data,
        split,
        running,
        seed=seed,
        batch_size=batch_size,
        began=work.began,
        after_batch=work.after_batch,
    )
    rotated_N, attacked_N = (predicted[combined[name]] for name in (ROTATION, ATTACK))
    predicted[union] = torch.where(rotated_N != split.labels, rotated_N, attacked_N)

    def named(name: str, expression: str) -> ThreatResult:
        return threat_result(
            name,
            str(threats[expression]),
            predicted[expression],
            clean_N=predicted[CLEAN],
            labels_N=split.labels,
        )

    def shown(unit: str, value: Number) -> str:
        return PHRASES[unit].format(_written(value.value, known[unit]))

    return RobustnessProfile(
        model=name,
        data=data.name,
        n=len(split),
        seed=seed,
        budgets={unit: str(budget) for unit, budget in known.items()},
        clean=named(CLEAN, CLEAN),
        series=tuple(
            Series(
                name=line.name,
                unit=line.unit,
                values=tuple(value.value for value in line.values),
                measured=tuple(
                    named(f"{line.name}, {shown(line.unit, value)}", expression)
                    for value, expression in zip(line.values, line.expressions, strict=True)
                ),
            )
            for line in lines
        ),
        joint=JointGrid(
            degrees=tuple(value.value for value in joint.degrees),
            linf=tuple(value.value for value in joint.linf),
            rows=tuple(
                tuple(
                    named(f"joint, {shown('degrees', angle)}, {shown('linf', eps)}", expression)
                    for angle, expression in zip(joint.degrees, row, strict=True)
                )
                for eps, row in zip(joint.linf, joint.rows, strict=True)
            ),
        ),
        combined=tuple(named(label, expression) for label, expression in combined.items()),
    )


def profile_budgets(curriculum: Node, budgets: Mapping[str, str]) -> dict[str, str]:
    """Return the budget of a profile in each unit: from the curriculum where it has one, otherwise
    from the data set.

    The curriculum's are those of its first ``rot``, ``trans`` and l-inf attack with a budget above
    0.
    """
    found: dict[str, str] = {}
    for leaf in curriculum.leaves.values():
        unit = {"rot": "degrees", "trans": "pixels"}.get(leaf.call.name)
        if leaf.perturbation.kind == "pixel":
            unit = leaf.perturbation.unit
        if unit in UNITS and unit not in found and leaf.perturbation.budget > 0:
            found[unit] = str(_written_budget(leaf))
    return {**budgets, **found}


def check_units(budgets: Mapping[str, str]) -> None:
    """Check that each budget's unit is one that a profile has: ``degrees``, ``pixels`` or ``linf``.

    Raises:
        UserError: an unknown unit; it suggests a known one.
    """
    if not isinstance(budgets, Mapping):
        raise UserError(
            f"budgets must map units to budgets, such as {EXAMPLES}, not {shown(budgets)}"
        )
    for unit in budgets:
        if unit not in UNITS:
            raise UserError(f"budgets: unknown unit {unit!r}; {did_you_mean(str(unit), UNITS)}")


def _written_budget(leaf: Leaf) -> Number:
    """Return the budget of a perturbation as the number in its expression: 12/255, not the equal
    4/85."""
    for argument in leaf.call.arguments:
        if argument.key in (None, "budget") and isinstance(argument.value, Number):
            return argument.value
    return Number.of(leaf.perturbation.budget)


def _checked(budgets: Mapping[str, str], data: DataSet) -> dict[str, Number]:
    known: dict[str, Number] = {}
    for unit in UNITS:
        if unit not in budgets:
            raise UserError(
                f"a profile needs a budget in {unit}, and {data.name} states none: give one, as "
                f'robustness_profile(..., budgets={{"{unit}": "{EXAMPLES[unit]}"}})'
            )
        known[unit] = parse_number(budgets[unit])
        if known[unit].value <= 0:
            raise UserError(f"the budget in {unit} must be above 0, not {budgets[unit]}")
    largest = 1 / EPS_SHARES[-1]
    if known["linf"].value > largest:
        raise UserError(
            f"the budget in linf must be at most {largest}, not {budgets['linf']}: the profile "
            f"goes up to {float(EPS_SHARES[-1])} times it, and pixels lie in [0, 1]"
        )
    return known


@attrs.frozen
class _Line:
    """The ranges of one series to measure, and the expression of the threat at each."""

    name: str
    unit: str
    values: Sequence[Number]
    expressions: Sequence[str]


@attrs.frozen
class _Joint:
    """The rotation ranges and PGD radii to measure jointly, and the expression of the threat at
    each pair."""

    degrees: Sequence[Number]
    linf: Sequence[Number]
    rows: Sequence[Sequence[str]]


def _lines(budgets: Mapping[str, Number]) -> list[_Line]:
    angles = _whole(ROTATIONS)
    shifts = _shares(budgets["pixels"], TRANSLATION_SHARES)
    radii = _shares(budgets["linf"], EPS_SHARES)

    rotated = [_chain(angle=angle) for angle in angles]
    shifted = [_chain(shift=shift) for shift in shifts]
    attacked = [_chain(eps=eps) for eps in radii]
    worst = f"worst of {CANDIDATES}"
    return [
        _Line("random", "degrees", angles, rotated),
        _Line(worst, "degrees", angles, [_worst(expression) for expression in rotated]),
        _Line("random", "pixels", shifts, shifted),
        _Line(worst, "pixels", shifts, [_worst(expression) for expression in shifted]),
        _Line(f"PGD-{TEST_STEPS}", "linf", radii, attacked),
    ]


def _joint(budgets: Mapping[str, Number]) -> _Joint:
    angles, radii = _whole(JOINT_ROTATIONS), _shares(budgets["linf"], JOINT_EPS_SHARES)
    rows = [[_chain(angle=angle, eps=eps) for angle in angles] for eps in radii]
    return _Joint(angles, radii, rows)


def _combined(budgets: Mapping[str, Number], grid: bool) -> dict[str, str]:
    angle, eps = budgets["degrees"], budgets["linf"]
    both = _chain(angle=angle, eps=eps)
    found = {
        ROTATION: _chain(angle=angle),
        ATTACK: _chain(eps=eps),
        "rotation, then attack": both,
        "worst of 10, each attacked": _worst(both),
        UNION: f"{_chain(angle=angle)}|{_chain(eps=eps)}",
    }
    if grid:
        found[f"worst of 10 of {GRID_RANGE}"] = _worst(GRID_RANGE)
        found[f"grid of {GRID_POINTS} of {GRID_RANGE}"] = f"{GRID}({GRID_RANGE})"
    return found


def _chain(
    *, angle: Number | None = None, shift: Number | None = None, eps: Number | None = None
) -> str:
    """Return the expression of a rotation, a translation and PGD in a row, without those whose
    range is 0 or None.

    So range 0 is the clean image, and the edges of the joint grid are points of the series.
    """
    links = {"rot": angle, "trans": shift, "pgd": eps}
    texts = [
        str(standard_attack(value)) if name == "pgd" else f"{name}:{value}"
        for name, value in links.items()
        if value is not None and value.value > 0
    ]
    return "+".join(texts) or CLEAN


def _worst(expression: str) -> str:
    return expression if expression == CLEAN else f"{WORST}({expression}, k={CANDIDATES})"


def _whole(values: Iterable[int]) -> tuple[Number, ...]:
    return tuple(Number(float(value)) for value in values)


def _shares(budget: Number, shares: Iterable[Fraction]) -> tuple[Number, ...]:
    """Return the given fractions of a budget as exact numbers with its denominator: 3/4 of 8/255 is
    6/255."""
    numerator = Fraction(repr(budget.numerator))
    return tuple(Number(float(numerator * share), budget.denominator) for share in shares)
