"""A layer that normalises images, the first of every model, so that budgets are in [0, 1] pixel
units."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curricula.errors import UserError, shown
from curricula.models.normalisation import (
    NONE,
    OWN,
    SMALLEST_STD,
    parse_normalisation,
)
from curricula.runtime.values import check_number


class Normalise(nn.Module):
    """A layer that returns (x - mean) / std, with one mean and std for all channels or one for each
    channel; by default it maps [0, 1] to [-1, 1].

    Args:
        mean: value to subtract from every pixel, or a sequence with one for each channel.
        std: value to divide the difference by, above 0, or a sequence with one for each channel.

    Raises:
        UserError: a mean or std that is not finite, a std that is not above 0, different
            numbers of means and stds; in `forward`, images that are not floating-point or have a
            different number of channels.

    Example:
        >>> Normalise()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.,  0.,  1.])
        >>> imagenet = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> imagenet(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5
    ) -> None:
        super().__init__()
        means, stds = _values("mean", mean, None), _values("std", std, SMALLEST_STD)
        counts = {len(each) for each in (means, stds) if isinstance(each, list)} - {1}
        if len(counts) > 1:
            raise UserError(
                f"mean and std must have one value each, or one for each channel, not "
                f"{_number(means)} and {_number(stds)}"
            )
        self.channels = max(counts, default=None)
        self.register_buffer("mean", _of_channels(means))
        self.register_buffer("std", _of_channels(stds))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        mean, std = self.mean, self.std
        if isinstance(x_NCHW, Tensor):  # torch.fx traces this code with a stand-in
            self._check(x_NCHW)
            mean, std = mean.to(x_NCHW.dtype), std.to(x_NCHW.dtype)
        return (x_NCHW - mean) / std

    def _check(self, x_NCHW: Tensor) -> None:
        if not x_NCHW.is_floating_point():
            raise UserError(
                f"images must be floating-point in [0, 1] to be normalised, not {x_NCHW.dtype}; "
                "write x.float() / 255"
            )
        if self.channels is None:
            return
        found = x_NCHW.shape[-3] if x_NCHW.ndim >= 3 else None
        if found != self.channels:
            raise UserError(
                f"the normalisation has {self.channels} means and stds, one for each channel, but "
                f"the images, of shape {tuple(x_NCHW.shape)}, have {found or 'no'} channels; give "
                "one mean and std, or one for each of their channels"
            )


def _values(name: str, given: Any, low: float | None) -> float | list[float]:
    """Return a mean or std as one number, or as a list with one for each channel.

    Raises:
        UserError: it is neither, or a number is not finite or below ``low``.
    """
    listed = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        if not listed:
            raise UserError(f"{name} must be a number or one for each channel, not {shown(given)}")
        return [_value(name, value, low) for value in listed]
    return _value(name, listed, low)


def _value(name: str, value: Any, low: float | None) -> float:
    check_number(name, value, -1e6 if low is None else low)
    return float(value)


def _number(values: float | list[float]) -> int:
    return len(values) if isinstance(values, list) else 1


def _of_channels(values: float | list[float]) -> Tensor:
    """Return a number as a tensor (), and a list of C numbers as (C, 1, 1)."""
    tensor = torch.tensor(values)
    return tensor[:, None, None] if tensor.ndim else tensor


def with_normalisation(model: nn.Module, text: str, in_channels: int) -> nn.Module:
    """Return a model whose images are normalised as a text such as ``cifar10`` or ``0.5/0.25``
    says: its first `Normalise` layer is replaced in place, or a layer is put in front of it.

    Args:
        model: the model.
        text: ``own`` returns the model as it is; ``none`` removes its first `Normalise` layer.
        in_channels: number of channels of the images.

    Raises:
        UserError: an unknown name, or a normalisation for a different number of channels.

    Example:
        >>> model = with_normalisation(nn.Flatten(), "mnist", 1)
        >>> model(torch.full((1, 1, 1, 1), 0.1307))
        tensor([[0.]])
    """
    if text == OWN:
        return model
    found = parse_normalisation(text, in_channels)
    layer: nn.Module = nn.Identity()
    if found is not None:
        mean = found.mean if len(found.mean) > 1 else found.mean[0]
        layer = Normalise(mean, found.std if len(found.std) > 1 else found.std[0])
    for name, inner in model.named_modules():
        kind = type(inner)
        if kind.__name__ == "Normalize" and kind.__module__.startswith("torchvision."):
            raise UserError(
                f"the model normalises its images already, by torchvision's Normalize ({name}): "
                "leave out normalise (--normalise), or take that layer out"
            )
    first = first_normalise(model)
    if first is None:
        return model if text == NONE else nn.Sequential(layer, model)
    model.set_submodule(first, layer)
    return model


def first_normalise(model: nn.Module) -> str | None:
    """Return the name of the first `Normalise` layer inside a model; None if there is none."""
    layers = model.named_modules()
    return next((name for name, layer in layers if isinstance(layer, Normalise) and name), None)
