"""apgd in l-1 equals a slow image-by-image version of its algorithm and the code of its authors."""

import math

import pyautoattack.autopgd_base
import pytest
import torch
from torch import nn

import curricula
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks import apgd_l1
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.apgd_l1 import ascend_sparsely
from curricula.perturbations.attacks.norm_ball import project
from curricula.perturbations.attacks.wide_start import (
    ascend_through_balls,
    gaussian_start,
    stages,
)
from curricula.victim.model_victim import ModelVictim

N = 12  # images


class Wavy(nn.Module):
    """A small nonlinear model of images with 18 values and four classes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn((18, 16), generator=generator, dtype=torch.float64)
        self.second = torch.randn((16, 4), generator=generator, dtype=torch.float64) * 2

    def forward(self, x_NCHW):
        weights = (each.to(x_NCHW.dtype) for each in (self.first, self.second))
        return torch.sin(x_NCHW.flatten(1) @ next(weights)) @ next(weights)


class Exact:
    """A victim that keeps the dtype of the images."""

    def __init__(self, model):
        self.model, self.visited = model, []

    def subset(self, index):
        return self

    def active(self, logits, y):
        return torch.ones_like(y).bool()

    def logits(self, x):
        return self.model(x)

    def gradient(self, x, y, loss):
        self.visited.append(x.clone())
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.model(x)
            loss_N = loss(logits, y, None)
            (gradient,) = torch.autograd.grad(loss_N.sum(), x)
        return gradient, loss_N.detach(), logits.detach()


def case(dtype):
    """Return images, some of whose values are 0 or 1, their labels and the radii of their balls."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand((N, 2, 3, 3), generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    y = Wavy()(x).argmax(1)
    y[::6] = (y[::6] + 1) % 4  # some are misclassified from the start
    return x, y, torch.linspace(0.2, 3, N, dtype=dtype).reshape(-1, 1, 1, 1)


def nearest(point, x, eps):
    """Return the projection into the l-1 ball and [0, 1] of one flat image, by bisection in the
    distance that all values lose."""
    room = torch.where(point > x, 1 - x, x)

    def moved(less):
        return torch.minimum(((point - x).abs() - less).clamp_min(0), room)

    low, high = 0.0, float((point - x).abs().max())
    if float(moved(0.0).sum()) <= eps:
        high = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(moved(middle).sum()) > eps else (low, middle)
    return x + moved(high) * (point - x).sign()


def published(x, y, start, eps, model, loss, steps):
    """Run algorithm 1 of Croce and Hein 2021 for one flat image; return the point of highest loss
    and the misclassified point of highest loss, or None."""

    def f(z):
        z = z.detach().requires_grad_()
        logits = model(z[None])
        value = loss(logits, torch.tensor([y]), None)[0]
        (gradient,) = torch.autograd.grad(value, z)
        if int(logits.argmax()) != y:
            fooled.append((value.item(), z.detach()))
        return value.item(), gradient

    fooled = []
    z = start
    value, g = f(z)
    z_max, f_max, g_max = z, value, g
    eta, before = eps, int((z != x).sum())
    k = min(before / 1.5, max(before - 1, 1))
    for i in range(1, steps + 1):
        order = g.abs().argsort(descending=True)[: max(1, math.ceil(k - 1e-9))]
        direction = torch.zeros_like(g)
        direction[order] = g[order].sign()
        z = nearest(z + eta * direction / direction.abs().sum(), x, eps)
        value, g = f(z)
        if value > f_max:
            z_max, f_max, g_max = z, value, g
        if i % max(1, math.floor(0.04 * steps + 1e-9)) == 0:
            now = int(((z_max - x).abs() > 1e-6).sum())
            k = min(now / 1.5, max(now - 1, 1))
            if now / max(before, 1) < 0.95:
                eta, z, g = eps, z_max, g_max
            else:
                eta = max(eta / 1.5, 0.1 * eps)
            before = now
    return z_max, max(fooled, key=lambda pair: pair[0])[1] if fooled else None


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [1, 8, 26])
def test_a_batch_equals_the_published_algorithm_on_each_image(loss, steps, generator):
    (x, y, eps), loss = case(torch.float64), ATTACK_LOSSES[loss]
    start = project(x + torch.randn(x.shape, generator=generator), x, eps, "l1")
    found, top = ascend_sparsely(
        x, y, start, eps, victim=Exact(Wavy()), loss=loss, steps=steps
    )  # fmt: skip
    apart = []
    for i in range(N):
        x_i, start_i = x[i].flatten(), start[i].flatten()
        highest, fooled = published(x_i, int(y[i]), start_i, float(eps[i]), Wavy(), loss, steps)
        best = highest if fooled is None else fooled
        distance = torch.stack([top[i].flatten() - highest, found[i].flatten() - best]).abs().max()
        apart.append(bool(distance > 1e-6))
    assert not any(apart)


@pytest.fixture
def theirs(monkeypatch):
    """Return the authors' l-1 attack without two effects of rounding: a value that the projection
    restored, x + (d - d), does not count as changed; and (1 - k / n) n, rounded down, does not move
    one value more than k."""

    def changed(delta):
        return (delta.abs() > 1e-6).flatten(1).sum(1) - 1e-4

    monkeypatch.setattr(pyautoattack.autopgd_base, "L0_norm", changed)
    # Ours moves one value where two are changed; theirs moves both.
    monkeypatch.setattr(apgd_l1, "_two_thirds", lambda count_N: (2 * count_N + 2) // 3)

    def run(model, x, y, start, eps, *, steps, loss, times=None):
        attack = pyautoattack.autopgd_base.APGDAttack(
            model, n_iter=steps, norm="L1", eps=eps, loss=loss, device="cpu"
        )
        attack.init_hyperparam(x)
        if times is None:
            return attack.attack_single_run(x, y, x_init=start)
        top = start
        for multiple, taken in times:
            attack.n_iter, attack.eps = taken, multiple * eps
            top = top + pyautoattack.autopgd_base.L1_projection(x, top - x, multiple * eps)
            top, correct, value, found = attack.attack_single_run(x, y, x_init=top)
        return top, correct, value, found

    return run


def through_balls(x, y, start, eps, *, victim, loss, steps):
    """Return what the ascents in the three balls find."""

    def ascend(start, radius, steps):
        return ascend_sparsely(x, y, start, radius, victim=victim, loss=loss, steps=steps)

    return ascend_through_balls(x, start, eps, norm="l1", balls=stages(steps), ascend=ascend)


@pytest.fixture(scope="module")
def digits():
    """A small network trained on digits of 14x14 for a moment, and 60 digits."""
    data = curricula.load_data("digits")
    train, test = (
        nn.functional.avg_pool2d(data.images(split.pixels), 2)
        for split in (data.train, data.test[:60])
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(196, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for index in torch.randperm(len(train)).split(64) * 2:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train[index]), data.train.labels[index]).backward()
            optimizer.step()
    return model.eval(), test, data.test.labels[:60], 1.5


@pytest.fixture(scope="module")
def wavy():
    """The small nonlinear model, and images with values at 0 and 1."""
    x, y, _ = case(torch.float32)
    return Wavy(), x, y, 0.3


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("name", ["digits", "wavy"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("in_balls", [False, True])
def test_each_image_ends_where_the_authors_code_leaves_it(
    name, loss, in_balls, theirs, request, generator
):
    model, x, y, eps = request.getfixturevalue(name)
    eps_N111 = torch.full((len(x), 1, 1, 1), eps)
    start = gaussian_start(x, 3 * eps_N111, "l1", generator)
    run = {"victim": ModelVictim(model), "loss": ATTACK_LOSSES[loss]}
    with torch.no_grad():
        if in_balls:
            times = stages(30)
            ours = through_balls(x, y, start, eps_N111, steps=30, **run)
            _, correct, _, found = theirs(model, x, y, start, eps, steps=30, loss=loss, times=times)
        else:
            start = project(start, x, eps_N111, "l1")
            _, ours = ascend_sparsely(x, y, start, eps_N111, steps=10, **run)
            found, correct, _, _ = theirs(model, x, y, start, eps, steps=10, loss=loss)
        still = model(ours).argmax(1) == y
    apart = (ours - found).abs().amax((1, 2, 3)) > 1e-3
    if in_balls:  # theirs returns the last misclassified point, or the start
        apart = still != correct
    assert 0 < int(correct.sum()) < len(x)
    # Gradients that tie up to rounding may part the paths of an image of 60.
    assert int(apart.sum()) <= 1


def test_the_whole_attack_is_as_strong_as_that_of_its_authors(digits):
    model, x, y, eps = digits
    attack = pyautoattack.autopgd_base.APGDAttack(
        model, n_iter=100, norm="L1", eps=eps, loss="ce", use_largereps=True, seed=0
    )
    with torch.no_grad():
        theirs = int((model(attack.perturb(x, y)).argmax(1) == y).sum())
    (ours,) = curricula.evaluate(model, (x, y), [f"apgd({eps}, norm=l1)"])
    assert abs(ours.correct - theirs) <= 2
    assert 5 < ours.correct < 55


def test_on_a_linear_model_it_reaches_the_closed_form(generator):
    """The worst change spends the radius on the value of largest weight, if none meets its
    bound."""
    weight = torch.randn(16, generator=generator)
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([weight, -weight]))
    x = 0.4 + 0.2 * torch.rand((6, 1, 4, 4), generator=generator)
    y, strength = torch.arange(6) % 2, torch.linspace(0, 1, 6)
    victim = ModelVictim(nn.Sequential(nn.Flatten(), layer))
    attack = APGD(budget=0.3, norm="l1", steps=100)
    found = attack(x, y, strength=strength, victim=victim, generator=generator)
    expected, largest = torch.zeros_like(x).flatten(1), weight.abs().argmax()
    expected[:, largest] = 0.3 * strength * weight[largest].sign() * (2 * y - 1)
    torch.testing.assert_close((found - x).flatten(1), expected, atol=1e-4, rtol=0)


def test_the_balls_shrink_to_the_radius_and_each_begins_at_the_best_point_of_the_last(generator):
    x, y, eps = case(torch.float64)
    victim = Exact(Wavy())
    start = gaussian_start(x, 3 * eps, "l1", generator)
    through_balls(x, y, start, eps, victim=victim, loss=ATTACK_LOSSES["ce"], steps=10)
    length = torch.stack([(z - x).abs().sum((1, 2, 3)) for z in victim.visited])
    assert len(length) == 10 + 3
    radius = eps.flatten()
    for rows, times in ((slice(0, 4), 3), (slice(4, 8), 2), (slice(8, 13), 1)):
        assert (length[rows] <= times * radius + 1e-9).all()
        assert (length[rows].amax(0) > (times - 0.5) * radius).any()
    losses = [ATTACK_LOSSES["ce"](Wavy()(z), y, None) for z in victim.visited]
    for begin, end, times in ((0, 4, 2), (4, 8, 1)):
        best = torch.stack(losses[begin:end]).argmax(0)
        top = torch.stack(victim.visited[begin:end])[best, torch.arange(N)]
        torch.testing.assert_close(victim.visited[end], project(top, x, times * eps, "l1"))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, [(1, 1)]), (3, [(1, 3)]), (4, [(3, 1), (2, 1), (1, 2)]), (33, [(3, 9), (2, 9), (1, 15)])],
)
def test_the_last_ball_gets_the_steps_that_are_left(steps, expected):
    assert stages(steps) == expected
    assert APGD(budget=1, norm="l1", steps=steps).passes == steps + len(expected)
    assert APGD(budget=1, norm="l2", steps=steps).passes == steps + 1
