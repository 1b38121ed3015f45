"""apgd equals a slow image-by-image version of its algorithm, and closed forms."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks.apgd import APGD, ascend_adaptively, checkpoints
from curricula.perturbations.attacks.norm_ball import random_start
from curricula.victim.model_victim import ModelVictim


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 33, 100, 1000])
def test_checkpoints_are_the_papers(steps):
    """They are ceil(p_j steps) with p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03,
    0.06)."""
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert checkpoints(steps) == sorted({math.ceil(q * steps) for q in p[1:] if q < 1})


class Recording:
    """A small nonlinear model in float64 that records every point at which it was evaluated."""

    def __init__(self, classes=4):
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn((12, 16), generator=generator, dtype=torch.float64)
        self.second = torch.randn((16, classes), generator=generator, dtype=torch.float64) * 2
        self.visited = []

    def subset(self, index):
        return self

    def active(self, logits, y):
        return torch.ones_like(y).bool()

    def logits(self, x):
        return torch.sin(x.double().flatten(1) @ self.first) @ self.second

    def gradient(self, x, y, loss):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.logits(x)
            loss_N = loss(logits, y, None)
            (gradient,) = torch.autograd.grad(loss_N.sum(), x)
        self.visited.append((x.detach().clone(), loss_N.detach(), logits.argmax(1) != y))
        return gradient, loss_N.detach(), logits.detach()


def published(x, y, start, eps, victim, loss, norm, steps, rho=0.75):
    """Run algorithm 1 of Croce and Hein 2020 for one image; return the point of highest loss.

    In the paper's notation P is the projection into the ball and [0, 1], W the checkpoints."""

    def P(z):  # noqa: N802
        d = z - x
        if norm == "linf":
            return (x + d.clamp(-eps, eps)).clamp(0, 1)
        return (x + d * min(1.0, eps / max(float(d.norm()), 1e-12))).clamp(0, 1)

    def f(z):
        gradient, loss_N, _ = victim.gradient(z[None], torch.tensor([y]), loss)
        g = gradient[0]
        return float(loss_N[0]), g.sign() if norm == "linf" else g / g.norm()

    W = [0, *checkpoints(steps)]
    eta = 2 * eps
    xs, fs = [start], []
    value, g = f(xs[0])
    fs.append(value)
    f_max, x_max, g_max = value, xs[0], g
    etas, maxima, rises = {0: eta}, {0: f_max}, []
    for k in range(steps):
        z = P(xs[k] + eta * g)
        new = z if k == 0 else P(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]))
        value, g = f(new)
        rises.append(value > fs[k])
        if value > f_max:
            f_max, x_max, g_max = value, new, g
        if k + 1 in W:
            j = W.index(k + 1)
            etas[j], maxima[j] = eta, f_max
            one = sum(rises[W[j - 1] : W[j]]) < rho * (W[j] - W[j - 1])
            two = etas[j - 1] == etas[j] and maxima[j - 1] == maxima[j]
            if one or two:
                eta, new, value, g = eta / 2, x_max, f_max, g_max
        xs.append(new)
        fs.append(value)
    return x_max, f_max


X = torch.rand((24, 1, 3, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.arange(24) % 4
EPS = torch.linspace(0.02, 0.3, 24, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [1, 7, 60])
def test_a_batch_equals_the_published_algorithm_on_each_image(norm, loss, steps, generator):
    victim, loss = Recording(), ATTACK_LOSSES[loss]
    eps = EPS if norm == "linf" else 3 * EPS
    start = random_start(X, eps, norm, generator)
    run = {"victim": victim, "loss": loss, "norm": norm, "steps": steps}
    found, _ = ascend_adaptively(X, Y, start, eps, rho=0.75, **run)
    for i in range(24):
        x_max, f_max = published(X[i], int(Y[i]), start[i], float(eps[i]), **run)
        ours = loss(victim.logits(found[i : i + 1]), Y[i : i + 1], None)
        wrong = victim.logits(x_max[None]).argmax(1) != Y[i]
        if wrong or victim.logits(found[i : i + 1]).argmax(1) == Y[i]:
            torch.testing.assert_close(found[i], x_max)
        else:  # the one difference: a misclassified point of lower loss
            assert float(ours) <= f_max


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_returns_the_worst_visited_point(loss, generator):
    """Misclassified before correct, then of highest loss."""
    victim = Recording()
    start = random_start(X, EPS, "linf", generator)
    found, _ = ascend_adaptively(
        X, Y, start, EPS, victim=victim, loss=ATTACK_LOSSES[loss], norm="linf", steps=40, rho=0.75
    )
    points, losses, wrong = (torch.stack(each) for each in zip(*victim.visited, strict=True))
    order = losses + 1e6 * wrong
    visited = (points == found).flatten(2).all(2)  # DLR has plateaus: other points may tie
    assert len(points) == 41
    assert 0 < int(wrong.any(0).sum()) <= 24
    assert visited.any(0).all()
    assert torch.equal(torch.where(visited, order, -1).amax(0), order.amax(0))


class Bumpy:
    """A model of three classes and one pixel: between 0.5 and 0.56 the image is misclassified, at a
    lower loss than beyond, where it is correct."""

    def gradient(self, x, y, loss):
        v = x.flatten()
        fooled = (v > 0.5) & (v < 0.56)
        logits = torch.where(
            fooled[:, None], torch.tensor([0.0, 0.1, -9]), torch.tensor([0.1, 0.0, -9])
        )
        return torch.ones_like(x), torch.where(fooled, 0.2, v), logits


def test_a_misclassified_point_is_preferred_to_a_correct_one_of_higher_loss():
    start = torch.tensor([0.52, 0.3]).reshape(2, 1, 1, 1)
    x, y = torch.full((2, 1, 1, 1), 0.4), torch.zeros(2, dtype=torch.long)
    found, _ = ascend_adaptively(
        x, y, start, torch.full((2, 1, 1, 1), 0.3), victim=Bumpy(),
        loss=ATTACK_LOSSES["ce"], norm="linf", steps=10, rho=0.75,
    )  # fmt: skip
    torch.testing.assert_close(found.flatten(), torch.tensor([0.52, 0.7]))


class Scripted:
    """A victim with scripted losses, whose gradients point up except for the 42nd."""

    def __init__(self, losses):
        self.losses, self.visited = losses, []

    def gradient(self, x, y, loss):
        number = len(self.visited)
        self.visited.append(float(x))
        slope = torch.full_like(x, -1.0 if number == 41 else 1.0)
        return slope, torch.tensor([self.losses[number]]), torch.tensor([[1.0, 0.0, 0.0]])


def test_a_step_just_halved_is_not_halved_again_by_condition_2():
    """The loss falls until the first review, at step 22, which halves the step from 2 eps to eps;
    then it rises, but to no new maximum, until the second, at 41. Condition 2 would halve the step
    again, had it not been halved at 22."""
    victim = Scripted([*(-float(k) for k in range(23)), *(k - 100.0 for k in range(78))])
    centre, eps = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.1)
    ascend_adaptively(
        centre, torch.tensor([0]), centre, eps, victim=victim, loss=ATTACK_LOSSES["ce"],
        norm="linf", steps=100, rho=0.75,
    )  # fmt: skip
    # Step 42 goes down by eps, from the bound to the centre, with weight 0.75.
    assert victim.visited[41] == pytest.approx(0.6)
    assert victim.visited[42] == pytest.approx(0.6 - 0.75 * 0.1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_reaches_the_closed_form(norm, generator):
    torch.manual_seed(0)
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
    w = layer.weight[0].detach()
    x = 0.3 + 0.4 * torch.rand((6, 1, 4, 4), generator=generator)
    y = torch.arange(6) % 2
    along = w.sign() if norm == "linf" else w / w.norm()
    along = (torch.where(y == 0, -1.0, 1.0)[:, None] * along).reshape(-1, 1, 4, 4)
    victim = ModelVictim(nn.Sequential(nn.Flatten(), layer))
    attack = APGD(budget=0.2, norm=norm, steps=60)
    strength = torch.linspace(0, 1, 6)
    found = attack(x, y, strength=strength, victim=victim, generator=generator)
    expected = x + 0.2 * strength.reshape(-1, 1, 1, 1) * along
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_restarts_keep_fooled_images(generator):
    victim, x = Recording(), X.float()
    wrong = []
    for restarts in (1, 3):
        attack = APGD(budget=0.05, steps=4, restarts=restarts)
        found = attack(x, Y, strength=1.0, victim=victim, generator=generator.manual_seed(4))
        wrong.append(victim.logits(found).argmax(1) != Y)
    first, several = wrong
    assert (several | ~first).all()
    assert several.sum() >= first.sum() > 0


class Decoy(nn.Module):
    """A model of one pixel. Brighter images near class 1 and never reach it; much darker ones reach
    class 2, which cross-entropy does not see."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        v = x.flatten()
        far = torch.full_like(v, -30)
        logits = [0 * v, -0.05 - 0.5 * (0.7 - v), -20 + 100.5 * (0.5 - v), far, far]
        return 100 * torch.stack(logits[: self.classes], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [3, 5])
def test_a_targeted_run_reaches_a_class_that_the_loss_leads_away_from(norm, classes, generator):
    x, y = torch.full((4, 1, 1, 1), 0.5), torch.zeros(4, dtype=torch.long)
    model, fooled = Decoy(classes), []
    for targets in (0, 1, 2, 9):
        attack = APGD(budget=0.2, norm=norm, steps=20, targets=targets)
        victim = ModelVictim(model, early_stop=True)
        found = attack(x, y, strength=1.0, victim=victim, generator=generator.manual_seed(0))
        fooled.append(int((model(found).argmax(1) == 2).sum()))
    assert fooled == [0, 0, 4, 4]  # class 2 is the second


class Ridge(nn.Module):
    """A model of two classes and one pixel, which misclassifies images darker than 0.405; above
    0.41 the loss rises with the brightness."""

    def forward(self, x):
        v = x.flatten()
        lead = torch.where(v > 0.41, -2 + v, 100 * (0.405 - v))
        return torch.stack([0 * v, lead], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_wide_start_reaches_what_lies_behind_a_ridge(norm, generator):
    x, y = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.long)
    model, fooled = Ridge(), {}
    for wide in (False, True):
        attack = APGD(budget=0.1, norm=norm, steps=20, restarts=3, wide_start=wide)
        victim = ModelVictim(model, early_stop=True)
        found = attack(x, y, strength=1.0, victim=victim, generator=generator.manual_seed(0))
        assert ((found - x).abs() <= 0.1 + 1e-6).all()
        fooled[wide] = int((model(found).argmax(1) == 1).sum())
    assert fooled[True] > 20 > 10 > fooled[False]
    assert not APGD(budget=0.1, norm=norm).wide_start
    assert APGD(budget=0.1, norm="l1").wide_start


def test_dlr_with_two_classes_is_an_error(generator):
    x = torch.rand((2, 1, 4, 4), generator=generator)
    victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    attack = APGD(budget=0.1, steps=2, loss="dlr")
    with pytest.raises(UserError, match="three classes or more, not 2"):
        attack(x, torch.tensor([0, 1]), strength=1.0, victim=victim, generator=generator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("loss=kl", "loss must be ce or dlr, not kl"),
        ("norm=l3", "norm must be linf or l2 or l1, not l3"),
        ("norm=l1, rho=0.5", "rho is for norm=linf and norm=l2, not l1"),
        ("steps=0", "steps must be 1 or more"),
        ("restarts=0", "restarts must be 1 or more"),
        ("targets=-1", "targets must be 0 or more"),
        ("rho=0", "rho must be above 0"),
        ("rho=1.5", "rho must be at most 1"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        Threat.parse(f"apgd(0.1, {arguments})")
    assert "\n" not in str(caught.value)
