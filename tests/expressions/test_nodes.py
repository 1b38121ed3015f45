"""The nodes of an expression: their passes, their part without attacks, and a new kind of node."""

import math

import attrs
import pytest
import torch
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.expressions import nodes
from curricula.expressions.binding import bind
from curricula.expressions.checks import check_perturbation
from curricula.expressions.nodes import ChainNode, Context, Leaf, Node
from curricula.expressions.syntax import Argument, Call, parse_call
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
        ("pgd(0.1, step=0.02, steps=auto)", 13),  # 2.5 x 0.1 / 0.02, rounded up
        ("pgd(0.1, steps=4, restarts=3)", 3 * 5),  # each result is ranked by one more pass
        ("pgd(0.1, steps=4, loss=kl)", 1 + 4),  # the reference logits
        ("pgd(0.1, steps=auto, restarts=2, loss=kl)", 1 + 2 * 11),
        ("apgd(0.1, steps=4)", 5),  # the gradient at the start as well
        ("apgd(0.1, steps=4, restarts=2)", 2 * 6),
        ("apgd(5, norm=l1, steps=4, targets=1)", 1 + 2 * (4 + 3 + 1)),  # three balls
        ("mim(0.1, steps=4)", 4),
        ("fgsm:0.1", 1),
        ("rfgsm:0.1+rfgsm(0.1, loss=kl)", 1 + 2),
        ("brightness:0.4", 0),
        ("brightness(0.4, ascent=3)", 4),
        ("worst(contrast(0.4, ascent=3)+pgd(0.1, steps=4, restarts=2), k=3)", 3 * (4 + 10 + 1)),
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


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("third(0.1, steps=4, restarts=3)", 12),
        ("third(0.1, steps=4, queries=3)", 7),
        ("third(0.1, restarts=3)", 3),
        ("third(0.1)", 1),
    ],
)
def test_an_attack_that_declares_no_passes_takes_its_steps_times_its_restarts(text, passes):
    class ThirdParty:
        kind = "pixel"

    leaf = Leaf(label="third", perturbation=ThirdParty(), call=parse_call(text))
    assert leaf.max_passes == passes
    ThirdParty.passes = 99
    assert leaf.max_passes == 99


COSTLY = [
    ("pgd(0.1, steps=1e18)", "about 10^18 passes"),
    ("pgd(0.1, restarts=1000000000)", "11,000,000,000 passes"),
    ("pgd(norm=l2, budget=1, steps=auto, step=0.000002)", "1,249,999 passes"),
    ("square(0.1, queries=1000000000)", "1,000,000,000 passes"),
    ("apgd(0.1, steps=1e300)", "about 10^300 passes"),
    ("mim(0.1, steps=2000000)", "2,000,000 passes"),
    ("worst(worst(worst(rot:30, k=10000), k=10000), k=10000)", "1,000,100,010,000 passes"),
    ("worst(autoattack:0.1, k=1000)", "6,901,000 passes"),
    ("torchattacks-pgd(0.1, steps=1e18)", "about 10^18 passes"),
    ("torchattacks-spsa(0.1, nb_sample=1000000)", "passes"),
    ("torchattacks-cw(max_steps=100000000)", "100,000,000 passes"),
    ("torchattacks-eadl1(binary_search_steps=100000)", "passes"),
    ("worst(" * 48 + "rot:30" + ", k=10000)" * 48, "about 10^192 passes"),
    ("+".join(["pgd(0.1, steps=10000)"] * 101), "1,010,000 passes"),
    ("|".join(["grid(trans:3, trans=99)"] * 110), "passes"),
]


@pytest.mark.parametrize(("text", "figure"), COSTLY)
def test_work_beyond_any_use_is_refused_with_its_figure(text, figure):
    with pytest.raises(UserError) as caught:
        bind(text)
    message = str(caught.value)
    assert f"{figure} per image; at most 1,000,000 are allowed: lower k, steps" in message
    assert "\n" not in message
    assert len(message) < 600


def test_a_million_passes_are_allowed():
    assert bind("square(0.1, queries=1000000)").max_passes == 10**6
    assert bind("worst(pgd(0.1, steps=99), k=10000)").max_passes == 10**6


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("grid(rot:30, rot=10000)", 10_000),
        ("grid(trans:3, trans=100)", 10_000),
        ("grid(crop:4, crop=10000)", 81),  # nine whole shifts along each axis
        ("grid(crop:0, crop=10000)", 1),
        ("grid(flip:0.5, flip=10000)", 2),
        ("grid(cutout:0.5, cutout=99)", 99**2 + 1),
        ("grid(perspective:0.5, perspective=10)", 10_000),
        ("grid(trans:3, trans=101)", None),
        ("grid(cutout:0.5, cutout=10000)", None),
        ("grid(perspective:0.5, perspective=10000)", None),
        ("grid(rot:30+rot:20, rot=101)", None),
        (f"grid({'+'.join(['perspective:0.5'] * 200)}, perspective=10000)", None),  # 10^3200
    ],
)
def test_a_grid_is_counted_without_being_laid_out(text, size, monkeypatch):
    laid_out = []
    product = torch.cartesian_prod

    def counted(*axes):
        laid_out.append(math.prod(map(len, axes)))
        return product(*axes)

    monkeypatch.setattr(torch, "cartesian_prod", counted)
    if size is None:
        with pytest.raises(UserError, match="points; at most 10,000 are allowed"):
            bind(text)
    else:
        assert bind(text).max_passes == size
    assert max(laid_out, default=0) < 15_000


def test_the_number_of_perturbations_is_bounded():
    assert len(bind("+".join(["rot:30"] * 200)).leaves) == 200
    for text in ("+".join(["rot:30"] * 201), "|".join(["rot:30"] * 4000)):
        for check in (bind, check_perturbation):
            with pytest.raises(UserError, match="at most 200 perturbations"):
                check(text)


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
    assert tree.max_passes == 2 * (1 + 7) + 1
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
