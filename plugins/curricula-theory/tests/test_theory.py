"""Tests of the closed forms against a table, brute force and sampling; training; the command."""

import json
import math
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from click.testing import CliRunner
from curricula_theory import closed_forms
from curricula_theory.classifiers import Linear, Network, pgd, random_start, worst_corner
from curricula_theory.figure import frontier_figure
from curricula_theory.setting import Setting, shift
from curricula_theory.simulation import simulate, withstands
from curricula_theory.study import above_frontier, default_ratios, study
from curricula_theory.training import METHODS, Method, collapsed, final_loss, perturbed, train
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from curricula.cli.main import program
from curricula.errors import UserError
from curricula.runtime.records import to_json

# c, rho, clean, spatial, adversarial; d = 101, p = 0.95, eps = 2 eta; computed by other code.
TABLE = [
    (2, 1, 0.9816, 0.9816, 0.0257),
    (2, 20, 0.9750, 0.8666, 0.2013),
    (2, 40, 0.9511, 0.7588, 0.6227),
    (2, 100, 0.9500, 0.6602, 0.9500),
    (3, 1, 0.9990, 0.9990, 0.0015),
    (3, 60, 0.9501, 0.7895, 0.2605),
    (3, 200, 0.9500, 0.6773, 0.9500),
]
FORMS = {
    "clean": closed_forms.clean_accuracy,
    "spatial": closed_forms.spatial_accuracy,
    "adversarial": closed_forms.adversarial_accuracy,
}
RATIOS = 1 + torch.cat([torch.zeros(1), torch.logspace(-4, 4, 400)]).double()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def usual(c=2.0, **changes):
    return Setting(**{"d": 101, "p": 0.95, "c": c, **changes})


def phi(value):
    return (1 + math.erf(value / math.sqrt(2))) / 2


def exact_accuracy(setting, weight, cost=0.0):
    """Return the accuracy of sign(w . x), any w, by conditioning on the strong feature."""
    strong, weak = weight[0], weight[1:]
    mean, deviation = setting.eta * sum(weak), math.sqrt(sum(w * w for w in weak))
    return setting.p * phi((mean + strong - cost) / deviation) + (1 - setting.p) * phi(
        (mean - strong - cost) / deviation
    )


any_setting = st.builds(
    Setting,
    d=st.integers(3, 400),
    p=st.floats(0.5, 0.999),
    c=st.floats(0.1, 8),
)


@pytest.mark.parametrize(("c", "rho", "clean", "spatial", "adversarial"), TABLE)
def test_the_closed_forms_give_the_reference_table(c, rho, clean, spatial, adversarial):
    found = [float(form(usual(c), rho)) for form in FORMS.values()]
    assert found == pytest.approx([clean, spatial, adversarial], abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(any_setting, st.floats(0.1, 300), st.floats(0, 1.5))
def test_the_closed_forms_are_brute_force_over_shifts_and_the_l1_norm(setting, rho, eps):
    setting = attrs.evolve(setting, eps=eps)
    weight = [rho] + [1.0] * setting.weak
    assert float(closed_forms.clean_accuracy(setting, rho)) == pytest.approx(
        exact_accuracy(setting, weight), abs=1e-12
    )
    assert float(closed_forms.adversarial_accuracy(setting, rho)) == pytest.approx(
        exact_accuracy(setting, weight, cost=eps * sum(weight)), abs=1e-12
    )
    shifted = [exact_accuracy(setting, weight[r:] + weight[:r]) for r in range(setting.d)]
    assert float(closed_forms.spatial_accuracy(setting, rho)) == pytest.approx(
        sum(shifted) / setting.d, abs=1e-12
    )


def test_closed_forms_keep_the_shape_of_rho_and_are_float64():
    rho = torch.linspace(1, 50, 6).reshape(2, 3)
    for form in FORMS.values():
        values = form(usual(), rho)
        assert values.shape == (2, 3)
        assert values.dtype == torch.float64
        assert float(values[1, 2]) == float(form(usual(), 50.0))


@pytest.mark.parametrize("c", [1, 2, 3])
def test_the_closed_forms_agree_with_sampling(c):
    n, setting, ratios = 400_000, usual(c), (1.0, 20.0, 60.0, 200.0)
    found = simulate(
        setting,
        [Linear.of_ratio(setting.d, rho) for rho in ratios],
        n=n,
        generator=torch.Generator().manual_seed(c),
    )
    for rho, accuracies in zip(ratios, found, strict=True):
        for name, form in FORMS.items():
            share = float(form(setting, rho))
            error = math.sqrt(share * (1 - share) / n)
            measured = getattr(accuracies, name)
            assert measured.n == n
            assert measured.accuracy == pytest.approx(share, abs=5 * error), (rho, name)
            low, high = measured.interval
            assert low < measured.accuracy < high


def test_samples_have_the_moments_of_the_setting_and_repeat(generator):
    setting = usual(d=6, p=0.8)
    x, y = setting.sample(200_000, generator=generator)
    assert set(y.tolist()) == {-1.0, 1.0}
    assert float(y.mean()) == pytest.approx(0, abs=0.01)
    assert float((x[:, 0] == y).float().mean()) == pytest.approx(0.8, abs=0.005)
    assert torch.equal(x[:, 0].abs(), torch.ones(len(x)))
    signed = x[:, 1:] * y[:, None]
    torch.testing.assert_close(signed.mean(0), torch.full((5,), setting.eta), atol=0.012, rtol=0)
    centred = signed - setting.eta
    torch.testing.assert_close(centred.T @ centred / len(x), torch.eye(5), atol=0.02, rtol=0)
    again, _ = setting.sample(200_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, x)


def test_a_shift_is_a_roll_of_each_row(generator):
    x = torch.randn((9, 5), generator=generator)
    places = torch.arange(-2, 7)
    for row, rolled, r in zip(x, shift(x, places), places.tolist(), strict=True):
        assert torch.equal(rolled, row.roll(r))


def test_a_shift_does_not_change_the_invariant_classifier(generator):
    x, _ = usual().sample(1000, generator=generator)
    model = Linear.of_ratio(101, 1.0)
    moved = model(shift(x, torch.randint(101, (1000,), generator=generator)))
    torch.testing.assert_close(moved, model(x), atol=1e-4, rtol=0)


# --- the trade-off


@settings(deadline=None, max_examples=50)
@given(any_setting)
def test_adversarial_accuracy_rises_with_rho_where_it_is_proved_to(setting):
    if setting.eps >= 1 or setting.p <= (1 + setting.eps) / 2:
        return
    assert (closed_forms.adversarial_accuracy(setting, RATIOS).diff() >= -1e-14).all()


def test_adversarial_accuracy_does_not_rise_for_a_very_small_adversary():
    values = closed_forms.adversarial_accuracy(usual(eps=0.01), RATIOS)
    assert (values.diff() < -1e-5).any()


@settings(deadline=None, max_examples=50)
@given(any_setting)
def test_accuracy_on_shifted_inputs_falls_with_rho_where_it_is_proved_to(setting):
    least = closed_forms._falls_from(setting)
    if math.isinf(least):
        return
    assert (closed_forms.shifted_accuracy(setting, least * RATIOS).diff() <= 1e-14).all()


def test_accuracy_on_shifted_inputs_rises_where_the_strong_feature_is_uninformative():
    values = closed_forms.shifted_accuracy(usual(p=0.5), RATIOS)
    assert float(values.max() - values[0]) > 1e-8


@settings(deadline=None, max_examples=50)
@given(any_setting)
def test_spatial_accuracy_falls_with_rho(setting):
    if 2 * setting.eta <= math.log(setting.p / (1 - setting.p)):
        assert (closed_forms.spatial_accuracy(setting, RATIOS).diff() <= 1e-13).all()


@settings(deadline=None, max_examples=50)
@given(any_setting)
def test_clean_accuracy_is_highest_at_the_ratio_of_the_bayes_rule(setting):
    best = closed_forms.best_ratio(setting)
    others = torch.logspace(-3, 4, 300, dtype=torch.float64)
    highest = closed_forms.clean_accuracy(setting, best)
    assert (closed_forms.clean_accuracy(setting, others) <= highest + 1e-14).all()


@settings(deadline=None, max_examples=50)
@given(any_setting, st.floats(0, 3))
def test_the_bound_holds_for_every_ratio_with_adversarial_accuracy_one_half(setting, eps):
    setting = attrs.evolve(setting, eps=eps)
    withstand = closed_forms.adversarial_accuracy(setting, RATIOS) >= 0.5
    assert (RATIOS[withstand] >= closed_forms.critical_ratio(setting) - 1e-9).all()
    shifted = closed_forms.shifted_accuracy(setting, RATIOS)[withstand]
    assert (shifted <= closed_forms.shifted_bound(setting) + 1e-12).all()


def test_the_bound_at_finite_sizes_and_its_limit():
    assert closed_forms.critical_ratio(usual()) == pytest.approx(0.2 * 100 / (1 - 0.4))
    assert closed_forms.shifted_bound(usual(d=1001)) == pytest.approx(0.8076, abs=1e-4)
    assert closed_forms.shifted_bound(usual(d=1_000_001)) == pytest.approx(0.8143, abs=1e-4)
    assert closed_forms.shifted_limit(2) == pytest.approx(0.8145, abs=1e-4)
    assert closed_forms.shifted_limit(2) == pytest.approx(phi(2 / math.sqrt(5)), abs=1e-12)
    for c in (1, 10, 1000):
        assert closed_forms.shifted_limit(c) < phi(1)


def test_an_adversary_that_flips_the_strong_feature_leaves_no_bound():
    setting = usual(eps=1.0)
    assert math.isinf(closed_forms.critical_ratio(setting))
    assert math.isnan(closed_forms.shifted_bound(setting))
    assert (closed_forms.adversarial_accuracy(setting, RATIOS) < 0.5).all()
    assert default_ratios(usual(c=2.5, eps=1.0))[0] == 1.0


def test_weak_features_above_the_radius_make_every_ratio_robust():
    setting = usual(c=20, eps=1.5)
    assert setting.eta > setting.eps
    assert closed_forms.adversarial_accuracy(setting, 1.0) > 0.99
    assert closed_forms.critical_ratio(setting) <= 0
    assert closed_forms.shifted_bound(setting) >= closed_forms.shifted_accuracy(setting, 1.0)


@settings(deadline=None, max_examples=15)
@given(any_setting)
def test_the_frontier_is_concave_and_the_family_is_on_it_or_below(setting):
    x, y = closed_forms.frontier(setting)
    slopes = y.diff() / x.diff()
    assert (slopes.diff() < 0).all()
    spatial = closed_forms.spatial_accuracy(setting, RATIOS)
    adversarial = closed_forms.adversarial_accuracy(setting, RATIOS)
    for point in zip(spatial[::40].tolist(), adversarial[::40].tolist(), strict=True):
        assert above_frontier(setting, *point) < 1e-4  # the hull is of a grid of ratios


def test_the_frontier_is_what_mixtures_of_two_members_reach():
    setting = usual(3)
    ends = [
        (float(FORMS["spatial"](setting, rho)), float(FORMS["adversarial"](setting, rho)))
        for rho in torch.logspace(0, 8, 300, dtype=torch.float64)
    ]
    for spatial in (0.64, 0.7, 0.8, 0.95):
        best = max(
            (low[1] * (high[0] - spatial) + high[1] * (spatial - low[0])) / (high[0] - low[0])
            for low in ends if low[0] <= spatial
            for high in ends if high[0] > spatial
        )  # fmt: skip
        assert above_frontier(setting, spatial, best) == pytest.approx(0, abs=1e-3)
    assert above_frontier(setting, 1.0, 0.5) > 0.47
    assert above_frontier(setting, 0.1, 0.95) == pytest.approx(0, abs=1e-6)


# --- attacks


def test_the_corner_is_the_worst_of_all_corners_for_any_linear_classifier(generator):
    setting = usual(d=7, eps=0.7)
    model = Linear.random(7, generator=generator)
    x, y = setting.sample(50, generator=generator)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 7)
    margins = y[:, None] * model(x[:, None] + 0.7 * signs).detach()
    worst = worst_corner(model, x, y, eps=0.7)
    torch.testing.assert_close(y * model(worst).detach(), margins.min(1).values)
    assert float((worst - x).abs().max()) == pytest.approx(0.7)


def test_pgd_finds_the_corner_of_a_linear_classifier_and_stays_in_the_ball(generator):
    setting = usual()
    model = Linear.random(101, generator=generator)
    x, y = setting.sample(200, generator=generator)
    start = random_start(x, eps=0.4, generator=generator)
    found = pgd(model, x, y, start_ND=start, eps=0.4, steps=40, rel_step=0.1)
    assert float((found - x).abs().max()) <= 0.4 + 1e-6
    torch.testing.assert_close(
        model(found), model(worst_corner(model, x, y, eps=0.4)), atol=1e-4, rtol=0
    )


def test_the_attack_on_a_network_is_the_exact_one_where_the_network_is_linear(generator):
    """A network whose units are all active is linear, but PGD attacks it, unlike `Linear`."""
    setting = usual()
    weight = torch.randn(101, generator=generator) * 0.3
    weight[0] = 8.0
    network = Network(101, hidden=1, generator=generator)
    with torch.no_grad():
        network.into.weight.copy_(weight[None])
        network.into.bias.fill_(1000.0)
        network.out.weight.fill_(1.0)
        network.out.bias.fill_(-1000.0)
    x, y = setting.sample(500, generator=generator)
    robust = [
        withstands(model, x, y, eps=0.1, generator=generator) for model in (network, Linear(weight))
    ]
    assert 0.2 < float(robust[0].float().mean()) < 0.95
    assert int((robust[0] != robust[1]).sum()) <= 1  # rounding beside 1000


def test_nothing_moves_the_global_random_state(generator):
    before = torch.random.get_rng_state()
    setting = usual(d=5)
    model = Network(5, hidden=3, generator=generator)
    train(model, setting, METHODS[6], updates=2, lr=0.01, generator=generator)
    simulate(setting, [model], n=50, generator=generator)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_attack_may_be_limited_to_the_first_samples():
    setting, model = usual(d=2001), Linear.of_ratio(2001, 300.0)
    drawn = [torch.Generator().manual_seed(3) for _ in range(2)]
    (every,) = simulate(setting, [model], n=3000, generator=drawn[0])
    (first,) = simulate(setting, [model], n=3000, attacked=1500, generator=drawn[1])
    assert (first.clean, first.spatial) == (every.clean, every.spatial)
    assert first.adversarial.n == 1500  # of more than one chunk
    share = float(closed_forms.adversarial_accuracy(setting, 300.0))
    assert first.adversarial.accuracy == pytest.approx(share, abs=5 * (0.25 / 1500) ** 0.5)
    assert (
        every.adversarial.correct - 1500 <= first.adversarial.correct <= every.adversarial.correct
    )


# --- training


def method(name, *, curriculum=False):
    return next(m for m in METHODS if (m.name, m.curriculum) == (name, curriculum))


def trained_linear(how, setting=None, seed=0):
    setting = setting or usual()
    generator = torch.Generator().manual_seed(seed)
    model = Linear.random(setting.d, generator=generator)
    train(model, setting, how, updates=300, lr=0.03, generator=generator)
    return model, final_loss(model, setting, how, generator=generator)


def test_linear_training_reaches_the_derived_ratios():
    ratios = {}
    for name in ("plain", "augmented", "adversarial", "either"):
        model, loss = trained_linear(method(name))
        assert not collapsed(loss), name
        ratios[name] = model.ratio
    critical = closed_forms.critical_ratio(usual())
    assert ratios["augmented"] == pytest.approx(1, abs=0.25)
    assert 2 < ratios["plain"] < 12  # the Bayes rule's is 7.4, and the optimum is flat
    assert ratios["adversarial"] > 100 * critical
    assert critical < ratios["either"] < ratios["adversarial"]


@pytest.mark.parametrize("curriculum", [False, True])
def test_training_on_both_at_full_strength_collapses_a_linear_classifier(curriculum):
    model, loss = trained_linear(method("both", curriculum=curriculum))
    assert collapsed(loss)
    assert float(model.weight.detach().abs().sum()) < 0.01
    # Below the mean of a shifted feature there is something to learn: ((2 p - 1) + S eta) / d.
    model, loss = trained_linear(method("both", curriculum=curriculum), usual(eps=0.1))
    assert not collapsed(loss)
    assert float(model.weight.detach().abs().sum()) > 1


def test_a_network_becomes_robust_by_adversarial_training():
    generator = torch.Generator().manual_seed(0)
    setting = usual()
    network = Network(setting.d, generator=generator)
    how = method("adversarial", curriculum=True)
    train(network, setting, how, updates=300, lr=0.01, generator=generator)
    (found,) = simulate(setting, [network], n=500, generator=generator)
    assert found.adversarial.accuracy > 0.9
    assert found.spatial.accuracy < 0.7
    assert "PGD-40, 5 starts" in found.adversarial.threat


def test_a_method_shifts_and_attacks_as_it_states(generator):
    setting = usual(d=7, eps=0.5)
    x, y = setting.sample(300, generator=generator)
    model = Linear.of_ratio(7, 3.0)

    def shown(how, strength):
        return perturbed(
            model, x, y, setting=setting, method=how, strength=strength, generator=generator
        )

    def moved_by(out):
        """Return the number of places of each row, or -1 where the row is no shift."""
        rolls = torch.stack([x.roll(r, 1) for r in range(7)])
        same = (rolls == out).all(2)
        return torch.where(same.any(0), same.int().argmax(0), -1)

    attacked = worst_corner(model, x, y, eps=0.5)
    assert torch.equal(shown(method("plain"), 1.0), x)
    assert torch.equal(shown(method("adversarial"), 1.0), attacked)
    for how in METHODS:
        assert torch.equal(shown(how, 0.0), x), how
    assert set(moved_by(shown(method("augmented"), 1.0)).tolist()) == set(range(7))
    assert set(moved_by(shown(method("augmented"), 0.5)).tolist()) == set(range(4))
    change = shown(method("adversarial"), 0.5) - x
    torch.testing.assert_close(change.abs(), torch.full_like(x, 0.25))

    apart = shown(method("either"), 1.0)
    shifts, hit = moved_by(apart) >= 0, (apart == attacked).all(1)
    assert torch.equal(shifts, ~hit)
    assert 100 < int(hit.sum()) < 200
    assert (moved_by(shown(method("both"), 1.0)) == -1).all()


def test_a_curriculum_rises_from_zero_to_full_strength():
    from curricula.interfaces import Progress

    rising, full = method("both", curriculum=True).schedule, method("both").schedule
    at = [Progress(step=s, total_steps=100, epoch=0, total_epochs=1) for s in (0, 20, 40, 99)]
    assert [rising(progress, {}) for progress in at] == [0, 0.5, 1, 1]
    assert [full(progress, {}) for progress in at] == [1, 1, 1, 1]


# --- the command


def test_the_plugin_registers_the_command_without_torch():
    code = (
        "import sys, curricula_theory.plugin as plugin;"
        "(record,) = plugin.curricula_commands();"
        "print(record.name, record.factory, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["theory", "curricula_theory.command:command", "False"]


def test_the_command_has_a_help_with_an_example():
    assert "Example: curricula theory" in run("--help").stdout


def run(*arguments):
    return CliRunner().invoke(program, ["theory", *map(str, arguments)])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder that the command wrote, and its output."""
    folder = tmp_path_factory.mktemp("theory") / "out"
    done = run(
        "--d", 11, "--c", 1.5, "--samples", 2000, "--seeds", 1, "--updates", 3, "-o", folder
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder, done


def test_by_default_the_command_prints_the_reference_table():
    done = run("--no-train", "--samples", 1000, "--format", "json")
    assert done.exit_code == 0, done.output
    found = [
        (each["c"], row["rho"], *(row[name] for name in FORMS))
        for each in json.loads(done.stdout)
        for row in each["rows"]
    ]
    assert len(found) == len(TABLE)
    for row, expected in zip(found, TABLE, strict=True):
        assert row == pytest.approx(expected, abs=1e-3)
    printed = run("--no-train", "--samples", 1000).stdout
    rows = [line.split() for line in printed.splitlines()]
    for c, rho, *values in TABLE:
        assert [str(c), str(rho), *(f"{value:.4f}" for value in values)] in [
            row[:2] + row[2:8:2] for row in rows
        ]
    assert "rho* = 33.33" in printed
    assert "at most 0.7843 (limit for large d 0.8145)" in printed


def test_the_command_writes_a_table_and_its_figure(small):
    folder, done = small
    assert {path.name for path in folder.iterdir()} == {
        "theory.json",
        "frontier.png",
        "frontier.svg",
    }
    (found,) = json.loads((folder / "theory.json").read_text())
    assert found["eps"] == pytest.approx(2 * found["eta"])
    assert len(found["trained"]) == 2 * len(METHODS)
    for model in found["trained"]:
        assert (model["ratio"] is None) == (model["classifier"] == "MLP")
        low, high = model["adversarial"]["interval_95"]
        assert low <= model["adversarial"]["accuracy"] <= high
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    for text in ("linear", "MLP", "adversarial", "rising", f"theory: {folder}"):
        assert text in done.stdout


def test_the_same_command_gives_the_same_numbers(small):
    folder, _ = small
    setting = Setting(d=11, p=0.95, c=1.5)
    again = to_json(study(setting, samples=2000, seeds=1, updates=3))
    assert again == json.loads((folder / "theory.json").read_text())[0]


def test_a_large_radius_is_out_of_reach_and_null_in_json():
    printed = run("--no-train", "--samples", 100, "--eps", 1.2).stdout
    assert "adversarial >= 1/2 is out of reach" in printed
    found = json.loads(run("--no-train", "--samples", 100, "--eps", 1.2, "--format", "json").stdout)
    assert found[0]["critical_ratio"] is None
    assert found[0]["shifted_bound"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--d", 2], "d must be 3 or more (one strong feature, two weak ones), not 2"),
        (["--d", 1], "d must be 3 or more"),
        (["--d", 20000], "d must be 3 to 10,001 for sampling, not 20,000"),
        (["--p", 0.3], "p must be at least 0.5 and below 1, not 0.3"),
        (["--p", 1], "p must be at least 0.5 and below 1, not 1"),
        (["--p", "nan"], "p must be at least 0.5 and below 1, not nan"),
        (["--c", 0], "c must be a number above 0 to 1e+06, not 0"),
        (["--c", "inf"], "c must be a number above 0 to 1e+06, not inf"),
        (["--c", "1e308"], "c must be a number above 0 to 1e+06, not 1e+308"),
        (["--d", "9" * 400], "d must be at most 1,000,000,000,000, not about 10^400"),
        (["--samples", 10**18], "samples must be 1 to 100,000,000, not about 10^18"),
        (["--d", 10001, "--samples", 10**8], "samples x d would be 1,000,100,000,000; at most"),
        (["--seeds", 11, "--updates", 10**6], "seeds x updates would be 11,000,000; at most"),
        (["--rho", 2] * 101, "the number of ratios, rho, must lie from 0 to 100, not 101"),
        (["--c", 2, "--c", 2], "--c: the same value twice; give each value once"),
        (
            ["--c", 1, "--c", 2, "--c", 3, "--c", 4, "--c", 5],
            "--c must be given 1 to 4 times, not 5",
        ),
        (["--eps", -0.1], "eps must be a number from 0 to 1e+09, not -0.1"),
        (["--rho", 0], "rho must be above 0 and at most 1e+12, not 0"),
        (["--rho", 1e300], "rho must be above 0 and at most 1e+12, not 1e+300"),
        (["--samples", 0], "samples must be 1 to 100,000,000, not 0"),
        (["--seeds", 0], "seeds must be 1 or more, not 0; to train no models write --no-train"),
        (["--seeds", 101], "seeds must be 0 to 100, not 101"),
        (["--updates", 0], "updates must be 1 to 1,000,000, not 0"),
        (["--lr", 0], "lr must be above 0 and at most 1, not 0"),
        (["-o", "file"], "output file: there is a file of that name"),
        (["-o", "/proc/here"], "output /proc/here: cannot be made"),
        (["-o", "absent/folder"], "there is no folder absent; make it first"),
        (["--samples", "many"], "'many' is not a valid integer"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_setting_refuses_values_out_of_range_from_python_too():
    with pytest.raises(UserError, match="p must be"):
        usual(p=0.2)
    with pytest.raises(UserError, match="d must be 3 or more"):
        usual(d=1)
    assert usual().eps == pytest.approx(0.4)


# --- the figure


@pytest.fixture(scope="module")
def studies():
    return [study(usual(c, d=11), samples=50, seeds=1, updates=1, lr=0.01) for c in (1.5, 2)]


def test_the_figure_has_a_panel_for_each_setting_and_classifier_and_cuts_no_text(studies):
    figure = frontier_figure(studies)
    FigureCanvasAgg(figure).draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split(",")[0] for title in titles] == ["linear", "linear", "MLP", "MLP"]
    page = figure.bbox
    ticks = {tick for axes in figure.axes for tick in axes.findobj(Tick)}
    labels = {text for tick in ticks for text in tick.findobj(Text)}  # some are never drawn
    for text in set(figure.findobj(Text)) - labels:
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            assert page.x0 <= box.x0, text
            assert box.x1 <= page.x1, text
            assert page.y0 <= box.y0, text
            assert box.y1 <= page.y1, text


def test_the_figure_draws_each_model_where_it_was_measured(studies):
    (panel, _) = frontier_figure(studies[1:]).axes
    drawn = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in panel.lines}
    for model in studies[1].trained:
        if model.classifier == "linear":
            place = (model.accuracies.spatial.accuracy, model.accuracies.adversarial.accuracy)
            assert place in drawn


def test_without_models_the_figure_has_the_curve_alone():
    figure = frontier_figure([study(usual(), samples=50, seeds=0)])
    assert len(figure.axes) == 1
    assert figure.axes[0].get_title() == "c = 2, ε = 0.4"


def test_methods_are_frozen_and_distinct():
    assert len(set(METHODS)) == len(METHODS) == 8
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        METHODS[0].shifts = True
    assert Method(name="plain") == METHODS[0]
