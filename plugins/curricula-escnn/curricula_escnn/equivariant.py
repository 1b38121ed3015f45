"""The layers of a network on fields over a group, and the network that they make.

A map of F fields over a group of G elements is an ordinary map of F * G channels, field by field: a
group element moves the pixels and permutes the channels of each field (the regular representation).
The layers are plain torch around filters that escnn's groups move; escnn's own layers are not used:
those of dN need a random decomposition that differs from process to process, so that a checkpoint
would mean nothing elsewhere, and those of all groups share buffers between models and keep others
that depend on the mode.
"""

import copy
from collections.abc import Callable
from functools import partial
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.runtime.memory_format import channels_last
from curricula_escnn.groups import moved_filters, order, quotients


class GroupConv(nn.Module):
    """A convolution that commutes with a group (Cohen and Welling 2016): from the channels of an
    image, or from fields, to fields.

    Its filter from element g of a field in to element h of a field out is the filter that is
    learned for h^-1 g, moved by h. The weight holds, for each pair of fields and each element, the
    filter's coefficients in a basis of curricula_escnn.groups.moved_filters.

    Args:
        group: one of curricula_escnn.groups.GROUPS.
        in_fields: how many fields come in, or how many channels an image has.
        out_fields: how many fields go out.
        side: height and width of the filters, in pixels.
        of_image: the input is an image.
        padding: by zeros, on each side.
        bias: one value for each field out.
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
        # Not in checkpoints: both follow from the arguments.
        of_elements = torch.zeros_like(quotients(group)[:, :1]) if of_image else quotients(group)
        self.register_buffer("of_elements", of_elements.clone(), persistent=False)
        self.register_buffer("moved", moved_filters(group, side).clone(), persistent=False)
        coefficients = of_elements.shape[1] * self.moved.shape[1]
        # Of three dimensions: of four it would be taken for filters, and laid out channels last.
        self.weight = nn.Parameter(torch.empty(out_fields, in_fields, coefficients))
        self.bias = nn.Parameter(torch.zeros(out_fields)) if bias else None
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def expanded(self) -> tuple[Tensor, Tensor | None]:
        """The filters and the bias of the ordinary convolution that this is at present."""
        # In full precision under autocast too: sums of rounded filters would not be symmetric.
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
        """The ordinary convolution, apart from this one."""
        with torch.no_grad():
            filters, bias = self.expanded()
        state = {"weight": filters} if bias is None else {"weight": filters, "bias": bias}
        with torch.device("meta"):  # nothing is drawn from the global random state
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
    """Batch normalisation with the statistics and the scale of each field: they are those of its
    channels together, so that permuting these changes nothing."""

    def __init__(self, group: str, fields: int) -> None:
        super().__init__(fields)
        self.order = order(group)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        fields = x_NCHW.unflatten(1, (-1, self.order)).flatten(2, 3)
        return super().forward(fields).reshape(x_NCHW.shape)

    def plain(self) -> nn.Module:
        """The ordinary batch normalisation at rest, apart from this one."""
        state = {
            name: value.repeat_interleave(self.order) if value.dim() else value.clone()
            for name, value in self.state_dict().items()
        }
        with torch.device("meta"):
            norm = nn.BatchNorm2d(self.num_features * self.order, eps=self.eps)
        norm.load_state_dict(state, assign=True)
        return norm


class GroupMax(nn.Module):
    """From fields to one channel each, the largest over the group: a scalar map."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.order = order(group)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.unflatten(1, (-1, self.order)).amax(2)


class InvariantNetwork(nn.Module):
    """Layers from images to logits that a group leaves as they are.

    Attributes:
        width: of its layers, for the expression that states in full what was built.
    """

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.layers(x_NCHW)
        return logits

    def plain_equivalent(self) -> nn.Module:
        """The same function at the present weights as ordinary torch layers, at rest."""
        memo = {
            id(layer): layer.plain()
            for layer in self.modules()
            if isinstance(layer, GroupConv | FieldNorm)
        }
        plain = copy.deepcopy(self.layers, memo).eval()
        return channels_last(plain)  # as the victim lays out its images


def parameter_count(build: Callable[[], nn.Module]) -> int:
    """How many parameters a network has, without drawing or storing them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def matched_width(width: int | None, build: Callable[[int], nn.Module], twin: int) -> int:
    """The width given, or else the one whose parameter count is nearest to the plain twin's.

    Args:
        width: fields of the first layer, 1 or more, or None.
        build: the network of a width; its parameter count is a quadratic in the width.
        twin: the plain network's parameter count.

    Raises:
        UserError: a width out of range.
    """
    if width is not None:
        if width < 1:
            raise UserError(f"width must be 1 or more, not {width}")
        return width
    one, two, three = (parameter_count(partial(build, n)) for n in (1, 2, 3))
    first, second = two - one, three - 2 * two + one

    def count(candidate: int) -> int:  # the quadratic, by Newton's forward differences
        return one + first * (candidate - 1) + second * (candidate - 1) * (candidate - 2) // 2

    return min(range(1, isqrt(twin) + 2), key=lambda candidate: abs(count(candidate) - twin))
