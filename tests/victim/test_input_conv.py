"""The convolution of the image: torch's output, and a gradient computed in another way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.runtime.memory_format import as_channels_last, channels_last
from curricula.victim.input_conv import FastInputGradConv2d, is_supported
from curricula.victim.model_victim import ModelVictim


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (3, 1), (5, 2), ((2, 3), (1, 0)), (1, 0)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), 4])
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_in_the_image_equals_torchs(channels, kernel, padding, stride, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 7, kernel, stride, padding, bias=bias).double()
    layer = channels_last(layer).requires_grad_(False)
    x = as_channels_last(torch.rand(3, channels, 9, 8, dtype=torch.float64)).requires_grad_()
    ours, theirs = FastInputGradConv2d(layer)(x), layer(x)
    assert torch.equal(ours, theirs)
    weights = torch.rand_like(theirs)
    (found,) = torch.autograd.grad((ours * weights).sum(), x)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolution_can_be_differentiated_twice(stride):
    layer = nn.Conv2d(1, 3, 3, stride, padding=1).double().requires_grad_(False)
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FastInputGradConv2d(layer), x)
    assert torch.autograd.gradgradcheck(lambda x: FastInputGradConv2d(layer)(x).tanh(), x)


def test_the_bf16_gradient_is_as_exact_as_torchs():
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 32, 3).requires_grad_(False)
    x = torch.rand(8, 1, 28, 28).requires_grad_()
    weights = torch.randn(8, 32, 26, 26)
    (exact,) = torch.autograd.grad((layer(x) * weights).sum(), x)

    def error(layer):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        assert out.dtype == torch.bfloat16
        (found,) = torch.autograd.grad((out.float() * weights).sum(), x)
        assert found.dtype == torch.float32
        return (found - exact).square().mean().sqrt()

    assert error(FastInputGradConv2d(layer)) < 1.5 * error(layer)


@pytest.mark.parametrize(
    ("layer", "supported"),
    [
        (nn.Conv2d(1, 8, 3), True),
        (nn.Conv2d(3, 8, 3, padding=1), True),
        (nn.Conv2d(5, 8, 3), False),
        (nn.Conv2d(1, 8, 3, stride=2), True),
        (nn.Conv2d(3, 8, 3, stride=2), False),
        (nn.Conv2d(1, 8, 3, dilation=2), False),
        (nn.Conv2d(2, 8, 3, groups=2), False),
        (nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(1, 8, 3, padding="same"), False),
        (nn.ConvTranspose2d(1, 8, 3), False),
        (nn.Linear(1, 8), False),
    ],
)
def test_which_layers_are_supported(layer, supported):
    assert is_supported(layer) == supported


def test_the_victim_uses_it_and_it_follows_the_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
    victim = ModelVictim(model)
    assert any(isinstance(layer, FastInputGradConv2d) for layer in victim.as_module().modules())
    x, y = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    for _ in range(2):
        plain = x.clone().requires_grad_()
        loss = F.cross_entropy(model(plain), y, reduction="sum")
        (expected,) = torch.autograd.grad(loss, plain)
        torch.testing.assert_close(victim.gradient(x, y)[0], expected)
        with torch.no_grad():
            model[0].weight.mul_(2)


def test_filters_of_one_channel_have_channels_last_strides():
    network = channels_last(nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 3)))
    for layer in network:
        _, channels, height, width = layer.weight.shape
        assert layer.weight.stride() == (channels * height * width, 1, width * channels, channels)
    x = torch.rand(2, 1, 8, 8)
    assert network[0](x).is_contiguous(memory_format=torch.channels_last)
    assert not nn.Conv2d(1, 6, 3)(x).is_contiguous(memory_format=torch.channels_last)
    values = torch.rand(4, 1, 3, 3)
    assert torch.equal(as_channels_last(values), values)
