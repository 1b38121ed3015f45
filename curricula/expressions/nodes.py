"""The inner nodes of an expression, and how they run on a batch.

The leaves are perturbations; the nodes know none of them by name. Every node takes the views of a
batch to the views after it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError
from curricula.expressions.random_streams import Streams
from curricula.expressions.syntax import Call
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

PIXELS_AT_ONCE = 2**18
"""Candidates of a search run together while their pixels (H x W of each image) are at most so many:
256 images of 32x32. A batch that is larger by itself runs a candidate at a time."""


@attrs.frozen(kw_only=True)
class Context:
    """What the nodes of a tree need besides the images; all tensors are of these N images.

    ``threat`` says how choices are read: a union is one random branch in training, the worst one
    in a threat; ``worst`` ranks by cross-entropy in training, and in a threat keeps the first
    candidate that fools, so that it is never given up for an unfooling one.

    ``parameters`` (N, P), by label, are of the leaves that a grid moves: they are not drawn.

    ``streams`` give each image of a threat its own random numbers; in training there are none, and
    the generator draws for all at once.
    """

    y_N: Tensor
    strengths: Mapping[str, Strength]
    victim: Victim
    generator: torch.Generator
    threat: bool
    parameters: Mapping[str, Tensor] = attrs.field(factory=dict)
    streams: Streams | None = None

    def drawing(self) -> AbstractContextManager[Any]:
        """Around all that a perturbation draws. It takes one key of each image's stream, however
        much is drawn, so that what comes after in the expression does not depend on it."""
        if self.streams is None:
            return nullcontext()
        return self.streams.split().intercept(self.generator)

    def subset(self, index: Tensor, streams: Streams | None = None) -> "Context":
        """The same of some of the images, with random streams that are theirs."""
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
        )


class Node(Protocol):
    """A part of the tree: from the views before it to the views after it."""

    def run(self, views: Views, context: Context) -> Views: ...


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

    def run(self, views: Views, context: Context) -> Views:
        strength = context.strengths[self.label]
        if not isinstance(strength, Tensor) and strength == 0:
            return views
        x = views.perturbed
        given = context.parameters.get(self.label)
        if given is not None:
            assert isinstance(self.perturbation, ParametricPerturbation)
            perturbed = self.perturbation.apply(x, given)
        else:
            with context.drawing():
                perturbed = self.perturbation(
                    x,
                    context.y_N,
                    strength=strength,
                    victim=context.victim.with_reference(x),
                    generator=context.generator,
                )
        if perturbed.shape != x.shape:
            raise UserError(
                f"{self.call.name} turned images of shape {tuple(x.shape)} into "
                f"{tuple(perturbed.shape)}; a perturbation keeps the shape"
            )
        # nobody knows what a stranger returns
        perturbed = perturbed.detach().to(x.dtype).clamp(0, 1)
        if self.perturbation.kind == "pixel":
            return attrs.evolve(views, perturbed=perturbed)
        return attrs.evolve(views, transformed=perturbed, perturbed=perturbed)


@attrs.frozen(kw_only=True)
class FusedLeaves:
    """Neighbouring affine leaves of equal interpolation and padding: one matrix an image, one
    interpolation. They come before any pixel attack, so natural and perturbed views are one."""

    leaves: tuple[Leaf, ...]

    def run(self, views: Views, context: Context) -> Views:
        x = views.transformed
        theta = identity_theta(len(x), x.device)
        moved = False
        for leaf in self.leaves:
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
        interpolation, padding = sampling_of(self.leaves[0].perturbation)
        x = warp(x, theta, interpolation=interpolation, padding=padding)
        return attrs.evolve(views, transformed=x, perturbed=x)


@attrs.frozen(kw_only=True)
class ChainNode:
    """Links one after the other. No links: the images as they are."""

    links: tuple[Node, ...]

    def run(self, views: Views, context: Context) -> Views:
        for link in self.links:
            views = link.run(views, context)
        return views


@attrs.frozen(kw_only=True)
class UnionNode:
    """One random branch per image; only images of a branch pay for it."""

    branches: tuple[Node, ...]

    def run(self, views: Views, context: Context) -> Views:
        n = len(views.clean)
        generator = context.generator
        choice = torch.randint(
            len(self.branches), (n,), generator=generator, device=generator.device
        )
        result = views.map(torch.Tensor.clone)
        # Counting is the only time that the host waits for the device.
        counts = torch.bincount(choice, minlength=len(self.branches)).tolist()
        order = torch.split(choice.argsort(stable=True), counts)
        for branch, index in zip(self.branches, order, strict=True):
            if len(index) == 0:
                continue
            part = branch.run(views.map(lambda x, i=index: x[i]), context.subset(index))  # type: ignore[misc]
            result = result.combined(part, lambda x, new, i=index: x.index_copy(0, i, new))  # type: ignore[misc]
        return result


@attrs.frozen(kw_only=True)
class WorstNode:
    """Per image, the worst among k draws of each branch."""

    branches: tuple[Node, ...]
    k: int

    def run(self, views: Views, context: Context) -> Views:
        searches = [Candidates(node=branch, count=self.k) for branch in self.branches]
        return _worst(searches, views, context)


@attrs.frozen(kw_only=True)
class GridBranch:
    """A chain and how finely to search it: ``points`` values a parameter, by label of a leaf."""

    node: Node
    points: Mapping[str, int]


@attrs.frozen(kw_only=True)
class GridNode:
    """Per image, the worst among all points of each branch's grid; what has no place in the grid
    (a pixel attack) runs at every point."""

    branches: tuple[GridBranch, ...]

    def run(self, views: Views, context: Context) -> Views:
        return _worst((_grid(branch, context) for branch in self.branches), views, context)


def _grid(branch: GridBranch, context: Context) -> "Candidates":
    moved = {leaf.label: leaf for leaf in leaves_of(branch.node) if leaf.label in branch.points}
    axes = {}
    for label, leaf in moved.items():
        assert isinstance(leaf.perturbation, ParametricPerturbation)
        grid = leaf.perturbation.grid(context.strengths[label], branch.points[label])
        grid = grid.to(context.y_N.device)
        # (G, N, P), whether or not each image has a strength of its own
        axes[label] = grid if grid.ndim == 3 else grid[:, None].expand(-1, len(context.y_N), -1)
    counts = [len(axis) for axis in axes.values()]
    return Candidates(node=branch.node, count=math.prod(counts), axes=axes)


@attrs.frozen(kw_only=True)
class Candidates:
    """``count`` candidates of a node: random draws, or where there are ``axes`` (G, N, P) by
    label, their product, the first the slowest."""

    node: Node
    count: int
    axes: Mapping[str, Tensor] = attrs.field(factory=dict)

    def parameters(self, number_M: Tensor, image_M: Tensor) -> dict[str, Tensor]:
        """Of candidates by their number, each of an image, (M, P) by label."""
        found: dict[str, Tensor] = {}
        slower = 1
        for label, axis in reversed(list(self.axes.items())):
            found[label] = axis[number_M // slower % len(axis), image_M]
            slower *= len(axis)
        return found


def _worst(searches: Iterable[Candidates], views: Views, context: Context) -> Views:
    """Per image the first of the worst candidates. They run as many together as `PIXELS_AT_ONCE`
    allows, so that memory does not grow with their number.

    In a threat only images that the victim says stand go on, and never more candidates together
    than an image has already withstood, since those after the first that fools it are in vain.
    """
    n, _, height, width = views.clean.shape
    device = views.clean.device
    streams = None if context.streams is None else context.streams.split()
    active = torch.arange(n, device=device)
    best, best_N = views, torch.full((n,), -math.inf, device=device)
    before = 0  # candidates of the searches that are done
    for search in searches:
        begin = 0
        while begin < search.count and len(active) > 0:
            together = max(1, PIXELS_AT_ONCE // (len(active) * height * width))
            if context.threat:
                together = min(together, max(1, begin))
            end = min(begin + together, search.count)
            image_M = active.repeat(end - begin)
            number_M = torch.arange(begin, end, device=device).repeat_interleave(len(active))
            several = context.subset(
                image_M, streams and streams.fold_in(image_M, before + number_M)
            )
            parameters = {**several.parameters, **search.parameters(number_M, image_M)}
            several = attrs.evolve(several, parameters=parameters)
            found = search.node.run(views.map(lambda x, i=image_M: x[i]), several)  # type: ignore[misc]
            with torch.no_grad():
                logits = several.victim.logits(found.perturbed)
            rank, which = _rank(logits, several).reshape(-1, len(active)).max(0)
            chosen = which * len(active) + torch.arange(len(active), device=device)
            better = (rank > best_N[active])[:, None, None, None]
            best = best.combined(
                found,
                lambda old, new, c=chosen, s=active, m=better: old.index_copy(  # type: ignore[misc]
                    0, s, torch.where(m, new[c], old[s])
                ),
            )
            best_N = best_N.index_copy(0, active, torch.maximum(best_N[active], rank))
            if context.threat:
                stands = several.victim.active(logits, several.y_N)
                active = active[stands.reshape(-1, len(active)).all(0)]
            begin = end
        before += search.count
    return best


def _rank(logits_NK: Tensor, context: Context) -> Tensor:
    """Candidates of a threat that fool are all alike, so that the first of them is kept, whoever
    would have been tried after it. One whose logits are not numbers is the worst: passed over, it
    would hide that something is broken."""
    if context.threat:
        return adversarial_rank(logits_NK, context.y_N).clamp_max(1)
    return F.cross_entropy(logits_NK, context.y_N, reduction="none").nan_to_num(nan=math.inf)


def leaves_of(node: Node) -> Iterator[Leaf]:
    """The leaves of a chain, left to right."""
    match node:
        case Leaf():
            yield node
        case ChainNode(links=parts) | FusedLeaves(leaves=parts):
            for part in parts:
                yield from leaves_of(part)


def sampling_of(perturbation: Perturbation) -> tuple[Interpolation, Padding]:
    """How an affine perturbation interpolates and what it shows outside."""
    assert isinstance(perturbation, AffinePerturbation)
    return perturbation.interpolation, perturbation.padding
