"""The nodes of an expression: their passes, their part without attacks, and a new kind of node."""

import attrs
import pytest
import torch
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.expressions import nodes
from curricula.expressions.binding import bind
from curricula.expressions.nodes import ChainNode, Context, Leaf, Node
from curricula.expressions.syntax import Argument, Call
from curricula.interfaces import Views
from curricula.plugins.names import RESERVED
from curricula.victim.model_victim import ModelVictim


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class NeverFooled(nn.Module):
    """Class 0 for every image; counts the images that it sees."""

    images = 0

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        NeverFooled.images += len(x)
        rest = self.shift + 0 * x.sum((1, 2, 3))
        return torch.stack([1 + rest, rest], 1)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("clean", 0),
        ("rot:30+trans:2", 0),
        ("rot:30+pgd(0.1, steps=4)", 4),
        ("square(0.1, queries=30)", 30),
        ("rot:30|pgd(0.1, steps=4)", 1 + 5),
        ("worst(rot:30, k=10)", 10),
        ("worst(rot:30|pgd(0.1, steps=4), k=10)", 10 * (1 + 5)),
        ("worst(rot:30|trans:1, k=3)+pgd(0.1, steps=4)", 3 * 2 + 4),
        ("grid(rot:30+trans:3)", 775),
        ("grid(rot:30+trans:3, rot=7, trans=3)", 7 * 3 * 3),
        ("grid(rot:30|trans:2, rot=5, trans=3)", 5 + 3 * 3),
        ("grid(rot:30+pgd(0.1, steps=4), rot=7)", 7 * 5),
        ("grid(flip:0.5)", 2),  # mirrored or not, for any number of values
        ("worst(grid(rot:30, rot=3)|trans:1, k=2)", 2 * (4 + 1)),
    ],
)
def test_max_passes_are_those_of_an_image_that_is_never_fooled(text, passes):
    threat = Threat.parse(text)
    victim = ModelVictim(NeverFooled(), early_stop=True)
    x = torch.rand((2, 1, 8, 8), generator=seeded())
    victim.logits(x)  # makes the frozen copy and compares it with the model
    NeverFooled.images = 0
    threat(x, torch.zeros(2, dtype=torch.long), victim=victim, generator=seeded())
    assert threat.tree.max_passes == NeverFooled.images / 2 == passes


def test_a_leaf_counts_its_steps_times_its_restarts_or_what_it_declares():
    restarts = bind("pgd(0.1, steps=4, restarts=3)")
    assert restarts.max_passes == 12

    class Declares:
        passes = 7

    assert attrs.evolve(restarts, perturbation=Declares()).max_passes == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clean", None),
        ("pgd:0.1|clean", None),
        ("rot:9+clean+trans:1+pgd:0.1", "rot:9+trans:1"),
        ("worst(rot:9|trans:1+pgd:0.1, k=3)+fgsm:0.1", "rot:9|trans:1"),
        ("grid(rot:9+pgd:0.1, rot=3)", "rot:9"),
        ("(rot:9+scale:0.1|clean)+trans:1+pgd:0.1", "rot:9+scale:0.1+trans:1"),
        ("rot:9|worst(trans:1|crop:2|pgd:0.1, k=2)", "rot:9|trans:1|crop:2"),
        ("pgd:0.1|(rot:9|trans:1)+rot:8", "(rot:9|trans:1)+rot:8"),
    ],
)
def test_without_attacks_is_what_the_shorter_expression_is_bound_to(text, expected):
    found = bind(text).without_attacks()
    if expected is None:
        assert found is None
        return
    bound = bind(expected)
    assert str(found) == str(bound)
    # The same links fuse, so that the images are the same too.
    x = torch.rand((4, 1, 8, 8), generator=seeded())
    empty = {"y_N": torch.zeros(4, dtype=torch.long), "victim": ModelVictim(NeverFooled())}
    views = Views(clean=x, transformed=x, perturbed=x)
    images = [
        tree.run(
            views,
            Context(
                strengths=dict.fromkeys(tree.leaves, 1.0), generator=seeded(), threat=False, **empty
            ),
        ).perturbed
        for tree in (found, bound)
    ]
    assert torch.equal(*images)


def test_every_reserved_name_is_a_node():
    assert set(nodes.CALL_NODES) == set(RESERVED)


@attrs.frozen(kw_only=True)
class TwiceNode(Node):
    """``twice(EXPR)``: the expression, applied two times."""

    inner: Node

    @classmethod
    def from_call(cls, call, binder):
        (argument,) = call.arguments
        return cls(inner=binder.bind(argument.value))

    @property
    def expression(self):
        return Call("twice", (Argument(self.inner.expression),))

    @property
    def parts(self):
        return (self.inner,)

    @property
    def max_passes(self):
        return 2 * self.inner.max_passes

    def run(self, views, context):
        return self.inner.run(self.inner.run(views, context), context)

    def without_attacks(self):
        inner = self.inner.without_attacks()
        return None if inner is None else TwiceNode(inner=inner)


@pytest.fixture
def twice(monkeypatch):
    monkeypatch.setitem(nodes.CALL_NODES, "twice", TwiceNode.from_call)


@pytest.mark.usefixtures("twice")
def test_a_new_node_is_one_class_and_its_name():
    curriculum = Curriculum.parse("worst(twice(roll:2)|twice(pgd(0.1, steps=3)), k=2)+fgsm:0.1")
    tree = curriculum.tree
    assert list(tree.leaves) == ["roll", "pgd", "fgsm"]
    assert "twice(roll:2)" in str(tree)
    assert str(bind(str(tree))) == str(tree)
    assert tree.max_passes == 2 * (1 + 7)
    assert str(tree.without_attacks()) == "twice(roll:2)"
    with pytest.raises(UserError, match=r"in 'twice\(pgd:0\.1\)\+rot:3': rot after pgd"):
        bind("twice(pgd:0.1)+rot:3")
    with pytest.raises(UserError, match="searches a chain of perturbations"):
        bind("grid(twice(roll:2))")


@pytest.mark.usefixtures("twice")
def test_a_new_node_runs_its_inner_expression():
    def shifted(text):
        x = torch.rand((4, 1, 8, 8), generator=seeded())
        labels, victim = torch.zeros(4, dtype=torch.long), ModelVictim(NeverFooled())
        return Threat.parse(text)(x, labels, victim=victim, generator=seeded())

    assert torch.equal(shifted("twice(brightness:0.2)"), shifted("brightness:0.2+brightness:0.2"))


def test_a_chain_of_chains_is_flattened_and_fused():
    links = bind("rot:9+trans:1").parts
    tree = ChainNode.of([ChainNode.of(links), *bind("scale:0.1+roll:2").parts])
    assert isinstance(tree, ChainNode)
    fused, roll = tree.links
    assert [leaf.label for leaf in fused.links] == ["rot", "trans", "scale"]
    assert isinstance(roll, Leaf)
