"""Certificates of randomised smoothing, against closed forms, brute force and attacks."""

import itertools
import math
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from scipy import stats
from tools import certificates as tool
from torch import nn

import curricula
from curricula.cli.certify import command
from curricula.errors import UserError
from curricula.evaluation.certify import (
    GROUPS,
    Certificates,
    ImageCertificate,
    certify_images,
    group_order,
    orbit,
)
from curricula.evaluation.intervals import clopper_pearson_lower
from curricula.plugins.registry import command_line
from curricula.runtime.records import from_json, to_json
from curricula.training.run import Run

SIGMA = 0.05
TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"


@pytest.mark.parametrize(("correct", "n"), [(0, 7), (1, 7), (6, 7), (7, 7), (521, 1000)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_at_the_bound_as_many_successes_or_more_have_a_probability_of_alpha(correct, n, alpha):
    bound = clopper_pearson_lower(correct, n, alpha)
    if correct == 0:
        assert bound == 0
    else:
        assert stats.binom.sf(correct - 1, n, bound) == pytest.approx(alpha, rel=1e-9)
        expected = stats.binomtest(correct, n, alternative="greater").proportion_ci(1 - alpha)
        assert bound == pytest.approx(expected.low, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_the_bound_is_wrong_with_a_probability_of_alpha_at_most(alpha):
    """Exactly, by the probability of each count, and near alpha: it is not just far too low."""
    n, worst = 60, 0.0
    bounds = np.array([clopper_pearson_lower(k, n, alpha) for k in range(n + 1)])
    for share in np.linspace(0.01, 0.99, 99):
        wrong = float(stats.binom.pmf(np.arange(n + 1), n, share)[bounds > share].sum())
        assert wrong <= alpha * (1 + 1e-9)
        worst = max(worst, wrong)
    assert worst > 0.8 * alpha


class Linear(nn.Module):
    """Two classes: on which side of a plane an image lies."""

    def __init__(self, weights, offset):
        super().__init__()
        self.weights, self.offset = weights, offset

    def forward(self, x):
        margin = (x * self.weights).flatten(1).sum(1) - self.offset
        return torch.stack([margin, -margin], 1)


def linear(n=25):
    """Return a linear network, images that its noise does not clip, and their exact radii."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((1, 5, 5), generator=generator)
    x = 0.5 + 0.06 * torch.randn((n, 1, 5, 5), generator=generator)
    margins = (x * weights).flatten(1).sum(1) - 0.5 * weights.sum()
    return Linear(weights, 0.5 * weights.sum()), x, margins / weights.norm()


def test_radii_of_a_linear_network_are_just_below_its_exact_ones():
    network, x, exact = linear()
    y = (exact < 0).long()
    found = curricula.certify(
        network, (x, y), noise=f"gaussian:{SIGMA}", draws=2500, alpha=0.01, progress=False
    )
    assert found.abstained < len(x) / 4
    excess = [a - abs(b) for a, b in zip(found.radii, exact.tolist(), strict=True)]
    assert sum(each > 0 for each in excess) <= stats.binom.ppf(0.999, len(x), 0.01)
    for radius, image, margin in zip(found.radii, found.images, exact.tolist(), strict=True):
        of_class = margin if image.predicted == 0 else -margin
        assert image.votes / found.draws == pytest.approx(
            stats.norm.cdf(of_class / SIGMA), abs=0.045
        )
        if abs(margin) < 2 * SIGMA:
            assert radius > abs(margin) - 0.3 * SIGMA
    assert found.accuracy(0) == 1 - found.abstained / len(x)


def test_abstentions_are_as_frequent_as_the_noise_makes_them():
    """On a plane through all images each class has a probability of 1/2, so a class is certified
    with a probability of alpha at most."""
    network, x, _ = linear(1)
    flat = (
        x
        - (x.flatten(1) @ network.weights.reshape(-1, 1) - network.offset).reshape(-1, 1, 1, 1)
        * network.weights
        / network.weights.norm() ** 2
    )
    images = flat.expand(150, -1, -1, -1)
    found = curricula.certify(
        network, (images, torch.zeros(150).long()), noise=f"gaussian:{SIGMA}", n0=1, draws=50,
        alpha=0.1, progress=False,
    )  # fmt: skip
    certified = len(images) - found.abstained
    share = stats.binom.sf(found_votes(found) - 1, 50, 0.5)
    low, high = stats.binom.ppf([0.001, 0.999], 150, share)
    assert low <= certified <= high
    assert share <= 0.1


def found_votes(found):
    """Return the fewest votes that certify."""
    return next(votes for votes in range(found.draws + 1) if found.radius_of(votes) > 0)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3), nn.Softmax(1)
    ).eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand((6, 1, 8, 8), generator=generator), torch.arange(6) % 3


SETTINGS = {"noise": "gaussian:0.3", "n0": 7, "draws": 60, "progress": False}


def test_draws_depend_on_neither_batches_nor_other_images(network, images):
    x, y = images
    found = curricula.certify(network, (x, y), **SETTINGS)
    assert len({image.votes for image in found.images}) > 1
    assert curricula.certify(network, (x, y), batch_size=13, **SETTINGS) == found
    fewer = curricula.certify(network, (x, y), limit=2, **SETTINGS)
    assert fewer.images == found.images[:2]
    other = curricula.certify(network, (x, y), seed=1, **SETTINGS)
    assert [image.votes for image in other.images] != [image.votes for image in found.images]


def test_images_of_one_batch_have_different_noise(network, images):
    """An image twice has two samples, and selection and bound do not share theirs."""
    x, y = images[0][:1].expand(8, -1, -1, -1), torch.zeros(8).long()
    found = curricula.certify(network, (x, y), **SETTINGS)
    assert len({image.votes for image in found.images}) > 1


class StoppedError(Exception):
    pass


def test_an_interrupted_certification_continues(tiny, tmp_path):
    run = curricula.train(
        data="tiny", epochs=1, compile="off", output=tmp_path / "run", progress=False
    ).run
    settings = {"draws": 40, "limit": 6}
    expected = curricula.certify(run, progress=False, **settings)
    stored = run.read("certificates.json", Certificates)
    assert stored == expected
    run.remove("certificates.json")

    def stop(share):
        if share >= 0.5:
            raise StoppedError

    with pytest.raises(StoppedError):
        curricula.certify(run, progress=stop, **settings)
    (file,) = run.path.glob("certify-*.jsonl")
    assert len(file.read_text().splitlines()) == 3
    with file.open("a") as stream:
        stream.write('{"index": 3, "ima')  # killed while it wrote
    shares = []
    assert curricula.certify(run, progress=shares.append, **settings) == expected
    assert len(shares) == 3
    assert run.read("certificates.json", Certificates) == expected
    assert not list(run.path.glob("certify-*"))
    # Draws of other settings are not mixed in.
    with pytest.raises(StoppedError):
        curricula.certify(run, progress=stop, **settings)
    curricula.certify(run, progress=(other := []).append, **settings, seed=1)
    assert len(other) == 6
    (file,) = run.path.glob("certify-*.jsonl")
    file.write_text(file.read_text().replace('"votes": ', '"votes": 9'))
    with pytest.raises(UserError, match=r"more votes than 40 draws\); delete it, and"):
        curricula.certify(run, progress=False, **settings)


def test_an_interrupted_command_names_the_one_that_continues(tiny, tmp_path, monkeypatch):
    run = curricula.train(
        data="tiny", epochs=1, compile="off", output=tmp_path / "run", progress=False
    ).run

    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("curricula.evaluation.certify.certify_images", interrupt)
    again = f"continue with: {command_line('certify', run.path)}, with the same options"
    for words, message in ((["--limit", "6"], f"interrupted; {again}"), (["--data", "tiny"], "")):
        with (
            command.make_context("certify", [str(run.path), *words]) as context,
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            command.invoke(context)
        assert str(caught.value) == message  # results on other data are not kept


def certificates(**changes):
    image = ImageCertificate(label=1, predicted=1, votes=990, nearest=0.9, farthest=1.5)
    settings = {
        "model": "a", "data": "b", "sigma": 0.5, "n0": 10, "draws": 1000, "alpha": 0.001, "seed": 0,
        "group": "c4",
        "images": (
            image,
            attrs.evolve(image, votes=520),
            attrs.evolve(image, predicted=2),
            attrs.evolve(image, nearest=3.0, farthest=0.25),
        ),
    }  # fmt: skip
    return Certificates(**(settings | changes))


def test_certified_accuracy_counts_correct_images_of_larger_radius():
    found = certificates()
    radius = 0.5 * stats.norm.ppf(stats.beta.ppf(0.001, 990, 11))
    assert found.radii == pytest.approx((radius, 0, radius, radius))
    assert found.abstained == 1
    assert found.accuracy(0) == 0.5
    assert found.certified(found.radii[0]) == 0  # the ball is open
    assert found.certified(math.nextafter(found.radii[0], 0)) == 2
    assert found.accuracy_on_orbits(0.5, invariant=True) == 0.5
    assert found.accuracy_on_orbits(0.5, invariant=False) == 0.25
    assert found.disjoint == 1
    assert found.usual_radii[:2] == (0.0, 0.25)
    assert found.usual_radii[-1] < found.max_radius <= found.usual_radii[-1] + 0.25
    for wrong in (-0.1, math.nan, "1"):  # at -0.1 abstentions would count
        with pytest.raises(UserError, match="radius must be"):
            found.accuracy(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 900}, "an image has more votes than 900 draws"),
        ({"group": "c3"}, "group must be one of c2"),
        ({"alpha": 0.7}, "alpha"),
        ({"sigma": 0.0}, "sigma"),
        ({"draws": 9}, "draws must be 10 or more"),
    ],
)
def test_a_wrong_record_is_refused(change, message):
    stored = to_json(certificates()) | change
    with pytest.raises(ValueError, match=message):
        from_json(Certificates, stored)


class Invariant(nn.Module):
    """A network whose logits are means over a group."""

    def __init__(self, network, group):
        super().__init__()
        self.network, self.group = network, group

    def forward(self, x):
        return torch.stack([self.network(each) for each in orbit(x, self.group)]).mean(0)


@pytest.mark.parametrize("group", GROUPS)
def test_orbits_are_groups(group):
    """All elements differ, and each one followed by another is an element."""
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    elements = [tuple(each.flatten().tolist()) for each in orbit(x, group)]
    assert elements[0] == tuple(x.flatten().tolist())
    assert len(set(elements)) == group_order(group)
    for one, other in itertools.product(range(len(elements)), repeat=2):
        twice = orbit(orbit(x, group)[one], group)[other]
        assert tuple(twice.flatten().tolist()) in elements


def test_certificates_of_an_invariant_network_hold_on_orbits(network, images):
    """Each rotation of an image has the certificate that its own draws would give it, and the
    distances are those of brute force."""
    x, y = images
    invariant = Invariant(network, "c4")
    found = curricula.certify(invariant, (x, y), group="c4", **SETTINGS)
    for image, one in zip(x, found.images, strict=True):
        distances = [float((image.rot90(k, (1, 2)) - image).norm()) for k in (1, 2, 3)]
        assert (one.nearest, one.farthest) == pytest.approx((min(distances), max(distances)))
    with pytest.raises(UserError, match=r"not invariant under d4: .* leave the group out"):
        curricula.certify(invariant, (x, y), group="d4", **SETTINGS)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(56, 3))
    with pytest.raises(UserError, match="rotations by 90 degrees, which images of 8x7"):
        curricula.certify(narrow, (x[..., :7], y), group="c4", **SETTINGS)


def test_smoothing_keeps_invariance(network, images):
    """Noise and clipping commute with permutations of the pixels."""
    x = images[0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    invariant = Invariant(network, "c4")
    expected = invariant((x + noise).clamp(0, 1))
    moved = zip(orbit(x, "c4"), orbit(noise, "c4"), strict=True)
    for image, its_noise in moved:
        torch.testing.assert_close(invariant((image + its_noise).clamp(0, 1)), expected)


@pytest.mark.parametrize("group", [None, "c4"])
def test_no_attack_within_a_radius_breaks_certificates(group):
    """A small share of tools/certificates.py."""
    network, x, _ = linear(12)
    if group is not None:
        network = Invariant(nn.Sequential(network, nn.Tanh()), group)
    y = (network(x)[:, 1] > 0).long()
    data = curricula.DataSet.from_arrays(train=(x, y), test=(x, y))
    split = data.test.load()
    settings = {"noise": f"gaussian:{SIGMA}", "draws": 300, "progress": False}
    found = curricula.certify(network, data, group=group, **settings)
    radius = float(np.median(found.correct_radii)) * 0.9
    seen = tool.tried(network, data, split, found, settings["noise"], radius)
    assert seen.certified > 0
    assert seen.broken <= seen.allowed
    # It can fail: certificates of twice their radii break.
    images = tuple(attrs.evolve(image, votes=found.draws) for image in found.images)
    wrong = attrs.evolve(found, images=images, sigma=5 * SIGMA)
    seen = tool.tried(network, data, split, wrong, settings["noise"], 4 * SIGMA)
    assert seen.broken > seen.allowed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "uniform:0.1"}, "noise must be gaussian:SIGMA, such as gaussian:0.25, not"),
        ({"noise": "gaussian:0.1+rot:3"}, "noise must be gaussian:SIGMA"),
        ({"noise": "worst(gaussian:0.1, k=2)"}, "noise must be gaussian:SIGMA"),
        ({"noise": "clean"}, "noise must be gaussian:SIGMA"),
        ({"noise": "gaussian:0"}, "noise must be 0.0001 or more, not gaussian:0; write"),
        ({"noise": "gaussian:0.00001"}, "noise must be 0.0001 or more"),  # float32 rounds it away
        ({"noise": "gausian:0.1"}, "did you mean gaussian"),
        ({"noise": "gaussian:-1"}, "gaussian"),
        ({"draws": 9}, "draws must be 10 or more for alpha 0.001, not 9"),
        ({"draws": 0}, "draws must lie from 1"),
        ({"n0": 1.5}, "n0 must be a whole number"),
        ({"alpha": 0}, "alpha must lie from 1e-12 to 0.5, not 0"),
        ({"alpha": float("nan")}, "alpha must be a number"),
        ({"group": "c3"}, "group must be one of c2, c4, d1, d2, d4, whose elements map pixels"),
        ({"group": 4}, "group must be one of"),
        ({"nn": 3}, "certify has no argument 'nn'"),
        ({"noise": None}, "None"),
    ],
)
def test_wrong_values_are_one_line(network, images, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        curricula.certify(network, images, **({"draws": 20} | settings))
    assert "\n" not in str(caught.value)


def test_a_network_that_draws_is_refused(network, images):
    from curricula.models import Randomised

    with pytest.raises(UserError, match=r"draws random numbers .* certify the network behind it"):
        curricula.certify(Randomised(network, "gaussian:0.2"), images, **SETTINGS)


@pytest.mark.parametrize("n", [1, 6])
def test_a_network_that_sees_its_batch_is_refused(images, n):
    network = nn.Sequential(
        nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 3)
    )
    with pytest.raises(UserError, match="depend on the other images of its batch"):
        curricula.certify(network, images, limit=n, **SETTINGS)


def test_logits_that_are_nan_are_refused(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network[1].weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="logits that are not finite"):
        curricula.certify(network, images, **SETTINGS)


def test_the_command_prints_keeps_and_reports(tiny, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from curricula.cli.main import program
    from curricula.reporting import report
    from curricula.reporting.page import Section

    monkeypatch.setattr(report, "_example_images", lambda *_: Section(title="Images"))

    folder = tmp_path / "run"
    curricula.train(data="tiny", epochs=1, compile="off", output=folder, progress=False)
    done = CliRunner().invoke(
        program,
        ["--plugin", str(TINY), "certify", str(folder), "--noise", "gaussian:0.1", "--draws", "30",
         "--limit", "4", "--radius", "0.05"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "certified accuracy in % (95 % interval), sigma 0.1, 4 images" in done.output
    assert "Abstained on" in done.output
    page = (folder / "report.html").read_text()
    assert "Certified accuracy" in page
    assert (folder / "figures" / "certified.svg").exists()
    found = Run(folder).read("certificates.json", Certificates)
    assert (found.draws, found.sigma, len(found.images)) == (30, 0.1, 4)


def test_batches_of_the_module_are_checked(network, images):
    """`certify_images` continues from what it is given, without running those images."""
    data = curricula.DataSet.from_arrays(train=images, test=images)
    one = ImageCertificate(label=0, predicted=0, votes=60)
    kept = []
    found = certify_images(
        network, data, data.test, noise="gaussian:0.3", n0=7, draws=60, done={4: one, 99: one},
        keep=lambda index, image: kept.append(index),
    )  # fmt: skip
    assert found.images[4] == one
    assert kept == [0, 1, 2, 3, 5]
