"""The layer that normalises images: its arithmetic, and the images and values that it refuses."""

import pytest
import torch
from torch import nn

from curricula.errors import UserError
from curricula.models import Normalise
from curricula.models.normalise import with_normalisation
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


def front(text, channels=3, model=None):
    model = nn.Sequential(nn.Flatten()) if model is None else model
    return with_normalisation(model, text, channels)


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        ("imagenet", MEAN, STD),
        ("0.5/0.25", (0.5,) * 3, (0.25,) * 3),
        ("0.1,0.2,0.3/0.5", (0.1, 0.2, 0.3), (0.5,) * 3),
        ("0.5/0.1,0.2,0.3", (0.5,) * 3, (0.1, 0.2, 0.3)),
        ("none", (0.0,) * 3, (1.0,) * 3),
        ("own", (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_a_normalisation_is_put_in_front(text, mean, std):
    x_NCHW = torch.rand(2, 3, 4, 5)
    expected = (x_NCHW - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(front(text)(x_NCHW), expected.flatten(1))


def test_a_normalisation_replaces_the_first_of_the_model_and_no_other():
    x_NCHW = torch.rand(2, 1, 4, 5)
    for text, expected in [("mnist", (x_NCHW - 0.1307) / 0.3081), ("none", x_NCHW)]:
        model = nn.Sequential(nn.Sequential(Normalise(0.1, 0.2), nn.Flatten()), Normalise(0, 2))
        torch.testing.assert_close(front(text, 1, model)(x_NCHW), expected.flatten(1) / 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("imagnet", "did you mean imagenet"),
        ("", "unknown: write cifar10, .*none, own or MEAN/STD"),
        ("0.5", "unknown: write"),
        ("0.5/", "not a list of numbers"),
        ("0.5,/0.5", "not a list of numbers"),
        ("0.5/nan", "not finite"),
        ("0.5/0", "must be above 0"),
        ("0.5/-1", "must be above 0"),
        (
            "127.5/127.5",
            r"in \[0, 1\], so they lie from 0 to 1; .*\[0, 255\].* 0.5/0.5 here: write",
        ),
        (
            "123.675,116.28,103.53/58.395,57.12,57.375",
            "they are 0.485,0.456,0.406/0.229,0.224,0.225 here: write that",
        ),
        ("0/255", "they are 0/1 here"),
        ("0.5/2", "so they lie from 0 to 1$"),
        ("-0.5/0.5", "so they lie from 0 to 1$"),
        ("CIFAR10", "did you mean cifar10"),
        ("onw", "did you mean own"),
        ("0.1,0.2/0.1,0.2,0.3", "2 means and 3 standard"),
        ("mnist", "has 1 for the channels of an image, and these images have 3"),
        ("0.1,0.2/0.5", "has 2 for the channels"),
        (None, "must be text"),
        (0.5, "must be text"),
    ],
)
def test_a_wrong_normalisation_is_refused_in_one_line(text, match):
    with pytest.raises(UserError, match=match) as caught:
        front(text)
    assert "\n" not in str(caught.value)


def test_a_model_with_the_normalisation_of_torchvision_is_not_normalised_twice():
    from torchvision import transforms

    model = nn.Sequential(transforms.Normalize(MEAN, STD), nn.Flatten())
    assert front("own", 3, model) is model
    with pytest.raises(UserError, match=r"normalises its images already.*Normalize \(0\): leave"):
        front("imagenet", 3, model)
