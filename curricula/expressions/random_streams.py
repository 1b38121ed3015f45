"""A random stream for each image, so that what a threat draws for it depends on nobody else.

A perturbation writes ``torch.rand(shape, generator=generator)`` and knows nothing of this: while it
runs in a threat, `Streams.intercept` takes such calls and answers each with numbers that are a
function of the image's key and of how many draws came before, a row an image. The generator is
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure
17), in wrapping int64 arithmetic on the images' device. Keys are split as in JAX: a key makes
either numbers or other keys, and each of its outputs is used once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


GAMMA = _signed(0x9E3779B97F4A7C15)
MIX_1 = _signed(0xBF58476D1CE4E5B9)
MIX_2 = _signed(0x94D049BB133111EB)


def split_mix(key: Tensor, number: Tensor | int) -> Tensor:
    """Output ``number``, from 0, of SplitMix64 seeded by ``key``; both int64, broadcast together.

    For one key the outputs of all numbers are distinct.
    """
    z = key + (_signed((number + 1) * GAMMA) if isinstance(number, int) else (number + 1) * GAMMA)
    z ^= _shifted(z, 30)
    z *= MIX_1
    z ^= _shifted(z, 27)
    z *= MIX_2
    z ^= _shifted(z, 31)
    return z


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shifted to the right, zeros coming in: torch's own shift repeats the sign."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


class Streams:
    """The random streams of some images; each draw or split moves all of them on by one.

    Args:
        key_N: int64, of each image.
    """

    def __init__(self, key_N: Tensor) -> None:
        self.key_N = key_N
        self._used = 0

    @classmethod
    def of(cls, seed: int | Tensor, indices_N: Tensor) -> "Streams":
        """Those of images by their index in a split: image 7 has the same in every batch."""
        key = torch.as_tensor(seed, dtype=torch.int64, device=indices_N.device)
        return cls(split_mix(split_mix(key, 0), indices_N))

    @classmethod
    def drawn(cls, n: int, generator: torch.Generator) -> "Streams":
        """New ones for n images, of which the generator gives the seed."""
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        return cls.of(seed, torch.arange(n, device=generator.device))

    def _next_key(self) -> Tensor:
        self._used += 1
        return split_mix(self.key_N, self._used - 1)

    def split(self) -> "Streams":
        """New ones of the same images."""
        return Streams(self._next_key())

    def fold_in(self, index_M: Tensor, number_M: Tensor) -> "Streams":
        """New ones of some images, by a number that is theirs among all of an image: those of a
        candidate of a search do not depend on which candidates run together, nor on which images
        are searched. A stream that is numbered serves no other purpose."""
        return Streams(split_mix(self.key_N[index_M], number_M))

    def bits(self, shape: Sequence[int]) -> Tensor:
        """64 random bits each, int64, in a shape that begins with the number of images."""
        each = math.prod(shape[1:])
        places = torch.arange(each, device=self.key_N.device)
        return split_mix(self._next_key()[:, None], places).reshape(tuple(shape))

    def intercept(self, generator: torch.Generator) -> AbstractContextManager[Any]:
        """Within it, random calls with this generator are answered from the streams.

        That is so for ``torch.rand``, ``randn``, ``randint``, the three of them with ``_like``,
        ``normal`` and ``bernoulli``, and for a tensor's ``uniform_``, ``normal_``,
        ``exponential_``, ``bernoulli_``, ``bernoulli`` and ``random_`` with an upper end, where
        the result has a row for each image. Everything else draws from the generator itself.
        """
        return _Interception(self, generator)


class _Interception(TorchFunctionMode):
    def __init__(self, streams: Streams, generator: torch.Generator) -> None:
        super().__init__()
        self.streams, self.generator = streams, generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is self.generator:
            request = _requested(func, args, kwargs)
            n = len(self.streams.key_N)
            if request is not None and request.shape and request.shape[0] == n:
                values = request.values(self.streams.bits(request.shape))
                return values if request.into is None else request.into.copy_(values)
        return func(*args, **kwargs)


@attrs.frozen
class _Request:
    """What a random call asks for: a shape, how its values are made of bits, and the tensor that
    they are written into, if it is not a new one."""

    shape: Sequence[int]
    values: Callable[[Tensor], Tensor]
    into: Tensor | None = None


UNSUPPORTED = frozenset({"out", "layout", "pin_memory", "requires_grad", "memory_format"})
"""The keywords that the answers do not know; a call with one of them is not answered."""


def _requested(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> _Request | None:
    """None for a call that the streams do not answer."""
    read = READERS.get(func)
    if read is None or kwargs.keys() & UNSUPPORTED:
        return None
    return read(args, {name: value for name, value in kwargs.items() if name != "generator"})


Reader = Callable[[tuple[Any, ...], dict[str, Any]], _Request | None]
Sampler = Callable[[Tensor, torch.dtype], Tensor]


def uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniform in [0, 1), as many binary digits as the type holds of every such number."""
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    return _shifted(bits, 64 - digits).to(dtype).mul_(2.0**-digits)


def _halves(bits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two uniform numbers of 32 digits: in (0, 1] and in [0, 1]."""
    wide = torch.promote_types(dtype, torch.float32)
    high, low = _shifted(bits, 32).add_(1), bits & (2**32 - 1)
    return high.to(wide).mul_(2.0**-32), low.to(wide).mul_(2.0**-32)


def normal(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal (Box and Muller 1958)."""
    one, other = _halves(bits, dtype)
    return (one.log_().mul_(-2).sqrt_() * other.mul_(2 * math.pi).cos_()).to(dtype)


def exponential(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Exponential of rate 1, above 0."""
    one, _ = _halves(bits, dtype)
    return one.log_().neg_().to(dtype).clamp_min_(torch.finfo(dtype).tiny)


def integers(bits: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers from low to high - 1; the odds differ by (high - low) / 2**63 at most."""
    return _shifted(bits, 1).remainder_(high - low).add_(low)


def _factory(sampler: Sampler) -> Reader:
    """``rand`` and ``randn``."""

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request | None:
        shape = kwargs.get("size", args)
        if len(shape) == 1 and isinstance(shape[0], Sequence):
            (shape,) = shape
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return _Request(shape, lambda bits: sampler(bits, dtype))

    return read


def _like(sampler: Sampler) -> Reader:
    """``rand_like`` and ``randn_like``."""

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request | None:
        like = args[0] if args else kwargs["input"]
        dtype = kwargs.get("dtype") or like.dtype
        return _Request(like.shape, lambda bits: sampler(bits, dtype))

    return read


def _randint(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    *ends, shape = (*args, kwargs["size"]) if "size" in kwargs else args
    low, high = _ends(ends, kwargs, ("low", "high"))
    dtype = kwargs.get("dtype") or torch.int64
    return _Request(shape, lambda bits: integers(bits, low, high).to(dtype))


def _randint_like(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    like, *ends = args if "input" not in kwargs else (kwargs["input"], *args)
    low, high = _ends(ends, kwargs, ("low", "high"))
    dtype = kwargs.get("dtype") or like.dtype
    return _Request(like.shape, lambda bits: integers(bits, low, high).to(dtype))


def _random_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request | None:
    into, *ends = args
    low, high = _ends(ends, kwargs, ("from", "to"))
    if high is None:
        return None
    return _Request(into.shape, lambda bits: integers(bits, low, high), into)


def _ends(args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, Any]:
    """Where whole numbers begin and end; the beginning comes first and may be left out."""
    ends = [None, *args, *(kwargs[name] for name in names if name in kwargs)]
    low, high = ends[-2:] if len(ends) > 1 else (None, None)
    return low or 0, high


def _uniform_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    into, low, high = _given(args, kwargs, {"from": 0.0, "to": 1.0})
    return _Request(
        into.shape, lambda bits: uniform(bits, into.dtype).mul_(high - low).add_(low), into
    )


def _normal_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    into, mean, std = _given(args, kwargs, {"mean": 0.0, "std": 1.0})
    return _Request(into.shape, lambda bits: normal(bits, into.dtype) * std + mean, into)


def _exponential_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    into, rate = _given(args, kwargs, {"lambd": 1.0})
    return _Request(into.shape, lambda bits: exponential(bits, into.dtype) / rate, into)


def _bernoulli_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    into, share = _given(args, kwargs, {"p": 0.5})
    return _Request(into.shape, lambda bits: uniform(bits, torch.float32) < share, into)


def _bernoulli(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    like, share = _given(args, kwargs, {"p": None})
    share = like if share is None else share
    return _Request(like.shape, lambda bits: (uniform(bits, torch.float32) < share).to(like.dtype))


def _normal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request:
    given = dict(zip(("mean", "std", "size"), args, strict=False)) | kwargs
    mean, std = given["mean"], given.get("std", 1.0)
    tensors = [part for part in (mean, std) if isinstance(part, Tensor)]
    if not tensors:
        dtype = given.get("dtype") or torch.get_default_dtype()
        return _Request(given["size"], lambda bits: normal(bits, dtype) * std + mean)
    shape = torch.broadcast_shapes(*(part.shape for part in tensors))  # type: ignore[no-untyped-call]
    return _Request(shape, lambda bits: normal(bits, tensors[0].dtype) * std + mean)


def _given(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Any]:
    """The tensor that a method is of, and its parameters in order."""
    names = ["input", *defaults]
    found = {**defaults, **kwargs, **dict(zip(names, args, strict=False))}
    return [found[name] for name in names]


READERS: Mapping[Callable[..., Any], Reader] = {
    torch.rand: _factory(uniform),
    torch.randn: _factory(normal),
    torch.randint: _randint,
    torch.rand_like: _like(uniform),
    torch.randn_like: _like(normal),
    torch.randint_like: _randint_like,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    Tensor.uniform_: _uniform_,
    Tensor.normal_: _normal_,
    Tensor.exponential_: _exponential_,
    Tensor.bernoulli_: _bernoulli_,
    Tensor.random_: _random_,
}
