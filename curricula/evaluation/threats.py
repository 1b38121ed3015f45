"""The standard threats of a run, which are used if the user names none.

They use the field's yardsticks, random rotation, PGD and APGD, and are ordinary expressions. This
is why this module names three perturbations.
"""

from collections.abc import Mapping
from typing import cast, get_args

from curricula.curriculum import Threat
from curricula.evaluation import names
from curricula.expressions.binding import bind
from curricula.expressions.nodes import Node
from curricula.expressions.syntax import Argument, Call, Number, chain
from curricula.interfaces import Norm
from curricula.plugins.names import CLEAN

TEST_STEPS = 40  # gradient steps of PGD in an evaluation, in l-inf
APGD_STEPS = 100  # gradient steps of each run of APGD in an evaluation, in l-2 and l-1
APGD_ARGUMENTS: Mapping[str, Mapping[str, Call | int]] = {
    "l2": {"targets": 3, "wide_start": Call("true")},
    "l1": {"restarts": 5, "targets": 5},  # those of AutoAttack
}
VALIDATION_STEPS = 10  # gradient steps of PGD on held-out training images
# Long enough to cross the ball and come back: with steps of eps / 30 (0.01 at eps 0.3, usual on
# MNIST) forty steps stop short, and a model looks more robust than it is (docs/results.md).
TEST_REL_STEP = Number(1, 10)  # share of eps per step


def standard_threats(curriculum: Node, budgets: Mapping[str, str]) -> dict[str, Threat]:
    """Return the threats to test a model of a curriculum under, by name: ``clean``, ``spatial``,
    ``adversarial`` and ``joint``.

    - ``spatial`` is the curriculum without its pixel links, drawn at random (without ``worst`` and
      ``grid``). If nothing is left, it is a rotation within the data set's budget.
    - ``adversarial`` is `standard_attack` in the norm ball of `pixel_budget`: PGD-40 in l-inf, APGD
      in l-2 and l-1.
    - ``joint`` is ``spatial``, then ``adversarial``.

    Args:
        curriculum: the bound expression that a model is trained under.
        budgets: the data set's standard budgets, by unit.
    """
    spatial = (curriculum.without_attacks() or bind("rot", budgets=budgets)).expression
    eps, norm = pixel_budget(curriculum, budgets)
    attack = bind(standard_attack(eps, norm=norm)).expression
    expressions = {
        names.CLEAN: Call(CLEAN),
        names.SPATIAL: spatial,
        names.ADVERSARIAL: attack,
        names.JOINT: chain(spatial, attack),
    }
    return {
        name: Threat(tree=bind(expression, threat=True)) for name, expression in expressions.items()
    }


def validation_threats(curriculum: Node, budgets: Mapping[str, str]) -> dict[str, Threat]:
    """Return the threats to choose the best checkpoint by, by name: ``clean`` and ``joint``.

    ``joint`` is the goal of the curriculum, at full strength and all at once: its spatial and
    intensity links, then PGD-10 if it has a pixel link. For ``clean`` training it is clean
    accuracy, so that a baseline is picked as a plain model would be.

    Args:
        curriculum: the bound expression that a model is trained under.
        budgets: the data set's standard budgets, by unit.
    """
    transformed = curriculum.without_attacks()
    links = [transformed.expression] if transformed else []
    if any(leaf.perturbation.kind == "pixel" for leaf in curriculum.leaves.values()):
        eps, norm = pixel_budget(curriculum, budgets)
        links.append(bind(pgd_attack(eps, norm=norm, steps=VALIDATION_STEPS)).expression)
    return {
        names.CLEAN: Threat(tree=bind(CLEAN, threat=True)),
        names.JOINT: Threat(tree=bind(chain(*links) if links else CLEAN, threat=True)),
    }


def standard_attack(eps: Number | None = None, *, norm: str = "linf") -> Call:
    """Return the call of the attack in the standard threats, of radius ``eps`` in a norm.

    In l-inf it is PGD-40 with a random start and steps of eps / 10. In l-2 and l-1, where PGD
    overstates robustness (docs/results.md), it is APGD, each run with 100 steps that begin in the
    ball of 3 eps: in l-2 one run on cross-entropy and one towards each of three other classes, in
    l-1 five and five.

    Args:
        eps: radius of the ball, in [0, 1] pixel units; None leaves it to a data set's budget.
        norm: norm of the ball.

    Example:
        >>> print(standard_attack(Number(8, 255)))
        pgd(8/255, norm=linf, steps=40, rel_step=1/10)
        >>> print(standard_attack(Number(1, 2), norm="l2"))
        apgd(1/2, norm=l2, steps=100, targets=3, wide_start=true)
    """
    if norm == "linf":
        pgd = pgd_attack(eps, norm=norm, steps=TEST_STEPS)
        return Call(pgd.name, (*pgd.arguments, Argument(TEST_REL_STEP, "rel_step")))
    return _attack("apgd", eps, norm=Call(norm), steps=APGD_STEPS, **APGD_ARGUMENTS[norm])


def pgd_attack(eps: Number | None, *, norm: str, steps: int) -> Call:
    """Return the call of PGD with a random start, which compares models while they are trained.

    Args:
        eps: radius of the ball, in [0, 1] pixel units; None leaves it to a data set's budget.
        norm: norm of the ball.
        steps: number of steps.
    """
    return _attack("pgd", eps, norm=Call(norm), steps=steps)


def _attack(name: str, eps: Number | None, **values: Call | int) -> Call:
    budget = () if eps is None else (Argument(eps),)
    keywords = (
        Argument(Number(float(value)) if isinstance(value, int) else value, key)
        for key, value in values.items()
    )
    return Call(name, (*budget, *keywords))


def pixel_budget(curriculum: Node, budgets: Mapping[str, str]) -> tuple[Number, Norm]:
    """Return the radius (in [0, 1] pixel units) and norm to attack in: those of the curriculum's
    first pixel attack with a norm ball, or else the data set's l-inf budget.

    Raises:
        UserError: no pixel link has a ball, and the data set states no l-inf budget.
    """
    for leaf in curriculum.leaves.values():
        attack = leaf.perturbation
        if attack.kind == "pixel" and attack.unit in get_args(Norm):
            return Number.of(attack.budget), cast(Norm, attack.unit)
    (leaf,) = bind("pgd", budgets=budgets).leaves.values()
    return Number.of(leaf.perturbation.budget), "linf"
