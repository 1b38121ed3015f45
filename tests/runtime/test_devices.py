import pytest
import torch
from torch import nn

from curricula.errors import UserError
from curricula.runtime.devices import resolve_device, resolve_precision
from curricula.runtime.precision import AtPrecision


def test_devices_and_precisions_by_name():
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", cpu) in ("float32", "bf16")


def test_an_absent_device_is_an_error_that_lists_the_available_ones():
    with pytest.raises(UserError, match="device 'cuda:99' is not available; choose from auto, cpu"):
        resolve_device("cuda:99")


def test_a_network_at_bf16_returns_float32_logits():
    network, x = nn.Linear(64, 3), torch.rand(5, 64)
    expected, found = network(x), AtPrecision(network, "bf16")(x)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
