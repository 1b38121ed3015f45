"""Networks whose code depends on what a cheaper form changes are attacked unchanged."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import curricula
from curricula.data.dataset import load_data
from curricula.evaluation.accuracy import evaluate_threats
from curricula.victim.equivalence import outputs_match, to_device
from curricula.victim.model_victim import ModelVictim

X = torch.rand((12, 3, 10, 10), generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 5


class Ordinary(nn.Module):
    """A network that can be folded; those below differ in one line."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.last = nn.Linear(6, 5)

    def features(self, x):
        return F.relu(self.bn(self.conv(x)))

    def forward(self, x):
        return self.last(self.features(x).mean((2, 3)))


class LooksAtTypes(Ordinary):
    def features(self, x):
        for layer in (self.conv, self.bn):
            x = layer(x)
            if isinstance(layer, nn.BatchNorm2d):
                x = F.relu(x)
        return x


class LooksAtItsInput(Ordinary):
    def features(self, x):
        maps = self.conv(x)
        normed = self.bn(maps)
        return F.relu(normed + maps if isinstance(maps, torch.Tensor) else normed)


class ReadsItsWeights(Ordinary):
    def forward(self, x):
        return super().forward(x) * sum(weight.norm() for weight in self.conv.parameters())


class ReadsAnAttribute(Ordinary):
    def features(self, x):
        return super().features(x) * self.bn.num_features


class Views(Ordinary):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6 * 64, 5)

    def forward(self, x):
        maps = self.features(x)
        return self.last(maps.view(len(maps), -1))


class Strides(Ordinary):
    def features(self, x):
        n, c, h, w = x.shape
        return super().features(x.as_strided((n, c, h, w), (c * h * w, h * w, w, 1)))


class DrawsNoise(Ordinary):
    def features(self, x):
        return super().features(x) + 0 * torch.rand_like(x)[:, :1, :8, :8]


class OwnForward(Ordinary):
    def __init__(self):
        super().__init__()
        forward = self.bn.forward
        self.bn.forward = lambda x: 2 * forward(x)


PECULIAR = (
    LooksAtTypes,
    LooksAtItsInput,
    ReadsItsWeights,
    ReadsAnAttribute,
    Views,
    Strides,
    DrawsNoise,
)


def trained(kind):
    """Return a network whose batch-norm statistics differ from the initial ones."""
    torch.manual_seed(0)
    network = kind()
    for _ in range(3):
        network.train()(X)
    return network


def gradient_of(network):
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(copy.deepcopy(network).eval()(x), Y, reduction="sum"), x
    )
    return gradient


@pytest.mark.parametrize("kind", [Ordinary, *PECULIAR])
def test_the_gradient_is_that_of_the_network(kind):
    network = trained(kind)
    victim = ModelVictim(network)
    state = torch.get_rng_state()
    gradient, _, logits = victim.gradient(X, Y)
    if kind is not DrawsNoise:
        assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(gradient, gradient_of(network), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, network.eval()(X).detach(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.1)
    gradient, _, _ = victim.gradient(X, Y)
    torch.testing.assert_close(gradient, gradient_of(network), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", PECULIAR)
def test_bf16_runs_the_network_unchanged(kind):
    network = trained(kind)
    gradient, _, _ = ModelVictim(network, precision="bf16").gradient(X, Y)
    expected = gradient_of(network)
    assert (gradient - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_forward_hook"])
@pytest.mark.parametrize("layer", ["conv", "bn"])
def test_hooks_of_a_layer_are_called(register, layer):
    network = trained(Ordinary)

    def hook(module, given, out):
        return (3 * given[0],) if "backward" in register and given[0] is not None else None

    if "backward" in register:
        getattr(getattr(network, layer), register)(hook)
    else:
        getattr(getattr(network, layer), register)(lambda module, given, out: 3 * out)
    x = X.clone().requires_grad_()
    loss = F.cross_entropy(network.eval()(x), Y, reduction="sum")
    (expected,) = torch.autograd.grad(loss, x)
    gradient, _, _ = ModelVictim(network).gradient(X, Y)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_forward_set_on_an_instance_is_called():
    network = trained(OwnForward)
    with torch.no_grad():
        expected = network.eval()(X)
    torch.testing.assert_close(ModelVictim(network).logits(X).detach(), expected)


def test_the_ordinary_network_is_folded():
    victim = ModelVictim(trained(Ordinary))
    victim.gradient(X, Y)
    assert isinstance(victim.as_module().get_submodule("network.bn"), nn.Identity)


def test_the_evaluated_accuracy_is_that_of_the_network():
    data = load_data("digits")

    class OwnLoop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 10, 3)]
            )

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
                if isinstance(layer, nn.BatchNorm2d):
                    x = F.relu(x)
            return x.amax((2, 3))

    torch.manual_seed(0)
    network = OwnLoop()
    images = data.images(data.test.pixels)
    network.train()(images)
    right = (network.eval()(images).argmax(1) == data.test.labels).sum()
    clean = {"clean": curricula.Threat.parse("clean")}
    (measured,) = evaluate_threats(network, data, data.test, clean)
    assert measured.correct == right


def test_to_device_keeps_the_memory_format_of_a_network_that_flattens_by_view():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 26 * 26, 10)

        def forward(self, x):
            maps = self.conv(x)
            return self.last(maps.view(len(maps), -1))

    data, cpu = load_data("digits"), torch.device("cpu")
    images = data.images(data.train[slice(8)].load().pixels)
    network = to_device(Flat(), images, cpu)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    converted = to_device(curricula.build_model("smallcnn", data), images, cpu)
    first = next(module for module in converted.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.stride()[1] == 1


def test_outputs_match_tolerates_rounding_only():
    network = nn.Sequential(nn.Flatten(), nn.Linear(300, 5))
    for share, same in ((1e-5, True), (1e-2, False)):
        other = copy.deepcopy(network)
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(1 + share)
        assert outputs_match(other, network, X) == same
