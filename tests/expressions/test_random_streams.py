"""Random streams of images: the numbers themselves, and that they depend on nobody else."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from curricula.expressions.random_streams import Streams, split_mix

WORDS = st.integers(0, 2**64 - 1)
LARGE = (200, 1000)  # images x numbers of a draw


def unsigned(value):
    return int(value) % 2**64


def signed(value):
    return value - 2**64 if value >= 2**63 else value


def published(seed, count):
    """SplitMix64 as published, in whole numbers of Python."""
    state, found = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_the_published_generator_gives_its_published_numbers():
    # Of seed 1234567, as Vigna's splitmix64.c prints them.
    assert published(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(WORDS, st.integers(0, 2**20))
def test_split_mix_is_the_published_generator(seed, number):
    state = (seed + number * 0x9E3779B97F4A7C15) % 2**64  # so many steps on
    (expected,) = published(state, 1)
    key = torch.tensor([signed(seed)])
    assert unsigned(split_mix(key, number)) == expected
    assert unsigned(split_mix(key, torch.tensor([number]))) == expected
    assert unsigned(key) == seed


def streams(n=LARGE[0], seed=0):
    return Streams.of(seed, torch.arange(n))


def answered(call, *, n=LARGE[0], seed=0):
    """What a random call gives, and that it came from the streams."""
    generator = torch.Generator().manual_seed(9)
    before = generator.get_state()
    with streams(n, seed).intercept(generator):
        found = call(generator)
    assert torch.equal(before, generator.get_state())
    return found


# What is called, and the distribution that it must have.
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
    assert stats.kstest(each, stats.uniform.cdf).pvalue > 1e-3  # each image by itself, too


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


SHARES = {
    "bernoulli_": lambda n, m, g: torch.empty(n, m).bernoulli_(0.3, generator=g),
    "bernoulli_, shares": lambda n, m, g: torch.empty(n, m).bernoulli_(
        torch.full((n, m), 0.3), generator=g
    ),
    "bernoulli": lambda n, m, g: torch.bernoulli(torch.full((n, m), 0.3), generator=g),
    "Tensor.bernoulli": lambda n, m, g: torch.ones(n, m).bernoulli(0.3, generator=g),
}


@pytest.mark.parametrize("name", SHARES)
def test_coins_fall_in_their_share(name):
    found = answered(lambda g: SHARES[name](*LARGE, g))
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
    """The correlation of two large draws is that of independent ones, to five deviations."""
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


def test_seeds_that_are_steps_of_one_another_share_no_image():
    """SplitMix64 seeded by 3 steps of it goes on as that of seed 0 does after 3."""
    seed = 3 * 0x9E3779B97F4A7C15 % 2**64
    a, b = Streams.of(0, torch.arange(50)).key_N, Streams.of(signed(seed), torch.arange(50)).key_N
    assert len(torch.cat([a, b]).unique()) == 100


def test_no_word_is_ever_used_twice():
    """Over images, draws, children, grandchildren and candidates: a birthday among 2**64 words."""
    parent = streams(50)
    drawn = [parent.bits((50, 40)) for _ in range(5)]
    for child in [parent.split() for _ in range(5)]:
        grandchild = child.split()
        drawn += [child.bits((50, 40)), grandchild.bits((50, 40))]
    searched, images = parent.split(), torch.arange(50)
    drawn += [searched.fold_in(images, images * 0 + c).bits((50, 40)) for c in range(5)]
    words = torch.cat(drawn).flatten()
    assert len(words.unique()) == len(words)


@given(st.lists(st.integers(0, 99), min_size=1, unique=True), st.integers(0, 2**62))
def test_an_image_draws_the_same_whoever_is_beside_it(indices, seed):
    def draws(of):
        found = Streams.of(seed, of)
        child = found.split()
        number = torch.full_like(of, 3)
        candidate = found.split().fold_in(torch.arange(len(of)), number)
        generator = torch.Generator()
        with found.intercept(generator):
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


def test_candidates_do_not_depend_on_who_runs_together():
    images = torch.arange(4)
    together = streams(4).fold_in(images.repeat(3), images.repeat_interleave(3) * 0 + 1)
    alone = streams(4).fold_in(images[2:3], torch.tensor([1]))
    assert torch.equal(together.bits((12, 5))[2], alone.bits((1, 5))[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda g: torch.rand((), generator=g),
        lambda g: torch.rand((5, 4), generator=g),
        lambda g: torch.randperm(4, generator=g),
        lambda g: torch.poisson(torch.ones(4, 2), generator=g),
        lambda g: torch.multinomial(torch.ones(4, 3), 2, generator=g),
        lambda g: torch.empty(4).random_(generator=g),
        lambda g: torch.rand((4, 2), generator=g, out=torch.empty(4, 2)),
    ],
)
def test_what_has_no_row_an_image_or_no_answer_is_the_generators(call):
    generator = torch.Generator().manual_seed(3)
    with streams(4).intercept(generator):
        found = call(generator)
    expected = call(torch.Generator().manual_seed(3))
    assert torch.equal(found, expected)


def test_another_generator_and_the_global_one_are_left_alone():
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    with streams(4).intercept(generator), torch.random.fork_rng():
        torch.manual_seed(1)
        found = torch.rand((4, 2), generator=other), torch.rand((4, 2))
    assert torch.equal(found[0], torch.rand((4, 2), generator=torch.Generator().manual_seed(1)))
    assert torch.equal(found[0], found[1])


def test_new_streams_are_the_generators():
    def words(generator):
        return Streams.drawn(3, generator).bits((3, 2))

    generator = torch.Generator().manual_seed(0)
    first, second = words(generator), words(generator)
    assert torch.equal(first, words(torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second)
