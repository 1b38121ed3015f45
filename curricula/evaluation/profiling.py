"""Measuring a robustness profile: accuracy and fooling rate of a classifier as test ranges grow.

Every number is an ordinary threat of `evaluate_threats`: an expression that is requested in two
places runs once, an image is rotated alike in all threats that begin with the same link, and a
fooled image is not attacked further.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

import attrs
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike
from curricula.errors import UserError
from curricula.evaluation.accuracy import evaluate_threats
from curricula.evaluation.profile import JointGrid, Profile, Series, written
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import TEST_STEPS, standard_attack
from curricula.expressions.nodes import Leaf, Node
from curricula.expressions.syntax import Number, parse_number
from curricula.plugins.names import CLEAN, GRID, WORST

CANDIDATES = 10  # the random search of Engstrom et al. 2019
ROTATIONS = tuple(range(0, 181, 15))  # Kamath et al. 2021 go by 30
# Shares of the budgets: custom has 3 px and 8/255, so these are whole pixels and 255ths.
TRANSLATION_SHARES = tuple(Fraction(i, 3) for i in range(7))
EPS_SHARES = tuple(Fraction(i, 4) for i in range(7))
# Each cell of the joint grid costs as much as a point of the eps axis: so it is coarser.
JOINT_ROTATIONS = tuple(range(0, 181, 30))
JOINT_EPS_SHARES = tuple(Fraction(i, 2) for i in range(4))
# Engstrom et al. 2019, section 4: 31 angles x 5 x 5 shifts.
GRID_RANGE = "rot:30+trans:3"
GRID_POINTS = 31 * 5 * 5

PHRASES = {"degrees": "{} degrees", "pixels": "{} px", "linf": "eps {}"}
UNITS = tuple(PHRASES)


def profile(
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
) -> Profile:
    """The robustness profile of a classifier (Kamath et al. 2021), in float32.

    - Rotations within 0, 15, ..., 180 degrees, random and the worst of 10; translations within 0 to
      2 budgets, likewise; PGD-40 within 0 to 1.5 budgets.
    - A random rotation, then PGD-40, over both ranges: 0, 30, ..., 180 degrees and 0 to 1.5
      budgets by halves.
    - At the budgets: that chain; the worst of 10 rotations of which each is attacked; the union of
      rotation and attack, which an image withstands that withstands both; their average.

    An image costs at most 1,440 gradients and 260 forward passes, 787 more with the grid; 400 of
    the gradients are those of the 10 attacked rotations, of which an image that falls has no more.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: whose images they are.
        split: the images.
        budgets: by unit (``degrees``, ``pixels``, ``linf``), where they are not the data set's.
        grid: also the worst of the 775 rotations and translations of Engstrom et al. 2019 (within
            30 degrees and 3 px whatever the budgets), and of 10 random ones of these.
        seed: of the random draws.
        batch_size: images at once; the figures do not depend on it. Default: as in
            `evaluate_threats`.
        name: of the model, for captions.
        progress: told the share of the work that is done, in [0, 1], after each batch.

    Raises:
        UserError: a budget that is missing or not above 0; logits that are not numbers.
    """
    known = _checked({**data.budgets, **(budgets or {})}, data)
    lines, joint, combined = _lines(known), _joint(known), _combined(known, grid)
    asked = [
        *(expression for line in lines for expression in line.expressions),
        *(expression for row in joint.rows for expression in row),
        *combined.values(),
    ]
    threats = {expression: Threat.parse(expression) for expression in (CLEAN, *asked)}
    work = EvaluationProgress(threats.values(), progress)
    results = evaluate_threats(
        model,
        data,
        split,
        threats,
        seed=seed,
        batch_size=batch_size,
        began=work.began,
        after_batch=work.after_batch,
    )
    found = dict(zip(threats, results, strict=True))

    def named(name: str, expression: str) -> ThreatResult:
        return attrs.evolve(found[expression], name=name)

    def shown(unit: str, value: Number) -> str:
        return PHRASES[unit].format(written(value.value, known[unit]))

    return Profile(
        model=name,
        data=data.name,
        n=len(split),
        seed=seed,
        budgets={unit: str(budget) for unit, budget in known.items()},
        clean=found[CLEAN],
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
    """The budgets of a profile: those of a curriculum's first ``rot``, ``trans`` and l-inf attack
    where it has such leaves of a budget above 0, else the data set's."""
    found: dict[str, str] = {}
    for leaf in curriculum.leaves.values():
        unit = {"rot": "degrees", "trans": "pixels"}.get(leaf.call.name)
        if leaf.perturbation.kind == "pixel":
            unit = leaf.perturbation.unit
        if unit in UNITS and unit not in found and leaf.perturbation.budget > 0:
            found[unit] = str(_written_budget(leaf))
    return {**budgets, **found}


def _written_budget(leaf: Leaf) -> Number:
    """As the expression has it: 12/255, and not the 4/85 that is the same number."""
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
                f'profile(..., budgets={{"{unit}": "1"}})'
            )
        known[unit] = parse_number(budgets[unit])
        if known[unit].value <= 0:
            raise UserError(f"the budget in {unit} must be above 0, not {budgets[unit]}")
    return known


@attrs.frozen
class _Line:
    """A series that is asked for."""

    name: str
    unit: str
    values: Sequence[Number]
    expressions: Sequence[str]


@attrs.frozen
class _Joint:
    """The joint grid that is asked for."""

    degrees: Sequence[Number]
    linf: Sequence[Number]
    rows: Sequence[Sequence[str]]


def _lines(budgets: Mapping[str, Number]) -> list[_Line]:
    angles = _whole(ROTATIONS)
    shifts = _shares(budgets["pixels"], TRANSLATION_SHARES)
    radii = _shares(budgets["linf"], EPS_SHARES)

    turned, moved = [_chain(angle=v) for v in angles], [_chain(shift=v) for v in shifts]
    attacked = [_chain(eps=eps) for eps in radii]
    worst = f"worst of {CANDIDATES}"
    return [
        _Line("random", "degrees", angles, turned),
        _Line(worst, "degrees", angles, [_worst(expression) for expression in turned]),
        _Line("random", "pixels", shifts, moved),
        _Line(worst, "pixels", shifts, [_worst(expression) for expression in moved]),
        _Line(f"PGD-{TEST_STEPS}", "linf", radii, attacked),
    ]


def _joint(budgets: Mapping[str, Number]) -> _Joint:
    angles, radii = _whole(JOINT_ROTATIONS), _shares(budgets["linf"], JOINT_EPS_SHARES)
    rows = [[_chain(angle=angle, eps=eps) for angle in angles] for eps in radii]
    return _Joint(angles, radii, rows)


def _combined(budgets: Mapping[str, Number], grid: bool) -> dict[str, str]:
    angle, eps = budgets["degrees"], budgets["linf"]
    both = _chain(angle=angle, eps=eps)
    asked = {
        "rotation": _chain(angle=angle),
        "attack": _chain(eps=eps),
        "rotation, then attack": both,
        "worst of 10, each attacked": _worst(both),
        "union": f"{_chain(angle=angle)}|{_chain(eps=eps)}",
    }
    if grid:
        asked[f"worst of 10 of {GRID_RANGE}"] = _worst(GRID_RANGE)
        asked[f"grid of {GRID_POINTS} of {GRID_RANGE}"] = f"{GRID}({GRID_RANGE})"
    return asked


def _chain(
    *, angle: Number | None = None, shift: Number | None = None, eps: Number | None = None
) -> str:
    """The expression of the links whose range is above 0: so range 0 is the clean image, and the
    edges of the joint grid are points of the series."""
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
    """Shares of a budget, exact and written as it is: of 0.3 the 0.225, of 8/255 the 6/255."""
    numerator = Fraction(repr(budget.numerator))
    return tuple(Number(float(numerator * share), budget.denominator) for share in shares)
