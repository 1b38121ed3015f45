"""Intercept torch's random calls, so that each image's random numbers come from its own stream.

A perturbation writes ``torch.rand(shape, generator=generator)`` and needs no other call: in an
evaluation it runs inside `intercept`, which answers calls with this generator from `Streams`, one
row per image.
"""

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from curricula.expressions.random_streams import Streams, shift_right


def intercept(streams: Streams, generator: torch.Generator) -> AbstractContextManager[Any]:
    """Return a context manager in which ``torch.rand`` and other random calls with ``generator``
    draw from the images' streams.

    These calls are ``torch.rand``, ``randn``, ``randint``, ``rand_like``, ``randn_like``,
    ``randint_like``, ``normal`` and ``bernoulli``, and a tensor's ``uniform_``, ``normal_``,
    ``exponential_``, ``bernoulli_``, ``bernoulli`` and ``random_`` with an upper end, if the result
    has one row per image. All other calls draw from the generator itself. If such a result has one
    row per image, a `UserWarning` is given once per function, since it depends on the batch.

    Example:
        >>> generator = torch.Generator()
        >>> with intercept(Streams.of(0, torch.tensor([7, 8])), generator):
        ...     both = torch.rand((2, 3), generator=generator)
        >>> with intercept(Streams.of(0, torch.tensor([8])), generator):
        ...     one = torch.rand((1, 3), generator=generator)
        >>> torch.equal(both[1:], one)
        True
    """
    return _Interception(streams, generator)


class GeneratorCalls(TorchFunctionMode, ABC):
    """A context manager whose `answer` replaces torch's calls with one generator.

    Args:
        generator: the generator; all other calls run as they are.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        return self.answer(func, args, kwargs)

    @abstractmethod
    def answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return the result of a call with the generator."""


class _Interception(GeneratorCalls):
    def __init__(self, streams: Streams, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.streams = streams

    def answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        request = _requested(func, args, kwargs)
        n = len(self.streams.key_N)
        if request is not None and request.shape and request.shape[0] == n:
            values = request.values(self.streams.bits(request.shape))
            return values if request.into is None else request.into.copy_(values)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.ndim > 0 and len(result) == n:
            _warn_once(getattr(func, "__name__", str(func)))
        return result


@functools.cache
def _warn_once(function: str) -> None:
    """Warn, once per function, that a random call was not intercepted, so that its numbers depend
    on the batch."""
    warnings.warn(
        f"{function}: this draw depends on the batch, so an image's result depends on the images "
        f"beside it; use rand, randn, randint, normal or bernoulli without {_UNSUPPORTED_WORDS}",
        UserWarning,
        stacklevel=3,
    )


@attrs.frozen
class _Request:
    """The shape and the distribution of the numbers that a random call should return.

    Attributes:
        shape: its shape.
        values: returns the values, given their bits.
        into: the tensor to write the values into; None for a new one.
    """

    shape: Sequence[int]
    values: Callable[[Tensor], Tensor]
    into: Tensor | None = None


UNSUPPORTED = frozenset({"out", "layout", "pin_memory", "requires_grad", "memory_format"})
"""Keywords that the answers do not support; a call with one of them is not answered."""
_UNSUPPORTED_WORDS = ", ".join(sorted(UNSUPPORTED))


def _requested(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> _Request | None:
    """Return the shape and distribution that a random call requests, or None if it cannot be
    intercepted."""
    read = READERS.get(func)
    if read is None or kwargs.keys() & UNSUPPORTED:
        return None
    return read(args, {name: value for name, value in kwargs.items() if name != "generator"})


Reader = Callable[[tuple[Any, ...], dict[str, Any]], _Request | None]
Sampler = Callable[[Tensor, torch.dtype], Tensor]


def uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return uniform numbers in [0, 1), one per int64 of random bits, with as many binary digits as
    the dtype holds."""
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    return shift_right(bits, 64 - digits).to(dtype).mul_(2.0**-digits)


def _halves(bits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return two tensors of uniform numbers, the first in (0, 1] and the second in [0, 1], from the
    upper and lower 32 of each int64's bits."""
    wide = torch.promote_types(dtype, torch.float32)
    high, low = shift_right(bits, 32).add_(1), bits & (2**32 - 1)
    return high.to(wide).mul_(2.0**-32), low.to(wide).mul_(2.0**-32)


def normal(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers, one per int64 of random bits (Box and Muller 1958)."""
    one, other = _halves(bits, dtype)
    return (one.log_().mul_(-2).sqrt_() * other.mul_(2 * math.pi).cos_()).to(dtype)


def exponential(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exponential numbers of rate 1, above 0, one per int64 of random bits."""
    one, _ = _halves(bits, dtype)
    return one.log_().neg_().to(dtype).clamp_min_(torch.finfo(dtype).tiny)


def integers(bits: Tensor, low: int, high: int) -> Tensor:
    """Return whole numbers from ``low`` to ``high - 1``, one per int64 of random bits; their
    probabilities differ by at most (high - low) / 2**63."""
    return shift_right(bits, 1).remainder_(high - low).add_(low)


def _factory(sampler: Sampler) -> Reader:
    """Return a function that reads the shape and dtype from the arguments of ``rand`` or
    ``randn``."""

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request | None:
        shape = kwargs.get("size", args)
        if len(shape) == 1 and isinstance(shape[0], Sequence):
            (shape,) = shape
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return _Request(shape, lambda bits: sampler(bits, dtype))

    return read


def _like(sampler: Sampler) -> Reader:
    """Return a function that reads the shape and dtype from the arguments of ``rand_like`` or
    ``randn_like``."""

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
    """Return (low, high) from the arguments of a call that draws whole numbers; low is 0 if it is
    left out."""
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
    """Return the tensor that a method is called on, followed by the method's other arguments, in
    the order of ``defaults``."""
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
"""The readers of the answered calls, by function."""
