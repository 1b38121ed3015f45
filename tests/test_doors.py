"""The door for images: whatever the caller's modes and memory formats, the same arithmetic; images
outside [0, 1] are one line."""

import math

import pytest
import torch
from torch import nn

import curricula
from curricula import Curriculum, Threat
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.victim.model_victim import ModelVictim

BUDGETS = {"degrees": "30", "pixels": "3", "linf": "8/255", "l2": "0.5", "l1": "2"}
TEXTS = (
    "rot:30+trans:3", "perspective:0.2", "elastic:3", "hue:0.2+contrast:0.3", "gaussian:0.1",
    "pgd(0.1, steps=2)", "pgd(0.5, norm=l2, steps=2, loss=kl)", "pgd(2, norm=l1, steps=2)",
    "apgd(0.1, steps=3)", "square(0.1, queries=3)", "worst(rot:30|trans:3, k=3)",
    "grid(rot:30, rot=3)+fgsm:0.1", "rot:30|pgd(0.1, steps=1)|clean",
)  # fmt: skip


def network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4)
    )


MODEL = network()
X = torch.rand((6, 3, 12, 12), generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4


def changed(text, x=X, y=Y, model=MODEL, strength=0.7):
    """Return the views of a curriculum, and the images of a threat."""
    curriculum = Curriculum.parse(text, budgets=BUDGETS)
    strengths = dict.fromkeys(curriculum.tree.leaves, strength)
    views = curriculum(
        x, y, strengths=strengths, victim=ModelVictim(model),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    if "nfgsm" in text:
        return [views.transformed, views.perturbed]
    threat = Threat.parse(text, budgets=BUDGETS, strength=strength)
    victim = ModelVictim(model, early_stop=True)
    attacked = threat(x, y, victim=victim, generator=torch.Generator().manual_seed(1))
    return [views.transformed, views.perturbed, attacked]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", TEXTS)
def test_an_outer_autocast_changes_nothing(text, dtype):
    expected = changed(text)
    with torch.autocast("cpu", dtype):
        assert_equal(changed(text), expected)


@pytest.mark.parametrize("text", TEXTS)
def test_inference_mode_changes_nothing(text):
    expected = changed(text)
    with torch.inference_mode():
        assert_equal(changed(text), expected)
        strength_N = torch.full((6,), 0.7)
        assert_equal(changed(text, X.clone(), Y.clone())[:2], expected[:2])
        inner = Curriculum.parse(text, budgets=BUDGETS)
        inner(
            X * 1, Y * 1, strengths=dict.fromkeys(inner.tree.leaves, strength_N),
            victim=ModelVictim(network()), generator=torch.Generator().manual_seed(1),
        )  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_default_dtype_of_float64_changes_nothing(text):
    expected = changed(text)
    torch.set_default_dtype(torch.float64)
    try:
        assert_equal(changed(text), expected)
        exact = network()
        assert {weight.dtype for weight in exact.parameters()} == {torch.float64}
        changed(text, X.double(), model=exact)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_network_that_makes_tensors_sees_its_own_default_dtype():
    class Makes(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(432, 4)

        def forward(self, x):
            return self.last(x.flatten(1) @ torch.eye(432))

    torch.set_default_dtype(torch.float64)
    try:
        changed("pgd(0.1, steps=2)", model=Makes())
    finally:
        torch.set_default_dtype(torch.float32)


FORMATS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda x: x[:, :, :, :, None].expand(-1, -1, -1, -1, 2)[..., 0],
    "a part": lambda x: torch.cat([x, x], 3)[..., :12],
    "every second": lambda x: x.repeat_interleave(2, 0)[::2],
    "turned": lambda x: x.flip(2).flip(2).mT.contiguous().mT,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_memory_format_of_images_changes_nothing(text, name):
    x = FORMATS[name](X)
    before = x.clone()
    assert_equal(changed(text, x), changed(text))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)],
)
@pytest.mark.parametrize("text", TEXTS)
def test_images_of_any_dtype_are_changed_in_float32(text, dtype, tolerance):
    x = X.to(dtype)
    found = changed(text, x)
    for one, other in zip(found, changed(text, x.float()), strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).abs().max() <= tolerance / 2
    for unchanged in changed(text, x, strength=0.0):
        assert torch.equal(unchanged, x)


@pytest.fixture(scope="module")
def every_perturbation():
    names = list(registry.current().records("perturbation"))
    assert len(names) > 20
    return names


def test_no_images_give_no_images(every_perturbation):
    refused = []
    for name in every_perturbation:
        try:
            curriculum = Curriculum.parse(name, budgets=BUDGETS)
        except UserError:
            refused.append(name)
            continue
        for x in (X[:0], X[:0].double()):
            strengths = dict.fromkeys(curriculum.tree.leaves, torch.zeros(0))
            views = curriculum(
                x, Y[:0], strengths=strengths, victim=ModelVictim(MODEL),
                generator=torch.Generator(),
            )  # fmt: skip
            for view in (views.clean, views.transformed, views.perturbed):
                assert view.shape == x.shape
                assert view.dtype == x.dtype
    assert len(refused) < len(every_perturbation) / 4  # those whose unit has no budget here


@pytest.mark.parametrize("text", TEXTS)
def test_a_threat_on_no_images_gives_no_images(text):
    threat = Threat.parse(text, budgets=BUDGETS)
    victim = ModelVictim(MODEL, early_stop=True)
    found = threat(X[:0], Y[:0], victim=victim, generator=torch.Generator())
    assert found.shape == (0, 3, 12, 12)


def test_a_victim_of_no_images_gives_no_logits():
    victim = ModelVictim(network())
    assert victim.logits(X[:0]).shape == (0, 4)
    assert victim.logits(X).shape == (6, 4)


OUTSIDE = {
    "bytes": (lambda x: (x * 255).round(), r"write x / 255$"),
    "16 bits": (lambda x: (x * 65535).round(), r"write x / 65535$"),
    "from -1 to 1": (
        lambda x: 2 * x - 1,
        r"write \(x \+ 1\) / 2, and attack .*Normalise\(0.5, 0.5",
    ),
    "normalised": (lambda x: (x - 0.45) / 0.22, r"undo their normalisation .*Normalise\(MEAN, STD"),
    "one pixel below": (lambda x: x.index_fill(0, torch.tensor([3]), -0.01), "not from -0.01 to"),
    "one pixel above": (lambda x: x.index_fill(0, torch.tensor([5]), 1.01), "to 1.01; write x / 2"),
    "NaN": (lambda x: x.index_fill(0, torch.tensor([2]), math.nan), "some pixels are NaN; look"),
    "infinite": (lambda x: x.index_fill(0, torch.tensor([2]), math.inf), "to inf; scale them"),
    "half bytes": (lambda x: (x * 255).half(), r"write x / 255$"),
    "double, normalised": (lambda x: (x.double() - 0.4) * 5, "undo their normalisation"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_images_outside_the_unit_range_are_refused_in_every_batch(name):
    function, message = OUTSIDE[name]
    curriculum, threat = Curriculum.parse("rot:30"), Threat.parse("rot:30")
    victim, generator = ModelVictim(MODEL), torch.Generator()
    for x in (X, function(X), X, function(X)):
        for call in (
            lambda x=x: curriculum(
                x, Y, strengths={"rot": 1.0}, victim=victim, generator=generator
            ),
            lambda x=x: threat(x, Y, victim=victim, generator=generator),
        ):
            if x is X:
                call()
                continue
            with pytest.raises(
                UserError, match=rf"^images must lie in \[0, 1\].*{message}"
            ) as caught:
                call()
            assert "\n" not in str(caught.value)


def test_a_curriculum_compares_and_prints_as_before():
    one, other = (Threat.parse("rot:30") for _ in range(2))
    one(X, Y, victim=ModelVictim(MODEL), generator=torch.Generator())
    assert one == other
    assert "checked" not in repr(one)
    assert hash(one.strength) == hash(other.strength)


def test_evaluation_in_inference_mode_and_autocast_is_the_same():
    data = curricula.load_data("digits")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    threats = ["clean", "rot:30+pgd(0.1, steps=2)"]
    expected = curricula.evaluate(model, data=data, threats=threats, limit=30)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = curricula.evaluate(model, data=data, threats=threats, limit=30)
    assert [each.correct for each in found] == [each.correct for each in expected]
