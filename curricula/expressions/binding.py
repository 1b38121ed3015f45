"""Turn an expression, such as ``rot:30+pgd``, into nodes that perturb a batch of images.

Binding builds the perturbations, fills in missing budgets, fuses neighbouring affine links and
checks the order of attacks.
"""

from collections.abc import Mapping

import attrs

from curricula.errors import UserError, amount, shortened, shown
from curricula.expressions import factories
from curricula.expressions.checks import LeafLabels
from curricula.expressions.nodes import (
    CALL_NODES,
    PASS_ARGUMENTS,
    ChainNode,
    Leaf,
    Node,
    UnionNode,
)
from curricula.expressions.syntax import (
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Union,
    Value,
    check_length,
    error_in,
    parse,
    parse_number,
    parse_value,
)
from curricula.interfaces import Perturbation, declaration_problem
from curricula.plugins import registry

MAX_PIXEL_VALUE = 255  # largest 8-bit value; the field writes l-inf radii in 255ths
MAX_PASSES = 1_000_000  # passes per image of an expression; hours for one image of a small network
MAX_STEP = 10  # budgets; a longer step leaves the ball from any point and in any direction
STEP_LENGTHS = ("step", "rel_step")  # arguments of attacks that are lengths of a step
COUNTS = (*PASS_ARGUMENTS, "restarts")  # arguments of attacks that are 1 or more


def bind(
    expression: Expression | str,
    *,
    budgets: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
    threat: bool = False,
) -> Node:
    """Return the node that runs an expression such as ``rot:30+pgd``, with its perturbations built
    and checked against each other.

    Args:
        expression: syntax or text.
        budgets: budgets by unit, for perturbations written without one, for example
            ``{"degrees": "30"}``; a data set states its own.
        defaults: other values by parameter name, for parameters left out, for example
            ``{"steps": "5"}``; a data set states its own.
        threat: refuse perturbations that are for training only.

    Raises:
        UserError: an unknown name or argument, a value out of range, an l-inf radius above 1, an
            attack of 0 steps or of steps longer than ten budgets, a spatial or intensity change
            after a pixel attack, a missing budget without a standard value, or more than a million
            passes per image.

    Example:
        >>> from curricula.expressions import bind
        >>> tree = bind("rot:45+pgd", budgets={"linf": "8/255"})
        >>> list(tree.leaves)
        ['rot', 'pgd']
        >>> tree.leaves["pgd"].perturbation.budget == 8 / 255
        True
        >>> tree.max_passes
        10
        >>> print(tree.without_attacks())
        rot(45, interpolation=bilinear, padding=zeros)
        >>> str(bind(str(tree))) == str(tree)
        True
    """
    if not isinstance(expression, (Call, Chain, Union)):
        expression = parse(expression)
    for name, given in {"budgets": budgets, "defaults": defaults}.items():
        if given is not None and not isinstance(given, Mapping):
            raise UserError(f"{name} must be a mapping of texts, not {shown(given)}")
    binder = _Binder(
        {unit: parse_number(text) for unit, text in (budgets or {}).items()},
        {name: parse_value(text) for name, text in (defaults or {}).items()},
        threat,
    )
    node = binder.bind(expression)
    node.check_order("", str(expression))
    check_length(str(node))
    if (passes := node.max_passes) > MAX_PASSES:
        raise error_in(
            expression,
            f"it would take {amount(passes)} passes per image; at most {MAX_PASSES:,} are allowed: "
            "lower k, steps, queries, restarts or the number of grid points",
        )
    return node


class _Binder:
    """Turns parsed expressions into nodes, and labels perturbations of the same name ``rot``,
    ``rot.2``, ``rot.3``, left to right."""

    def __init__(
        self, budgets: Mapping[str, Number], defaults: Mapping[str, Value], threat: bool
    ) -> None:
        self.budgets, self.defaults, self.threat = budgets, defaults, threat
        self.labels = LeafLabels()

    def bind(self, expression: Expression) -> Node:
        match expression:
            case Call(name=name) if name in CALL_NODES:
                return CALL_NODES[name](expression, self)
            case Call():
                return self._leaf(expression)
            case Chain(links):
                return ChainNode.of([self.bind(link) for link in links])
            case Union(branches):
                return UnionNode.of([self.bind(branch) for branch in branches])
        raise AssertionError(expression)

    def _leaf(self, call: Call) -> Leaf:
        built = factories.build("perturbation", self._budgeted(call), defaults=self.defaults)
        perturbation: Perturbation = built.value
        problem = declaration_problem(perturbation)
        if problem:
            raise error_in(
                call, f"{problem}; its author can run curricula.testing.check_perturbation"
            )
        _check_meaning(call, built)
        if self.threat and perturbation.training_only:
            raise error_in(call, f"{call.name} is for training only and cannot be a threat")
        label = self.labels.add(call.short_name)
        return Leaf(label=label, perturbation=perturbation, call=built.call)

    def _budgeted(self, call: Call) -> Call:
        """Return the call of a perturbation, with the standard budget added if the perturbation
        needs a budget and the call states none."""
        given = any(argument.key in (None, "budget") for argument in call.arguments)
        if given or not factories.requires("perturbation", call.name, "budget"):
            return call
        unit = self._unit(call)
        budget = self.budgets.get(unit)
        if budget is None:
            known = ", ".join(f"{text} {unit}" for unit, text in self.budgets.items()) or "none"
            raise error_in(
                call,
                f"there is no standard budget in {unit} here (there is: {known}); write "
                f"{call.name}:BUDGET, or in Python give budgets=, such as data.budgets",
            )
        return attrs.evolve(call, arguments=(Argument(budget), *call.arguments))

    def _unit(self, call: Call) -> str:
        """Return the unit of a perturbation's budget, such as ``degrees`` or ``linf``, from a call
        that states no budget."""
        factory = registry.current().find("perturbation", call.name).load()
        unit = getattr(factory, "unit", None)
        if isinstance(unit, str):
            return unit
        # The unit depends on other arguments, as pgd's on its norm: build one to read it.
        probe = attrs.evolve(call, arguments=(Argument(Number(1)), *call.arguments))
        try:
            built = factories.build("perturbation", probe, defaults=self.defaults)
        except UserError as error:
            message = str(error).replace(shortened(probe), shortened(call))
            raise UserError(message) from error
        return str(built.value.unit)


def _check_meaning(call: Call, built: factories.Built) -> None:
    """Check that a perturbation is not an obvious mistake, such as a radius beyond all images, an
    attack of 0 steps, or a step far longer than the budget.

    Raises:
        UserError: a mistake; the message says what was probably meant.
    """
    perturbation: Perturbation = built.value
    budget = perturbation.budget
    if perturbation.unit == "linf" and budget > 1:
        meant = f"; did you mean {budget:g}/255?" if budget <= MAX_PIXEL_VALUE else ""
        raise error_in(
            call,
            f"budget must be at most 1 in linf, because pixels lie in [0, 1], not "
            f"{budget:g}{meant}",
        )
    for argument in built.call.arguments if perturbation.kind == "pixel" else ():
        if argument.key in COUNTS and argument.value == Number(0):
            raise error_in(
                call, f"{argument.key} must be 1 or more, not 0; leave {call.name} out instead"
            )
        if argument.key in STEP_LENGTHS and isinstance(argument.value, Number):
            length, unit = argument.value.value, 1.0 if argument.key == "rel_step" else budget
            if length > MAX_STEP * unit > 0:
                in_255ths = argument.key == "step" and perturbation.unit == "linf"
                is_meant = in_255ths and length <= MAX_STEP * unit * MAX_PIXEL_VALUE
                meant = f"{length:g}/255" if is_meant else ""
                if (
                    argument.key == "step"
                    and length.is_integer()
                    and hasattr(perturbation, "steps")
                ):
                    meant = f"steps={length:g}" + (f" or step={meant}" if meant else "")
                meant = f"; did you mean {meant}?" if meant else ""
                raise error_in(
                    call,
                    f"{argument.key} must be at most {MAX_STEP * unit:g}, {MAX_STEP} times the "
                    f"radius of the ball, not {length:g}{meant}",
                )
