"""Configurations: the fields that a training and a measured model share."""

import pytest
import torch

from curricula.data import load_data
from curricula.errors import UserError
from curricula.models import Normalise, build_model
from curricula.training.config import measured_config, read_toml
from curricula.training.plan import make_plan

STATED = {"data": "digits", "data_root": "data", "model": "lenet", "weights": "net.pt"}


def test_a_training_states_the_normalisation_and_builds_with_it():
    values = {"data": "random(size=12, channels=3, images=20)", "model": "lenet", "batch_size": 9}
    plan = make_plan({**values, "normalise": "imagenet"})
    assert plan.config.normalise == "imagenet"
    layer = plan.build_model()[0]
    assert isinstance(layer, Normalise)
    torch.testing.assert_close(layer.std.flatten(), torch.tensor((0.229, 0.224, 0.225)))
    assert isinstance(
        make_plan({**values, "normalise": "none"}).build_model()[0], torch.nn.Identity
    )


def test_a_normalisation_of_other_channels_ends_before_the_work():
    with pytest.raises(UserError, match=r"imagenet has 3 .* these images have 1"):
        build_model("lenet", load_data("digits"), normalise="imagenet")
    with pytest.raises(UserError, match="did you mean cifar10"):
        make_plan({"normalise": "cifar"})


def test_a_measured_model_is_not_a_training(tmp_path):
    assert measured_config(STATED).perturb == "clean"
    path = tmp_path / "config.toml"
    path.write_text('model = "lenet"\nweights = "net.pt"\n')
    with pytest.raises(UserError, match="measured, not trained"):
        read_toml(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": 3}, "model must be text"),
        ({"normalise": "imagnet"}, "did you mean imagenet"),
        ({"weights": None}, "weights must be text"),
    ],
)
def test_wrong_values_of_a_measured_model_are_one_line(change, match):
    with pytest.raises(UserError, match=match):
        measured_config({**STATED, **change})
