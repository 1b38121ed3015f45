"""Every corruption gives the published function's images, at its five severities and between."""

import functools
import importlib
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from curricula_corruptions import plugin, textures
from curricula_corruptions.blur import shuffled
from curricula_corruptions.corruption import SEVERITIES, Corruption
from curricula_corruptions.noise import poisson
from curricula_corruptions.plugin import COMMON, EXTRA, STRENGTHS
from curricula_corruptions.spatter import distances, edges, equalised
from curricula_corruptions.suites import corruptions, extra_corruptions
from fixtures.few_digits import few_digits
from fixtures.published_corruptions import Numpy, agrees, corrupted, load, published_name
from PIL import Image
from scipy import stats
from torch import nn

import curricula
from curricula.data import digits
from curricula.errors import UserError
from curricula.evaluation.suites import position_of, suite_threats
from curricula.expressions.binding import bind
from curricula.expressions.random_interception import intercept
from curricula.expressions.random_streams import Streams
from curricula.plugins import registry
from curricula.testing import PERTURBATION_CLAUSES, check_suite
from curricula.testing import perturbations as clauses
from curricula.training.loop import train_plan
from curricula.training.plan import make_plan

ALL = {**COMMON, **EXTRA}
GREY = [name for name in ALL if name != "saturate"]


def make(name: str, **keywords) -> Corruption:
    """Return a corruption by its name."""
    module, attribute = ALL[name].split(":")
    factory = getattr(importlib.import_module(f"curricula_corruptions.{module}"), attribute)
    return factory(**keywords)


def pictures(n=2, channels=3, height=32, width=40) -> torch.Tensor:
    """Return smooth images with fine grain in whole levels, with both ends of [0, 1]; the last has
    pale colours."""
    generator = torch.Generator().manual_seed(channels)
    x = 0.0
    for side, weight in ((2, 0.9), (9, 0.4), (40, 0.1)):
        coarse = torch.rand((n, channels, side, side), generator=generator)
        x = x + weight * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    x = (x - 0.2).clamp(0, 1)
    x[1:][-1:] = torch.lerp(x[1:][-1:].mean(1, keepdim=True), x[1:][-1:], 0.1)
    return (x * 255).round() / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run(perturbation, x_NCHW, strength, seed=0):
    return perturbation(x_NCHW, None, strength=strength, victim=None, generator=generator(seed))


@pytest.fixture(autouse=True, scope="module")
def registered():
    """Use a registry with this plugin, whether or not its distribution is installed."""
    before = registry.current()
    if "fog" not in before.records("perturbation"):
        registry.use(registry.build_registry([Path(plugin.__file__)]))
    yield
    registry.use(before)


# The base makes the strengths and the random numbers, so the clauses about these hold for all
# corruptions if they hold for one of each form; the clauses about images are tested on each.
OF_EACH = (clauses.output_is_an_image_like_the_input, clauses.any_batch_works)
ONE_OF_EACH_FORM = ("gaussian-noise", "elastic-transform", "jpeg")
CASES = [
    pytest.param(clause, name, id=f"{clause.__name__}-{name}")
    for clause in PERTURBATION_CLAUSES
    for name in ALL
    if clause in OF_EACH or name in ONE_OF_EACH_FORM
]


@pytest.mark.parametrize(("clause", "name"), CASES)
def test_each_keeps_the_contract(clause, name):
    clause(make(name))


def test_the_names_are_those_of_the_benchmark_in_its_order():
    load()
    package = sys.modules["imagecorruptions"]
    for ours, subset in ((COMMON, "common"), (EXTRA, "validation")):
        assert [*map(published_name, ours)] == package.get_corruption_names(subset)
    assert [strength * SEVERITIES for strength in STRENGTHS] == [1, 2, 3, 4, 5]
    built_in = registry.build_registry(entry_points=False).records("perturbation")
    assert not built_in.keys() & ALL.keys()
    assert plugin.SUMMARIES.keys() == ALL.keys()


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 32, 40), (1, 28, 28)], ids=["colour", "grey28"]
)
@pytest.mark.parametrize("name", ALL)
def test_the_images_are_those_of_the_published_function(name, channels, height, width):
    if (name, channels) == ("saturate", 1):
        pytest.skip("grey images have no saturation")
    x = pictures(2, channels, height, width)
    perturbation = make(name, **{"textures": "imagecorruptions"} if name == "frost" else {})
    fields = perturbation.fields(x, generator())
    for severity in range(1, SEVERITIES + 1):
        changed = run(perturbation, x, severity / SEVERITIES)
        for ours, x_CHW, *numbers in zip(changed, x, *fields, strict=True):
            levels = (ours - corrupted(name, severity, x_CHW, numbers)).abs() * 255
            assert agrees(name, levels)


@pytest.mark.parametrize(("height", "width"), [(33, 47), (101, 34)])
def test_pixelate_rounds_as_the_published_function_at_any_size(height, width):
    """At one size in ten the rounding decides whether a row counts towards a larger pixel."""
    x = pictures(1, 3, height, width)
    for severity in range(1, SEVERITIES + 1):
        changed = run(make("pixelate"), x, severity / SEVERITIES)[0]
        assert agrees("pixelate", (changed - corrupted("pixelate", severity, x[0], [])).abs() * 255)


@pytest.mark.parametrize("name", ["motion-blur", "defocus-blur", "snow", "fog"])
def test_grey_images_change_as_colour_images_of_equal_channels(name):
    x = pictures(2, 1, 20, 28)
    colour = run(make(name), x.expand(-1, 3, -1, -1), 0.7)
    assert torch.allclose(colour, run(make(name), x, 0.7).expand_as(colour), atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
@pytest.mark.parametrize("name", ALL)
def test_images_of_any_size_and_number_work(name, device):
    for shape in ((0, 3, 8, 8), (1, 3, 1, 1), (2, 3, 2, 5), (1, 1, 1, 1), (2, 1, 3, 30)):
        if shape[1] in make(name).channels:
            x = torch.full(shape, 0.5, device=device)
            numbers = torch.Generator(device).manual_seed(0)
            changed = make(name)(x, None, strength=0.9, victim=None, generator=numbers)
            assert changed.shape == shape
            assert changed.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_images_of_another_precision_are_changed_in_float32(name, dtype):
    x = pictures().to(dtype)
    x[0] = 0
    x[0, 0] = torch.finfo(dtype).smallest_normal  # a factor on it may overflow
    changed = run(make(name), x, 0.9)
    assert changed.dtype == dtype
    assert changed.isfinite().all()
    assert torch.equal(changed, run(make(name), x.float(), 0.9).to(dtype))


@pytest.mark.parametrize("name", ALL)
def test_between_two_severities_images_change_continuously(name):
    x = pictures()
    perturbation = make(name)
    for strength in (0.0, 0.1, 0.2, 0.5, 0.8):
        jump = (run(perturbation, x, strength + 1e-3) - run(perturbation, x, strength)).abs()
        assert jump.mean() < 0.005, strength
    assert (run(perturbation, x, 1.0) - x).abs().mean() > 0.005


@pytest.mark.parametrize("name", ["gaussian-blur", "fog", "shot-noise", "glass-blur"])
def test_each_image_has_its_own_strength(name):
    x, strengths = pictures(6), torch.tensor([0.0, 0.2, 0.3, 0.6, 0.6, 1.0])
    mixed = run(make(name), x, strengths)
    assert torch.equal(mixed[0], x[0])
    for number, strength in enumerate(strengths.tolist()):
        alone = run(make(name), x, strength)[number]
        assert torch.allclose(mixed[number], alone, atol=1e-5)


def test_a_smaller_budget_is_a_lower_severity():
    x = pictures()
    assert torch.equal(run(make("fog", budget=3.0), x, 1.0), run(make("fog"), x, 0.6))


@pytest.mark.parametrize(("strength", "sigma"), [(0.1, 0.04), (0.55, 0.165), (0.59, 0.177)])
def test_between_two_severities_constants_are_linear(strength, sigma):
    x = torch.full((1, 1, 8, 8), 0.5)
    noise = torch.randn(x.shape, generator=generator())
    expected = (x + sigma * noise).clamp(0, 1)
    assert torch.allclose(run(make("gaussian-noise"), x, strength), expected, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_an_image_has_its_own_random_numbers(name):
    x, indices = pictures(3), torch.tensor([7, 8, 9])

    def perturbed(chosen):
        numbers = generator()
        with warnings.catch_warnings(), intercept(Streams.of(0, indices[chosen]), numbers):
            warnings.simplefilter("error")
            return make(name)(x[chosen], None, strength=0.5, victim=None, generator=numbers)

    assert torch.allclose(perturbed(slice(None))[1:2], perturbed(slice(1, 2)), atol=1e-5)


@pytest.mark.parametrize("name", ["shot-noise", "impulse-noise", "glass-blur", "snow", "fog"])
def test_with_its_own_random_numbers_the_mean_image_is_the_published_one(name, monkeypatch):
    draws = 60
    x = pictures(1)
    ours = run(make(name), x.expand(draws, -1, -1, -1), 0.6).mean((1, 2, 3)).double()
    own = np.random.RandomState(0)
    monkeypatch.setattr(load(), "np", Numpy(own))
    monkeypatch.setattr(np.random, "default_rng", lambda *_: own)
    image = Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy())
    function = getattr(load(), published_name(name))
    count = 8 if name == "glass-blur" else draws  # one loop over pixels in Python each
    theirs = torch.tensor([np.mean(function(image, 3)) / 255 for _ in range(count)])
    error = (ours.var() / draws + theirs.var() / count).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 4 * error


@pytest.mark.parametrize("name", ["shot-noise", "motion-blur", "snow", "fog", "spatter"])
def test_the_random_fields_are_uniform_or_normal(name):
    x = pictures(300, 3, 4, 4)
    for field in make(name).fields(x, generator()):
        sample = field.flatten()[:2000].double().numpy()
        laws = [stats.norm(), stats.uniform(), stats.uniform(-1, 2)]
        assert max(stats.kstest(sample, law.cdf).pvalue for law in laws) > 0.01
        assert len(field) == len(x)


def test_edges_distances_and_histograms_are_those_of_opencv():
    numbers = generator()
    smooth = pictures(3, 1, 50, 61)[:, :, :40] * 255
    noise = torch.randint(0, 256, smooth.shape, generator=numbers).float()
    for levels in (smooth.round(), (smooth * 0.9 + noise * 0.1).round(), noise, noise * 0 + 7):
        found = edges(levels)
        for level, edge in zip(levels[:, 0], found[:, 0], strict=True):
            pixels = level.byte().numpy()
            assert np.array_equal(edge.numpy(), cv2.Canny(pixels, 50, 150) > 0)
            far = (torch.rand(edge.shape, generator=numbers) > 0.003).byte().numpy()
            distance = distances(torch.from_numpy(far == 0)[None, None])[0, 0]
            expected = cv2.distanceTransform(far, cv2.DIST_L2, 5).clip(max=20)
            assert np.allclose(distance.numpy(), expected, atol=1e-3)
            even = equalised(level[None, None])[0, 0]
            assert np.array_equal(even.numpy(), cv2.equalizeHist(pixels))


def test_photons_are_poisson():
    rate = torch.full((20_000,), 7.3)
    drawn = poisson(rate, torch.rand(20_000, generator=generator()), 60.0)
    counts = torch.bincount(drawn.long(), minlength=40)
    expected = 20_000 * stats.poisson.pmf(range(len(counts)), 7.3)
    likely = expected > 5
    excess = (counts.numpy() - expected)[likely] ** 2 / expected[likely]
    assert excess.sum() < stats.chi2(likely.sum()).isf(0.001)


def test_a_shuffle_follows_chains_of_copies():
    # In each row every pixel copies its right neighbour, which was visited before.
    x = torch.arange(64.0).expand(1, 1, 8, 64)
    u = torch.full((1, 2, 8, 64), 0.5)
    u[:, 0] = 0.75  # the step right is 1 of -2, -1, 0, 1
    inner = shuffled(x, u, 2)[0, 0, 4]
    assert inner[3:63].eq(63).all()
    assert torch.equal(inner[:3], x[0, 0, 0, :3])


def test_the_published_glass_blur_copies_pixels():
    pair = load().np.array([[1, 1], [2, 2]])
    pair[0], pair[1] = pair[1], pair[0]
    assert pair.tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fog:6", "budget"),
        ("fog:-1", "budget"),
        ("fog(severity=2)", "severity"),
        ('frost(textures="nowhere")', "no folder"),
        ('frost(textures="empty")', "holds 0 images"),
        ("frost(textures=3)", "textures"),
        ("snow+pgd+fog", "fog"),
    ],
)
def test_bad_input_is_one_line(text, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=problem) as caught:
        bind(text, budgets={"linf": "0.1"})
    assert "\n" not in str(caught.value)


def test_a_grey_image_cannot_be_saturated():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    data = (pictures(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(UserError, match=r"saturate.*3 channels"):
        curricula.evaluate(model, data, ["saturate"])


def test_missing_photographs_of_frost_are_one_line(monkeypatch):
    monkeypatch.setattr(textures, "PACKAGE", "not-installed")
    with pytest.raises(UserError, match="is not installed"):
        make("frost", textures="not-installed")


def test_frost_takes_the_images_of_a_folder(tmp_path):
    for number, name in enumerate(("b.png", "a.jpg", "notes.txt")):
        path = tmp_path / name
        if name == "notes.txt":
            path.write_text("no image")
        else:
            Image.new("RGB", (20 + number, 50), (0, 0, 255)).save(path)
    changed = run(make("frost", textures=str(tmp_path)), torch.zeros(2, 3, 32, 32), 1.0)
    assert changed[:, 2].min() > 0.7
    assert changed[:, :2].max() < 0.02
    (tmp_path / "a.jpg").write_bytes(b"damaged")
    textures._fitted.cache_clear()
    with pytest.raises(UserError, match=r"a\.jpg cannot be read"):
        run(make("frost", textures=str(tmp_path)), torch.zeros(2, 3, 32, 32), 1.0)


def test_a_texture_of_16_bits_is_scaled_not_clipped_to_white(tmp_path):
    levels = np.linspace(0, 65535, 24, dtype=np.uint16).reshape(4, 6)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    found = textures._read(tmp_path / "deep.png")
    assert found.shape == (3, 4, 6)
    assert np.abs(found.numpy() - levels / 65535).max() <= 1 / 255


def test_computed_textures_are_as_bright_as_the_photographs():
    computed, photographs = [
        textures.fitted(source, 32, 32, torch.device("cpu")).pixels.mean(1)
        for source in ("computed", "imagecorruptions")
    ]
    assert (computed - photographs).abs().max() < 0.1


def test_corruptions_compose_in_trainings_and_threats(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "digits", functools.partial(few_digits, train=60))
    config = {"data": "digits", "model": "smallcnn", "epochs": 2, "compile": "off"}
    config |= {"batch_size": 20}
    config |= {"perturb": "fog+pgd(steps=1)", "schedule": ["linear"]}
    train_plan(make_plan(config), tmp_path / "run", threats={})
    threats = ["fog", "snow", "jpeg", "worst(fog|snow|jpeg, k=2)"]
    *single, worst = curricula.evaluate(tmp_path / "run", threats=threats)
    assert worst.accuracy <= min(result.accuracy for result in single)


@pytest.mark.parametrize(
    ("make_suite", "names"), [(corruptions, COMMON), (extra_corruptions, EXTRA)]
)
def test_the_suites_hold_every_corruption_at_each_severity(make_suite, names):
    assert check_suite(make_suite()) == {}
    context = {"curriculum": "clean", "budgets": {}, "in_channels": 3, "data": "photos"}
    suite = make_suite.__name__.replace("_", "-")
    found = suite_threats([suite], **context)
    clean, *positions = map(position_of, found.values())
    assert clean is None
    assert [(each.row, each.column) for each in positions] == [
        (name, str(severity)) for name in names for severity in range(1, 6)
    ]
    x = pictures()
    for name in names:  # a severity is the strength that the library calls by that number
        for severity, strength in enumerate(STRENGTHS, start=1):
            (leaf,) = found[f"{name} {severity}"].tree.leaves.values()
            assert leaf.perturbation.budget == severity == SEVERITIES * strength
    results = curricula.evaluate(
        nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2)),
        (x, torch.tensor([0, 1])),
        suite=suite,
    )
    assert len(results) == 1 + 5 * len(names)
    assert results.tables[0].has_severities
