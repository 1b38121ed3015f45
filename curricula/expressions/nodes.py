"""The nodes of an expression: objects that perturb a batch of images.

A node runs on a batch, prints itself with all defaults, and knows its leaves, its cost and its part
without attacks. The leaves are perturbations; the other nodes know none of them by name.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError, amount, shortened
from curricula.expressions.batch_rows import BatchRows
from curricula.expressions.random_interception import intercept
from curricula.expressions.random_streams import Streams
from curricula.expressions.syntax import (
    Argument,
    Call,
    Chain,
    Expression,
    Number,
    Union,
    chain,
    error_in,
    union,
)
from curricula.geometry import compose, identity_theta, warp
from curricula.interfaces import (
    AffinePerturbation,
    Interpolation,
    Padding,
    ParametricPerturbation,
    Perturbation,
    Strength,
    Victim,
    Views,
)
from curricula.losses import adversarial_rank
from curricula.plugins.names import CLEAN, GRID, WORST
from curricula.runtime.values import described

PIXELS_AT_ONCE = 2**18
"""Pixels (images x H x W) of the candidates of a search that run together: 256 images of 32x32. If
one candidate of the whole batch has more, candidates run one at a time."""

MAX_CANDIDATES = 10_000  # candidates of worst(...) and points of grid(...); more is a typing error

# The grid of Engstrom et al. 2019: 31 angles, 5 x 5 shifts.
POINTS_OF_ONE_PARAMETER = 31  # values of the parameter
POINTS_OF_SEVERAL_PARAMETERS = 5  # values of each parameter

PASS_ARGUMENTS = ("steps", "queries")  # arguments that count the passes of an attack


@attrs.frozen(kw_only=True)
class Context:
    """The inputs of a node besides the images of a batch: labels, strengths, the model under
    attack, and sources of random numbers.

    Attributes:
        y_N: labels.
        strengths: strength of each leaf, by label.
        victim: the model that attacks and searches query.
        generator: source of random draws, on the images' device.
        threat: whether the images are for an evaluation. In training a union takes one random
            branch, and a search ranks candidates by cross-entropy. In an evaluation a union takes
            the worst branch, and a search keeps the first candidate that fools the model.
        parameters: (N, P) by label, for the leaves that a grid moves; they are not drawn.
        streams: random numbers of each image in an evaluation. None in training: the generator
            draws for the whole batch.
        rows: rows of the batch that these images are, if other processes hold the rest of it.
        differentiable: whether results keep their gradient in the images, as a network needs that
            perturbs its input. It is that of the drawn change; a perturbation that has none counts
            as the identity on the way back (BPDA, Athalye et al. 2018).
    """

    y_N: Tensor
    strengths: Mapping[str, Strength]
    victim: Victim
    generator: torch.Generator
    threat: bool
    parameters: Mapping[str, Tensor] = attrs.field(factory=dict)
    streams: Streams | None = None
    rows: BatchRows | None = None
    differentiable: bool = False

    def drawing(self) -> AbstractContextManager[Any]:
        """Return a context manager in which a perturbation's calls such as ``torch.rand`` draw from
        each image's own stream, if there are streams, or for the whole batch, if other processes
        hold a part of it.

        It uses one key of each image's stream, however many numbers are drawn, so that the draws of
        later links do not depend on that number.
        """
        if self.streams is None:
            return nullcontext() if self.rows is None else self.rows.drawing(self.generator)
        return intercept(self.streams.split(), self.generator)

    def subset(
        self, index: Tensor, streams: Streams | None = None, rows: BatchRows | None = None
    ) -> "Context":
        """Return a context for the images at ``index`` only, with the given random streams, which
        are the given rows of a batch."""
        return attrs.evolve(
            self,
            y_N=self.y_N[index],
            strengths={
                label: strength[index] if isinstance(strength, Tensor) else strength
                for label, strength in self.strengths.items()
            },
            victim=self.victim.subset(index),
            parameters={label: given[index] for label, given in self.parameters.items()},
            streams=streams,
            rows=rows,
        )


class Node(ABC):
    """A part of an expression that perturbs a batch of images: a perturbation, a chain, a union or
    a search.

    ``str(node)`` is the expression with all defaults explicit; binding it again gives the same. A
    new kind of node is one subclass, whose ``from_call`` is listed in `CALL_NODES` under a name
    that `curricula.plugins.names` reserves.
    """

    @property
    @abstractmethod
    def expression(self) -> Expression:
        """The expression that this node was built from, with all defaults explicit."""

    @property
    @abstractmethod
    def parts(self) -> tuple["Node", ...]:
        """The nodes directly inside this node, left to right."""

    @abstractmethod
    def run(self, views: Views, context: Context) -> Views:
        """Return the clean, transformed and perturbed images after this node, given those before
        it."""

    @property
    @abstractmethod
    def max_passes(self) -> int:
        """Maximum number of gradient and forward passes per image in an evaluation, reached for an
        image that is never fooled."""

    @abstractmethod
    def without_attacks(self) -> "Node | None":
        """Return a node without pixel attacks, training-only perturbations and searches, or None if
        it would be empty. ``worst(rot|trans, k=3)+pgd`` becomes ``rot|trans``; labels do not
        change."""

    @property
    def leaves(self) -> Mapping[str, "Leaf"]:
        """The nodes of single perturbations inside this node, by label, left to right."""
        return {label: leaf for part in self.parts for label, leaf in part.leaves.items()}

    @property
    def is_chain(self) -> bool:
        """True for ``clean``, a single perturbation, or a chain of perturbations without a union or
        a search inside."""
        return False

    def check_order(self, attack: str, text: str) -> str:
        """Check that no spatial or intensity change follows a pixel attack, because it would break
        the attack's eps-ball.

        Args:
            attack: name of a pixel attack before this node, or "".
            text: the whole expression, for the message.

        Returns:
            The name of a pixel attack before the end of this node, or "".

        Raises:
            UserError: a spatial or intensity change follows a pixel attack.
        """
        ends = [part.check_order(attack, text) for part in self.parts]
        return next(filter(None, ends), attack)

    def __str__(self) -> str:
        return str(self.expression)


class Binder(Protocol):
    """Turns the expressions inside a call, such as the branches of ``worst``, into nodes."""

    def bind(self, expression: Expression) -> Node:
        """Return the node of an expression that a call contains."""
        ...


@attrs.frozen(kw_only=True)
class CleanNode(Node):
    """A node that returns the images unchanged: ``clean``."""

    @classmethod
    def from_call(cls, call: Call, binder: Binder) -> "CleanNode":
        """Return the node of the call ``clean``, which takes no arguments."""
        if call.arguments:
            raise error_in(call, f"{CLEAN} takes no arguments")
        return cls()

    @property
    def expression(self) -> Expression:
        return Call(CLEAN)

    @property
    def parts(self) -> tuple[Node, ...]:
        return ()

    @property
    def is_chain(self) -> bool:
        return True

    @property
    def max_passes(self) -> int:
        return 0

    def run(self, views: Views, context: Context) -> Views:
        return views

    def without_attacks(self) -> Node | None:
        return None


@attrs.frozen(kw_only=True)
class Leaf(Node):
    """A node that runs one perturbation of an expression, under its label.

    Attributes:
        label: its name in ``--schedule LABEL=...``: ``rot``, ``pgd``, ``rot.2``.
        perturbation: the perturbation.
        call: its call, with all defaults explicit.
    """

    label: str
    perturbation: Perturbation
    call: Call

    @property
    def expression(self) -> Expression:
        return self.call

    @property
    def parts(self) -> tuple[Node, ...]:
        return ()

    @property
    def leaves(self) -> Mapping[str, "Leaf"]:
        return {self.label: self}

    @property
    def is_chain(self) -> bool:
        return True

    @property
    def max_passes(self) -> int:
        """Maximum number of passes per image: ``perturbation.passes`` if declared, otherwise (steps
        + queries) x restarts as written in the call, and at least 1 for a pixel attack."""
        declared: int | None = getattr(self.perturbation, "passes", None)
        if declared is not None:
            return declared
        numbers = {
            argument.key: int(argument.value.value)
            for argument in self.call.arguments
            if isinstance(argument.value, Number)
        }
        passes = sum(numbers.get(name, 0) for name in PASS_ARGUMENTS)
        at_least = 1 if self.perturbation.kind == "pixel" else 0
        return max(passes, at_least) * max(numbers.get("restarts", 0), 1)

    def run(self, views: Views, context: Context) -> Views:
        strength = context.strengths[self.label]
        if not isinstance(strength, Tensor) and strength == 0:
            return views
        x = views.perturbed
        given = context.parameters.get(self.label)
        perturbed: Any  # by third-party code
        if given is not None:
            assert isinstance(self.perturbation, ParametricPerturbation)
            perturbed = self.perturbation.apply(x, given)
        elif context.differentiable and isinstance(self.perturbation, ParametricPerturbation):
            with context.drawing():
                drawn = self.perturbation.sample(len(x), strength, context.generator)
            perturbed = self.perturbation.apply(x, drawn)
        else:
            with context.drawing():
                perturbed = self.perturbation(
                    x,
                    context.y_N,
                    strength=strength,
                    victim=context.victim.with_reference(x),
                    generator=context.generator,
                )
        if not isinstance(perturbed, Tensor) or not perturbed.is_floating_point():
            raise UserError(
                f"{self.call.name} returned {described(perturbed)}; a perturbation returns "
                "floating-point images in [0, 1]"
            )
        if perturbed.shape != x.shape:
            raise UserError(
                f"{self.call.name} turned images of shape {tuple(x.shape)} into "
                f"{tuple(perturbed.shape)}; a perturbation keeps the shape"
            )
        # Third-party code may return gradients, other types or values outside [0, 1].
        if not context.differentiable:
            perturbed = perturbed.detach()
        perturbed = perturbed.to(x.dtype).clamp(0, 1)
        if context.differentiable and x.requires_grad and not perturbed.requires_grad:
            perturbed = x - x.detach() + perturbed
        if self.perturbation.kind == "pixel":
            return attrs.evolve(views, perturbed=perturbed)
        return attrs.evolve(views, transformed=perturbed, perturbed=perturbed)

    def without_attacks(self) -> Node | None:
        attacks = self.perturbation.kind == "pixel" or self.perturbation.training_only
        return None if attacks else self

    def check_order(self, attack: str, text: str) -> str:
        name = self.call.name
        if self.perturbation.kind == "pixel":
            return name
        if attack:
            raise UserError(
                f"in {shortened(text)!r}: {name} after {attack} would break the eps-ball of "
                f"{attack}; write {name}+{attack}"
            )
        return attack


@attrs.frozen(kw_only=True)
class _LinksNode(Node):
    """A node that runs several nodes one after another, each on the images of the one before."""

    links: tuple[Node, ...]

    @property
    def expression(self) -> Expression:
        return chain(*(link.expression for link in self.links))

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.links

    @property
    def is_chain(self) -> bool:
        return all(link.is_chain for link in self.links)

    @property
    def max_passes(self) -> int:
        return sum(link.max_passes for link in self.links)

    def without_attacks(self) -> Node | None:
        kept = [node for link in self.links if (node := link.without_attacks()) is not None]
        return ChainNode.of(kept) if kept else None

    def check_order(self, attack: str, text: str) -> str:
        for link in self.links:
            attack = link.check_order(attack, text)
        return attack


@attrs.frozen(kw_only=True)
class FusedLeaves(_LinksNode):
    """A node that runs neighbouring affine perturbations of equal interpolation and padding as one
    matrix per image and one interpolation.

    No pixel attack precedes them, so the transformed and the perturbed view are the same.
    """

    links: tuple[Leaf, ...]

    def run(self, views: Views, context: Context) -> Views:
        x = views.transformed
        theta = identity_theta(len(x), x.device)
        moved = False
        for leaf in self.links:
            strength = context.strengths[leaf.label]
            if not isinstance(strength, Tensor) and strength == 0:
                continue
            affine = leaf.perturbation
            assert isinstance(affine, AffinePerturbation)
            parameters = context.parameters.get(leaf.label)
            if parameters is None:
                with context.drawing():
                    parameters = affine.sample(len(x), strength, context.generator)
            theta = compose(theta, affine.matrix(parameters).to(theta))
            moved = True
        if not moved:
            return views
        interpolation, padding = _sampling(self.links[0].perturbation)
        x = warp(x, theta, interpolation=interpolation, padding=padding)
        return attrs.evolve(views, transformed=x, perturbed=x)


@attrs.frozen(kw_only=True)
class ChainNode(_LinksNode):
    """A node that runs the links of a chain ``a+b`` one after another."""

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Node:
        """Return the node that runs the given nodes one after another: inner chains are flattened,
        and neighbouring affine perturbations fused. For a single node, return that node."""
        links = tuple(itertools.chain.from_iterable(map(_unfused, nodes)))
        return links[0] if len(links) == 1 else cls(links=_fused(links))

    def run(self, views: Views, context: Context) -> Views:
        for link in self.links:
            views = link.run(views, context)
        return views


@attrs.frozen(kw_only=True)
class UnionNode(Node):
    """A node that runs one branch of ``a|b`` per image: a random one in training, the worst one in
    an evaluation.

    In training the branch is random, and each branch runs only on its own images. In an evaluation
    all branches run, and the worst result is kept.
    """

    branches: tuple[Node, ...]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Node:
        """Return the node that runs one of the given nodes per image, with inner unions flattened.
        For a single node, return that node."""
        branches = tuple(
            branch
            for node in nodes
            for branch in (node.branches if isinstance(node, UnionNode) else (node,))
        )
        return branches[0] if len(branches) == 1 else cls(branches=branches)

    @property
    def expression(self) -> Expression:
        return union(*(branch.expression for branch in self.branches))

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.branches

    @property
    def max_passes(self) -> int:
        return sum(branch.max_passes + 1 for branch in self.branches)

    def run(self, views: Views, context: Context) -> Views:
        if context.threat:
            return _search((_Candidates(node=b, count=1) for b in self.branches), views, context)
        generator, rows = context.generator, context.rows
        total = len(views.clean) if rows is None else rows.total
        whole = torch.randint(
            len(self.branches), (total,), generator=generator, device=generator.device
        )
        choice = whole if rows is None else whole[rows.index_N]
        result = views.map(torch.Tensor.clone)
        # Counting is the only time that the host waits for the device.
        both = [torch.bincount(each, minlength=len(self.branches)) for each in (choice, whole)]
        counts, totals = torch.stack(both).tolist()
        order = torch.split(choice.argsort(stable=True), counts)
        for number, (branch, index) in enumerate(zip(self.branches, order, strict=True)):
            if totals[number] == 0:
                continue
            # Without images here, one still makes the draws of those that other processes hold.
            used = index if len(index) else index.new_zeros(1)
            inner = rows and rows.of(whole == number, totals[number], used)
            part = branch.run(views.map(lambda x, i=used: x[i]), context.subset(used, rows=inner))  # type: ignore[misc]
            if len(index) == 0:
                continue
            result = result.combined(part, lambda x, new, i=index: x.index_copy(0, i, new))  # type: ignore[misc]
        return result

    def without_attacks(self) -> Node | None:
        return _union_without_attacks(self.branches)


@attrs.frozen(kw_only=True)
class WorstNode(Node):
    """A node that keeps, for each image, the worst of k random draws of each branch: ``worst(a|b,
    k=10)``."""

    branches: tuple[Node, ...]
    k: int

    @classmethod
    def from_call(cls, call: Call, binder: Binder) -> "WorstNode":
        """Check the arguments of a parsed call, such as ``worst(EXPR, k=10)``, and return its
        node."""
        inner, keywords = _searched(call, "worst(EXPR, k=10)")
        if unknown := [argument for argument in keywords.values() if argument.key != "k"]:
            raise error_in(
                call, f"unexpected argument {shortened(unknown[0])}; write worst(EXPR, k=10)"
            )
        k = _count(call, keywords.get("k", Argument(Number(10), "k")))
        return cls(branches=tuple(map(binder.bind, inner)), k=k)

    @property
    def expression(self) -> Expression:
        inner = union(*(branch.expression for branch in self.branches))
        return Call(WORST, (Argument(inner), Argument(Number(self.k), "k")))

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.branches

    @property
    def max_passes(self) -> int:
        return self.k * sum(branch.max_passes + 1 for branch in self.branches)

    def run(self, views: Views, context: Context) -> Views:
        searches = [_Candidates(node=branch, count=self.k) for branch in self.branches]
        return _search(searches, views, context)

    def without_attacks(self) -> Node | None:
        return _union_without_attacks(self.branches)


@attrs.frozen(kw_only=True)
class GridBranch:
    """A chain of perturbations to search on a grid; ``points`` has the number of grid values per
    parameter of each searched perturbation, by label."""

    node: Node
    points: Mapping[str, int]

    @property
    def size(self) -> int:
        """Number of points of the grid, or an upper bound if there are more than
        `MAX_CANDIDATES`."""
        leaves = self.node.leaves
        return math.prod(_grid_size(leaves[label], n) for label, n in self.points.items())

    def candidates(self, context: Context) -> "_Candidates":
        """Return all points of the branch's grid as candidates, at the strengths of the context."""
        axes = {}
        for label, leaf in self.node.leaves.items():
            if label not in self.points:
                continue
            assert isinstance(leaf.perturbation, ParametricPerturbation)
            grid = leaf.perturbation.grid(context.strengths[label], self.points[label])
            grid = grid.to(context.y_N.device)
            # (G, N, P), whether the strength is one number or one per image
            axes[label] = grid if grid.ndim == 3 else grid[:, None].expand(-1, len(context.y_N), -1)
        count = math.prod(len(axis) for axis in axes.values())
        return _Candidates(node=self.node, count=count, axes=axes)


@attrs.frozen(kw_only=True)
class GridNode(Node):
    """A node that keeps, for each image, the worst point of each branch's grid: ``grid(rot+trans,
    rot=31, trans=5)``. Perturbations without a grid (pixel attacks) run at every point."""

    branches: tuple[GridBranch, ...]

    @classmethod
    def from_call(cls, call: Call, binder: Binder) -> "GridNode":
        """Check the arguments of a parsed call, such as ``grid(EXPR, rot=31)``, and return its
        node."""
        inner, keywords = _searched(call, "grid(EXPR, rot=31)")
        nodes = [binder.bind(expression) for expression in inner]
        moved = [_moved(call, node) for node in nodes]
        points: dict[str, int] = {}  # by name: all leaves of a name have equally fine grids
        for leaf, default in itertools.chain(*moved):
            name = leaf.call.short_name
            if name in keywords:
                points[name] = _count(call, keywords[name])
            else:
                points[name] = min(default, points.get(name, default))
        branches: list[GridBranch] = []
        for node, leaves in zip(nodes, moved, strict=True):
            branch = GridBranch(
                node=node, points={leaf.label: points[leaf.call.short_name] for leaf, _ in leaves}
            )
            if (size := branch.size) > MAX_CANDIDATES:
                raise error_in(
                    call,
                    f"a grid of {amount(size)} points; at most {MAX_CANDIDATES:,} are allowed: "
                    f"give fewer for a parameter, such as {next(iter(points))}=3",
                )
            branches.append(branch)
        if unknown := [argument for key, argument in keywords.items() if key not in points]:
            raise error_in(
                call,
                f"unexpected argument {shortened(unknown[0])}; the grid is over "
                f"{shortened(', '.join(points))}",
            )
        return cls(branches=tuple(branches))

    @property
    def expression(self) -> Expression:
        inner = union(*(branch.node.expression for branch in self.branches))
        leaves = self.leaves
        points = {
            leaves[label].call.short_name: count
            for branch in self.branches
            for label, count in branch.points.items()
        }
        keywords = (Argument(Number(count), name) for name, count in points.items())
        return Call(GRID, (Argument(inner), *keywords))

    @property
    def parts(self) -> tuple[Node, ...]:
        return tuple(branch.node for branch in self.branches)

    @property
    def max_passes(self) -> int:
        return sum(branch.size * (branch.node.max_passes + 1) for branch in self.branches)

    def run(self, views: Views, context: Context) -> Views:
        return _search((branch.candidates(context) for branch in self.branches), views, context)

    def without_attacks(self) -> Node | None:
        return _union_without_attacks(self.parts)


CALL_NODES: dict[str, Callable[[Call, Binder], Node]] = {
    CLEAN: CleanNode.from_call,
    WORST: WorstNode.from_call,
    GRID: GridNode.from_call,
}
"""The constructors of the nodes that are written as calls, by reserved name."""


@attrs.frozen(kw_only=True)
class _Candidates:
    """``count`` perturbed versions of each image to choose the worst from: random draws, or the
    points of a grid.

    ``axes`` (G, N, P) holds the values of each leaf that the grid moves, by label; the points are
    their product, in which the first axis varies slowest. Without axes, candidates are drawn.
    """

    node: Node
    count: int
    axes: Mapping[str, Tensor] = attrs.field(factory=dict)

    def parameters(self, number_M: Tensor, image_M: Tensor) -> dict[str, Tensor]:
        """Return the grid's parameters (M, P) of each perturbation, by label, for candidates
        ``number_M`` of images ``image_M``."""
        found: dict[str, Tensor] = {}
        slower = 1
        for label, axis in reversed(list(self.axes.items())):
            found[label] = axis[number_M // slower % len(axis), image_M]
            slower *= len(axis)
        return found


def _search(searches: Iterable[_Candidates], views: Views, context: Context) -> Views:
    """Return the clean, transformed and perturbed images of each image's worst candidate; the first
    candidate wins a tie.

    `PIXELS_AT_ONCE` limits how many candidates run together, so that memory does not grow with
    their number. In an evaluation only active images go on, and no more candidates run together
    than were tried before, since candidates after the first that fools an image are useless.
    """
    n, _, height, width = views.clean.shape
    device = views.clean.device
    streams = None if context.streams is None else context.streams.split()
    active = torch.arange(n, device=device)
    best, best_N = views, torch.full((n,), -math.inf, device=device)
    finished = 0  # candidates of the searches before this one
    for search in searches:
        begin = 0
        while begin < search.count and len(active) > 0:
            images = len(active) if context.rows is None else context.rows.total
            together = max(1, PIXELS_AT_ONCE // (images * height * width))
            if context.threat:
                together = min(together, max(1, begin))
            end = min(begin + together, search.count)
            image_M = active.repeat(end - begin)
            number_M = torch.arange(begin, end, device=device).repeat_interleave(len(active))
            several = context.subset(
                image_M,
                streams and streams.fold_in(image_M, finished + number_M),
                context.rows and context.rows.repeated(end - begin),
            )
            parameters = {**several.parameters, **search.parameters(number_M, image_M)}
            several = attrs.evolve(several, parameters=parameters)
            found = search.node.run(views.map(lambda x, i=image_M: x[i]), several)  # type: ignore[misc]
            with torch.no_grad():
                logits = several.victim.logits(found.perturbed)
            rank, which = _rank(logits, several).reshape(-1, len(active)).max(0)
            chosen = which * len(active) + torch.arange(len(active), device=device)
            better = rank > best_N[active]
            keep_better = partial(_keep_better, active=active, chosen=chosen, better=better)
            best = best.combined(found, keep_better)
            best_N = best_N.index_copy(0, active, torch.maximum(best_N[active], rank))
            if context.threat:
                still_active = several.victim.active(logits, several.y_N)
                active = active[still_active.reshape(-1, len(active)).all(0)]
            begin = end
        finished += search.count
    return best


def _keep_better(
    old: Tensor, new: Tensor, *, active: Tensor, chosen: Tensor, better: Tensor
) -> Tensor:
    """Return ``old`` with image ``active[i]`` replaced by ``new[chosen[i]]`` if ``better[i]``."""
    kept = torch.where(better[:, None, None, None], new[chosen], old[active])
    return old.index_copy(0, active, kept)


def _rank(logits_NK: Tensor, context: Context) -> Tensor:
    """Return a score (N,) for each candidate, higher if it is worse for the model.

    In an evaluation all candidates that fool the model rank equal, so that the first of them is
    kept and later ones need not be tried. Logits that are not finite rank highest, because
    dropping such a candidate would hide a broken model.
    """
    if context.threat:
        return adversarial_rank(logits_NK, context.y_N).clamp_max(1)
    return F.cross_entropy(logits_NK, context.y_N, reduction="none").nan_to_num(nan=math.inf)


def _union_without_attacks(branches: Iterable[Node]) -> Node | None:
    kept = [node for branch in branches if (node := branch.without_attacks()) is not None]
    return UnionNode.of(kept) if kept else None


def _unfused(node: Node) -> Iterator[Node]:
    """Yield the links of a chain one by one, with fused perturbations taken apart; a node that is
    no chain is its only link."""
    if isinstance(node, _LinksNode):
        for link in node.links:
            yield from _unfused(link)
    else:
        yield node


def _fused(links: Iterable[Node]) -> tuple[Node, ...]:
    """Return the links of a chain, with neighbouring affine perturbations of equal interpolation
    and padding fused into one link."""
    fused: list[Node] = []
    run: list[Leaf] = []

    def end_run() -> None:
        fused.extend(run if len(run) < 2 else [FusedLeaves(links=tuple(run))])
        run.clear()

    for link in links:
        if not (isinstance(link, Leaf) and isinstance(link.perturbation, AffinePerturbation)):
            end_run()
            fused.append(link)
            continue
        if run and _sampling(run[-1].perturbation) != _sampling(link.perturbation):
            end_run()
        run.append(link)
    end_run()
    return tuple(fused)


def _sampling(perturbation: Perturbation) -> tuple[Interpolation, Padding]:
    """Return the interpolation and padding of an affine perturbation."""
    assert isinstance(perturbation, AffinePerturbation)
    return perturbation.interpolation, perturbation.padding


def _searched(call: Call, usage: str) -> tuple[tuple[Call | Chain, ...], dict[str, Argument]]:
    """Return the branches inside a ``worst`` or ``grid`` call, and its keyword arguments by
    name."""
    inner: Expression | None = None
    keywords: dict[str, Argument] = {}
    for argument in call.arguments:
        if argument.key is not None:
            keywords[argument.key] = argument
        elif inner is None:
            if not isinstance(argument.value, (Call, Chain, Union)):
                raise error_in(call, f"expected an expression, not {shortened(argument.value)}")
            inner = argument.value
        else:
            raise error_in(call, f"unexpected argument {shortened(argument)}; write {usage}")
    if inner is None:
        raise error_in(call, f"nothing to search; write {usage}")
    return inner.branches if isinstance(inner, Union) else (inner,), keywords


def _count(call: Call, argument: Argument) -> int:
    """Return an argument as a whole number, after checking that it is from 1 to MAX_CANDIDATES."""
    written = argument.value
    number = written.value if isinstance(written, Number) else math.nan
    if not 1 <= number <= MAX_CANDIDATES or number % 1:
        raise error_in(
            call,
            f"{argument.key} must be a whole number from 1 to {MAX_CANDIDATES}, "
            f"not {shortened(written)}",
        )
    return int(number)


def _moved(call: Call, node: Node) -> list[tuple[Leaf, int]]:
    """Return the perturbations of a branch that ``grid`` varies, each with its default number of
    values per parameter."""
    if not node.is_chain:
        raise error_in(
            call,
            "grid(...) searches a chain of perturbations or a union of chains, with no "
            "union, worst or grid inside",
        )
    moved: list[tuple[Leaf, int]] = []
    for leaf in node.leaves.values():
        if isinstance(leaf.perturbation, ParametricPerturbation):
            one = _grid_axes(leaf) == 1
            moved.append((leaf, POINTS_OF_ONE_PARAMETER if one else POINTS_OF_SEVERAL_PARAMETERS))
        elif leaf.perturbation.kind != "pixel":
            raise error_in(call, f"{leaf.call.name} has no grid; draw it: worst(..., k=10)")
    if not moved:
        raise error_in(call, "there is no spatial or intensity change to lay a grid over")
    return moved


def _grid_axes(leaf: Leaf) -> int:
    """Return the number of parameters that a leaf's grid varies independently, at least 1."""
    assert isinstance(leaf.perturbation, ParametricPerturbation)
    return max(1, round(math.log(len(leaf.perturbation.grid(1.0, 3)), 3)))


def _grid_size(leaf: Leaf, points: int) -> int:
    """Return the number of points of a leaf's grid, or an upper bound if there are more than
    `MAX_CANDIDATES`, so that no large grid is built just to be counted."""
    assert isinstance(leaf.perturbation, ParametricPerturbation)
    axes = _grid_axes(leaf)
    too_many = int(MAX_CANDIDATES ** (1 / axes)) + 1  # values per parameter
    size = len(leaf.perturbation.grid(1.0, min(points, too_many)))
    return size if points <= too_many or size <= MAX_CANDIDATES else points**axes
