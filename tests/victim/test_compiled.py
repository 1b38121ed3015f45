"""Networks made by torch.compile are what they were made from."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula.data.spec import ImageSpec
from curricula.errors import UserError
from curricula.models.build import build_model
from curricula.plugins import registry
from curricula.training.objects import split_objects
from curricula.training.run import BEST, Run
from curricula.victim.copies import uncompiled
from curricula.victim.forms import Form
from curricula.victim.model_checks import check_classifier
from curricula.victim.model_victim import ModelVictim

X = torch.rand((12, 1, 6, 6), generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 4
THREATS = ["clean", "pgd(0.1, steps=2)"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)
    )


def whole():
    return torch.compile(network())


def parts():
    layers = network()
    inner = nn.Sequential(*layers[1:3])
    return nn.Sequential(torch.compile(layers[0]), torch.compile(inner), *layers[3:])


def nested():
    layers = network()
    inner = nn.Sequential(torch.compile(layers[0]), *layers[1:])
    return torch.compile(inner)


def in_place():
    layers = network()
    layers.compile()
    return layers


@pytest.mark.parametrize("kind", [whole, parts, nested, in_place])
def test_a_compiled_network_is_measured_and_followed_as_the_network_inside(kind, tmp_path):
    compiled, plain = kind().train(), network().train()
    expected = curricula.evaluate(plain, (X, Y), THREATS)
    found = curricula.evaluate(compiled, (X, Y), THREATS, output=tmp_path / "kept")
    for name in expected.predictions:
        assert (found.predictions[name] == expected.predictions[name]).all()
    assert not any("_orig_mod" in name for name in load_file(tmp_path / "kept" / BEST))
    assert Run.open(tmp_path / "kept").model_config.model == "given(Sequential)"
    victim = ModelVictim(compiled)
    victim.logits(X)
    with torch.no_grad():
        for weight in (*compiled.parameters(), *plain.parameters()):
            weight.add_(0.1)
        torch.testing.assert_close(victim.logits(X), plain.eval()(X))
    assert victim.as_module()._form is Form.SHARED
    assert compiled.training


@pytest.mark.parametrize("kind", [whole, parts, nested])
def test_a_compiled_network_is_trained_as_the_network_inside(kind):
    check_classifier(kind(), X, 4)
    texts, objects = split_objects({"model": kind()})
    assert texts["model"] == "given(Sequential)"
    assert not any("_orig_mod" in name for name in objects.model.state_dict())


def test_a_network_that_a_file_compiles_is_built_without_it(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\ndef net(num_classes, **_):\n"
        "    layers = torch.nn.Flatten(), torch.nn.Linear(36, num_classes)\n"
        "    return torch.compile(torch.nn.Sequential(*layers))\n"
    )
    registry.use(registry.build_registry([file]))
    spec = ImageSpec(classes=("a", "b"), channels=1, image_size=6)
    built = build_model(f'file("{file}", net)', spec)
    assert list(built.state_dict()) == ["1.weight", "1.bias"]


def test_hooks_of_the_compiled_form_are_refused():
    compiled = whole()
    compiled.register_forward_pre_hook(lambda module, images: (0 * images[0],))
    for use in (uncompiled, ModelVictim, lambda model: split_objects({"model": model})):
        with pytest.raises(UserError, match=r"compiled and has hooks .*: register them on that"):
            use(compiled)


def test_a_wrapper_with_an_attribute_of_that_name_is_run_as_it_is():
    class Doubles(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = network().eval()

        def forward(self, x):
            return self._orig_mod(2 * x)

    model = Doubles()
    torch.testing.assert_close(ModelVictim(model).logits(X), model(X))
