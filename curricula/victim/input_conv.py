"""A first convolution whose gradient with respect to the image is cheap on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_CHANNELS = 4  # input channels; with more, torch's own gradient is as fast


class FastInputGradConv2d(nn.Conv2d):
    """A convolution with few input channels whose gradient with respect to the input is fast on a
    CPU.

    oneDNN computes this gradient for a padded number of channels: for a grey image it takes a tenth
    of a small network's pass, and half of it if the convolution has a stride. This class multiplies
    all filters with the gradient of the output in one matrix product, and sums the shifted planes.
    On other devices, and when compiled, it uses torch's gradient.

    Args:
        layer: a convolution for which `is_supported` holds; its tensors are shared.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        with torch.device("meta"):
            super().__init__(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_compiling() or not input.requires_grad:
            return super().forward(input)
        out: Tensor = _Convolve.apply(input, self.weight, self.bias, self.stride, self.padding)
        return out


def is_supported(layer: nn.Module) -> bool:
    """Return whether `FastInputGradConv2d` can replace a layer: a plain convolution with few input
    channels.

    A stride is supported for grey images only: for more channels torch is often faster.

    Example:
        >>> is_supported(nn.Conv2d(3, 8, 3, padding=1)), is_supported(nn.Conv2d(64, 8, 3))
        (True, False)
    """
    return (
        type(layer) is nn.Conv2d
        and layer.in_channels <= MAX_CHANNELS
        and (layer.stride == (1, 1) or layer.in_channels == 1)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and has_no_hooks(layer)
    )


def has_no_hooks(layer: nn.Module) -> bool:
    """Return whether a layer has neither hooks nor a ``forward`` set on the instance."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return not any(hooks) and "forward" not in vars(layer)


class _Convolve(torch.autograd.Function):
    """Convolve by torch, and compute the gradient with respect to the input by one matrix
    product."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NCHW: Tensor,
        weight_OCHW: Tensor,
        bias_O: Tensor | None,
        stride: Any,
        padding: Any,
    ) -> Tensor:
        # A gradient that is missing must stay missing: zeros would stop attacks without a message.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight_OCHW)
        ctx.stride, ctx.padding = stride, padding
        ctx.shape, ctx.dtype = x_NCHW.shape, x_NCHW.dtype
        return F.conv2d(x_NCHW, weight_OCHW, bias_O, stride=stride, padding=padding)

    @staticmethod
    def backward(
        ctx: Any, gradient_NOHW: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None]:
        if gradient_NOHW is None:
            return None, None, None, None, None
        (weight_OCHW,) = ctx.saved_tensors
        n, channels, height, width = ctx.shape
        (down, right), (top, left) = ctx.stride, ctx.padding
        _, out, rows, columns = gradient_NOHW.shape
        kernel_height, kernel_width = weight_OCHW.shape[2:]
        taps = weight_OCHW.permute(2, 3, 1, 0).reshape(-1, out).to(gradient_NOHW.dtype)
        planes = taps @ gradient_NOHW.permute(0, 2, 3, 1).reshape(-1, out).t()
        planes = planes.view(kernel_height, kernel_width, channels, n, rows, columns)
        # The gradient in the padded image; the padding is cut off at the end.
        padded = torch.zeros(
            (channels, n, height + 2 * top, width + 2 * left),
            dtype=ctx.dtype,
            device=planes.device,
        )
        for i in range(kernel_height):
            for j in range(kernel_width):
                rows_of_tap = slice(i, i + down * rows, down)
                columns_of_tap = slice(j, j + right * columns, right)
                padded[:, :, rows_of_tap, columns_of_tap] += planes[i, j]
        inside = padded[:, :, top : top + height, left : left + width]
        return inside.transpose(0, 1), None, None, None, None
