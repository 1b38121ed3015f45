"""The network of a run, on a machine without the data and without plugins that it does not need."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.expressions.given import given, is_given
from curricula.models import Normalise

FIXTURES = Path(__file__).parents[1] / "fixtures"
VALUES = {"data": "random(size=12, channels=1, images=20)", "model": "lenet", "epochs": 1,
          "batch_size": 9, "compile": "off"}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    curricula.train(**VALUES, normalise="0.3/0.2", output=path)
    return path


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def edited(run, **changes):
    config = run / "config.toml"
    lines = config.read_text().splitlines()
    for name, value in changes.items():
        lines = [f'{name} = "{value}"' if line.startswith(f"{name} =") else line for line in lines]
    config.write_text("\n".join(lines))


def test_a_network_is_loaded_without_its_data(run):
    x_NCHW = torch.rand(3, 1, 12, 12)
    expected = curricula.load_model(run)(x_NCHW)
    edited(run, data="nosuchdata", perturb="nosuchattack", data_root="/nowhere")
    assert torch.equal(curricula.load_model(run)(x_NCHW), expected)


def test_a_network_keeps_its_stated_normalisation(run):
    layer = next(iter(curricula.load_model(run).modules()))[0]
    assert isinstance(layer, Normalise)
    assert (layer.mean.item(), layer.std.item()) == pytest.approx((0.3, 0.2))


def test_a_run_without_stated_shapes_needs_its_data(run):
    identity = json.loads((run / "data.json").read_text())
    for name in ("channels", "image_size", "name", "max_value"):
        del identity[name]
    (run / "data.json").write_text(json.dumps(identity))
    curricula.load_model(run)
    edited(run, data="nosuchdata")
    with pytest.raises(UserError, match="nosuchdata"):
        curricula.load_model(run)


def test_three_lines_load_the_weights_with_plain_torch(run):
    from safetensors.torch import load_file

    model = curricula.build_model(VALUES["model"], VALUES["data"])
    weights = load_file(run / "best.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    model.load_state_dict(weights)

    x_NCHW = torch.rand(3, 1, 12, 12)
    assert torch.equal(model.eval()(x_NCHW), curricula.load_model(run)(x_NCHW))


def test_a_model_that_was_given_in_python_is_given_again(run):
    expected = curricula.load_model(run)
    edited(run, model="given(Sequential)")
    with pytest.raises(UserError, match=r"was given in Python, as given\(Sequential\): give it"):
        curricula.load_model(run)
    model = curricula.build_model(VALUES["model"], VALUES["data"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x_NCHW = torch.rand(3, 1, 12, 12)
    assert torch.equal(curricula.load_model(run, model=model)(x_NCHW), expected(x_NCHW))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(UserError, match="not of this model"):
        curricula.load_model(run, model=nn.Flatten())
    with pytest.raises(UserError, match=r"model must be a torch.nn.Module or its expression, not"):
        curricula.load_model(run, model=3)
    for again in (model, "lenet"):
        opened = curricula.Run.open(run, model=again)
        assert torch.equal(curricula.load_model(opened)(x_NCHW), expected(x_NCHW))
        assert curricula.predict(opened, x_NCHW) == curricula.predict(
            expected, x_NCHW, data=VALUES["data"]
        )
    with pytest.raises(UserError, match="unknown model 'lenett': did you mean"):
        curricula.load_model(run, model="lenett")


def test_data_that_were_given_in_python_are_requested(run):
    edited(run, data="given(DataSet)")
    curricula.load_model(run)
    with pytest.raises(UserError, match=r"were given in Python, as given\(DataSet\): give them"):
        curricula.evaluate(run, threats=["clean"])


def test_the_name_of_what_was_given_is_that_of_its_class():
    assert given(nn.Linear(1, 1)) == "given(Linear)"
    assert given(type("Réseau 1", (), {})()) == "given(R_seau_1)"
    assert given(type("_Net", (), {})()) == "given(object)"
    assert is_given("given(Net)")
    assert not is_given("lenet")
