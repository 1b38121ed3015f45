"""Layers on fields over a group, and networks made of them.

A feature map of F fields over a group of G elements has F * G channels, field by field: a group
element moves the pixels and permutes the channels of each field (the regular representation). The
layers are plain torch, with filters transformed by escnn's groups. They do not use escnn's layers:
those of dN depend on a random decomposition that differs between processes, so that a checkpoint
would be wrong in a different process; and those of all groups share buffers between models and
have other buffers that depend on the mode.
"""

from collections.abc import Callable
from functools import partial
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.models.checks import check_weights, check_width
from curricula.runtime.memory_format import channels_last
from curricula.victim.copies import copied
from curricula_escnn.groups import moved_filters, order, quotients


class GroupConv(nn.Module):
    """A convolution that commutes with a group (Cohen and Welling 2016), from an image or from
    fields to fields.

    Its filter from element g of an input field to element h of an output field is the learned
    filter of h^-1 g, transformed by h. The weight holds, for each pair of fields and each element,
    the filter's coefficients in the basis of `curricula_escnn.groups.moved_filters`.

    Args:
        group: one of `curricula_escnn.groups.GROUPS`.
        in_fields: number of input fields, or of image channels.
        out_fields: number of output fields.
        side: height and width of the filters, in pixels.
        of_image: whether the input is an image.
        padding: width of the zero padding on each side, in pixels.
        bias: whether to add a bias, one value for each output field.

    Example:
        >>> GroupConv("c4", 3, 5, 3, of_image=True)(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 20, 6, 6])
    """

    of_elements: Tensor
    moved: Tensor

    def __init__(
        self,
        group: str,
        in_fields: int,
        out_fields: int,
        side: int,
        *,
        of_image: bool = False,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.padding, self.order = side, padding, order(group)
        # Checkpoints do not need them: both follow from the arguments.
        of_elements = torch.zeros_like(quotients(group)[:, :1]) if of_image else quotients(group)
        self.register_buffer("of_elements", of_elements.clone(), persistent=False)
        self.register_buffer("moved", moved_filters(group, side).clone(), persistent=False)
        coefficients = of_elements.shape[1] * self.moved.shape[1]
        # Three dimensions: a tensor of four would be converted to channels last, like filters.
        self.weight = nn.Parameter(torch.empty(out_fields, in_fields, coefficients))
        self.bias = nn.Parameter(torch.zeros(out_fields)) if bias else None
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def expanded(self) -> tuple[Tensor, Tensor | None]:
        """Return filters and bias of the ordinary convolution that computes the same at the current
        weights."""
        # In float32 under autocast too: sums of rounded filters would not be symmetric.
        with torch.autocast(self.weight.device.type, enabled=False):
            weight_OIEB = self.weight.unflatten(2, (-1, self.moved.shape[1]))
            filters_OHIGP = torch.stack(
                [
                    weight_OIEB.index_select(2, elements_G) @ moved_BP
                    for elements_G, moved_BP in zip(self.of_elements, self.moved, strict=True)
                ],
                dim=1,
            )
        filters = filters_OHIGP.flatten(2, 3).flatten(0, 1).unflatten(2, (self.side, self.side))
        bias = None if self.bias is None else self.bias.repeat_interleave(self.order)
        return filters, bias

    def forward(self, x_NCHW: Tensor) -> Tensor:
        filters, bias = self.expanded()
        return F.conv2d(x_NCHW, filters, bias, padding=self.padding)

    def plain(self) -> nn.Module:
        """Return an ordinary convolution that computes the same, with its own tensors."""
        with torch.no_grad():
            filters, bias = self.expanded()
        state = {"weight": filters} if bias is None else {"weight": filters, "bias": bias}
        with torch.device("meta"):  # draws nothing from the global random state
            convolution = nn.Conv2d(
                filters.shape[1],
                filters.shape[0],
                self.side,
                padding=self.padding,
                bias=bias is not None,
            )
        convolution.load_state_dict(state, assign=True)
        return convolution


class FieldNorm(nn.BatchNorm2d):
    """Batch normalisation with one mean, variance, scale and bias for each field, so that it
    commutes with permutations of a field's channels."""

    def __init__(self, group: str, fields: int) -> None:
        super().__init__(fields)
        self.order = order(group)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        fields = x_NCHW.unflatten(1, (-1, self.order)).flatten(2, 3)
        return super().forward(fields).reshape(x_NCHW.shape)

    def plain(self) -> nn.Module:
        """Return an ordinary batch norm in eval mode that computes the same, with its own
        tensors."""
        state = {
            name: value.repeat_interleave(self.order) if value.dim() else value.clone()
            for name, value in self.state_dict().items()
        }
        with torch.device("meta"):
            norm = nn.BatchNorm2d(self.num_features * self.order, eps=self.eps)
        norm.load_state_dict(state, assign=True)
        return norm


class GroupMax(nn.Module):
    """Reduce each field to one channel, the maximum over the group."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.order = order(group)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.unflatten(1, (-1, self.order)).amax(2)


class InvariantNetwork(nn.Module):
    """A network from images NCHW to logits (N, K) that do not change if a group's element moves the
    image.

    Attributes:
        width: number of fields of its first layer, for the resolved expression.
    """

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.layers(x_NCHW)
        return logits

    def plain_equivalent(self) -> nn.Module:
        """Return a network of ordinary torch layers, in eval mode, with the same logits."""
        memo = {
            id(layer): layer.plain()
            for layer in self.modules()
            if isinstance(layer, GroupConv | FieldNorm)
        }
        plain = copied(self.layers, memo).eval()
        return channels_last(plain)  # the memory format of the victim's images


def parameter_count(build: Callable[[], nn.Module]) -> int:
    """Return the number of parameters of a network, without drawing or storing them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def matched_width(
    width: int | None, build: Callable[[int], nn.Module], twin: Callable[[], nn.Module]
) -> int:
    """Return the given width, or else the width at which a network's parameter count is closest to
    the plain network's.

    Args:
        width: number of fields of the first layer, 1 to 10,000, or None.
        build: builds the network of a width; its parameter count is quadratic in the width.
        twin: builds the plain network.

    Raises:
        UserError: a width out of range, or weights that do not fit into memory.
    """
    if width is not None:
        check_width(width)
        check_weights(f"a network of width {width}", parameter_count(partial(build, width)))
        return width
    plain = parameter_count(twin)
    one, two, three = (parameter_count(partial(build, n)) for n in (1, 2, 3))
    first, second = two - one, three - 2 * two + one

    def count(candidate: int) -> int:  # the quadratic, by Newton's forward differences
        return one + first * (candidate - 1) + second * (candidate - 1) * (candidate - 2) // 2

    return min(range(1, isqrt(plain) + 2), key=lambda candidate: abs(count(candidate) - plain))
