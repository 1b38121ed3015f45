"""The inner nodes of an expression, and how they run on a batch.

The leaves are perturbations; the nodes know none of them by name. Every node takes the views of a
batch to the views after it.
"""

from collections.abc import Mapping
from typing import Protocol

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError
from curricula.expression import Call
from curricula.geometry import compose, identity_theta, warp
from curricula.interfaces import (
    AffinePerturbation,
    Interpolation,
    Padding,
    Perturbation,
    Strength,
    Victim,
    Views,
)
from curricula.losses import badness


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
        if perturbed.shape != x.shape:
            raise UserError(
                f"{self.call.name} turned images of shape {tuple(x.shape)} into "
                f"{tuple(perturbed.shape)}; a perturbation keeps the shape"
            )
        perturbed = perturbed.detach().clamp(0, 1)  # nobody knows what a stranger returns
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
            theta = compose(theta, affine.matrix(parameters).to(theta))
            moved = True
        if not moved:
            return views
        interpolation, padding = sampling_of(self.leaves[0].perturbation)
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


def sampling_of(perturbation: Perturbation) -> tuple[Interpolation, Padding]:
    """How an affine perturbation interpolates and what it shows outside."""
    assert isinstance(perturbation, AffinePerturbation)
    return perturbation.interpolation, perturbation.padding
