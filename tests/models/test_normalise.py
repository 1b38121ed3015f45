"""The layer that normalises images: its arithmetic, and the images and values that it refuses."""

import pytest
import torch
from torch import nn

from curricula.errors import UserError
from curricula.models import Normalise
from curricula.victim.batchnorm_folding import foldable_pairs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("kind", [tuple, list, torch.tensor])
def test_each_channel_has_its_mean_and_std(kind):
    x_NCHW = torch.rand(2, 3, 5, 4)
    found = Normalise(kind(MEAN), kind(STD))(x_NCHW)
    for channel in range(3):
        expected = (x_NCHW[:, channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(found[:, channel], expected)


def test_one_std_serves_all_channels():
    x_NCHW = torch.rand(2, 3, 5, 4)
    expected = (x_NCHW - torch.tensor(MEAN)[:, None, None]) / 0.25
    torch.testing.assert_close(Normalise(MEAN, 0.25)(x_NCHW), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mean", [0.5, MEAN])
def test_images_keep_their_dtype(dtype, mean):
    assert Normalise(mean)(torch.rand(1, 3, 2, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_another_number_of_channels_is_refused_in_one_line(channels):
    with pytest.raises(UserError, match=f"has 3 means .* have {channels} channels; give") as caught:
        Normalise(MEAN, STD)(torch.rand(2, channels, 8, 8))
    assert "\n" not in str(caught.value)


def test_integer_images_are_refused():
    with pytest.raises(UserError, match=r"floating-point in \[0, 1\] .* not torch.uint8; write"):
        Normalise()(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (0.5, 0.0), (0.5, -1.0), (float("nan"), 1.0), (0.5, float("inf")), ((), 1.0),
        ("imagenet", 1.0), ((0.1, 0.2), (1.0, 1.0, 1.0)), ((0.1, "a"), 1.0), (True, 1.0),
    ],
)  # fmt: skip
def test_a_wrong_mean_or_std_is_refused_in_one_line(mean, std):
    with pytest.raises(UserError, match=r"mean|std") as caught:
        Normalise(mean, std)
    assert "\n" not in str(caught.value)


def test_a_batch_norm_behind_it_is_folded():
    network = nn.Sequential(Normalise(MEAN, STD), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert list(foldable_pairs(network.eval())) == [("1", "2")]
