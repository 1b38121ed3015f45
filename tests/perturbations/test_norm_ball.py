"""The l-1 ball cut to [0, 1]: projection, random points, sparse steps, and pgd in it."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.perturbations.attacks.norm_ball import bounds, project, random_start, sparse_step
from curricula.perturbations.attacks.pgd import PGD
from curricula.victim.model_victim import ModelVictim

BUILT_IN_LINF = ("pgd", "apgd", "mim", "fgsm", "rfgsm", "nfgsm", "square", "uniform")
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 7), st.integers(1, 5))


def drawn(shape, seed, wanders):
    """Return images, with some pixels at 0 and at 1, and points at various distances from them."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(shape, generator=generator) * 1.6 - 0.3).clamp(0, 1)
    noise = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
    return x, x + wanders * noise


def furthest(direction, x, eps):
    """Return the largest <direction, z - x> over z in both the l-1 ball and [0, 1]: spend eps on
    the steepest pixel up to its bound, then on the next."""
    room = np.where(direction > 0, 1 - x, x)
    order = np.argsort(-np.abs(direction))
    spent = np.minimum(np.cumsum(room[order]), eps)
    return float((np.abs(direction)[order] * np.diff(spent, prepend=0)).sum())


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(0, 2**30), st.floats(0.001, 5), st.floats(0, 4))
def test_the_l1_projection_is_the_nearest_image_of_the_intersection(shape, seed, wanders, eps):
    """A point p of a convex set is the nearest to a if and only if no z of the set lies further
    along a - p than p does."""
    x, a = drawn(shape, seed, wanders)
    found = project(a, x, torch.full((shape[0], 1, 1, 1), eps), "l1")
    assert found.min() >= 0
    assert found.max() <= 1
    for p_i, a_i, x_i in zip(found, a, x, strict=True):
        p, far, centre = (t.double().flatten().numpy() for t in (p_i, a_i, x_i))
        assert np.abs(p - centre).sum() <= eps + 1e-6
        gained = float(((far - p) * (p - centre)).sum())
        assert gained >= furthest(far - p, centre, eps) - 1e-5 * (1 + wanders * eps)


def test_the_l1_projection_agrees_with_a_general_solver():
    """The solver minimises |u - a|^2, u = x + plus - minus, by sequential quadratic programming."""
    x, a = drawn((4, 1, 2, 3), seed=5, wanders=1.0)
    found = project(a, x, torch.full((4, 1, 1, 1), 0.6), "l1").flatten(1).double().numpy()
    for p, far, centre in zip(found, a.flatten(1).numpy(), x.flatten(1).numpy(), strict=True):
        far, centre = far.astype(float), centre.astype(float)
        solved = scipy.optimize.minimize(
            lambda v, c=centre, f=far: ((c + v[:6] - v[6:] - f) ** 2).sum(),
            np.zeros(12),
            method="SLSQP",
            bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
            constraints={"type": "ineq", "fun": lambda v: 0.6 - v.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(p, centre + solved.x[:6] - solved.x[6:], atol=2e-5)


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(0, 2**30), st.floats(0.001, 2), st.floats(0, 2))
def test_clamping_between_the_bounds_is_the_linf_projection(shape, seed, wanders, eps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    moved = x + wanders * torch.randn(shape, generator=generator)
    eps_N111 = eps * torch.rand((len(x), 1, 1, 1), generator=generator)
    expected = torch.minimum(torch.maximum(moved, x - eps_N111), x + eps_N111).clamp(0, 1)
    assert torch.equal(moved.clamp(*bounds(x, eps_N111)), expected)
    assert torch.equal(project(moved, x, eps_N111, "linf"), expected)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from(["project", "random_start"]), st.floats(0.01, 20))
def test_the_l1_ball_is_kept_however_many_pixels_round(seed, how, eps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((3, 3, 32, 32), generator=generator)
    eps_N111 = torch.tensor([eps, eps / 3, 0.0]).reshape(-1, 1, 1, 1)
    if how == "project":
        away = x + 0.1 * torch.randn(x.shape, generator=generator)
        found = project(away, x, eps_N111, "l1")
    else:
        found = random_start(x, eps_N111, "l1", generator)
    length = (found.double() - x.double()).abs().sum(dim=(1, 2, 3))
    assert (length <= eps_N111.flatten().double() + 1e-6).all()
    assert torch.equal(found[2], x[2])
    if how == "project":
        torch.testing.assert_close(length, eps_N111.flatten().double(), atol=1e-3, rtol=1e-3)


def test_a_random_start_is_uniform_in_the_l1_ball(generator):
    """In n dimensions the length has the distribution function r^n, each coordinate's size has
    1 - (1 - t)^n, and all orthants are equally likely."""
    x = torch.full((8000, 1, 2, 2), 0.5)
    eps = torch.full((8000, 1, 1, 1), 0.4)
    delta = ((random_start(x, eps, "l1", generator) - x) / 0.4).flatten(1).double().numpy()
    length = np.abs(delta).sum(axis=1)
    assert scipy.stats.kstest(length, lambda r: r.clip(0, 1) ** 4).pvalue > 0.01
    assert scipy.stats.kstest(np.abs(delta[:, 2]), scipy.stats.beta(1, 4).cdf).pvalue > 0.01
    orthant = ((delta > 0) @ [1, 2, 4, 8]).astype(int)
    assert scipy.stats.chisquare(np.bincount(orthant, minlength=16)).pvalue > 0.01


def test_an_l1_step_moves_the_pixels_of_largest_gradients_equally():
    """The step is that of SLIDE where there is room: here half of four pixels, then one."""
    gradient = torch.tensor([[3.0, -5, 0.1, 4], [0, 0, 2, 0], [0, 0, 0, 0]]).reshape(3, 1, 2, 2)
    x, length = torch.full((3, 1, 2, 2), 0.5), torch.full((3, 1, 1, 1), 0.4)
    half = sparse_step(gradient, x, length, 0.5).flatten(1)
    expected = torch.tensor([[0, -0.2, 0, 0.2], [0, 0, 0.2, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(half, expected)
    one = sparse_step(gradient, x, length, 0.01).flatten(1)
    torch.testing.assert_close(one[:2], torch.tensor([[0, -0.4, 0, 0], [0, 0, 0.4, 0]]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**30), st.floats(0.01, 1), st.floats(0.01, 3))
def test_an_l1_step_is_optimal_by_linear_programming(seed, share, length):
    x, _ = drawn((2, 2, 2, 3), seed, 1.0)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    step = sparse_step(gradient, x, torch.full((2, 1, 1, 1), length), share)
    most = length / max(1, round(share * 12))
    for s, g, x_i in zip(
        *(t.flatten(1).double().numpy() for t in (step, gradient, x)), strict=True
    ):
        solved = scipy.optimize.linprog(
            np.concatenate([-g, g]),  # upwards and downwards parts
            A_ub=np.ones((1, 24)),
            b_ub=[length],
            bounds=[(0, min(most, r)) for r in np.concatenate([1 - x_i, x_i])],
        )
        assert np.abs(s).sum() <= length + 1e-6
        assert np.abs(s).max() <= most + 1e-6
        assert (x_i + s).min() >= 0
        assert (x_i + s).max() <= 1 + 1e-7
        assert s @ g == pytest.approx(-solved.fun, abs=1e-5)


@pytest.fixture
def linear():
    """A model of two classes with logits (w.x, -w.x), and w."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
    return ModelVictim(nn.Sequential(nn.Flatten(), layer)), layer.weight[0].detach()


def test_on_a_linear_model_l1_pgd_reaches_the_best_sparse_change(linear, generator):
    """More steps come closer to the optimum of the greedy algorithm, and 200 reach it. It moves six
    values or more, far more than the share of a step."""
    victim, w = linear
    x = torch.rand((6, 3, 4, 4), generator=generator)
    y = torch.tensor([0, 1] * 3)
    along = torch.where(y == 0, -1.0, 1.0)[:, None] * w
    best = [
        furthest(a, x_i, 3.0)
        for a, x_i in zip(along.double().numpy(), x.flatten(1).double().numpy(), strict=True)
    ]
    share = {}
    for steps in (3, 20, 200):
        attack = PGD(budget=3.0, norm="l1", steps=steps)
        found = attack(x, y, strength=1.0, victim=victim, generator=generator)
        gained = ((found - x).flatten(1) * along).sum(1)
        share[steps] = float((gained / torch.tensor(best)).min())
        assert share[steps] <= 1 + 1e-5
    assert share[3] < share[20] < share[200]
    assert share[200] > 0.995


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 8),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
    st.integers(0, 2**30),
    st.floats(0.01, 1),
)
def test_l1_pgd_keeps_every_image_in_its_own_ball(budget, strengths, seed, share):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    victim = ModelVictim(
        nn.Sequential(nn.Flatten(), nn.Linear(300, 20), nn.Tanh(), nn.Linear(20, 3))
    )
    x = torch.rand((5, 3, 10, 10), generator=generator).round(decimals=1)
    attack = PGD(budget=budget, norm="l1", steps=4, l1_share=share)
    y, strength = torch.arange(5) % 3, torch.tensor(strengths)
    found = attack(x, y, strength=strength, victim=victim, generator=generator)
    length = (found.double() - x.double()).abs().sum(dim=(1, 2, 3))
    assert (length <= budget * strength.double() + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_l1_arguments_are_checked():
    assert PGD(budget=1.0, norm="l1").unit == "l1"
    assert PGD(budget=1.0).l1_share is None
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="'l1_share' must be"):
            PGD(budget=1.0, norm="l1", l1_share=share)
    with pytest.raises(UserError, match="l1_share is for norm=l1, not l2"):
        Threat.parse("pgd(1, norm=l2, l1_share=0.1)")
    explicit = str(Threat.parse("pgd(12, norm=l1)"))
    assert "l1_share=0.01" in explicit
    assert str(Threat.parse(explicit)) == explicit


@pytest.mark.parametrize("name", BUILT_IN_LINF)
def test_an_l_inf_radius_above_1_is_a_forgotten_255(name):
    bind(f"{name}:0")  # the identity
    bind(f"{name}:1")  # every image
    with pytest.raises(UserError, match=rf"^{name}:8: budget must be at most 1 in linf, .*, not 8"
                                        r"; did you mean 8/255\?$"):  # fmt: skip
        bind(f"{name}:8")


@pytest.mark.parametrize(
    "text", ["pgd(8, norm=l2)", "pgd(12, norm=l1)", "apgd(8, norm=l2)", "apgd(12, norm=l1)"]
)
def test_other_balls_may_have_a_radius_above_1(text):
    bind(text)


def test_a_radius_beyond_255_has_no_suggestion():
    with pytest.raises(UserError, match=r"not 1000$"):
        bind("fgsm:1000")
