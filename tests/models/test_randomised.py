"""Networks behind a random perturbation: what they compute, and their gradient in the images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.data.spec import ImageSpec
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.models.build import resolve_model
from curricula.models.randomised import Randomised

X = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
SPEC = ImageSpec(classes=("a", "b", "c"), channels=1, image_size=32)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


def gradient(model, x):
    free = x.clone().requires_grad_()
    torch.manual_seed(5)
    loss = F.cross_entropy(model(free), torch.arange(len(x)) % 3)
    return torch.autograd.grad(loss, free)[0]


def test_a_draw_is_the_expression_and_then_the_network():
    inner = network()
    model = Randomised(inner, "uniform:0.2").eval()
    torch.manual_seed(5)
    logits = model(X)
    torch.manual_seed(5)
    noise = torch.rand(X.shape) * 2 - 1
    torch.testing.assert_close(logits, inner((X + 0.2 * noise).clamp(0, 1)))
    assert torch.equal(model.train()(X), inner(X))  # training sees the images as they are


def test_images_move_in_float32_under_the_caller_s_autocast():
    model, x = Randomised(network(), "rot:30"), torch.rand((2, 1, 64, 64))
    torch.manual_seed(5)
    expected = model.perturbed(x)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.perturbed(x), expected)


def test_the_gradient_is_that_of_the_drawn_rotation():
    """Against finite differences at equal draws."""
    model = Randomised(network().double(), bind("rot:40")).eval()
    x = X.double()
    found, step = gradient(model, x), torch.zeros_like(x)
    step[:, 0, 3, 4] = 1e-4
    losses = []
    for moved in (x + step, x - step):
        torch.manual_seed(5)
        losses.append(F.cross_entropy(model(moved), torch.arange(4) % 3, reduction="none"))
    slope_N = (losses[0] - losses[1]).detach() / 2e-4 / len(x)
    # Warps compute in float32.
    torch.testing.assert_close(found[:, 0, 3, 4], slope_N, atol=2e-4, rtol=2e-2)


@pytest.mark.parametrize("text", ["gaussian:0.1", "elastic:2", "brightness:0.3", "rot:20+flip:0.5"])
def test_changes_with_a_gradient_have_theirs(text):
    """The identity's gradient, of perturbations without one, would be another one."""
    model = Randomised(network(), text).eval()
    torch.manual_seed(5)
    free = X.clone().requires_grad_()
    changed = model.perturbed(free)
    assert changed.requires_grad
    weights = torch.rand(X.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((changed * weights).sum(), free)
    assert not torch.equal(found, weights)


class Rounded:
    """A perturbation without a gradient."""

    kind, unit, norm_bound, channels, training_only = "intensity", "share", None, None, False
    budget = 1.0

    def __call__(self, x, y, *, strength, victim, generator):
        with torch.no_grad():
            return (x * 4).round() / 4


def test_a_change_without_a_gradient_counts_as_the_identity_on_the_way_back():
    tree = bind("rot:30")
    leaf = type(tree.leaves["rot"])(
        label="rot", perturbation=Rounded(), call=tree.leaves["rot"].call
    )
    inner = network()
    model = Randomised(inner, leaf).eval()
    rounded = (X * 4).round() / 4
    torch.testing.assert_close(model(X), inner(rounded))
    torch.testing.assert_close(gradient(model, X), gradient(inner, rounded))


@pytest.mark.parametrize("vote", ["mean", "majority"])
@pytest.mark.parametrize("at_once", [64 * 4, 2**20])
def test_votes_are_those_of_single_draws(monkeypatch, vote, at_once):
    """Draws in one batch or one at a time, against a loop; uniform numbers come in one order."""
    from curricula.models import randomised

    monkeypatch.setattr(randomised, "PIXELS_AT_ONCE", at_once)
    inner, draws, x = network(), 9, X.repeat(30, 1, 1, 1)
    torch.manual_seed(5)
    found = Randomised(inner, "uniform:1", draws=draws, vote=vote).eval()(x)
    torch.manual_seed(5)
    single = Randomised(inner, "uniform:1").eval()
    logits = torch.stack([single(x) for _ in range(draws)])
    mean_NK = logits.softmax(2).mean(0)
    if vote == "mean":
        torch.testing.assert_close(found.exp(), mean_NK)
        return
    votes_NK = F.one_hot(logits.argmax(2), 3).sum(0)
    assert len(set(votes_NK.max(1).values.tolist())) > 1
    assert torch.equal(found.argmax(1), (votes_NK + mean_NK / 2).argmax(1))
    of_vote, of_mean = (
        gradient(Randomised(inner, "uniform:1", draws=draws, vote=each).eval(), x)
        for each in ("majority", "mean")
    )
    agree_N = votes_NK.argmax(1) == mean_NK.argmax(1)
    assert 0 < agree_N.sum() < len(x)
    torch.testing.assert_close(of_vote[agree_N], of_mean[agree_N])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_logits_in_half_precision_and_in_a_mapping_are_averaged_in_float32(vote, dtype):
    """bfloat16 counts to 256: 300 votes were 256, and many classes tied."""

    class Half(nn.Module):
        def forward(self, x):
            return {"logits": x[:, 0, 0, :3].to(dtype)}

    model = Randomised(Half(), "uniform:0.5", draws=900, vote=vote).eval()
    x = torch.rand((20, 1, 1, 3), generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    torch.manual_seed(5)
    found = model(x)
    torch.manual_seed(5)
    drawn_NDC = torch.stack([model.perturbed(x)[:, 0, 0] for _ in range(900)], 1).to(dtype)
    mean_NK = drawn_NDC.double().softmax(2).mean(1)
    votes_NK = F.one_hot(drawn_NDC.argmax(2), 3).sum(1)
    assert votes_NK.amax() > 300
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    if vote == "mean":
        torch.testing.assert_close(found.exp().double(), mean_NK, atol=1e-6, rtol=0)
    assert torch.equal(found.argmax(1), (votes_NK if vote == "majority" else mean_NK).argmax(1))
    assert model.train()(x).dtype == dtype


def test_the_expression_states_every_default_and_builds_the_same():
    built = resolve_model("smoothed(lenet)", SPEC)
    assert str(built.call) == "smoothed(model=lenet, perturb=gaussian:0.25, draws=100)"
    built = resolve_model("randomised(wrn(10, 1), rot:15|flip, draws=3)", SPEC)
    text = str(built.call)
    assert "rot(15, interpolation=bilinear, padding=zeros)|flip(0.5" in text
    assert "model=wrn(depth=10, width=1, dropout=0)" in text
    assert str(resolve_model(text, SPEC).call) == text
    assert built.value.draws == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randomised(lenet, pgd:0.1)", "must not query it, but pgd.* leave out attacks"),
        ("randomised(lenet, worst(rot:3, k=2))", "leave out attacks and searches"),
        ("randomised(lenet, brightness(0.2, ascent=3))", "must not query it"),
        ("randomised(lenet, rot)", "no standard budget in degrees"),
        ("randomised(lennet, rot:3)", "unknown model 'lennet': did you mean lenet"),
        ("randomised(lenet)", "perturb is missing"),
        ("randomised(lenet, rot:15, draws=0)", "draws must lie from 1 to 1,000,000, not 0"),
        ("randomised(3, rot:4)", "model must be an expression, not 3"),
        ('randomised("lenet", rot:4)', "model must be an expression, not"),
        ("randomised(lenet, rot:4, vote=most)", "vote must be mean or majority, not most"),
    ],
)
def test_bad_input_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_model(text, SPEC)
    assert "\n" not in str(caught.value)
