"""The frozen copy: cheaper arithmetic, the same function."""

import copy
import shutil
import warnings

import pytest
import torch
import torch.nn.functional as F
from fixtures.narrow import narrow_networks
from torch import nn

from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import HasPlainEquivalent
from curricula.runtime.precision import autocast
from curricula.victim.batchnorm_folding import foldable_pairs
from curricula.victim.model_victim import ModelVictim


def built(text, *, channels=3, size=32):
    supplied = {"num_classes": 10, "in_channels": channels, "image_size": size}
    torch.manual_seed(0)
    with narrow_networks():
        return factories.build("model", parse_call(text), supplied=supplied).value


def with_statistics(model):
    """Return the model, its batch norms with statistics and scales as after some training."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                if layer.running_mean is not None:
                    layer.running_mean.normal_(generator=generator)
                    layer.running_var.uniform_(0.5, 2, generator=generator)
                if layer.weight is not None:
                    layer.weight.uniform_(0.5, 1.5, generator=generator)
                    layer.bias.normal_(generator=generator)
    return model


def images(channels=3, size=32, n=4):
    return torch.rand((n, channels, size, size), generator=torch.Generator().manual_seed(2))


def own_gradient(model, x, y):
    """Return (gradient, logits) of the model itself in eval mode, by plain autograd."""
    model.eval()
    x = x.clone().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
    return gradient, logits.detach()


@pytest.mark.parametrize(
    ("text", "folds", "norms"),
    [
        ("stdcnn", 6, 6),
        ("vgg16", 13, 13),
        ("resnet18", 20, 20),
        ("preact-resnet18", 8, 17),  # the second of each block; the others follow a sum
        ("p4cnn", 6, 6),
        ("smallcnn", 0, 0),
    ],
)
def test_batch_norms_are_folded_and_the_attack_is_the_same(text, folds, norms):
    # In float64, so that rounding changes no ReLU.
    model = with_statistics(built(text, size=28)).eval().double()
    plain = model.plain_equivalent() if isinstance(model, HasPlainEquivalent) else model
    assert len(list(foldable_pairs(plain))) == folds
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules()) == norms
    x, y = images(size=28).double(), torch.arange(4)
    victim = ModelVictim(model)
    left = sum(isinstance(layer, nn.BatchNorm2d) for layer in victim.as_module().modules())
    assert left == norms - folds
    gradient, _, logits = victim.gradient(x, y)
    expected_gradient, expected_logits = own_gradient(model, x, y)
    torch.testing.assert_close(logits, expected_logits.float(), rtol=1e-5, atol=1e-5)
    scale = expected_gradient.abs().max()
    assert (gradient - expected_gradient).abs().max() < 1e-5 * scale


class Net(nn.Module):
    """One convolution and one batch norm, combined as ``how`` says."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=how != "no bias")
        self.norm = nn.BatchNorm2d(
            3, affine=how != "not affine", track_running_stats=how != "no statistics"
        )
        if how == "parametrised":
            nn.utils.parametrizations.weight_norm(self.conv)
        if how == "hooked":
            self.norm.register_forward_hook(lambda layer, given, out: out + 1)

    def forward(self, x):
        how, conv, norm = self.how, self.conv, self.norm
        if how == "conv used twice":
            x = norm(conv(conv(x)))
        elif how == "norm used twice":
            x = norm(norm(conv(x)))
        elif how == "output read twice":
            z = conv(x)
            x = norm(z) + z
        elif how == "something between":
            x = norm(conv(x).relu())
        elif how == "weight read":
            x = norm(conv(x)) + conv.weight.sum()
        elif how == "looks at values":
            x = norm(conv(x)) if float(x.detach().mean()) > 0.4 else norm(x)
        elif how == "norm of the input":
            x = norm(x)
        else:
            x = norm(conv(x))
        return x.flatten(1)[:, :5]


@pytest.mark.parametrize(
    ("how", "folds"),
    [
        ("plainly", True),
        ("no bias", True),
        ("not affine", True),
        ("parametrised", False),
        ("hooked", False),
        ("no statistics", False),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_ordinary_layers_are_folded_and_peculiar_ones_are_not(how, folds, precision):
    check(Net(how), precision, folds=folds)


@pytest.mark.parametrize(
    "how",
    [
        "conv used twice",
        "norm used twice",
        "output read twice",
        "something between",
        "weight read",
        "looks at values",
        "norm of the input",
    ],
)
def test_networks_that_cannot_be_folded(how):
    check(Net(how), "float32", folds=False)


def check(model, precision, *, folds):
    with_statistics(model).eval()
    assert len(list(foldable_pairs(model))) == folds
    x, y = images(), torch.arange(4)
    gradient, _, logits = ModelVictim(model, precision=precision).gradient(x, y)
    expected_gradient, expected_logits = own_gradient(model, x, y)
    tolerance = 1e-5 if precision == "float32" else 2**-5
    for found, expected in ((logits, expected_logits), (gradient, expected_gradient)):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("fused", [False, True])
def test_derived_tensors_follow_every_change_of_weights(precision, fused):
    model = with_statistics(Net("plainly"))
    victim = ModelVictim(model, precision=precision)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, fused=fused)
    x = images()

    def step():
        model.train()
        model(x).square().sum().backward()
        optimizer.step()

    def load():
        model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})

    def replace():
        model.conv.weight = nn.Parameter(torch.rand_like(model.conv.weight))

    def write_unseen():  # without a new version counter
        model.conv.weight.data.mul_(2)

    for change in (step, step, load, replace, write_unseen):
        before = victim.logits(x)
        change()
        fresh = ModelVictim(model, precision=precision).logits(x)
        followed = victim.with_reference(x).logits(x)
        assert torch.equal(followed, fresh), change.__name__
        assert not torch.allclose(before, followed), change.__name__


def test_rounding_the_weights_once_equals_autocast_in_each_pass():
    model = with_statistics(built("resnet18")).eval()
    victim = ModelVictim(model, precision="bf16", fast=False)
    x = images().contiguous(memory_format=torch.channels_last)
    with autocast(x.device, "bf16"), torch.no_grad():
        expected = model(x).float()
    assert torch.equal(victim.logits(x), expected)
    weights = {
        layer.weight.dtype for layer in victim.as_module().modules() if type(layer) is nn.Conv2d
    }
    assert weights == {torch.bfloat16}


def test_a_layer_that_the_network_keeps_in_float32_stays_in_float32():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x).mean((2, 3))
            with torch.autocast(x.device.type, enabled=False):
                return self.head(x.float())

    model = Careful().eval()
    victim = ModelVictim(model, precision="bf16")
    x = images()
    with autocast(x.device, "bf16"), torch.no_grad():
        expected = model(x.contiguous(memory_format=torch.channels_last))
    for _ in range(2):
        assert torch.equal(victim.logits(x), expected)


def test_a_plain_equivalent_of_a_different_form_replaces_the_old_one():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.calls = 0

        def forward(self, x):
            raise AssertionError("the plain equivalent must be used")

        def plain_equivalent(self):
            self.calls += 1
            layers = [nn.Linear(4, 4, bias=False) for _ in range(self.calls)]
            with torch.no_grad():
                for layer in layers:
                    layer.weight.copy_(self.weight * torch.eye(4))
            return nn.Sequential(nn.Flatten(), *layers)

    model = Growing()
    victim = ModelVictim(model)
    x = images(channels=1, size=2)
    torch.testing.assert_close(victim.logits(x), x.flatten(1))
    with torch.no_grad():
        model.weight.fill_(2.0)
    power = victim.logits(x) / x.flatten(1)
    assert torch.allclose(power, power[0, 0])
    assert power[0, 0] >= 4  # at least two layers now, each times 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_victim_is_the_same_and_follows_the_weights():
    model = with_statistics(Net("plainly"))
    victim = ModelVictim(model, compiled=4)
    x, y = images(), torch.arange(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's warnings
        for _ in range(2):
            gradient, _, logits = victim.gradient(x, y)
            expected_gradient, expected_logits = own_gradient(copy.deepcopy(model), x, y)
            torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
            with torch.no_grad():
                model.conv.weight.mul_(2)
    torch.testing.assert_close(victim.logits(x[:3]), copy.deepcopy(model).eval()(x[:3]))


def test_a_failed_compilation_warns_once_and_the_attack_continues(no_compiler):
    model = with_statistics(Net("plainly")).eval()
    victim = ModelVictim(model, compiled=4)
    x = images()
    with pytest.warns(UserWarning, match=r"\(RuntimeError: no compiler here\); it runs unc"):
        found = victim.logits(x)
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(victim.logits(x), found)  # and no second warning
