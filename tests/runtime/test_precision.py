"""Precision of arithmetic, whatever the caller has set."""

import pytest
import torch

from curricula.runtime.precision import no_tf32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_are_in_float32_inside_and_as_the_caller_set_them_after(precision):
    torch.set_float32_matmul_precision(precision)
    try:
        with no_tf32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == precision
        with pytest.raises(KeyError), no_tf32():
            raise KeyError
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="an older torch"
)
def test_a_precision_set_for_one_backend_stays():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with no_tf32():
            pass
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
        torch.set_float32_matmul_precision("highest")
