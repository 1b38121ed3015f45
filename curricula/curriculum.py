"""What is done to a batch: expressions bound to perturbations, and run.

An expression's leaves are perturbations; its inner nodes (chain, union, worst) live here, and know
no perturbation by name. `bind` turns syntax into a tree of nodes; a `Curriculum` runs the tree at
the strengths of its schedules, a `Threat` at fixed ones.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula import construct
from curricula.errors import UserError
from curricula.expression import (
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
from curricula.geometry import compose, identity_theta, warp
from curricula.interfaces import (
    AffinePerturbation,
    Feedback,
    Interpolation,
    ListeningSchedule,
    Padding,
    Perturbation,
    Progress,
    Schedule,
    ScheduleState,
    Strength,
    Victim,
    Views,
)
from curricula.losses import badness

CLEAN = "clean"
WORST = "worst"
RESERVED: Mapping[str, str] = {
    CLEAN: "the images as they are",
    WORST: "per image the worst of k draws: worst(EXPRESSION, k=10)",
}
DEFAULT_SCHEDULE = "linear"


# --------------------------------------------------------------------------------------- the tree


@attrs.frozen(kw_only=True)
class Situation:
    """What the nodes of a tree need besides the images; all tensors are of these N images.

    ``threat`` says how choices are read: a union is one random branch in training, the worst one
    in a threat; ``worst`` ranks by cross-entropy in training, and in a threat puts misclassified
    before correct, so that one fooling candidate is never given up for an unfooling one.
    """

    y_N: Tensor
    strengths: Mapping[str, Strength]
    victim: Victim
    generator: torch.Generator
    threat: bool

    def subset(self, index: Tensor) -> "Situation":
        """The same of some of the images."""
        return attrs.evolve(
            self,
            y_N=self.y_N[index],
            strengths={
                label: strength[index] if isinstance(strength, Tensor) else strength
                for label, strength in self.strengths.items()
            },
            victim=self.victim.subset(index),
        )


class Node(Protocol):
    """A part of the tree: from the views before it to the views after it."""

    def run(self, views: Views, situation: Situation) -> Views: ...


@attrs.frozen(kw_only=True)
class Leaf:
    """A perturbation in its place.

    Attributes:
        label: what ``--schedule LABEL=...`` calls it: ``rot``, ``pgd``, ``rot.2``.
        perturbation: what it does.
        call: how it is written, all defaults explicit.
    """

    label: str
    perturbation: Perturbation
    call: Call

    def run(self, views: Views, situation: Situation) -> Views:
        strength = situation.strengths[self.label]
        if not isinstance(strength, Tensor) and strength == 0:
            return views
        x = views.perturbed
        perturbed = self.perturbation(
            x,
            situation.y_N,
            strength=strength,
            victim=situation.victim.anchored(x),
            generator=situation.generator,
        )
        if self.perturbation.kind == "pixel":
            return attrs.evolve(views, perturbed=perturbed)
        return attrs.evolve(views, natural=perturbed, perturbed=perturbed)


@attrs.frozen(kw_only=True)
class FusedLeaves:
    """Neighbouring affine leaves of equal interpolation and padding: one matrix an image, one
    interpolation. They come before any pixel attack, so natural and perturbed views are one."""

    leaves: tuple[Leaf, ...]

    def run(self, views: Views, situation: Situation) -> Views:
        x = views.natural
        theta = identity_theta(len(x), x.device)
        moved = False
        for leaf in self.leaves:
            strength = situation.strengths[leaf.label]
            if not isinstance(strength, Tensor) and strength == 0:
                continue
            affine = leaf.perturbation
            assert isinstance(affine, AffinePerturbation)
            parameters = affine.sample(len(x), strength, situation.generator)
            theta = compose(theta, affine.matrix(parameters))
            moved = True
        if not moved:
            return views
        interpolation, padding = _sampling(self.leaves[0].perturbation)
        x = warp(x, theta, interpolation=interpolation, padding=padding)
        return attrs.evolve(views, natural=x, perturbed=x)


@attrs.frozen(kw_only=True)
class ChainNode:
    """Links one after the other. No links: the images as they are."""

    links: tuple[Node, ...]

    def run(self, views: Views, situation: Situation) -> Views:
        for link in self.links:
            views = link.run(views, situation)
        return views


@attrs.frozen(kw_only=True)
class UnionNode:
    """One random branch per image; only images of a branch pay for it."""

    branches: tuple[Node, ...]

    def run(self, views: Views, situation: Situation) -> Views:
        n = len(views.clean)
        generator = situation.generator
        choice = torch.randint(
            len(self.branches), (n,), generator=generator, device=generator.device
        )
        result = views.map(torch.Tensor.clone)
        for number, branch in enumerate(self.branches):
            index = (choice == number).nonzero().squeeze(1)
            if len(index) == 0:
                continue
            part = branch.run(views.map(lambda x, i=index: x[i]), situation.subset(index))  # type: ignore[misc]
            result = result.combined(part, lambda x, new, i=index: x.index_copy(0, i, new))  # type: ignore[misc]
        return result


@attrs.frozen(kw_only=True)
class WorstNode:
    """Per image, the worst among k draws of each branch. Candidates are made and ranked one at a
    time, so that memory does not grow with k."""

    branches: tuple[Node, ...]
    k: int

    def run(self, views: Views, situation: Situation) -> Views:
        best: Views | None = None
        best_N = torch.empty(0)
        for branch in self.branches:
            for _ in range(self.k):
                candidate = branch.run(views, situation)
                rank_N = self._rank(candidate, situation)
                if best is None:
                    best, best_N = candidate, rank_N
                    continue
                better = (rank_N > best_N)[:, None, None, None]
                best = best.combined(
                    candidate,
                    lambda old, new, m=better: torch.where(m, new, old),  # type: ignore[misc]
                )
                best_N = torch.maximum(best_N, rank_N)
        assert best is not None
        return best

    def _rank(self, views: Views, situation: Situation) -> Tensor:
        with torch.no_grad():
            logits = situation.victim.logits(views.perturbed)
        if situation.threat:
            return badness(logits, situation.y_N)
        return F.cross_entropy(logits, situation.y_N, reduction="none")


# ---------------------------------------------------------------------------------------- binding


@attrs.frozen(kw_only=True)
class Bound:
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
) -> Bound:
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
    return Bound(node=node, expression=explicit, leaves=binder.leaves)


def parse_value(text: str) -> Value:
    """A single value, as it would stand inside parentheses."""
    return parse_call(f"value({text})").arguments[0].value


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
        inner: Expression | None = None
        k: Value = Number(10)
        for argument in call.arguments:
            if argument.key == "k":
                k = argument.value
            elif argument.key is None and inner is None:
                if not isinstance(argument.value, (Call, Chain, Union)):
                    raise UserError(f"{call}: expected an expression, not {argument.value}")
                inner = argument.value
            else:
                raise UserError(f"{call}: unexpected argument {argument}; write worst(EXPR, k=10)")
        if inner is None:
            raise UserError(f"{call}: nothing to take the worst of; write worst(EXPR, k=10)")
        if not isinstance(k, Number) or k.value < 1 or not k.value.is_integer():
            raise UserError(f"{call}: k must be a whole number, 1 or more, not {k}")
        branches = inner.branches if isinstance(inner, Union) else (inner,)
        nodes, explicit = self._each(branches)
        arguments = (Argument(union(*explicit)), Argument(k, "k"))
        return WorstNode(branches=nodes, k=int(k.value)), Call(WORST, arguments)

    def _leaf(self, call: Call) -> tuple[Node, Expression]:
        built = construct.build(
            "perturbation", self._budgeted(call), defaults=self._defaults_of(call)
        )
        perturbation: Perturbation = built.value
        if self.threat and perturbation.training_only:
            raise UserError(f"{call}: {call.name} is for training only and cannot be a threat")
        label, count = call.name, 1
        while label in self.leaves:
            count += 1
            label = f"{call.name}.{count}"
        leaf = Leaf(label=label, perturbation=perturbation, call=built.call)
        self.leaves[label] = leaf
        return leaf, built.call

    def _defaults_of(self, call: Call) -> Mapping[str, Value]:
        return {name: value for name, value in self.defaults.items() if name != "budget"}

    def _budgeted(self, call: Call) -> Call:
        """The call with the data set's standard budget, if it states none and needs one."""
        given = any(argument.key in (None, "budget") for argument in call.arguments)
        if given or construct.has_default("perturbation", call.name, "budget"):
            return call
        if "budget" not in construct.parameters_of("perturbation", call.name):
            return call
        # The unit may depend on the other arguments (pgd's on its norm): ask a probe.
        one = Argument(Number(1))
        probe = construct.build(
            "perturbation",
            attrs.evolve(call, arguments=(one, *call.arguments)),
            defaults=self._defaults_of(call),
        )
        budget = self.budgets.get(probe.value.unit)
        if budget is None:
            known = ", ".join(f"{text} {unit}" for unit, text in self.budgets.items()) or "none"
            raise UserError(
                f"{call}: there is no standard budget in {probe.value.unit} here "
                f"(there is: {known}); write {call.name}:BUDGET"
            )
        return attrs.evolve(call, arguments=(Argument(budget), *call.arguments))


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
        if run and _sampling(run[-1].perturbation) != _sampling(node.perturbation):
            end_run()
        run.append(node)
    end_run()
    return tuple(fused)


def _sampling(perturbation: Perturbation) -> tuple[Interpolation, Padding]:
    assert isinstance(perturbation, AffinePerturbation)
    return perturbation.interpolation, perturbation.padding


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
        raise AssertionError(node)

    attack_so_far(tree, "")


# ------------------------------------------------------------------------------- running the tree


@attrs.frozen(kw_only=True)
class Threat:
    """An expression at a fixed strength, to evaluate under."""

    bound: Bound
    strength: float = 1.0

    @classmethod
    def parse(
        cls, text: str, *, budgets: Mapping[str, str] | None = None, strength: float = 1.0
    ) -> "Threat":
        """A threat from text such as ``rot:30+pgd(8/255, steps=40)``; ``clean`` changes nothing.

        Raises:
            UserError: as `bind` does.
        """
        return cls(bound=bind(text, budgets=budgets, threat=True), strength=strength)

    def __str__(self) -> str:
        return str(self.bound.expression)

    def __call__(
        self, x_NCHW: Tensor, y_N: Tensor, *, victim: Victim, generator: torch.Generator
    ) -> Tensor:
        """The perturbed images."""
        situation = Situation(
            y_N=y_N,
            strengths=dict.fromkeys(self.bound.leaves, self.strength),
            victim=victim,
            generator=generator,
            threat=True,
        )
        return self.bound.node.run(_unchanged(x_NCHW), situation).perturbed


def _unchanged(x_NCHW: Tensor) -> Views:
    return Views(clean=x_NCHW, natural=x_NCHW, perturbed=x_NCHW)


ScheduleStates: TypeAlias = Mapping[str, ScheduleState]


@attrs.frozen(kw_only=True)
class Curriculum:
    """An expression over perturbations, each with its own schedule.

    Attributes:
        bound: the expression.
        schedules: by label of a leaf.
        schedule_calls: the same as text, all defaults explicit.
    """

    bound: Bound
    schedules: Mapping[str, Schedule]
    schedule_calls: Mapping[str, Call]

    @classmethod
    def parse(
        cls,
        perturb: str,
        schedules: Sequence[str] = (),
        *,
        budgets: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> "Curriculum":
        """A curriculum from text.

        Args:
            perturb: an expression such as ``rot:30+pgd:8/255``; ``clean`` changes nothing.
            schedules: each ``SCHEDULE`` for all leaves or ``LABEL=SCHEDULE`` for one; the later
                wins. By default linear to full strength at 40 % of training.
            budgets: as for `bind`.
            defaults: as for `bind`.

        Raises:
            UserError: as `bind` does; an unknown label or schedule.
        """
        bound = bind(perturb, budgets=budgets, defaults=defaults)
        calls = dict.fromkeys(bound.leaves, parse_call(DEFAULT_SCHEDULE))
        for text in schedules:
            label, call = parse_schedule(text)
            if label is None:
                construct.build("schedule", call)  # also where there is no leaf to use it
                calls = dict.fromkeys(calls, call)
            elif label in calls:
                calls[label] = call
            else:
                raise UserError(
                    f"--schedule {text}: no perturbation is called {label!r} here; "
                    f"there is {', '.join(calls) or 'none'}"
                )
        built = {label: construct.build("schedule", call) for label, call in calls.items()}
        return cls(
            bound=bound,
            schedules={label: schedule.value for label, schedule in built.items()},
            schedule_calls={label: schedule.call for label, schedule in built.items()},
        )

    def __str__(self) -> str:
        return str(self.bound.expression)

    def start(self, num_train: int) -> dict[str, ScheduleState]:
        """The state of each schedule before training on ``num_train`` images."""
        return {
            label: schedule.start(num_train) if isinstance(schedule, ListeningSchedule) else {}
            for label, schedule in self.schedules.items()
        }

    def after_batch(
        self,
        states: ScheduleStates,
        *,
        indices_N: Tensor,
        correct_N: Tensor,
        strengths: Mapping[str, Strength],
    ) -> dict[str, ScheduleState]:
        """The states after a batch, of which each listening schedule is told."""
        moved = dict(states)
        for label, schedule in self.schedules.items():
            if isinstance(schedule, ListeningSchedule):
                strength = torch.as_tensor(strengths[label], dtype=torch.float32)
                feedback = Feedback(
                    indices=indices_N,
                    correct=correct_N,
                    strength=strength.to(indices_N.device).expand(len(indices_N)),
                )
                moved[label] = schedule.after_batch(states[label], feedback)
        return moved

    def after_epoch(
        self, states: ScheduleStates, validation: Mapping[str, float]
    ) -> dict[str, ScheduleState]:
        """The states after an epoch, of whose validation each listening schedule is told."""
        return {
            label: schedule.after_epoch(states[label], validation)
            if isinstance(schedule, ListeningSchedule)
            else states[label]
            for label, schedule in self.schedules.items()
        }

    def strengths(
        self,
        progress: Progress,
        *,
        states: ScheduleStates | None = None,
        indices_N: Tensor | None = None,
    ) -> dict[str, Strength]:
        """The strength of each leaf now, by label: a float, or one value per image of the batch.

        Args:
            progress: how far training is.
            states: of the schedules, from `start`; may be left out where none listens.
            indices_N: of the batch's images in the training set; where a schedule is per image.
        """
        strengths: dict[str, Strength] = {}
        for label, schedule in self.schedules.items():
            strength = schedule(progress, (states or {}).get(label, {}))
            if isinstance(strength, Tensor) and strength.ndim == 1:
                if indices_N is None:
                    raise ValueError(f"the schedule of {label} is per image: give indices_N")
                strength = strength[indices_N]
            strengths[label] = strength
        return strengths

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strengths: Mapping[str, Strength],
        victim: Victim,
        generator: torch.Generator,
    ) -> Views:
        """The views of a batch at given strengths, all detached."""
        situation = Situation(
            y_N=y_N, strengths=strengths, victim=victim, generator=generator, threat=False
        )
        return self.bound.node.run(_unchanged(x_NCHW.detach()), situation)


def parse_schedule(text: str) -> tuple[str | None, Call]:
    """``[LABEL=]SCHEDULE`` in its two parts."""
    label, separator, rest = text.partition("=")
    if separator and "(" not in label:
        return label.strip(), parse_call(rest)
    return None, parse_call(text)
