"""From an expression's syntax to a tree that runs.

Perturbations are built, missing budgets filled in, the order checked, neighbouring affine links
fused.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import get_args

import attrs

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.checks import leaf_label
from curricula.expressions.nodes import (
    ChainNode,
    FusedLeaves,
    GridBranch,
    GridNode,
    Leaf,
    Node,
    UnionNode,
    WorstNode,
    leaves_of,
    sampling_of,
)
from curricula.expressions.syntax import (
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Union,
    Value,
    chain,
    parse,
    parse_call,
    union,
)
from curricula.interfaces import (
    DECLARED,
    AffinePerturbation,
    ParametricPerturbation,
    Perturbation,
    PerturbationKind,
)
from curricula.plugins import registry
from curricula.plugins.names import CLEAN, GRID, WORST

MOST_CANDIDATES = 10_000  # of worst(...) and grid(...); more is a slip of the keyboard
MOST_COUNTED = 1_000_000  # points of a grid that are laid out to be counted

# The grid of Engstrom et al. 2019 (31 angles, 5 x 5 shifts): so many values a parameter.
POINTS_OF_ONE = 31
POINTS_OF_SEVERAL = 5


@attrs.frozen(kw_only=True)
class BoundExpression:
    """An expression bound to its perturbations.

    Attributes:
        node: what runs.
        expression: the same with all defaults explicit; binding it again gives the same.
        leaves: by label, left to right.
    """

    node: Node
    expression: Expression
    leaves: Mapping[str, Leaf]


def bind(
    expression: Expression | str,
    *,
    budgets: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
    threat: bool = False,
) -> BoundExpression:
    """Build the perturbations of an expression, and check that they go together.

    Args:
        expression: parsed, or text.
        budgets: by unit, what a missing budget is, for example ``{"degrees": "30"}``; a data set
            states its own.
        defaults: by parameter, other defaults that a data set states (``{"steps": "5"}``).
        threat: read choices as a threat does: a union is the worst of its branches, and
            perturbations for training alone are refused.

    Raises:
        UserError: an unknown name or argument, a value out of range, a spatial or colour change
            after a pixel attack, a budget that is missing and has no standard.
    """
    if isinstance(expression, str):
        expression = parse(expression)
    binder = _Binder(
        {unit: parse_number(text) for unit, text in (budgets or {}).items()},
        {name: parse_value(text) for name, text in (defaults or {}).items()},
        threat,
    )
    node, explicit = binder.bind(expression)
    _check_order(node, str(expression))
    return BoundExpression(node=node, expression=explicit, leaves=binder.leaves)


def parse_value(text: str) -> Value:
    """A single value, as it would stand inside parentheses."""
    arguments = parse_call(f"value({text})").arguments
    if len(arguments) != 1:
        raise UserError(f"expected a single value, not {text!r}")
    return arguments[0].value


def parse_number(text: str) -> Number:
    """A single number or fraction."""
    value = parse_value(text)
    if not isinstance(value, Number):
        raise UserError(f"expected a number, not {text!r}")
    return value


class _Binder:
    def __init__(
        self, budgets: Mapping[str, Number], defaults: Mapping[str, Value], threat: bool
    ) -> None:
        self.budgets, self.defaults, self.threat = budgets, defaults, threat
        self.leaves: dict[str, Leaf] = {}

    def bind(self, expression: Expression) -> tuple[Node, Expression]:
        match expression:
            case Call(name=name) if name == CLEAN:
                if expression.arguments:
                    raise UserError(f"{expression}: {CLEAN} takes no arguments")
                return ChainNode(links=()), expression
            case Call(name=name) if name == WORST:
                return self._worst(expression)
            case Call(name=name) if name == GRID:
                return self._grid(expression)
            case Call():
                return self._leaf(expression)
            case Chain(links):
                nodes, explicit = self._each(links)
                return ChainNode(links=_fused(nodes)), chain(*explicit)
            case Union(branches):
                nodes, explicit = self._each(branches)
                if self.threat:
                    return WorstNode(branches=nodes, k=1), union(*explicit)
                return UnionNode(branches=nodes), union(*explicit)
        raise AssertionError(expression)

    def _each(
        self, expressions: Sequence[Expression]
    ) -> tuple[tuple[Node, ...], tuple[Expression, ...]]:
        pairs = [self.bind(expression) for expression in expressions]
        return tuple(node for node, _ in pairs), tuple(explicit for _, explicit in pairs)

    def _worst(self, call: Call) -> tuple[Node, Expression]:
        inner, keywords = _searched(call, "worst(EXPR, k=10)")
        if unknown := [argument for argument in keywords.values() if argument.key != "k"]:
            raise UserError(f"{call}: unexpected argument {unknown[0]}; write worst(EXPR, k=10)")
        k = _count(call, keywords.get("k", Argument(Number(10), "k")))
        nodes, explicit = self._each(inner)
        arguments = (Argument(union(*explicit)), Argument(Number(k), "k"))
        return WorstNode(branches=nodes, k=k), Call(WORST, arguments)

    def _grid(self, call: Call) -> tuple[Node, Expression]:
        inner, keywords = _searched(call, "grid(EXPR, rot=31)")
        nodes, explicit = self._each(inner)
        moved = [_searchable(call, node) for node in nodes]
        points: dict[str, int] = {}  # by name: every leaf of a name is searched alike
        for leaf, usual in itertools.chain(*moved):
            name = leaf.call.name
            if name in keywords:
                points[name] = _count(call, keywords[name])
            else:
                points[name] = min(usual, points.get(name, usual))
        branches: list[GridBranch] = []
        for node, leaves in zip(nodes, moved, strict=True):
            branch = {leaf.label: points[leaf.call.name] for leaf, _ in leaves}
            size = math.prod(_grid_size(leaf, branch[leaf.label]) for leaf, _ in leaves)
            if size > MOST_CANDIDATES:
                raise UserError(
                    f"{call}: a grid of {size:,} points; {MOST_CANDIDATES:,} are the most: give "
                    f"fewer a parameter, such as {next(iter(points))}=3"
                )
            branches.append(GridBranch(node=node, points=branch))
        if unknown := [argument for key, argument in keywords.items() if key not in points]:
            raise UserError(
                f"{call}: unexpected argument {unknown[0]}; the grid is over {', '.join(points)}"
            )
        arguments = [Argument(Number(count), name) for name, count in points.items()]
        explicit_call = Call(GRID, (Argument(union(*explicit)), *arguments))
        return GridNode(branches=tuple(branches)), explicit_call

    def _leaf(self, call: Call) -> tuple[Node, Expression]:
        built = factories.build("perturbation", self._budgeted(call), defaults=self.defaults)
        perturbation: Perturbation = built.value
        missing = [name for name in DECLARED if not hasattr(perturbation, name)]
        if missing:
            raise UserError(
                f"{call}: this perturbation declares no {', '.join(missing)}; its author can run "
                "curricula.testing.check_perturbation"
            )
        if perturbation.kind not in get_args(PerturbationKind):
            raise UserError(
                f"{call}: its kind is {perturbation.kind!r}; it must be "
                f"{' or '.join(get_args(PerturbationKind))}"
            )
        if self.threat and perturbation.training_only:
            raise UserError(f"{call}: {call.name} is for training only and cannot be a threat")
        label = leaf_label(call.name, self.leaves)
        leaf = Leaf(label=label, perturbation=perturbation, call=built.call)
        self.leaves[label] = leaf
        return leaf, built.call

    def _budgeted(self, call: Call) -> Call:
        """The call with the data set's standard budget, if it states none and needs one."""
        given = any(argument.key in (None, "budget") for argument in call.arguments)
        if given or not factories.requires("perturbation", call.name, "budget"):
            return call
        unit = self._unit(call)
        budget = self.budgets.get(unit)
        if budget is None:
            known = ", ".join(f"{text} {unit}" for unit, text in self.budgets.items()) or "none"
            raise UserError(
                f"{call}: there is no standard budget in {unit} here "
                f"(there is: {known}); write {call.name}:BUDGET"
            )
        return attrs.evolve(call, arguments=(Argument(budget), *call.arguments))

    def _unit(self, call: Call) -> str:
        """The unit of the budget that a call leaves out."""
        factory = registry.current().find("perturbation", call.name).load()
        unit = getattr(factory, "unit", None)
        if isinstance(unit, str):
            return unit
        # It depends on the other arguments, as pgd's does on its norm: ask a probe.
        probe = attrs.evolve(call, arguments=(Argument(Number(1)), *call.arguments))
        try:
            built = factories.build("perturbation", probe, defaults=self.defaults)
        except UserError as error:
            raise UserError(str(error).replace(str(probe), str(call))) from error
        return str(built.value.unit)


def _searched(call: Call, usage: str) -> tuple[tuple[Call | Chain, ...], dict[str, Argument]]:
    """The branches that ``worst`` or ``grid`` searches, and its keyword arguments."""
    inner: Expression | None = None
    keywords: dict[str, Argument] = {}
    for argument in call.arguments:
        if argument.key is not None:
            keywords[argument.key] = argument
        elif inner is None:
            if not isinstance(argument.value, (Call, Chain, Union)):
                raise UserError(f"{call}: expected an expression, not {argument.value}")
            inner = argument.value
        else:
            raise UserError(f"{call}: unexpected argument {argument}; write {usage}")
    if inner is None:
        raise UserError(f"{call}: nothing to search; write {usage}")
    return inner.branches if isinstance(inner, Union) else (inner,), keywords


def _count(call: Call, argument: Argument) -> int:
    written = argument.value
    number = written.value if isinstance(written, Number) else math.nan
    if not 1 <= number <= MOST_CANDIDATES or number % 1:
        raise UserError(
            f"{call}: {argument.key} must be a whole number from 1 to {MOST_CANDIDATES}, "
            f"not {written}"
        )
    return int(number)


def _searchable(call: Call, node: Node) -> list[tuple[Leaf, int]]:
    """The leaves of a branch of ``grid`` that it moves, each with the usual count of values a
    parameter."""
    if not isinstance(node, Leaf | FusedLeaves | ChainNode) or any(
        isinstance(link, UnionNode | WorstNode | GridNode) for link in getattr(node, "links", ())
    ):
        raise UserError(
            f"{call}: grid(...) searches a chain of perturbations or a union of chains, with no "
            "union, worst or grid inside"
        )
    moved: list[tuple[Leaf, int]] = []
    for leaf in leaves_of(node):
        if isinstance(leaf.perturbation, ParametricPerturbation):
            moved.append((leaf, POINTS_OF_ONE if _grid_axes(leaf) == 1 else POINTS_OF_SEVERAL))
        elif leaf.perturbation.kind != "pixel":
            raise UserError(f"{call}: {leaf.call.name} has no grid; draw it: worst(..., k=10)")
    if not moved:
        raise UserError(f"{call}: there is no spatial or colour change to lay a grid over")
    return moved


def _grid_axes(leaf: Leaf) -> int:
    """How many parameters a grid moves by themselves, as one of three points each shows."""
    assert isinstance(leaf.perturbation, ParametricPerturbation)
    return max(1, round(math.log(len(leaf.perturbation.grid(1.0, 3)), 3)))


def _grid_size(leaf: Leaf, points: int) -> int:
    """How many points the grid of a leaf has; an upper bound where they are too many to lay out."""
    assert isinstance(leaf.perturbation, ParametricPerturbation)
    most = points ** _grid_axes(leaf)
    return most if most > MOST_COUNTED else len(leaf.perturbation.grid(1.0, points))


def _fused(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Neighbouring affine leaves that interpolate alike, made one."""
    fused: list[Node] = []
    run: list[Leaf] = []

    def end_run() -> None:
        fused.extend(run if len(run) < 2 else [FusedLeaves(leaves=tuple(run))])
        run.clear()

    for node in nodes:
        if not (isinstance(node, Leaf) and isinstance(node.perturbation, AffinePerturbation)):
            end_run()
            fused.append(node)
            continue
        if run and sampling_of(run[-1].perturbation) != sampling_of(node.perturbation):
            end_run()
        run.append(node)
    end_run()
    return tuple(fused)


def _check_order(tree: Node, text: str) -> None:
    """A spatial or colour change after a pixel attack would break its eps-ball: refuse it."""

    def attack_so_far(node: Node, before: str) -> str:
        """A pixel attack at or before the end of ``node``, or none; ``before`` lies before it."""
        match node:
            case Leaf(call=call, perturbation=perturbation):
                if perturbation.kind == "pixel":
                    return call.name
                if before:
                    raise UserError(
                        f"in {text!r}: {call.name} after {before} would break the eps-ball of "
                        f"{before}; write {call.name}+{before}"
                    )
                return before
            case ChainNode(links=parts) | FusedLeaves(leaves=parts):
                for part in parts:
                    before = attack_so_far(part, before)
                return before
            case UnionNode(branches=branches) | WorstNode(branches=branches):
                ends = [attack_so_far(branch, before) for branch in branches]
                return next(filter(None, ends), "")
            case GridNode(branches=searched):
                ends = [attack_so_far(branch.node, before) for branch in searched]
                return next(filter(None, ends), "")
        raise AssertionError(node)

    attack_so_far(tree, "")
