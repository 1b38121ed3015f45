"""The threats that a run is measured under unless the user names others.

The yardsticks are the field's: random rotation and PGD. They are ordinary expressions; that this
file names two perturbations is the price of having standard ones.
"""

from collections.abc import Mapping
from typing import cast, get_args

from curricula.curriculum import Threat
from curricula.expressions.binding import BoundExpression, bind
from curricula.expressions.syntax import (
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Union,
    chain,
    union,
)
from curricula.interfaces import Norm
from curricula.plugins.names import CLEAN, GRID, WORST

TEST_STEPS = 40
VALIDATION_STEPS = 10
# Long enough to cross the ball and come back: with steps of eps / 30 (MNIST's customary 0.01 at eps
# 0.3) forty steps stop short, and a model looks more robust than it is (docs/results.md).
TEST_REL_STEP = Number(1, 10)


def standard_threats(curriculum: BoundExpression, budgets: Mapping[str, str]) -> dict[str, Threat]:
    """clean, spatial, adversarial and joint, at the budgets of a curriculum.

    spatial is what the curriculum does less its pixel links, drawn at random (``worst`` and
    ``grid`` are taken off); where nothing is left, a rotation within the data set's budget.
    adversarial is PGD-40 with a random start in the norm ball of its first pixel link whose
    budget is one; where there is none, l-inf within the data set's budget. joint is the one and
    then the other.
    """
    spatial = transformed_part(curriculum) or bind("rot", budgets=budgets).expression
    attack = _pgd(curriculum, budgets, TEST_STEPS)
    expressions = {
        "clean": Call(CLEAN),
        "spatial": spatial,
        "adversarial": attack,
        "joint": chain(spatial, attack),
    }
    return {
        name: Threat(tree=bind(expression, threat=True)) for name, expression in expressions.items()
    }


def validation_threats(
    curriculum: BoundExpression, budgets: Mapping[str, str]
) -> dict[str, Threat]:
    """clean, and joint: what picks the checkpoint.

    joint is what the curriculum trains for, at full strength and all at once: its spatial and
    colour links, then PGD-10 if it has a pixel link. Of a plain curriculum that is clean accuracy,
    so that a baseline is picked as a plain model would be.
    """
    natural = transformed_part(curriculum)
    links = [natural] if natural else []
    if any(leaf.perturbation.kind == "pixel" for leaf in curriculum.leaves.values()):
        links.append(_pgd(curriculum, budgets, VALIDATION_STEPS))
    return {
        "clean": Threat(tree=bind(CLEAN, threat=True)),
        "joint": Threat(tree=bind(chain(*links) if links else CLEAN, threat=True)),
    }


def transformed_part(curriculum: BoundExpression) -> Expression | None:
    """A curriculum's expression less its pixel links and its searches (``worst``, ``grid``), or
    None if nothing is left: of ``worst(rot|trans, k=3)+pgd`` it is ``rot|trans``."""
    leaves = iter(curriculum.leaves.values())  # in the order in which the walk meets them

    def natural(part: Expression) -> Expression | None:
        match part:
            case Chain(links):
                kept = [link for link in map(natural, links) if link is not None]
                return chain(*kept) if kept else None
            case Union(branches):
                kept = [branch for branch in map(natural, branches) if branch is not None]
                return union(*kept) if kept else None
            case Call(name=name) if name == CLEAN:
                return None
            case Call(name=name) if name in (WORST, GRID):
                inner = part.arguments[0].value
                assert isinstance(inner, (Call, Chain, Union))
                return natural(inner)
        leaf = next(leaves)
        keep = leaf.perturbation.kind != "pixel" and not leaf.perturbation.training_only
        return leaf.call if keep else None

    return natural(curriculum.expression)


def standard_attack(
    eps: Number | None = None, *, norm: str = "linf", steps: int = TEST_STEPS
) -> Call:
    """PGD with a random start in a norm ball; in tests PGD-40 with steps of eps / 10.

    Args:
        eps: radius of the ball, in [0, 1] pixel units; None leaves it to a data set's budget.
        norm: of the ball.
        steps: 40 in tests.
    """
    budget = () if eps is None else (Argument(eps),)
    keywords = [Argument(Call(norm), "norm"), Argument(Number(float(steps)), "steps")]
    if steps == TEST_STEPS:
        keywords.append(Argument(TEST_REL_STEP, "rel_step"))
    return Call("pgd", (*budget, *keywords))


def pixel_budget(curriculum: BoundExpression, budgets: Mapping[str, str]) -> tuple[Number, Norm]:
    """Radius and norm of the ball of a curriculum's first pixel link whose budget is one; where
    there is none, l-inf within the data set's budget.

    Raises:
        UserError: there is none, and the data set states no l-inf budget.
    """
    for leaf in curriculum.leaves.values():
        attack = leaf.perturbation
        if attack.kind == "pixel" and attack.unit in get_args(Norm):
            return Number.of(attack.budget), cast(Norm, attack.unit)
    (leaf,) = bind("pgd", budgets=budgets).leaves.values()
    return Number.of(leaf.perturbation.budget), "linf"


def _pgd(curriculum: BoundExpression, budgets: Mapping[str, str], steps: int) -> Expression:
    eps, norm = pixel_budget(curriculum, budgets)
    return bind(standard_attack(eps, norm=norm, steps=steps)).expression
