"""A default device of torch that the caller has set changes nothing."""

import contextlib

import pytest
import torch
from torch import nn

import curricula
from curricula.curriculum import Threat
from curricula.data import DataSet
from curricula.errors import UserError
from curricula.victim.model_victim import ModelVictim

X = torch.rand((12, 1, 28, 28), generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 10
ARRAYS = X.numpy(), Y.numpy()
THREATS = ["clean", "rot:30+pgd(0.1, steps=2)", "square(0.1, queries=3)"]


@contextlib.contextmanager
def by_default():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def threatened(model):
    generator = torch.Generator("cpu").manual_seed(0)
    return Threat.parse(THREATS[1])(X, Y, victim=ModelVictim(model), generator=generator)


USES = {
    "evaluate": lambda model: curricula.evaluate(model, (X, Y), THREATS).to_pandas().to_csv(),
    "predict": lambda model: curricula.predict(model, X[:2], data="digits", top=1),
    "data": lambda model: curricula.load_data("digits").test[slice(3)].load().labels.tolist(),
    "arrays": lambda model: DataSet.from_arrays(train=ARRAYS, test=ARRAYS).classes,
    "gradient": lambda model: ModelVictim(model).gradient(X, Y)[0].sum().item(),
    "threat": lambda model: threatened(model).sum().item(),
}


@pytest.mark.parametrize("within", [by_default, lambda: torch.device("meta")], ids=["set", "with"])
@pytest.mark.parametrize("name", USES)
def test_the_default_device_changes_nothing(name, within):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    model(X)
    expected = USES[name](model)
    with within():
        assert USES[name](model) == expected
        assert torch.get_default_device().type == "meta"


def test_a_training_ends_under_another_default_device(tmp_path):
    with by_default():
        trained = curricula.train(
            data="random(size=12, channels=1, images=20)", model="lenet", perturb="rot", epochs=1,
            batch_size=9, device="cpu", output=tmp_path / "run",
        )  # fmt: skip
        network = curricula.load_model(trained.run)
    assert all(weight.device.type == "cpu" for weight in network.parameters())


def test_a_network_without_values_is_one_line(tmp_path):
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(
        UserError, match=r"without values \(1.weight, on the device meta\); make it"
    ):
        curricula.evaluate(model, (X, Y), ["clean"])
    with pytest.raises(UserError, match=r"^model given\(Sequential\) has a weight without values"):
        curricula.train(model=model, data="digits", output=tmp_path / "run")
