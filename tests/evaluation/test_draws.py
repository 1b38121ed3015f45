"""Networks that draw random numbers, measured by several draws."""

import random

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import curricula
from curricula.errors import Notice, UserError
from curricula.evaluation.intervals import draws_interval, wilson_interval
from curricula.evaluation.results import Draws, ThreatResult
from curricula.runtime.records import from_json, to_json

N, DRAWS = 60, 8


class Noisy(nn.Module):
    """Classify by the brightest of three blocks, after noise."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x):
        return 20 * (x + self.noise * torch.randn_like(x)).flatten(1)[:, :3]


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand((N, 1, 5, 5), generator=generator), torch.arange(N) % 3


def test_counts_are_those_of_a_loop_over_draws(images):
    x, y = images
    network = Noisy(0.2)
    found = curricula.evaluate(network, (x, y), ["clean"], draws=DRAWS, batch_size=N)[0]
    seen = []

    def forward(inputs):
        logits = Noisy.forward(network, inputs)
        if len(inputs) == N:
            seen.append(logits.detach())
        return logits

    network.forward = forward
    again = curricula.evaluate(network, (x, y), ["clean"], draws=DRAWS, batch_size=N)[0]
    assert again == found  # draws follow from the seed
    logits = torch.stack(seen[-DRAWS:])
    assert not torch.equal(logits[0], logits[1])
    correct_N = (logits.argmax(2) == y).sum(0)
    votes_NK = nn.functional.one_hot(logits.argmax(2), 3).sum(0)
    mean_NK = logits.softmax(2).mean(0)
    assert found.correct == int(((votes_NK + mean_NK / 2).argmax(1) == y).sum())
    assert found.draws == Draws(
        count=DRAWS,
        correct=int(correct_N.sum()),
        squares=int((correct_N**2).sum()),
        mean=int((mean_NK.argmax(1) == y).sum()),
        n=N,
    )


@pytest.mark.parametrize("threat", ["clean", "pgd(0.1, steps=1, eot=2)"])
def test_the_caller_random_state_is_left_alone(images, threat):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    curricula.evaluate(Noisy(0.2), images, [threat], draws=2)
    assert torch.equal(torch.rand(4), expected)


def test_a_random_network_without_draws_is_said(images):
    with pytest.warns(Notice, match=r"draws random numbers.*evaluate with draws=10 \(--draws 10\)"):
        found = curricula.evaluate(Noisy(0.2), images, ["clean"])[0]
    assert found.draws is None


class Drawing(Noisy):
    """Draw from a source other than torch's global random state."""

    def __init__(self, source):
        super().__init__(0.2)
        self.source = source
        self.generator = torch.Generator().manual_seed(0)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        if self.source == "numpy":
            noise = np.random.randn(*x.shape)
        elif self.source == "python":
            noise = [random.gauss() for _ in range(x.numel())]
        elif self.source == "batch":
            noise = torch.randn(x.shape[1:]).expand(x.shape)
        elif self.source == "own":
            noise = torch.randn(x.shape, generator=self.generator)
        elif self.source == "rarely":
            noise = (torch.rand(len(x), 1, 1, 1) < 0.1) * torch.randn(x.shape)
        elif self.source == "layer":
            return super().forward(self.dropout(x))
        else:
            return super().forward(functional.dropout(x, 0.5, training=True))
        return super().forward(x + 0.2 * torch.as_tensor(noise).reshape(x.shape).float())


@pytest.mark.parametrize("source", ["numpy", "python", "batch", "rarely", "functional"])
def test_draws_of_every_global_source_are_measured_and_repeat(images, source):
    """Also those of a network that draws once for a batch, or for one image in ten."""
    network = Drawing(source).eval()
    network.noise = 0
    with pytest.warns(Notice, match="draws random numbers") as said:
        curricula.evaluate(network, images, ["clean"])
    assert len(said) == 1
    one, other = (
        curricula.evaluate(network, images, ["clean", "pgd(0.05, steps=2, eot=2)"], draws=DRAWS)
        for _ in range(2)
    )
    assert [each.draws for each in one] == [each.draws for each in other]
    assert one[0].draws.squares != DRAWS * one[0].draws.correct  # its draws differ


@pytest.mark.parametrize("threat", ["pgd(0.1, steps=2, eot=4)", "worst(rot:30, k=3)"])
def test_a_threat_has_the_same_draws_after_other_threats(images, threat):
    """And so in each of several processes, of which each begins with a different batch."""
    keywords = {"draws": 2, "batch_size": 20}
    alone = curricula.evaluate(Noisy(0.2), images, [threat], **keywords)
    both = curricula.evaluate(Noisy(0.2), images, ["worst(trans:1, k=2)", threat], **keywords)
    assert both[1] == alone[0]


def test_draws_that_no_seed_determines_are_said(images):
    with pytest.warns(Notice, match="that no seed determines, as from its own generator"):
        curricula.evaluate(Drawing("own"), images, ["clean"], draws=2)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm2d(1)])
def test_a_layer_left_in_training_mode_is_said(images, layer):
    """Monte Carlo dropout by the mode of its layers is measured without dropout."""
    network = Drawing("layer").eval()
    network.noise, network.dropout = 0, layer.train()
    message = r"in eval mode, but its layer dropout \((Dropout|BatchNorm2d)\) is in training mode"
    with pytest.warns(Notice, match=message):
        curricula.evaluate(network, images, ["clean"])
    assert layer.training


def test_a_network_without_draws_has_the_same_counts_in_each(images):
    plain = curricula.evaluate(Noisy(0), images, ["clean", "pgd:0.1"])
    with pytest.warns(Notice, match=r"no random numbers: draws=3 \(--draws 3\) repeats each pass"):
        found = curricula.evaluate(Noisy(0), images, ["clean", "pgd:0.1"], draws=3)
    for one, other in zip(plain, found, strict=True):
        assert (one.correct, one.fooled) == (other.correct, other.fooled)
        assert other.draws.accuracy == other.draws.mean_accuracy == other.accuracy
        assert other.draws.interval == pytest.approx(other.interval, abs=1e-9)


def test_a_lucky_draw_does_not_choose_the_branch_of_a_union(images):
    """By one draw the weak branch would win on many images: 0.33 in place of 0.16."""
    x, _ = images
    labels, threats = Noisy(0)(x).argmax(1), ["pgd:0.3", "pgd:0.001|pgd:0.3"]
    found = curricula.evaluate(Noisy(0.2), (x, labels), threats, draws=20)
    strong, union = (each.draws.accuracy for each in found)
    assert union == pytest.approx(strong, abs=0.05)


@pytest.mark.parametrize(("n", "ends", "count"), [(100, (0.6, 0.4), 20), (10, (6, 4), 100)])
def test_the_interval_of_a_single_draw_covers_it(n, ends, count):
    """Images differ in their share of correct draws: beta distributed, mean 0.6."""
    generator, inside, pooled = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        correct_N = generator.binomial(count, generator.beta(*ends, n))
        total, squares = int(correct_N.sum()), int((correct_N**2).sum())
        low, high = draws_interval(total, squares, count, n)
        inside += low <= 0.6 <= high
        low, high = wilson_interval(total, n * count)
        pooled += low <= 0.6 <= high
    assert 0.93 <= inside / 1000 <= 0.98
    assert pooled / 1000 < 0.6  # what counting every draw as an image would give
    assert stats.binomtest(inside, 1000, 0.95).pvalue > 1e-3


def test_a_result_with_draws_is_one_line_and_survives_json():
    draws = Draws(count=2, correct=150, squares=280, mean=80, n=100)
    found = ThreatResult(name="clean", threat="clean", correct=79, fooled=0, n=100, draws=draws)
    assert from_json(ThreatResult, to_json(found)) == found
    assert str(found) == (
        "clean: 79.0 (70.0 to 85.8) % of 100 images by the majority of 2 draws; single draw 75.0 "
        "(67.0 to 81.6) %, mean of 2 draws 80.0 (71.1 to 86.7) %"
    )
    plain = ThreatResult(name="clean", threat="clean", correct=79, fooled=0, n=100)
    assert "draws" not in to_json(plain)
    with pytest.raises(ValueError, match="squares cannot be 10"):
        Draws(count=2, correct=150, squares=10, mean=80, n=100)


@pytest.mark.parametrize("draws", [0, -1, 1.5, True, "10", 1_000_001])
def test_other_numbers_of_draws_are_refused(images, draws):
    with pytest.raises(UserError, match="draws must "):
        curricula.evaluate(Noisy(0), images, ["clean"], draws=draws)
