"""Networks whose copy would not compute what they compute, or would change them."""

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.errors import UserError
from curricula.victim.forms import Form
from curricula.victim.frozen import FrozenModel
from curricula.victim.model_checks import check_classifier
from curricula.victim.model_victim import ModelVictim

X = torch.rand((12, 1, 6, 6), generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 4


def ordinary():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(64, 4),
    )  # fmt: skip


class LoRA(nn.Linear):
    """A linear layer that merges its low-rank part into its weight in eval mode, as loralib."""

    def __init__(self):
        super().__init__(36, 4)
        self.a, self.b = nn.Parameter(torch.randn(2, 36)), nn.Parameter(torch.randn(4, 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.b @ self.a).data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x) + (0 if self.merged else x @ self.a.t() @ self.b.t())


class NewLoRA(LoRA):
    """One that has not been trained, so that merging changes nothing yet."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.b)


class Reparametrised(nn.Module):
    """Two convolutions that become one in eval mode, as RepVGG."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.fused = None

    def train(self, mode=True):
        super().train(mode)
        self.fused = None
        if not mode:
            self.fused = copy.deepcopy(self.one)
            self.fused.weight.data += self.two.weight.data
            self.fused.bias.data += self.two.bias.data
        return self

    def forward(self, x):
        maps = self.one(x) + self.two(x) if self.fused is None else self.fused(x)
        return maps.relu().mean((2, 3))


class ComputesFilter(nn.Module):
    """Stores its filter as a buffer in eval mode and deletes it in training mode, as escnn's
    R2Conv."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 36))

    def train(self, mode=True):
        super().train(mode)
        if mode and hasattr(self, "filter"):
            del self.filter
        elif not mode:
            self.register_buffer("filter", self.weight.detach() * 2)
        return self

    def forward(self, x):
        return x.flatten(1) @ (2 * self.weight if self.training else self.filter).t()


class Caches(nn.Module):
    """Keeps the weight that it computes in its first pass in eval mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 36))
        self.cache = {}

    def forward(self, x):
        if self.training:
            self.cache.clear()
            return x.flatten(1) @ self.weight.exp().t()
        if "weight" not in self.cache:
            self.cache["weight"] = self.weight.detach().exp()
        return x.flatten(1) @ self.cache["weight"].t()


class Counts(nn.Module):
    """Counts its passes in a buffer, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.body = ordinary()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.passes += 1
        return self.body(x)


class Listed(nn.Module):
    """Has a layer in a list, where eval() and parameters() do not find it."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = [nn.Linear(36, 8)], nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.hidden[0](x.flatten(1)).relu())


class ListedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = [nn.Parameter(torch.randn(4, 36))]

    def forward(self, x):
        return x.flatten(1) @ self.weights[0].t()


class Slices(nn.Module):
    """Runs slices of its Sequential, which are modules that it makes in each pass."""

    def __init__(self):
        super().__init__()
        self.body = ordinary()

    def forward(self, x):
        return self.body[3:](self.body[:3](x))


class Recurrent(nn.Module):
    """Reads the rows of an image; its layer has its weights in a list too."""

    def __init__(self):
        super().__init__()
        self.rows, self.last = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.rows(x[:, 0])[0][:, -1])


class Locked(nn.Module):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.body, self.lock = ordinary(), threading.Lock()

    def forward(self, x):
        return self.body(x)


class ReturnsNoneFromTrain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = ordinary()

    def train(self, mode=True):
        super().train(mode)
        self.body[1].eval()  # a frozen batch norm, as in fine-tuning

    def forward(self, x):
        return self.body(x)


def closure():
    network = ordinary()
    old = network.forward
    network.forward = lambda x: old(2 * x)
    return network


def closure_of_a_layer():
    """A forward that runs one layer of the network without weights: its dropout."""
    network = ordinary()
    dropout = network[3]
    network[3].forward = lambda x: F.dropout(x, 0.5, dropout.training)
    return network


def closure_of_a_weight():
    network = ordinary()
    weight = network[5].weight
    network[5].forward = lambda x: F.linear(x, weight)
    return network


def by_script(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(network)


def by_trace(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, X, check_trace=False)


def scripted():
    return by_script(ordinary())


def traced():
    return by_trace(ordinary().eval())


def partly_scripted():
    return nn.Sequential(by_script(ordinary()[:4]), ordinary()[4:])


def exported():
    images = {0: torch.export.Dim("images")}
    return torch.export.export(ordinary().eval(), (X,), dynamic_shapes=(images,)).module()


KINDS = {
    ordinary: Form.SHARED,
    ReturnsNoneFromTrain: Form.SHARED,
    LoRA: Form.COPIED,
    NewLoRA: Form.COPIED,
    Reparametrised: Form.COPIED,
    ComputesFilter: Form.COPIED,
    Caches: Form.COPIED,
    Counts: Form.COPIED,
    Slices: Form.SHARED,
    Recurrent: Form.SHARED,
    closure: Form.ITSELF,
    closure_of_a_layer: Form.ITSELF,
    closure_of_a_weight: Form.ITSELF,
    scripted: Form.ITSELF,
    traced: Form.ITSELF,
    partly_scripted: Form.ITSELF,
    exported: Form.SHARED,
    Listed: Form.ITSELF,
    ListedWeights: Form.ITSELF,
    Locked: Form.ITSELF,
}
NO_MODE = (traced, exported)  # always in the mode in which they were made


def made(kind):
    torch.manual_seed(0)
    network = kind()
    with torch.no_grad():
        for layer in network.modules():
            if type(layer) is nn.BatchNorm2d:
                layer.running_mean.uniform_(-0.5, 0.5)
                layer.running_var.uniform_(0.5, 2)
    return network


def expected(kind, network):
    """Return the logits that a network itself computes in eval mode."""
    if kind in NO_MODE:
        return network(X).detach()
    mode = network.training
    network.train()
    network.eval()
    with torch.no_grad():
        logits = network(X)
    network.train(mode)
    return logits


def state_of(network):
    return (
        {name: value.clone() for name, value in network.state_dict().items()},
        [getattr(module, "training", None) for module in network.modules()],
        [(weight.requires_grad, weight.grad is None) for weight in network.parameters()],
        torch.get_rng_state(),
    )


def assert_same(before, after):
    assert before[0].keys() == after[0].keys()
    for name in before[0]:
        assert torch.equal(before[0][name], after[0][name]), name
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_victim_computes_what_the_network_computes_and_changes_nothing(kind):
    network = made(kind)
    before = state_of(network)
    victim = ModelVictim(network)
    logits = victim.logits(X)
    gradient, _, _ = victim.gradient(X, Y)
    logits.sum().backward() if logits.requires_grad else None
    assert_same(before, state_of(network))
    torch.testing.assert_close(logits.detach(), expected(kind, network))
    assert gradient.any()
    assert victim.as_module()._form is KINDS[kind]


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_victim_follows_updates(kind, mode):
    network = made(kind)
    weights = list(network.parameters())
    if kind not in NO_MODE:
        network.train(mode)
    victim = ModelVictim(network)
    if kind is Listed:
        weights += network.hidden[0].parameters()
    if kind is ListedWeights:
        weights = network.weights
    optimizer = torch.optim.SGD(weights, lr=0.5)
    old = victim.logits(X)
    for _ in range(2):
        if kind not in NO_MODE:
            network.train()
        F.cross_entropy(network(X), Y).backward()
        optimizer.step()
        if kind not in NO_MODE:
            network.train(mode)
        with torch.no_grad():
            found = victim.logits(X)
        torch.testing.assert_close(found, expected(kind, network))
        assert not torch.allclose(found, old)
        old = found


@pytest.mark.parametrize("kind", [LoRA, ComputesFilter, Counts, closure, scripted, Locked])
def test_an_attack_changes_neither_flags_nor_buffers_of_a_network_in_training(kind):
    network = made(kind).train()
    victim = ModelVictim(network)
    victim.logits(X)
    before = state_of(network)
    for _ in range(3):
        victim.with_reference(X).gradient(X, Y)
    assert_same(before, state_of(network))


def traced_norm():
    """Return a traced network whose batch norm is in training mode for ever."""
    return by_trace(made(ordinary).train())


def traced_dropout():
    return by_trace(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 4)).train())


OUTSIDE = {"norm": nn.BatchNorm1d(36), "dropout": nn.Dropout(0.5)}


class RunsOutside(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name, self.last = name, nn.Linear(36, 4)

    def forward(self, x):
        return self.last(OUTSIDE[self.name](x.flatten(1)))


class MakesDropout(RunsOutside):
    def forward(self, x):
        return self.last(nn.Dropout(0.5)(x.flatten(1)))


class ListedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = [nn.BatchNorm1d(36)], nn.Linear(36, 4)

    def forward(self, x):
        return self.last(self.layers[0](x.flatten(1)))


class LockedCounts(Locked):
    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.body(x)


class BatchStatistics(nn.Module):
    """Normalises by the statistics of the batch, in eval mode too."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.last = norm, nn.Linear(36, 4)

    def forward(self, x):
        features, norm = x.flatten(1), self.norm
        return self.last(F.batch_norm(features, norm.running_mean, norm.running_var, training=True))


class WakesNorm(BatchStatistics):
    def forward(self, x):
        return self.last(self.norm.train()(x.flatten(1)))


def exported_norm():
    images = {0: torch.export.Dim("images")}
    network = made(ordinary)[:2]
    network = nn.Sequential(*network, nn.Flatten(), nn.Linear(64, 4)).train()
    return torch.export.export(network, (X,), dynamic_shapes=(images,)).module()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (traced_norm, r"changes its tensor \w+ also in eval mode.* before torch.jit.trace"),
        (traced_dropout, r"returns random logits also in eval mode; call model.eval\(\) before"),
        (
            lambda: RunsOutside("norm"),
            r"not belong to it \(BatchNorm1d\), .* attributes of",
        ),
        (
            lambda: RunsOutside("dropout"),
            r"not belong to it \(Dropout\), .* call their eval\(\)",
        ),
        (
            lambda: MakesDropout(""),
            r"runs modules in training mode that do not .*\(Dropout\)",
        ),
        (ListedNorm, r"not belong to it \(BatchNorm1d\)"),
        (
            LockedCounts,
            r"passes also in eval mode, and cannot be copied.* if self.training$",
        ),
        (
            lambda: BatchStatistics(nn.BatchNorm1d(36)),
            r"images are in the batch, as in training mode; let its .* only if self.training$",
        ),
        (lambda: WakesNorm(nn.BatchNorm1d(36)), r"in training mode; let .* if self.training$"),
        (
            exported_norm,
            r"in training mode; call model.eval\(\) before torch.jit.trace or",
        ),
    ],
)
def test_where_no_form_is_right_it_is_refused_in_one_line(network, message):
    network = network()
    before, outside = state_of(network), state_of(OUTSIDE["norm"])
    with pytest.raises(UserError, match=message) as caught:
        ModelVictim(network).logits(X)
    assert "\n" not in str(caught.value)
    assert_same(before, state_of(network))
    assert_same(outside, state_of(OUTSIDE["norm"]))


def test_modules_outside_in_eval_mode_are_run_as_they_are():
    norm = OUTSIDE["norm"]
    try:
        norm.eval()
        network = RunsOutside("norm")
        victim = ModelVictim(network)
        victim.logits(X).sum().backward() if victim.logits(X).requires_grad else None
        torch.testing.assert_close(victim.logits(X), network(X))
        assert all(weight.grad is None for weight in norm.parameters())
    finally:
        norm.train()


class MakesLayers(nn.Module):
    """Makes modules without weights in its forward: ordinary, if unusual."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(36, 4)

    def forward(self, x):
        return nn.ReLU()(self.last(nn.Flatten()(x)))


def test_modules_made_in_a_pass_leave_the_network_shared():
    frozen = FrozenModel(MakesLayers())
    frozen(X)
    assert frozen._form is Form.SHARED


def test_parametrisations_are_not_cached_over_an_update():
    from torch.nn.utils import parametrizations, parametrize

    network = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(36, 4)))
    victim = ModelVictim(network)
    with parametrize.cached():
        victim.logits(X)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1)
        found = victim.logits(X)
    torch.testing.assert_close(found, network(X))


def test_weights_of_inference_mode_are_attacked():
    with torch.inference_mode():
        network = made(ordinary)
        x = X.clone()
        victim = ModelVictim(network)
        gradient, _, logits = victim.gradient(x, Y.clone())
    assert gradient.any()
    with torch.no_grad():
        torch.testing.assert_close(logits, copy.deepcopy(network).eval()(X))
    gradient, _, again = ModelVictim(network).gradient(X, Y)
    assert torch.equal(again, logits)


@pytest.mark.parametrize("kind", [LoRA, closure, ordinary])
def test_a_form_that_is_used_again_computes_the_same(kind):
    network = made(kind)
    first = FrozenModel(network)
    assert first.form is None
    expected = first(X)
    again = FrozenModel(network)
    again.use_form(first.form)
    assert torch.equal(again(X), expected)
    assert again.form == first.form


def test_the_form_of_a_damaged_checkpoint_is_refused():
    with pytest.raises(ValueError, match="unpack"):
        FrozenModel(made(ordinary)).use_form((True, False, True, True))


@pytest.mark.parametrize(
    "kind", [ordinary, LoRA, Reparametrised, ComputesFilter, scripted, Slices, Recurrent]
)
def test_training_accepts_networks_that_can_be_copied(kind):
    network = made(kind)
    before = state_of(network)
    check_classifier(network, X, 4)
    assert_same(before, state_of(network))


@pytest.mark.parametrize(
    "kind", [closure, closure_of_a_layer, closure_of_a_weight, Listed, ListedWeights]
)
def test_training_refuses_what_a_checkpoint_would_lack(kind):
    network = made(kind)
    before = state_of(network)
    with pytest.raises(UserError, match=r"(weights|modules).* that do not belong to it") as caught:
        check_classifier(network, X, 4)
    assert "\n" not in str(caught.value)
    assert_same(before, state_of(network))
