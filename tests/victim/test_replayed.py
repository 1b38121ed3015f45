"""Replayed gradients are those of the network: by a stand-in for CUDA graphs on a CPU, by the
graphs themselves on a GPU."""

import copy

import pytest
import torch
from torch import nn

from curricula.perturbations.attacks.pgd import PGD
from curricula.victim import replayed
from curricula.victim.model_victim import ModelVictim, NoGradientError

ON_GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
)
N = 6


class Graphs:
    """Replay passes on a CPU as `torch.cuda.make_graphed_callables` does on a GPU: into the same
    memory each time, and only from the memory that was read at the capture.

    Attributes:
        replays: number of batches that a graph ran.
    """

    def __init__(self):
        self.replays = 0

    def __call__(self, run, arguments):
        (static,) = arguments
        read = memory_of(run)
        out = run(static).detach().clone()
        gradient, passes = torch.zeros_like(static), []

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                self.replays += 1
                assert memory_of(run) == read, "the graph reads memory that the network left"
                assert not passes, "the last pass has had no backward pass"
                with torch.no_grad():
                    static.copy_(x)
                with torch.enable_grad():
                    passes.append(run(static))
                return out.copy_(passes[0].detach())

            @staticmethod
            def backward(ctx, of_logits):
                (found,) = torch.autograd.grad(passes.pop(), static, of_logits)
                return gradient.copy_(found)

        return Replay.apply


def memory_of(run):
    """Return the addresses of the tensors of the network that a function runs."""
    (network,) = (
        cell.cell_contents for cell in run.__closure__ if isinstance(cell.cell_contents, nn.Module)
    )
    return [tensor.data_ptr() for tensor in network.state_dict(keep_vars=True).values()]


@pytest.fixture(params=["cpu", ON_GPU])
def device(request, monkeypatch):
    if request.param == "cpu":
        monkeypatch.setattr(replayed, "DEVICES", ("cpu",))
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", Graphs())
    return request.param


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *layers, nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )  # fmt: skip


def batch(device, n=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand((n, 3, 6, 6), generator=generator).to(device),
        torch.randint(4, (n,), generator=generator).to(device),
    )


def graph_of(victim):
    return victim.as_module()._replayed._graph


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_replayed_gradients_are_the_networks_and_follow_the_weights(device, precision):
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    victim = ModelVictim(model, precision=precision, replayed=N)
    found, expected = [], []
    for seed in range(3):
        x, y = batch(device, seed=seed)
        for n in (N, N - 1):  # a smaller batch runs the network itself
            found += victim.gradient(x[:n], y[:n])
            expected += ModelVictim(copy.deepcopy(model), precision=precision).gradient(
                x[:n], y[:n]
            )
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert graph_of(victim) is not None
    for one, other in zip(found, expected, strict=True):  # none was overwritten by a later pass
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_an_attack_replays_its_gradient_passes_only(device):
    model = network().to(device)
    x, y = batch(device)

    def attacked(victim):
        attack = PGD(budget=0.1, steps=4, restarts=2)
        generator = torch.Generator(device).manual_seed(0)
        return attack(x, y, strength=1.0, victim=victim, generator=generator)

    victim = ModelVictim(model, replayed=N)
    torch.testing.assert_close(attacked(victim), attacked(ModelVictim(model)), rtol=0, atol=1e-5)
    if device == "cpu":
        assert torch.cuda.make_graphed_callables.replays == 8 + 2  # two to compare it
    twice = [victim.logits(each.requires_grad_()) for each in (x.clone(), x.clone() / 2)]
    total = sum(each.square().sum() for each in twice)
    assert total.requires_grad  # both passes are kept until the backward pass
    total.backward()


def test_a_loss_that_runs_other_passes_keeps_its_gradients(device):
    model = network().to(device)
    victim, plain = ModelVictim(model, replayed=N), ModelVictim(model)
    x, y = batch(device)
    found, expected = [], []
    for each, results in ((victim, found), (plain, expected)):

        def loss(logits, y, reference, each=each):
            each.gradient(x.flip(0), y)  # before the backward pass of the logits
            other = (logits - reference()).square().sum(1) + logits[:, 0]
            return other + each.logits(x.flip(0)).square().sum(1).detach()

        for factor in (0.9, 0.7, 0.5):
            kept, _, _ = each.with_reference(x).gradient(factor * x, y, loss)
            results.append(kept)
    assert graph_of(victim) is not None
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_weights_in_other_memory_are_captured_again(device):
    model = network().to(device)
    victim = ModelVictim(model, replayed=N)
    x, y = batch(device)
    victim.gradient(x, y)
    first = graph_of(victim)
    model[-1].weight = nn.Parameter(3 * model[-1].weight.detach())
    found = victim.gradient(x, y)
    assert graph_of(victim) not in (None, first)
    for one, other in zip(found, ModelVictim(model).gradient(x, y), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


class Doubled(nn.Module):
    """A network whose plain equivalent has other weights than its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(108, 4)

    def forward(self, x):
        return 2 * self.linear(x.flatten(1))

    def plain_equivalent(self):
        plain = nn.Linear(108, 4)
        plain.weight.data = 2 * self.linear.weight.detach()
        plain.bias.data = 2 * self.linear.bias.detach()
        return nn.Sequential(nn.Flatten(), plain)


def test_a_plain_equivalent_is_replayed_and_follows_the_weights(device):
    model = Doubled().to(device)
    victim = ModelVictim(model, replayed=N)
    x, y = batch(device)
    for _ in range(2):
        found = victim.gradient(x, y)
        for one, other in zip(found, ModelVictim(model).gradient(x, y), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            model.linear.weight.mul_(-3)
    assert graph_of(victim) is not None


def test_a_network_whose_gradient_is_zero_is_captured_later(device):
    model = network().to(device)
    with torch.no_grad():
        model[-1].weight.zero_()
    victim = ModelVictim(model, replayed=N)
    x, y = batch(device)
    victim.gradient(x, y)
    assert graph_of(victim) is None
    with torch.no_grad():
        model[-1].weight.normal_(generator=torch.Generator(device).manual_seed(0))
    victim.gradient(x, y)
    assert graph_of(victim) is not None


class Noise(nn.Module):
    """Add noise of a generator that no graph knows."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x + self.size * torch.randn(x.shape).to(x.device)


class Waits(nn.Module):
    """Wait for a value of the images, which no capture permits."""

    def forward(self, x):
        return x if float(x.detach().sum()) > 0 else -x


@pytest.mark.parametrize("layer", [Noise(0.1), Noise(1e-4)])
def test_a_random_network_is_not_replayed(device, layer):
    victim = ModelVictim(network(layer).to(device), replayed=N)
    gradients = [victim.gradient(*batch(device))[0] for _ in range(2)]
    assert graph_of(victim) is None
    assert not torch.equal(*gradients)


def test_a_network_that_cannot_be_captured_runs_as_it_is(device, monkeypatch):
    if device == "cpu":

        def fails(run, arguments):
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(torch.cuda, "make_graphed_callables", fails)
    model = network(Waits() if device == "cuda" else nn.Identity()).to(device)
    x, y = batch(device)
    victim = ModelVictim(model, replayed=N)
    gradient, _, logits = victim.gradient(x, y)
    assert graph_of(victim) is None
    expected_gradient, _, expected = ModelVictim(model).gradient(x, y)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(logits, expected)


def test_a_network_without_a_gradient_is_refused_as_ever(device):
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach()

    victim = ModelVictim(network(Detached()).to(device), replayed=N)
    with pytest.raises(NoGradientError, match="the model has no gradient in its images"):
        victim.gradient(*batch(device))


def test_a_failed_compilation_is_still_reported(device, no_compiler):
    victim = ModelVictim(network().to(device), compiled=N, replayed=N)
    with pytest.warns(UserWarning, match="no compiler here"):
        victim.gradient(*batch(device))


def test_a_graph_with_other_results_is_not_used(device, monkeypatch):
    right = torch.cuda.make_graphed_callables
    x, y = batch(device)
    for wrong in (lambda z: z + 1, lambda z: z.detach() + 2 * (z - z.detach())):
        monkeypatch.setattr(
            torch.cuda,
            "make_graphed_callables",
            lambda run, arguments, wrong=wrong: lambda x: wrong(right(run, arguments)(x)),
        )
        victim = ModelVictim(network().to(device), replayed=N)
        victim.gradient(x, y)
        assert graph_of(victim) is None
