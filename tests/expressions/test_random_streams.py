"""The numbers of the random streams, and their independence of each other."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from curricula.expressions.random_streams import Streams, split_mix

BITS = st.integers(0, 2**64 - 1)


def unsigned(value):
    return int(value) % 2**64


def signed(value):
    return value - 2**64 if value >= 2**63 else value


def published(seed, count):
    """Return the first numbers of SplitMix64 as published, in Python's whole numbers."""
    state, found = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_the_published_generator_gives_its_published_numbers():
    # Vigna's splitmix64.c prints these for seed 1234567.
    assert published(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(BITS, st.integers(0, 2**20))
def test_split_mix_is_the_published_generator(seed, number):
    state = (seed + number * 0x9E3779B97F4A7C15) % 2**64  # this number of steps on
    (expected,) = published(state, 1)
    key = torch.tensor([signed(seed)])
    assert unsigned(split_mix(key, number)) == expected
    assert unsigned(split_mix(key, torch.tensor([number]))) == expected
    assert unsigned(key) == seed


def streams(n):
    return Streams.of(0, torch.arange(n))


def test_seeds_that_are_steps_of_one_another_share_no_image():
    """SplitMix64 seeded by 3 of its steps continues the sequence of seed 0 after 3 numbers."""
    seed = 3 * 0x9E3779B97F4A7C15 % 2**64
    a, b = Streams.of(0, torch.arange(50)).key_N, Streams.of(signed(seed), torch.arange(50)).key_N
    assert len(torch.cat([a, b]).unique()) == 100


def test_all_random_numbers_are_distinct():
    """Images, draws, splits, their splits and candidates: a collision among 2**64 is unlikely."""
    parent = streams(50)
    drawn = [parent.bits((50, 40)) for _ in range(5)]
    for child in [parent.split() for _ in range(5)]:
        grandchild = child.split()
        drawn += [child.bits((50, 40)), grandchild.bits((50, 40))]
    searched, images = parent.split(), torch.arange(50)
    drawn += [searched.fold_in(images, images * 0 + c).bits((50, 40)) for c in range(5)]
    bits = torch.cat(drawn).flatten()
    assert len(bits.unique()) == len(bits)


def test_a_candidates_stream_does_not_depend_on_the_candidates_beside_it():
    images = torch.arange(4)
    together = streams(4).fold_in(images.repeat(3), images.repeat_interleave(3) * 0 + 1)
    alone = streams(4).fold_in(images[2:3], torch.tensor([1]))
    assert torch.equal(together.bits((12, 5))[2], alone.bits((1, 5))[0])


def test_new_streams_are_drawn_from_the_generator():
    def bits(generator):
        return Streams.drawn(3, generator).bits((3, 2))

    generator = torch.Generator().manual_seed(0)
    first, second = bits(generator), bits(generator)
    assert torch.equal(first, bits(torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second)
