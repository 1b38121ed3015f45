"""Networks with weights or features that have a gradient function train to the end."""

import warnings

import pytest
import torch
from torch import nn

import curricula
from curricula.models import Normalise
from curricula.victim.copies import copied


class KeepsFeatures(nn.Module):
    """Stores the features of its last pass, as an attribute and in a list."""

    def __init__(self):
        super().__init__()
        self.body, self.last = nn.Linear(784, 8), nn.Linear(8, 10)
        self.features, self.all = None, []

    def forward(self, x):
        self.features = self.body(x.flatten(1) - 0.5).relu()
        self.all = [self.features, self.features.mean()]
        return self.last(self.features)


def wrapped(wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old forms are deprecated
        return nn.Sequential(
            Normalise(), nn.Flatten(), wrap(nn.Linear(784, 8)), nn.ReLU(), wrap(nn.Linear(8, 10))
        )


def spectral_norm():
    return wrapped(nn.utils.spectral_norm)


def weight_norm():
    return wrapped(nn.utils.weight_norm)


def new_spectral_norm():
    return wrapped(nn.utils.parametrizations.spectral_norm)


def new_weight_norm():
    return wrapped(nn.utils.parametrizations.weight_norm)


KINDS = (spectral_norm, weight_norm, new_spectral_norm, new_weight_norm, KeepsFeatures)


@pytest.mark.parametrize("average", ["none", "ema"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_training_runs_to_the_end(tiny, kind, average, tmp_path):
    torch.manual_seed(0)
    trained = curricula.train(
        data="tiny", model=kind(), perturb="rot:10+pgd:0.1", epochs=2, average=average, awp=0.01,
        output=tmp_path / "run",
    )  # fmt: skip
    assert len(trained.run.metrics) == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_copy_after_a_pass_computes_the_same_and_is_independent(kind):
    torch.manual_seed(0)
    model, x = kind(), torch.rand(4, 1, 28, 28)
    model(x).sum().backward()
    copy = copied(model).eval()
    expected = model.eval()(x)
    torch.testing.assert_close(copy(x), expected)
    with torch.no_grad():
        for weight in copy.parameters():
            weight.mul_(2).add_(0.1)
    torch.testing.assert_close(model(x), expected)
    assert not torch.allclose(copy(x), expected)


def test_a_tensor_that_occurs_twice_is_copied_once():
    model = KeepsFeatures()
    model(torch.rand(2, 1, 28, 28))
    copy = copied(model)
    assert copy.features is copy.all[0]
    assert copy.features is not model.features
    assert torch.equal(copy.features, model.features)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_victim_follows_updates(kind, precision):
    torch.manual_seed(0)
    model, x, y = kind(), torch.rand(8, 1, 28, 28), torch.arange(8)
    victim = curricula.ModelVictim(model, precision=precision)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
        gradient, _, logits = victim.gradient(x, y)
        assert gradient.any()
        with torch.no_grad():
            expected = model.eval()(x)
        close = {"rtol": 0.05, "atol": 0.05} if precision == "bf16" else {}
        torch.testing.assert_close(logits, expected, **close)
