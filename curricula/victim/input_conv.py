"""The convolution that reads the image, and its gradient there."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_CHANNELS = 4
"""Of an input whose gradient is computed here; with more the library's own way is as quick."""


class FastInputGradConv2d(nn.Conv2d):
    """A convolution of few channels in, whose gradient in the input is quick on a CPU.

    oneDNN computes that gradient for a padded number of channels: for a grey image it takes a tenth
    of a small network's pass. Here it is one matrix product, of all filters with the gradient of
    the output, and a sum of its shifted planes. Elsewhere, and when compiled, it is torch's.

    Args:
        layer: a convolution that `is_supported`; its tensors are shared.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        with torch.device("meta"):
            super().__init__(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_compiling() or not input.requires_grad:
            return super().forward(input)
        out: Tensor = _Convolve.apply(input, self.weight, self.bias, self.padding)
        return out


def is_supported(layer: nn.Module) -> bool:
    """Whether `FastInputGradConv2d` can stand for a layer."""
    return (
        type(layer) is nn.Conv2d
        and layer.in_channels <= MOST_CHANNELS
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and has_no_hooks(layer)
    )


def has_no_hooks(layer: nn.Module) -> bool:
    """Whether nobody has hung anything on a layer: no hook, no ``forward`` of its own."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return not any(hooks) and "forward" not in vars(layer)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x_NCHW: Tensor, weight_OCHW: Tensor, bias_O: Tensor | None, padding: Any
    ) -> Tensor:
        context.save_for_backward(weight_OCHW)
        context.padding, context.shape, context.dtype = padding, x_NCHW.shape, x_NCHW.dtype
        return F.conv2d(x_NCHW, weight_OCHW, bias_O, padding=padding)

    @staticmethod
    def backward(context: Any, gradient_NOHW: Tensor) -> tuple[Tensor, None, None, None]:
        (weight_OCHW,) = context.saved_tensors
        n, channels, height, width = context.shape
        (top, left), (_, out, rows, columns) = context.padding, gradient_NOHW.shape
        down, across = weight_OCHW.shape[2:]
        taps = weight_OCHW.permute(2, 3, 1, 0).reshape(-1, out).to(gradient_NOHW.dtype)
        planes = taps @ gradient_NOHW.permute(0, 2, 3, 1).reshape(-1, out).t()
        planes = planes.view(down, across, channels, n, rows, columns)
        # Over the padded image; what falls into the padding is cut off.
        padded = torch.zeros(
            (channels, n, rows + down - 1, columns + across - 1),
            dtype=context.dtype,
            device=planes.device,
        )
        for i in range(down):
            for j in range(across):
                padded[:, :, i : i + rows, j : j + columns] += planes[i, j]
        inside = padded[:, :, top : top + height, left : left + width]
        return inside.transpose(0, 1), None, None, None
