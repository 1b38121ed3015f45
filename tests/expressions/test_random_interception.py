"""Random calls that are answered from the streams: their distributions, and those left alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from curricula.expressions import random_interception
from curricula.expressions.random_interception import intercept
from curricula.expressions.random_streams import Streams

LARGE = (200, 1000)  # images x numbers of a draw


def streams(n=LARGE[0], seed=0):
    return Streams.of(seed, torch.arange(n))


def answered(call, *, n=LARGE[0], seed=0):
    """Return the result of a random call, after checking that it came from the streams."""
    generator = torch.Generator().manual_seed(9)
    before = generator.get_state()
    with intercept(streams(n, seed), generator):
        found = call(generator)
    assert torch.equal(before, generator.get_state())
    return found


# Call and the distribution that it must have.
CONTINUOUS = {
    "rand": (lambda n, m, g: torch.rand((n, m), generator=g), stats.uniform()),
    "rand, sizes": (lambda n, m, g: torch.rand(n, m, generator=g), stats.uniform()),
    "rand, size": (lambda n, m, g: torch.rand(size=[n, m], generator=g), stats.uniform()),
    "rand, double": (
        lambda n, m, g: torch.rand((n, m), generator=g, dtype=torch.float64),
        stats.uniform(),
    ),
    "rand_like": (lambda n, m, g: torch.rand_like(torch.ones(n, m), generator=g), stats.uniform()),
    "randn": (lambda n, m, g: torch.randn((n, m), generator=g), stats.norm()),
    "randn, double": (
        lambda n, m, g: torch.randn((n, m), generator=g, dtype=torch.float64),
        stats.norm(),
    ),
    "randn_like": (lambda n, m, g: torch.randn_like(torch.ones(n, m), generator=g), stats.norm()),
    "uniform_": (lambda n, m, g: torch.empty(n, m).uniform_(generator=g), stats.uniform()),
    "uniform_, ends": (
        lambda n, m, g: torch.empty(n, m).uniform_(-1, 3, generator=g),
        stats.uniform(-1, 4),
    ),
    "normal_": (lambda n, m, g: torch.empty(n, m).normal_(generator=g), stats.norm()),
    "normal_, parameters": (
        lambda n, m, g: torch.empty(n, m).normal_(3, std=2, generator=g),
        stats.norm(3, 2),
    ),
    "normal, numbers": (
        lambda n, m, g: torch.normal(3.0, 2.0, (n, m), generator=g),
        stats.norm(3, 2),
    ),
    "normal, means": (
        lambda n, m, g: torch.normal(torch.full((n, m), 3.0), 2.0, generator=g),
        stats.norm(3, 2),
    ),
    "normal, deviations": (
        lambda n, m, g: torch.normal(3.0, torch.full((n, m), 2.0), generator=g),
        stats.norm(3, 2),
    ),
    "exponential_": (lambda n, m, g: torch.empty(n, m).exponential_(generator=g), stats.expon()),
    "exponential_, rate": (
        lambda n, m, g: torch.empty(n, m).exponential_(lambd=4.0, generator=g),
        stats.expon(0, 1 / 4),
    ),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_draws_have_the_distribution_of_the_call(name):
    call, law = CONTINUOUS[name]
    found = answered(lambda g: call(*LARGE, g))
    assert found.shape == LARGE
    assert found.dtype == call(2, 2, torch.Generator()).dtype
    assert stats.kstest(found.flatten().numpy(), law.cdf).pvalue > 1e-3
    each = [stats.kstest(row.numpy(), law.cdf).pvalue for row in found]
    assert stats.kstest(each, stats.uniform.cdf).pvalue > 1e-3  # also of each image alone


WHOLE = {
    "randint": (lambda n, m, g: torch.randint(7, (n, m), generator=g), range(7)),
    "randint, ends": (lambda n, m, g: torch.randint(-2, 5, (n, m), generator=g), range(-2, 5)),
    "randint, named": (
        lambda n, m, g: torch.randint(low=-2, high=5, size=(n, m), generator=g),
        range(-2, 5),
    ),
    "randint_like": (
        lambda n, m, g: torch.randint_like(torch.ones(n, m), 3, generator=g),
        range(3),
    ),
    "random_": (lambda n, m, g: torch.empty(n, m).random_(5, generator=g), range(5)),
    "random_, ends": (lambda n, m, g: torch.empty(n, m).random_(2, 5, generator=g), range(2, 5)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_equally_likely(name):
    call, values = WHOLE[name]
    found = answered(lambda g: call(*LARGE, g))
    assert found.dtype == call(2, 2, torch.Generator()).dtype
    counts = [int((found == value).sum()) for value in values]
    assert sum(counts) == math.prod(LARGE)
    assert stats.chisquare(counts).pvalue > 1e-3


PROBABILITIES = {
    "bernoulli_": lambda n, m, g: torch.empty(n, m).bernoulli_(0.3, generator=g),
    "bernoulli_, probabilities": lambda n, m, g: torch.empty(n, m).bernoulli_(
        torch.full((n, m), 0.3), generator=g
    ),
    "bernoulli": lambda n, m, g: torch.bernoulli(torch.full((n, m), 0.3), generator=g),
    "Tensor.bernoulli": lambda n, m, g: torch.ones(n, m).bernoulli(0.3, generator=g),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_bernoulli_draws_have_their_probability(name):
    found = answered(lambda g: PROBABILITIES[name](*LARGE, g))
    assert found.dtype == torch.float32
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert stats.binomtest(int(found.sum()), found.numel(), 0.3).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_one_in_every_type(dtype):
    found = answered(lambda g: torch.rand(LARGE, generator=g, dtype=dtype))
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(float(found.double().mean()) - 0.5) < 0.01
    assert (answered(lambda g: torch.empty(LARGE, dtype=dtype).exponential_(generator=g)) > 0).all()


def independent(a: Tensor, b: Tensor):
    """Return whether two large draws correlate as independent ones do, to five deviations."""
    correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
    return abs(float(correlation)) < 5 / math.sqrt(a.numel())


def test_images_draws_seeds_and_candidates_are_independent():
    def two(g):
        return torch.rand(LARGE, generator=g), torch.rand(LARGE, generator=g)

    first, second = answered(two)
    other_seed, _ = answered(two, seed=1)
    assert independent(first, second)
    assert independent(first, other_seed)
    assert independent(first[:-1], first[1:])  # neighbouring images
    assert independent(first[:, :-1], first[:, 1:])  # neighbouring pixels
    images = torch.arange(LARGE[0])
    one, other = (streams().fold_in(images, images * 0 + c).bits(LARGE) for c in (0, 1))
    assert independent(one.double(), other.double())
    child, parent = streams(), streams()
    assert independent(child.split().bits(LARGE).double(), parent.bits(LARGE).double())


@given(st.lists(st.integers(0, 99), min_size=1, unique=True), st.integers(0, 2**62))
def test_an_images_draws_do_not_depend_on_the_images_beside_it(indices, seed):
    def draws(of):
        found = Streams.of(seed, of)
        child = found.split()
        number = torch.full_like(of, 3)
        candidate = found.split().fold_in(torch.arange(len(of)), number)
        generator = torch.Generator()
        with intercept(found, generator):
            several = [
                torch.rand((len(of), 2, 3), generator=generator),
                torch.randn(len(of), generator=generator),
                torch.randint(5, (len(of), 1), generator=generator),
            ]
        return [*several, child.bits((len(of), 2)), candidate.bits((len(of), 2))]

    index = torch.tensor(indices)
    whole = draws(torch.arange(100))
    for part, of_all in zip(draws(index), whole, strict=True):
        assert torch.equal(part, of_all[index])


def unanswered(call):
    """Check that a random call inside an interception draws from the generator."""
    generator = torch.Generator().manual_seed(3)
    with intercept(streams(4), generator):
        found = call(generator)
    assert torch.equal(found, call(torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    "call",
    [
        lambda g: torch.rand((), generator=g),
        lambda g: torch.rand((5, 4), generator=g),
        lambda g: torch.randperm(5, generator=g),
    ],
)
def test_a_draw_without_a_row_per_image_is_the_generators(call):
    unanswered(call)


UNANSWERED = {
    "randperm": lambda g: torch.randperm(4, generator=g),
    "poisson": lambda g: torch.poisson(torch.ones(4, 2), generator=g),
    "multinomial": lambda g: torch.multinomial(torch.ones(4, 3), 2, generator=g),
    "random_": lambda g: torch.empty(4).random_(generator=g),
    "rand": lambda g: torch.rand((4, 2), generator=g, out=torch.empty(4, 2)),
}


@pytest.mark.parametrize("name", UNANSWERED)
def test_a_draw_with_a_row_per_image_but_no_answer_is_the_generators_and_warns_once(name):
    random_interception._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=f"^{name}: this draw depends on the batch"):
        unanswered(UNANSWERED[name])
    unanswered(UNANSWERED[name])  # a second warning would be an error


def test_other_generators_and_the_global_one_are_left_alone():
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    with intercept(streams(4), generator), torch.random.fork_rng():
        torch.manual_seed(1)
        found = torch.rand((4, 2), generator=other), torch.rand((4, 2))
    assert torch.equal(found[0], torch.rand((4, 2), generator=torch.Generator().manual_seed(1)))
    assert torch.equal(found[0], found[1])
