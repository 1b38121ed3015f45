"""One stream of random numbers per image, so that an image's numbers do not depend on the rest of
the batch.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", figure 17), in wrapping int64 arithmetic on the images' device. Keys are split as in
JAX: a key makes either numbers or other keys, and each of its outputs is used once.

Legend of shapes: N images, M candidates of a search.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """Return the signed 64-bit integer with the same bits as an unsigned one."""
    return (value + 2**63) % 2**64 - 2**63


GAMMA = _signed(0x9E3779B97F4A7C15)
MIX_1 = _signed(0xBF58476D1CE4E5B9)
MIX_2 = _signed(0x94D049BB133111EB)


def split_mix(key: Tensor, number: Tensor | int) -> Tensor:
    """Return 64 random bits as int64: output ``number``, counted from 0, of SplitMix64 seeded by
    ``key``. Both are int64 and broadcast together.

    The outputs of one key are all distinct.
    """
    z = key + (_signed((number + 1) * GAMMA) if isinstance(number, int) else (number + 1) * GAMMA)
    z ^= shift_right(z, 30)
    z *= MIX_1
    z ^= shift_right(z, 27)
    z *= MIX_2
    z ^= shift_right(z, 31)
    return z


def shift_right(bits: Tensor, by: int) -> Tensor:
    """Return int64 numbers with their bits shifted right and zeros shifted in; torch's own shift
    copies the sign bit."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


class Streams:
    """One stream of random numbers for each of N images; each draw or split advances all of them by
    one.

    Args:
        key_N: int64 keys.

    Example:
        >>> batch = Streams.of(0, torch.tensor([7, 8, 9])).bits((3, 2))
        >>> alone = Streams.of(0, torch.tensor([8])).bits((1, 2))
        >>> torch.equal(batch[1:2], alone)
        True
    """

    def __init__(self, key_N: Tensor) -> None:
        self.key_N = key_N
        self._used = 0

    @classmethod
    def of(cls, seed: int | Tensor, indices_N: Tensor) -> "Streams":
        """Return the streams of the images at ``indices_N`` in a split: image 7 has the same stream
        in every batch."""
        key = torch.as_tensor(seed, dtype=torch.int64, device=indices_N.device)
        return cls(split_mix(split_mix(key, 0), indices_N))

    @classmethod
    def drawn(cls, n: int, generator: torch.Generator) -> "Streams":
        """Return streams for n images, with a seed drawn from the generator."""
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        return cls.of(seed, torch.arange(n, device=generator.device))

    def _next_key(self) -> Tensor:
        self._used += 1
        return split_mix(self.key_N, self._used - 1)

    def split(self) -> "Streams":
        """Return new streams for the same images, with keys drawn from these streams."""
        return Streams(self._next_key())

    def fold_in(self, index_M: Tensor, number_M: Tensor) -> "Streams":
        """Return M streams, each made from the key of image ``index_M`` and the number ``number_M``
        (like ``jax.random.fold_in``).

        The stream of a candidate then depends neither on the candidates that run with it nor on
        the other images. Do not draw from or split these streams as well.
        """
        return Streams(split_mix(self.key_N[index_M], number_M))

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Return int64 numbers of 64 random bits each, in the given shape, whose first dimension is
        N."""
        each = math.prod(shape[1:])
        places = torch.arange(each, device=self.key_N.device)
        return split_mix(self._next_key()[:, None], places).reshape(tuple(shape))
