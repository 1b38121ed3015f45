"""The network that is trained, at a precision."""

import pytest
import torch
from torch import nn

from curricula.training.at_precision import AtPrecision


def test_a_network_at_bf16_returns_float32_logits():
    network, x = nn.Linear(64, 3), torch.rand(5, 64)
    expected, found = network(x), AtPrecision(network, "bf16")(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


class WithLogits(nn.Module):
    """A network that returns its logits in a mapping, as Hugging Face's do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x):
        return {"logits": self.linear(x), "loss": None}


def test_the_logits_in_a_mapping_are_returned():
    network, x = WithLogits(), torch.rand(5, 64)
    assert torch.equal(AtPrecision(network, "float32")(x), network.linear(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_get_the_dtype_of_the_weights(dtype):
    network, x = nn.Linear(64, 3).to(dtype), torch.rand(5, 64)
    found = AtPrecision(network, "float32")(x)
    torch.testing.assert_close(found, network(x.to(dtype)).float())
