"""The audit finds each planted kind of gradient masking by its check, and passes honest models."""

import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from fixtures import planted
from fixtures.training import train_under
from scipy.stats import binom
from torch import nn

import curricula
from curricula import ModelVictim
from curricula.cli.main import program
from curricula.data.dataset import load_data
from curricula.errors import UserError
from curricula.evaluation.accuracy import Predicted
from curricula.evaluation.audit import ALL_PGD, MULTIPLES, audit
from curricula.evaluation.audit_checks import (
    ALLOWED,
    count_missed,
    deterministic_forward,
    gradient_free_does_not_win,
    iterative_beats_one_step,
    logits_not_probabilities,
    monotone_in_eps,
    nonzero_gradients,
    plateau,
    too_many,
    unbounded_reaches_zero,
)
from curricula.models import Normalise
from curricula.plugins import registry
from curricula.victim.smooth_backward import _smooth_backward, with_smooth_backward

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"
N = 30  # images

CHECKS = (
    "deterministic forward",
    "logits, not probabilities",
    "nonzero gradients",
    "gradient is the derivative",
    "iterative beats one step",
    "monotone in eps",
    "unbounded eps reaches 0",
    "more steps plateau",
    "restarts plateau",
    "gradient-free does not win",
    "smooth backward does not win",
    "transfer does not win",
)


class Network(nn.Module):
    """Two strided convolutions and a linear layer, with masking before, between or after them."""

    def __init__(self, **planted):
        super().__init__()
        self.normalise = Normalise()
        self.first = nn.Conv2d(1, 24, 4, stride=4)
        self.second = nn.Conv2d(24, 32, 3, stride=2)
        self.last = nn.Linear(32 * 9, 10)
        self.planted = nn.ModuleDict(planted)

    def plant(self, place, x):
        return self.planted[place](x) if place in self.planted else x

    def forward(self, x):
        x = self.normalise(self.plant("before", x))
        for layer in (self.first, self.second):
            x = self.plant("between", layer(x).relu())
        return self.plant("after", self.last(x.flatten(1)))


class Noise(nn.Module):
    def forward(self, x):
        return (x + 0.2 * torch.randn_like(x)).clamp(0, 1)


class Rounded(nn.Module):
    def forward(self, x):
        return (2 * x).round() / 2


class Applied(nn.Module):
    """Apply a function, or a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


class Softmax(nn.Module):
    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, logits):
        return (logits / self.temperature).softmax(1)


class OfTheBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def trained(attack, *, epochs=12, batch_size=64, lr=4e-3):
    """Train a network on the digits, plainly or against PGD in the ball of 0.1."""
    data = load_data("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    train_under(model, data, attack, optimizer=optimizer, epochs=epochs, batch_size=batch_size)
    return model, data


@pytest.fixture(scope="module")
def robust():
    return trained("pgd(0.1, steps=2)", epochs=6, batch_size=100, lr=8e-3)


@pytest.fixture(scope="module")
def plain():
    return trained("clean")


@pytest.fixture
def shorter(monkeypatch):
    """Make audits shorter, but still good enough for a verdict on the networks of this file."""
    for name, value in {
        "QUERIES": 500, "STEPS": 20, "MORE_STEPS": 50, "RESTARTS": 2, "MORE_RESTARTS": 4,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"curricula.evaluation.audit.{name}", value)
    monkeypatch.setattr("curricula.evaluation.transfer.TRAINING_IMAGES", 500)
    monkeypatch.setattr("curricula.evaluation.transfer.EPOCHS", 2)


@pytest.fixture
def hasty(monkeypatch):
    """Make audits short, whatever their quality."""
    monkeypatch.setattr("curricula.evaluation.audit.QUERIES", 20)
    monkeypatch.setattr("curricula.evaluation.transfer.TRAINING_IMAGES", 50)
    monkeypatch.setattr("curricula.evaluation.transfer.EPOCHS", 1)
    monkeypatch.setattr("curricula.evaluation.audit.STEPS", 3)
    monkeypatch.setattr("curricula.evaluation.audit.MORE_STEPS", 6)


def masked(model, **planted):
    """Return the same weights behind planted masking of the gradient."""
    network = Network(**planted)
    network.load_state_dict(model.state_dict())
    return network.eval()


def failures(found):
    return {check.name for check in found.checks if not check.passed}


def accuracies(found):
    return {attack.name: attack.accuracy for attack in found.attacks}


@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_robust_model_passes(robust, seed, request):
    model, data = robust
    if seed > 0:  # one audit at full length is enough
        request.getfixturevalue("shorter")
    found = audit(model, data, data.test[:N], seed=seed)
    assert not failures(found), found.checks
    assert found.passed
    assert tuple(check.name for check in found.checks) == CHECKS
    # It is robust: a model that is not would pass easily.
    assert accuracies(found)["pgd-40"] > 0.5


def test_an_honest_plain_model_passes(plain, shorter):
    model, data = plain
    found = audit(model, data, data.test[:N])
    assert not failures(found), found.checks
    assert accuracies(found)["pgd-40"] < 0.5 < accuracies(found)["clean"]


def test_quantised_activations_are_caught(plain, shorter):
    model, data = plain
    found = audit(masked(model, between=Rounded()), data, data.test[:N])
    assert failures(found) >= {
        "nonzero gradients",
        "unbounded eps reaches 0",
        "gradient-free does not win",
    }
    assert not failures(found) & {"deterministic forward", "logits, not probabilities"}
    assert accuracies(found)["pgd-40"] > 0.5  # the audit shows that this is too high


def test_a_saturated_softmax_is_caught(plain, shorter):
    """Scale logits until cross-entropy is 0 in float32; DLR does not change with the scale."""
    model, data = plain
    found = audit(masked(model, after=Scaled(1000.0)), data, data.test[:N])
    assert failures(found) == {"nonzero gradients"}
    (check,) = [check for check in found.checks if not check.passed]
    assert "0 on dlr" in check.finding
    assert "loss=dlr" in check.finding
    assert accuracies(found)["pgd-40"] > accuracies(found)["pgd-40 on dlr"] + 0.3


def test_probabilities_of_a_low_temperature_are_caught(plain, shorter):
    model, data = plain
    found = audit(masked(model, after=Softmax(0.01)), data, data.test[:N], eps=0.15)
    assert failures(found) >= {
        "logits, not probabilities",
        "nonzero gradients",
        "gradient-free does not win",
    }


def test_a_random_network_is_measured_and_its_audit_is_repeatable(plain, hasty):
    model, data = plain
    noisy = masked(model, before=Noise())
    before = torch.get_rng_state()
    found = audit(noisy, data, data.test[:15])
    assert "deterministic forward" not in {check.name for check in found.checks}
    assert "more draws plateau" in {check.name for check in found.checks}
    assert "the model draws random numbers" in found.left_out[0]
    attacks = {attack.name: attack for attack in found.attacks}
    assert "eot=5" in attacks["pgd-40"].threat
    assert attacks["pgd-40"].draws.count == 10
    assert "square" not in attacks
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # whatever else is drawn
    assert audit(noisy, data, data.test[:15]) == found
    assert audit(noisy, data, data.test[:15], seed=1) != found


def test_a_dependence_on_the_batch_is_caught(plain, hasty):
    model, data = plain
    found = audit(masked(model, before=OfTheBatch()), data, data.test[:8])
    assert "deterministic forward" in failures(found)


def test_the_model_is_not_changed(plain, hasty):
    model, data = plain
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    audit(model, data, data.test[:8])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None or weight.requires_grad for weight in model.parameters())
    model.eval()


# The checks as functions of what was measured.


def test_probabilities_are_distinguished_from_logits():
    logits = torch.randn((50, 10), generator=torch.Generator().manual_seed(0))
    for outputs, passes in [
        (logits, True),
        (logits.log_softmax(1), True),
        (logits.relu(), True),
        (logits.softmax(1), False),
        (logits.sigmoid(), False),
        (logits / 0, False),
    ]:
        assert logits_not_probabilities(outputs).passed == passes


def test_a_forward_pass_may_round_differently():
    logits = torch.linspace(-9, 9, 60).reshape(6, 10)
    assert deterministic_forward(logits, logits + 1e-4, logits[:4] + 1e-4).passed
    assert not deterministic_forward(logits, logits, logits[:4] + 0.1).passed
    assert not deterministic_forward(logits, logits + 0.1, logits[:4]).passed
    none = torch.full_like(logits, torch.nan)
    assert not deterministic_forward(logits, logits, none[:4]).passed  # as variance of one image
    assert not deterministic_forward(logits, none, logits[:4]).passed


def test_gradients_that_underflow_or_overflow_have_vanished():
    sizes = torch.full((200,), 1e-20)
    for lost, passes in [
        (1e-12, True), (1e-30, True), (1e-36, False), (0.0, False), (float("nan"), False),
        (float("inf"), False),
    ]:  # fmt: skip
        some = sizes.clone()
        some[:20] = lost
        assert nonzero_gradients({"ce": some, "dlr": sizes}).passed == passes
        assert nonzero_gradients({"ce": sizes, "dlr": some}).passed == passes
    assert nonzero_gradients({"ce": torch.empty(0)}).passed  # no image is right


def test_a_check_fails_by_chance_in_at_most_one_audit_of_a_hundred():
    """It fails by chance if exactly the allowed share breaks the order: computed exactly for every
    number of images. With 200 images or more it finds a model where five times that share does."""
    for n in (*range(1, 401), 1000, 10_000):
        fewest = next((count for count in range(n + 1) if too_many(count, n)), n + 1)
        assert binom.sf(fewest - 1, n, ALLOWED) <= 0.01
        # One image fewer would be too few: the check is as sharp as it may be.
        assert binom.sf(fewest - 2, n, ALLOWED) > 0.01
        if n >= 200:
            assert binom.sf(fewest - 1, n, 5 * ALLOWED) > 0.9
    assert not too_many(0, 0)


def robust_but(n, fooled):
    """Return which of n images are robust: all except the fooled ones."""
    return torch.tensor([i not in fooled for i in range(n)])


def test_the_order_of_two_attacks_is_judged_image_by_image():
    """Accuracies do not matter: here they are equal, or the stronger attack is ahead."""
    some, others, more = range(20), range(20, 40), range(20, 60)
    weak, as_weak = robust_but(200, some), robust_but(200, others)
    assert count_missed(weak, as_weak) == 20
    for check in (iterative_beats_one_step, gradient_free_does_not_win):
        assert not check(weak, as_weak).passed
        assert not check(weak, robust_but(200, more)).passed
        assert check(weak, robust_but(200, range(60))).passed
        assert check(weak, robust_but(200, range(1, 20))).passed  # one image is not enough
        assert check(weak, as_weak).finding.partition(":")[0].endswith(" fools 20")


def test_a_longer_attack_may_fool_a_few_more_at_the_end():
    for most, passes in [(range(40), True), (range(49), True), (range(50), False)]:
        steps = {"one": robust_but(200, range(20)), "some": robust_but(200, range(40))}
        check = plateau("more", {**steps, "most": robust_but(200, most)})
        assert check.passed == passes
        assert f"one 20, some 40, most {len(most)}; {len(most) - 40} of" in check.finding


def test_a_fooled_image_must_not_be_robust_in_a_larger_ball():
    accuracies = {
        "0": robust_but(200, ()),
        "0.1": robust_but(200, range(50)),
        "1": robust_but(200, range(200)),
    }
    assert monotone_in_eps(accuracies).passed
    assert "0: 200, 0.1: 150, 1: 0" in monotone_in_eps(accuracies).finding
    found = monotone_in_eps({**accuracies, "1": robust_but(200, range(20))})
    assert not found.passed
    assert "30 are fooled at 0.1 and robust at 1" in found.finding


@pytest.mark.parametrize(
    ("attack", "fooled", "failed"),
    [
        ("pgd-40", range(40), None),
        ("one step", range(60, 80), "iterative beats one step"),
        ("pgd-40 within 0.4", range(20), "monotone in eps"),
        ("unbounded", range(170), "unbounded eps reaches 0"),
        ("pgd-100", range(60), "more steps plateau"),
        ("pgd-40 with 10 restarts", range(60), "restarts plateau"),
        ("square", range(150, 170), "gradient-free does not win"),
        ("smooth backward", range(150, 170), "smooth backward does not win"),
        ("transfer", range(150, 170), "transfer does not win"),
    ],
)
def test_each_check_compares_its_attacks(plain, monkeypatch, attack, fooled, failed):
    """If one attack is out of order, exactly its check fails."""
    model, data = plain
    split = data.test[:200]
    fools = {"clean": (), "one step": range(20), "unbounded": range(200), "square": range(30)}
    fools |= {f"pgd-40 within {eps}": range(20) for eps in (0.025, 0.05)}
    fools |= {"pgd-40 within 0.2": range(100), "pgd-40 within 0.4": range(150)}
    fools[attack] = fooled

    def found(model, data, split, threats, **keywords):
        measured.update(threats)
        none = torch.zeros_like(split.labels)
        return {
            name: Predicted(
                class_N=torch.where(robust_but(200, fools.get(name, range(40))), split.labels, -1),
                mean_N=none,
                correct_N=none,
                draws=None,
            )
            for name in threats
        }

    measured = {}
    monkeypatch.setattr("curricula.evaluation.audit.all_predicted", found)
    result = audit(model, data, split, eps=0.1, transfer_from=model)
    assert fools.keys() <= measured.keys()
    assert failures(result) == ({failed} if failed else set())


def test_an_unbounded_attack_must_do_better_than_chance():
    assert unbounded_reaches_zero(robust_but(200, range(199)), 1.0).passed
    assert not unbounded_reaches_zero(robust_but(200, range(180)), 1.0).passed


# Networks that mislead attacks in one way each.


@pytest.fixture
def quick(monkeypatch):
    """Make audits of linear classifiers quick."""
    for name, value in {
        "QUERIES": 100, "STEPS": 20, "MORE_STEPS": 50, "RESTARTS": 1, "MORE_RESTARTS": 2,
        "EOT": 2, "MORE_EOT": 10,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"curricula.evaluation.audit.{name}", value)
    monkeypatch.setattr("curricula.evaluation.threats.APGD_STEPS", 40)


@pytest.mark.parametrize(
    ("network", "failed", "arguments"),
    [
        (planted.HiddenStep(), "smooth backward does not win", {"eps": 0.1}),
        (
            planted.BuriedStep(),
            "transfer does not win",
            {"eps": 0.1, "transfer_from": planted.Source()},
        ),
        (planted.WrongGradient(), "gradient is the derivative", {"eps": 0.1}),
        (planted.Shell(side=5), "adaptive attack keeps up", {"eps": 1.3, "norm": "l2"}),
        (planted.Honest(), None, {"eps": 0.1}),
        (planted.Honest(2), None, {"eps": 0.1}),
        (planted.Honest(100), None, {"eps": 0.03}),
        (planted.Honest(), None, {"eps": 1.3, "norm": "l2"}),
        (planted.Noisy(), None, {"eps": 0.1}),
        (planted.Dropped(), "more draws plateau", {"eps": 0.1}),
    ],
)
def test_a_planted_network_fails_its_check_alone(network, failed, arguments, quick):
    data = planted.data_set(network)
    found = audit(network.eval(), data, data.test[:20], **arguments)
    assert failures(found) == ({failed} if failed else set()), found.checks


def test_an_audit_in_l1_is_not_flattered_by_pgd(quick):
    """No PGD fools an image here, and the adaptive attack fools all."""
    network = planted.Steep(side=8).eval()
    data = planted.data_set(network)
    found = audit(network, data, data.test[:12], eps=4.0, norm="l1")
    pgd = [accuracies(found)[name] for name in set(ALL_PGD) & accuracies(found).keys()]
    assert len(pgd) == 5
    assert min(pgd) == 1 > accuracies(found)["apgd"] == 0
    (check,) = [check for check in found.checks if check.name == "adaptive attack keeps up"]
    assert check.finding.startswith("apgd fools 12 and PGD 0 of 12 images")


def test_a_smooth_backward_pass_leaves_the_forward_pass_and_reaches_every_activation():
    """Its values are those of the network, bit for bit; its gradient of a step, a mask and a module
    of third-party code is not zero."""

    class Inverted(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x).scatter(1, x.topk(3, 1).indices, 1.0)

    x, y = torch.rand((5, 1, 3, 3), generator=torch.Generator().manual_seed(0)), torch.arange(5)
    for function in (
        torch.sign, lambda x: (9 * x).round(), lambda x: (x > 0.5).float(), F.relu6, Inverted(),
        lambda x: torch.where(x < 0.5, x.detach(), 1.0), lambda x: 2.0 * (x >= 0.5),
        lambda x: x.detach().masked_fill(x > 0.7, 0.0), lambda x: (9 * x - 5).clamp(0, 1),
    ):  # fmt: skip
        model = nn.Sequential(nn.Flatten(), Applied(function), nn.Linear(9, 5))
        victim = ModelVictim(model)
        smooth = with_smooth_backward(victim)
        gradient, _, logits = smooth.gradient(x, y)
        assert torch.equal(logits, victim.logits(x))
        assert (gradient != 0).float().mean() > 0.5  # values far from a step have none
    plain = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(9, 5)))
    assert torch.equal(with_smooth_backward(plain).gradient(x, y)[0], plain.gradient(x, y)[0])


def test_a_smooth_relative_is_the_average_over_windows():
    """The derivative of the averaged sign is the density of its windows at 0."""
    x = torch.tensor([[-3.0, -0.3, 0.2, 3.1]], requires_grad=True)
    spread = float(x.detach().std(correction=0))
    with _smooth_backward():
        (gradient,) = torch.autograd.grad(x.sign().sum(), x)
    widths = torch.tensor([0.25, 0.5, 1.0, 2.0]) * spread
    inside = (x.detach()[0, :, None].abs() < widths) / widths
    assert torch.allclose(gradient[0], inside.mean(1), rtol=1e-4)


def test_a_transfer_is_left_out_where_no_copy_can_be_trained(quick):
    network = planted.Honest().eval()
    data = planted.data_set(network)
    data = attrs.evolve(data, train=data.train[:0])
    found = audit(network, data, data.test[:5], eps=0.1)
    assert found.left_out == (
        "the transfer attack, because patterns has no training images (give transfer_from)",
    )
    assert "transfer" not in accuracies(found)
    assert "transfer does not win" not in {check.name for check in found.checks}


# The ball.


def test_the_ball_is_the_data_sets_or_the_callers(plain, hasty):
    model, data = plain
    found = audit(model, data, data.test[:5])
    assert (found.eps, found.norm, found.n, found.seed) == ("0.1", "linf", 5, 0)
    assert not found.left_out
    for multiple in MULTIPLES:
        assert f"pgd-40 within {0.1 * multiple:g}" in accuracies(found)

    found = audit(model, data, data.test[:5], eps=8 / 255)
    assert found.eps == "8/255"
    assert any(attack.threat.startswith("pgd(8/255, norm=linf") for attack in found.attacks)

    found = audit(model, data, data.test[:5], eps=1.5, norm="l2")
    assert {"square", "apgd"} <= accuracies(found).keys()
    assert not found.left_out
    assert {"pgd-40 within 3", "pgd-40 within 6", "unbounded"} <= accuracies(found).keys()


def test_an_audit_of_few_images_says_how_little_it_means(plain, hasty):
    model, data = plain
    found = audit(model, data, data.test[:3])
    # The largest share p at which 3 of 3 images keep the order is within 1.96 deviations of it.
    share = 1.96**2 / (3 + 1.96**2)
    assert found.caveat.startswith(
        f"3 images say little: where a check passed, up to {share:.0%}"[:-1]
    )
    clean = found.attacks[0]
    assert clean.name == "clean"
    few = [attrs.evolve(clean, n=200, correct=10, fooled=0)]
    assert attrs.evolve(found, n=200, attacks=few).caveat.startswith("10 of 200 images are correct")
    for n, expected in [(1, "1 image says little"), (99, "up to 4 %"), (100, ""), (200, "")]:
        all_correct = [attrs.evolve(clean, n=n, correct=n, fooled=0)]
        caveat = attrs.evolve(found, n=n, attacks=all_correct).caveat
        assert expected in caveat
        assert bool(caveat) == bool(expected)


def test_two_classes_have_no_dlr(hasty):
    data = load_data("digits")
    train, test = (attrs.evolve(s, labels=s.labels % 2) for s in (data.train, data.test))
    data = attrs.evolve(data, train=train, test=test, classes=("even", "odd"))
    split = data.test[:20]
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    found = audit(model, data, split)
    assert found.left_out == ("the DLR loss needs three classes or more, and there are 2",)
    assert not any("dlr" in attack.threat for attack in found.attacks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"eps": 0.0},
            r"eps must lie above 0 and below 1, the linf radius that contains every image, not 0",
        ),
        ({"eps": 1.0}, r"eps must lie above 0 and below 1, .* not 1"),
        ({"eps": 40.0, "norm": "l2"}, r"below 28, the l2 radius"),
        ({"norm": "l1"}, r"digits states no budget in l1; give eps"),
    ],
)
def test_an_invalid_ball_is_refused(plain, arguments, message):
    model, data = plain
    with pytest.raises(UserError, match=message):
        audit(model, data, data.test[:5], **arguments)


def test_a_model_without_a_gradient_is_refused_in_one_line(plain):
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach()

    model, data = plain
    with pytest.raises(UserError, match="no gradient in its images"):
        audit(masked(model, before=Detached()), data, data.test[:5])


# The command.


def run(*arguments):
    return CliRunner().invoke(program, ["--plugin", str(TINY), *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    registry.use(registry.build_registry([TINY]))
    curricula.train(data="tiny", perturb="rot+pgd:0.05", epochs=1, compile="off", output=folder)
    return folder


def test_the_command_prints_a_table_and_writes_a_file(folder, hasty, monkeypatch):
    result = run("audit", folder, "--limit", 20)
    written = json.loads((folder / "audit.json").read_text())
    assert result.exit_code == (0 if written["passed"] else 1)
    assert "audit at eps 0.05 in linf, 20 images, seed 0" in result.output
    assert "20 images say little: where a check passed, up to 16 % of all" in result.output
    for check in written["checks"]:
        assert check["name"] in result.output
        assert check["passed"] in (True, False)
        assert check["finding"]
    assert [check["name"] for check in written["checks"]] == list(CHECKS)
    assert written["checkpoint"] == "best"
    assert result.stderr == ""

    monkeypatch.setattr("curricula.reporting.report.report", lambda *_, **__: None)
    result = run("audit", folder, "--limit", 20, "--format", "json")
    assert json.loads(result.output) == written


def test_a_failed_check_is_status_1(folder, hasty, monkeypatch):
    monkeypatch.setattr("curricula.evaluation.audit_checks.exceeds", lambda *_: True)
    monkeypatch.setattr("curricula.reporting.report.report", lambda *_, **__: None)
    result = run("audit", folder, "--limit", 5)
    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert json.loads((folder / "audit.json").read_text())["passed"] is False


def test_a_runs_audit_is_in_the_ball_of_its_curriculum(folder, hasty):
    registry.use(registry.build_registry([TINY]))
    found = curricula.audit(folder)
    assert found.n == 60  # all that tiny has
    assert (found.eps, found.norm) == ("0.05", "linf")


def test_a_transfer_from_a_run_of_other_classes_is_refused(folder, tmp_path):
    registry.use(registry.build_registry([TINY]))
    data = load_data("tiny")
    names = tuple("abcdefghij"[: data.num_classes])
    for name, classes in {"run": names, "other": names[::-1]}.items():
        shutil.copytree(folder, tmp_path / name)
        file = tmp_path / name / "data.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"classes": classes}))
    named = attrs.evolve(data, classes=names)
    with pytest.raises(UserError, match=r"name another transfer_from \(--transfer\)"):
        curricula.audit(tmp_path / "run", named, limit=2, transfer_from=tmp_path / "other")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "transfer_from must be a run, its folder or a torch.nn.Module, not 3"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(784, 7)),
            r"transfer_from \(--transfer\) must class",
        ),
        (nn.Linear(5, 10), r"must classify the images of digits: the model cannot take images"),
    ],
)
def test_a_wrong_source_of_a_transfer_is_one_line(plain, source, message):
    model, _ = plain
    with pytest.raises(UserError, match=message) as caught:
        curricula.audit(model, data="digits", limit=2, transfer_from=source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threat", "clean"], "No such option '--threat'"),
        (["--limit", 0], "limit must lie from 1 to 1,000,000,000, not 0"),
        (["--seed", -1], "seed must lie from 0"),
        (["--transfer", "absent"], "absent"),
    ],
)
def test_bad_input_to_an_audit_is_one_line_and_status_2(folder, arguments, message):
    result = run("audit", folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unwritable_audit_is_refused_before_the_work(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("audit.json"))
    (tmp_path / "run" / "audit.json").mkdir()
    result = run("audit", tmp_path / "run")
    assert result.exit_code == 2
    assert "audit.json: there is a folder of that name" in result.stderr
