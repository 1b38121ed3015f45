"""Each objective against its formula, written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import Views
from curricula.losses import nuclear_norm_parts
from curricula.models.dropout import Dropout
from curricula.objectives import boosted_cross_entropy
from curricula.perturbations.attacks.single_step import RandomFGSM
from curricula.training.at_precision import AtPrecision
from curricula.victim.model_victim import ModelVictim

X = torch.rand((4, 1, 3, 3), generator=torch.Generator().manual_seed(0))
VIEWS = Views(clean=X, transformed=X * 0.9, perturbed=X * 0.7)
Y = torch.tensor([0, 1, 2, 1])


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))


def smooth():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3))


def objective(text):
    return factories.build("objective", parse_call(text)).value


def _same(loss, expected, model):
    torch.testing.assert_close(loss.value, expected)
    ours = torch.autograd.grad(loss.value, model.parameters())
    theirs = torch.autograd.grad(expected, model.parameters(), retain_graph=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_at_is_cross_entropy_at_the_perturbed_view():
    model = linear()
    loss = objective("at")(model, VIEWS, Y)
    torch.testing.assert_close(loss.value, F.cross_entropy(model(X * 0.7), Y))
    torch.testing.assert_close(loss.logits, model(X * 0.7).detach())
    assert not loss.logits.requires_grad
    assert objective("at").attack_loss == "ce"


def test_trades_equals_its_formula_and_trains_both_terms():
    model = linear()
    loss = objective("trades(beta=3)")(model, VIEWS, Y)
    p, q = model(X * 0.9).softmax(1), model(X * 0.7).softmax(1)
    expected = -p.log()[range(4), Y].mean() + 3 * (p * (p / q).log()).sum(1).mean()
    _same(loss, expected, model)
    assert objective("trades").attack_loss == "kl"
    assert objective("trades").beta == 6
    with pytest.raises(UserError, match="beta must be 0 or more"):
        objective("trades(beta=-1)")


def test_mart_equals_its_formula():
    model = linear()
    loss = objective("mart(beta=3)")(model, VIEWS, Y)
    p, q = model(X * 0.9).softmax(1), model(X * 0.7).softmax(1)
    rows = range(4)
    rival = torch.stack([max(q[i][k] for k in range(3) if k != Y[i]) for i in rows])
    boosted = -q[rows, Y].log() - (1 - rival).log()
    weighted = (p * (p / q).log()).sum(1) * (1 - p[rows, Y])
    _same(loss, (boosted + 3 * weighted).mean(), model)
    torch.testing.assert_close(loss.logits, model(X * 0.7).detach())
    assert (objective("mart").attack_loss, objective("mart").beta) == ("ce", 5)


def test_nuat_equals_its_formula():
    model = linear()
    loss = objective("nuat(weight=3)")(model, VIEWS, Y)
    change = model(X * 0.7) - model(X * 0.9)
    norm = torch.linalg.eigvalsh(change.T @ change).clamp_min(1e-20).sqrt().sum()
    expected = -model(X * 0.9).softmax(1)[range(4), Y].log().mean() + 3 * norm / 4
    _same(loss, expected, model)
    torch.testing.assert_close(loss.logits, model(X * 0.7).detach())
    assert objective("nuat").weight == 4.5


def test_gat_equals_its_formula():
    model = linear()
    loss = objective("gat(weight=3)")(model, VIEWS, Y)
    p, q = model(X * 0.9).softmax(1), model(X * 0.7).softmax(1)
    _same(loss, -p.log()[range(4), Y].mean() + 3 * ((p - q) ** 2).sum() / 4, model)
    torch.testing.assert_close(loss.logits, model(X * 0.7).detach())
    assert objective("gat").weight == 10


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("gat", lambda a, b: (a.softmax(1) - b.softmax(1)).square().sum()),
        ("nuat", lambda a, b: torch.linalg.matrix_norm(a - b, ord="nuc")),
    ],
)
def test_the_attack_of_a_guided_loss_ascends_the_loss_of_its_paper(name, distance):
    """One step of 0.1 from x +- 0.05 along the sign of the gradient of the sum of cross-entropies
    plus 300 times the distance, clipped to 0.1 about x."""
    model, guided, x = smooth(), objective(f"{name}(weight=300)"), 0.2 + 0.6 * X
    victim = ModelVictim(model, loss=guided.attack_loss).with_reference(x)
    found = RandomFGSM(budget=0.1, rel_step=1.0, bernoulli=0.5)(
        x, Y, strength=1.0, victim=victim, generator=torch.Generator().manual_seed(1)
    )
    up = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    start = (x + torch.where(up, 0.05, -0.05)).requires_grad_()
    moved = distance(model(start), model(x).detach())
    entropy = F.cross_entropy(model(start), Y, reduction="sum")
    signs = [torch.autograd.grad(part, start, retain_graph=True)[0].sign()
             for part in (entropy + 300 * moved, entropy)]  # fmt: skip
    assert not torch.equal(*signs)  # the distance matters here
    step = start.detach() + 0.1 * signs[0] - x
    torch.testing.assert_close(found, x + step.clamp(-0.1, 0.1))


def misaligned(model, x, nearby, label):
    """Return 1 - cos between the gradients of the cross-entropy at two images of one label."""
    gradients = []
    for image in (x, nearby):
        image = image[None].detach().requires_grad_()
        entropy = -model(image).log_softmax(1)[0, label]
        gradients += torch.autograd.grad(entropy, image, create_graph=True)
    a, b = gradients
    return 1 - (a * b).sum() / (a.norm() * b.norm())


def test_gradalign_equals_its_formula():
    """eta is uniform within the largest change of each image."""
    model = smooth()
    x, eps = 0.1 + 0.8 * X, torch.tensor([0.3, 0.0, 0.2, 0.1]).reshape(4, 1, 1, 1)
    perturbed = x.clone()
    perturbed[:, :, 1:2, 1:2] += eps * torch.tensor([1, 1, -1, 1]).reshape(4, 1, 1, 1)
    views = Views(clean=X, transformed=x, perturbed=perturbed)
    torch.manual_seed(3)
    loss = objective("gradalign(weight=2)")(model, views, Y)
    torch.manual_seed(3)
    nearby = x + eps * (2 * torch.rand(x.shape) - 1)
    parts = [misaligned(model, *image) for image in zip(x, nearby, Y, strict=True)]
    assert parts[0] > 1e-3 > 1e-6 > parts[1].abs()
    expected = F.cross_entropy(model(perturbed), Y) + 2 * torch.stack(parts).mean()
    _same(loss, expected, model)
    torch.testing.assert_close(loss.logits, model(perturbed).detach())
    assert (objective("gradalign").attack_loss, objective("gradalign").weight) == ("ce", 0.2)


def test_gradalign_leaves_out_images_without_a_gradient():
    model = nn.Sequential(nn.Threshold(0.5, 0.0), smooth())  # flat where all pixels are below 0.5
    x = torch.cat([torch.full((1, 1, 3, 3), 0.2), 0.8 + 0.1 * X[:1]])
    torch.manual_seed(3)
    views = Views(clean=x, transformed=x, perturbed=x + 0.1)
    loss = objective("gradalign(weight=2)")(model, views, Y[:2])
    torch.manual_seed(3)
    nearby = x + 0.1 * (2 * torch.rand(x.shape) - 1)
    expected = F.cross_entropy(model(x + 0.1), Y[:2]) + 2 * misaligned(model, x[1], nearby[1], Y[1])
    _same(loss, expected, model)
    flat = Views(clean=x[:1], transformed=x[:1], perturbed=x[:1] + 0.1)
    loss = objective("gradalign(weight=2)")(model, flat, Y[:1])
    _same(loss, F.cross_entropy(model(x[:1] + 0.1), Y[:1]), model)


class Sure(nn.Module):
    """A network that adds a margin to the logit of class 0. Gradients of images of that class are
    of the order of exp(-margin), and point the same way for every large margin."""

    def __init__(self, margin):
        super().__init__()
        self.inner, self.margin = smooth(), margin

    def forward(self, x):
        return self.inner(x) + torch.tensor([self.margin, 0.0, 0.0])


def test_gradalign_counts_images_whose_gradients_are_too_small_to_square():
    label, surer, sure = torch.zeros(4, dtype=torch.long), Sure(70.0), Sure(30.0)
    torch.manual_seed(3)
    loss = objective("gradalign(weight=1)")(surer, VIEWS, label)
    torch.manual_seed(3)
    eps = (X * 0.9 - X * 0.7).amax((1, 2, 3), keepdim=True)
    images = zip(X * 0.9, X * 0.9 + eps * (2 * torch.rand(X.shape) - 1), label, strict=True)
    parts = [misaligned(sure, *image) for image in images]
    torch.testing.assert_close(loss.value, torch.stack(parts).mean())


class Attention(nn.Module):
    """Fused attention over the rows of the image."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        rows = x.repeat(1, 2, 1, 1)
        return self.head(F.scaled_dot_product_attention(rows, rows, rows)[:, 0].flatten(1))


class Writing(nn.Module):
    """A network that writes to its images."""

    def __init__(self):
        super().__init__()
        self.inner = smooth()

    def forward(self, x):
        return self.inner(x.sub_(0.5).relu_())


@pytest.mark.parametrize(
    "network",
    [
        Attention,
        Writing,
        lambda: AtPrecision(smooth(), "bf16"),
        lambda: nn.Sequential(nn.BatchNorm2d(1), Dropout(0.5), smooth()),
    ],
)
def test_gradalign_differentiates_the_gradient_of(network):
    torch.manual_seed(0)
    model = network()

    def value(weight):
        views = Views(clean=X, transformed=X.clone(), perturbed=(X + 0.2).clamp(0, 1))
        loss = objective(f"gradalign(weight={weight})")(model, views, Y)
        assert torch.equal(views.transformed, X)
        return loss.value

    strong = value(10)
    assert strong > value(0) + 1e-4
    for a in torch.autograd.grad(strong, model.parameters()):
        assert a.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 3), (2, 5), (1, 3), (0, 3)])
def test_the_parts_of_a_nuclear_norm_add_up_to_it(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    norm = torch.linalg.matrix_norm(matrix, ord="nuc") if len(matrix) else matrix.sum()
    parts = nuclear_norm_parts(matrix)
    assert parts.shape == shape[:1]
    torch.testing.assert_close(parts.sum(), norm)
    ours, theirs = (torch.autograd.grad(total, matrix)[0] for total in (parts.sum(), norm))
    torch.testing.assert_close(ours, theirs)


def test_a_nuclear_norm_of_zero_has_no_gradient_and_one_with_nan_is_nan():
    for rank_one in (torch.zeros(4, 3), torch.tensor([[1.0, 2.0], [2.0, 4.0]])):
        matrix = rank_one.requires_grad_()
        (gradient,) = torch.autograd.grad(nuclear_norm_parts(matrix).sum(), matrix)
        torch.testing.assert_close(gradient, rank_one.detach() / 5)
    assert nuclear_norm_parts(torch.tensor([[math.nan, 1.0], [0.0, math.inf]])).isnan().any()


def test_boosted_cross_entropy_stays_finite_where_a_rival_is_certain():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    value = boosted_cross_entropy(logits, torch.tensor([1]))
    torch.testing.assert_close(value, torch.tensor([400.0 - math.log(2)]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("text", ["trades", "mart", "consistency"])
def test_gradients_stay_finite_where_a_class_of_the_transformed_view_has_probability_zero(text):
    logits = {
        "transformed": torch.tensor([[150.0, 0.0, -3.0]], requires_grad=True),
        "perturbed": torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True),
    }
    views = Views(clean=X[:1], transformed=X[:1], perturbed=X[:1] * 0.7)
    calls = iter(logits.values())

    def model(x):
        return torch.cat(list(calls)) if len(x) == 2 else next(calls)

    loss = objective(text)(model, views, torch.tensor([0]))
    # KL((1, 0, 0) || q) = -log q_0
    divergence = -logits["perturbed"].log_softmax(1)[0, 0]
    assert divergence <= loss.value * (1 + 1e-6) or text == "mart"
    for gradient in torch.autograd.grad(loss.value, list(logits.values())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("clean", [0.0, 0.3, 1.0])
def test_paired_losses_equal_their_formulas(clean):
    model = linear()
    p, q = model(X).log_softmax(1), model(X * 0.7).log_softmax(1)
    mixed = clean * F.nll_loss(p, Y) + (1 - clean) * F.nll_loss(q, Y)
    difference = F.mse_loss(model(X), model(X * 0.7))
    divergence = (p.exp() * (p - q)).sum(1).mean()
    for text, expected in {
        f"mix(clean={clean})": mixed,
        f"alp(weight=2, clean={clean})": mixed + 2 * difference,
        f"consistency(weight=3, clean={clean})": mixed + 3 * divergence,
    }.items():
        _same(objective(text)(model, VIEWS, Y), expected, model)


def test_a_paired_loss_is_one_batch_for_batch_norm():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(9, 3))
    objective("mix")(model.train(), VIEWS, Y)
    assert model[0].num_batches_tracked == 1
    both = torch.cat([X, X * 0.7])
    torch.testing.assert_close(model[0].running_mean, 0.1 * both.mean((0, 2, 3)))
