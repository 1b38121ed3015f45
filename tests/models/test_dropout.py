"""Dropout with cheap random numbers: torch's dropout, except for the way it draws."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

from curricula.models.dropout import NUM_LEVELS, Dropout

SHAPES = [(7,), (3, 5), (4, 3, 6, 5)]
TYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_the_others_are_scaled(p):
    x = torch.ones(400_000)
    out = Dropout(p)(x)
    dropped = int((out == 0).sum())
    assert scipy.stats.binomtest(dropped, x.numel(), p).pvalue > 1e-3
    (scale,) = out[out != 0].unique().tolist()
    rounded = round(p * NUM_LEVELS) / NUM_LEVELS
    assert math.isclose(scale, 1 / (1 - rounded), rel_tol=1e-6)
    assert abs(rounded - p) <= 2**-16


def test_values_are_dropped_independently():
    """Each pattern of eight neighbours is as likely as under independence, although four values
    share a 64-bit number."""
    p = 0.25
    kept = (Dropout(p)(torch.ones(8 * 50_000)) != 0).reshape(-1, 8)
    patterns = (kept.long() << torch.arange(8)).sum(1).bincount(minlength=256)
    ones = torch.tensor([bin(pattern).count("1") for pattern in range(256)])
    expected = (1 - p) ** ones * p ** (8 - ones)
    assert scipy.stats.chisquare(patterns, expected * len(kept)).pvalue > 1e-3


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["contiguous", "channels last", "strided", "expanded"])
def test_the_gradient_is_the_mask(shape, dtype, how):
    x = torch.rand(shape, dtype=dtype) + 0.5
    if how == "channels last" and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif how == "strided":
        x = torch.stack((x, x), -1)[..., 0]
    elif how == "expanded":
        x = x[:1].expand(shape)
    x.requires_grad_()
    out = Dropout(0.5)(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert set((out / x).flatten().tolist()) <= {0.0, 2.0}
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient * x, out)


def test_only_the_global_seed_decides_what_is_dropped():
    drop, x = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(3)
    first, second = drop(x), drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_at_probability_zero_or_in_eval_mode():
    x = torch.rand(1000)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_other_probabilities_and_types_are_torchs():
    assert torch.equal(Dropout(1.0)(torch.ones(9)), torch.zeros(9))
    assert issubclass(Dropout, nn.Dropout)
    torch.manual_seed(5)
    ours = Dropout(0.3)(torch.ones(999, dtype=torch.float64))
    torch.manual_seed(5)
    assert torch.equal(ours, nn.Dropout(0.3)(torch.ones(999, dtype=torch.float64)))
