import pytest
import torch

from curricula.errors import UserError
from curricula.runtime.devices import resolve_device, resolve_precision


def test_devices_and_precisions_by_name():
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", cpu) in ("float32", "bf16")


def test_an_absent_device_is_an_error_that_lists_the_available_ones():
    with pytest.raises(UserError, match="device 'cuda:99' is not available; choose from auto, cpu"):
        resolve_device("cuda:99")
