"""Random expressions over all registered perturbations keep the norm bound of each."""

import functools
import random

import pytest
import torch
from curricula_torchattacks.attacks import CLASSES
from curricula_torchattacks.autoattack import AutoAttack
from fixtures.small import BUDGETS, small_perturbations
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.expressions.binding import bind
from curricula.expressions.nodes import Leaf
from curricula.interfaces import ParametricPerturbation
from curricula.victim.model_victim import ModelVictim

SEEDS = range(120)  # each perturbation leads two expressions
ORDER = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


@pytest.fixture(scope="module")
def scene():
    """A tiny victim of four classes, and four colour images, higher than wide."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(36, 4),
    )  # fmt: skip
    x = torch.rand((4, 3, 12, 10), generator=torch.Generator().manual_seed(1))
    return ModelVictim(model), x, torch.arange(4)


@pytest.fixture(autouse=True)
def short_autoattack(monkeypatch):
    """Shorten the four parts of AutoAttack, which an expression cannot."""
    ball = {"budget": 0.1, "norm": "linf"}
    parts = (
        CLASSES["APGD"](**ball, steps=2),
        CLASSES["APGDT"](**ball, steps=2),
        CLASSES["FAB"](**ball, max_steps=2),
        CLASSES["Square"](**ball, n_queries=8),
    )
    monkeypatch.setattr(AutoAttack, "parts", parts)


@functools.cache
def known():
    """Return each registered perturbation as a test writes it, and its kind, both by name; and the
    names of those that have parameters, and of those for training only."""
    calls = small_perturbations()
    built = {}
    for name, call in calls.items():
        (leaf,) = bind(call, budgets=BUDGETS).leaves.values()
        built[name] = leaf.perturbation
    return (
        calls,
        {name: found.kind for name, found in built.items()},
        {name for name, found in built.items() if isinstance(found, ParametricPerturbation)},
        {name for name, found in built.items() if found.training_only},
    )


class Grammar:
    """Random expressions; each has ``must`` among its leaves."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.calls, self.kind, self.parametric, self.training_only = known()
        names = sorted(self.calls)
        self.must = names[seed % len(names)]

    def expression(self):
        """Return a chain of spatial or intensity links, then pixel links; sometimes a union of two
        chains."""
        whole = self.chain(self.must)
        if self.random.random() < 0.3:
            branches = [whole, self.chain(None)]
            self.random.shuffle(branches)
            whole = "|".join(branches)
            if self.random.random() < 0.5:
                whole = f"worst({whole}, k=2)"
        return whole

    def chain(self, must):
        transformed, pixel = [], []
        if must is not None:
            (pixel if self.kind[must] == "pixel" else transformed).append(self.calls[must])
        transformed += [self.transformed_link() for _ in range(self.random.randint(0, 2))]
        self.random.shuffle(transformed)
        if not pixel and self.random.random() < 0.5:
            pixel.append(self.calls[self.pick(lambda name: self.kind[name] == "pixel")])
        links = transformed + pixel or ["clean"]
        text = "+".join(links)
        return f"worst({text}, k=2)" if self.random.random() < 0.2 else text

    def transformed_link(self):
        choice = self.random.random()
        leaf = self.calls[self.pick(lambda name: self.kind[name] != "pixel")]
        if choice < 0.15:
            return f"worst({leaf}, k=2)"
        if choice < 0.3:
            other = self.calls[self.pick(lambda name: self.kind[name] != "pixel")]
            return f"({leaf}|{other}|clean)"
        if choice < 0.45:
            name = self.pick(lambda name: name in self.parametric)
            return f"grid({self.calls[name]}, {name}=2)"
        return leaf

    def pick(self, suits):
        return self.random.choice([name for name in sorted(self.calls) if suits(name)])


def watch(monkeypatch):
    """Check the norm bound of every leaf that runs, against its own input; return the list that
    collects their labels."""
    ran = []
    run = Leaf.run

    def watched(self, views, context):
        before = views.perturbed
        after = run(self, views, context)
        norm_bound = self.perturbation.norm_bound
        strength = torch.as_tensor(context.strengths[self.label]).expand(len(before))
        change = (after.perturbed - before).flatten(1).double()
        if norm_bound is not None:
            norm = torch.linalg.vector_norm(change, ord=ORDER[norm_bound.norm], dim=1)
            assert (norm <= strength * norm_bound.radius + 2e-6 * max(1, norm_bound.radius)).all()
        assert not change[strength == 0].any()
        ran.append(self.label)
        return after

    monkeypatch.setattr(Leaf, "run", watched)
    return ran


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_expression_keeps_every_norm_bound(seed, scene, monkeypatch):
    victim, x, y = scene
    grammar = Grammar(seed)
    text = grammar.expression()
    curriculum = Curriculum.parse(text, budgets=BUDGETS)
    assert grammar.must in {leaf.call.name for leaf in curriculum.tree.leaves.values()}
    ran = watch(monkeypatch)
    draws = torch.Generator().manual_seed(seed)
    strengths = {}
    for i, label in enumerate(curriculum.tree.leaves):
        each = torch.rand(len(x), generator=draws).round(decimals=1)
        strengths[label] = each if i % 2 else grammar.random.random()

    def run(expression):
        return Curriculum.parse(expression, budgets=BUDGETS)(
            x, y, strengths=strengths, victim=victim, generator=torch.Generator().manual_seed(seed)
        )

    original, global_state = x.clone(), torch.get_rng_state()
    views = run(text)
    if grammar.kind[grammar.must] == "pixel" and "|" not in text:
        assert grammar.must in ran  # a union's branch may have no image
    assert torch.equal(views.clean, original)
    assert torch.equal(x, original)
    assert torch.equal(torch.get_rng_state(), global_state)
    for view in (views.transformed, views.perturbed):
        assert view.shape == x.shape
        assert view.dtype == x.dtype
        assert view.isfinite().all()
        assert view.min() >= 0
        assert view.max() <= 1
        assert not view.requires_grad

    # The printed expression gives the same images, and strength 0 is the identity.
    assert torch.equal(run(str(curriculum)).perturbed, views.perturbed)
    strengths = dict.fromkeys(strengths, 0.0)
    assert torch.equal(run(text).perturbed, x)

    if not grammar.training_only & {leaf.call.name for leaf in curriculum.tree.leaves.values()}:
        found = Threat.parse(text, budgets=BUDGETS)(x, y, victim=victim, generator=draws)
        assert found.min() >= 0
        assert found.max() <= 1


def test_the_random_expressions_cover_every_perturbation_and_every_form():
    expressions = [Grammar(seed).expression() for seed in SEEDS]
    for name in known()[0]:
        assert any(name in text for text in expressions), name
    for form in ("worst(", "grid(", "|", "+", "clean"):
        assert sum(form in text for text in expressions) > 20, form
