"""Adaptive and control schedules give the strengths that their definitions give by hand."""

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import Feedback, Progress
from curricula.schedules.adaptive import SelfPaced

NOW = Progress(step=0, total_steps=100, epoch=0, total_epochs=10)


def built(text):
    return factories.build("schedule", parse_call(text)).value


def feedback(correct, indices=None, strength=0.0):
    correct = torch.tensor(correct)
    return Feedback(
        indices=torch.arange(len(correct)) if indices is None else torch.tensor(indices),
        correct=correct,
        strength=torch.full((len(correct),), strength),
        progress=NOW,
        chance=0.1,
    )


def strengths(schedule, shares):
    """Return the strength after each batch of four images, of which ``shares`` are right."""
    state, found = schedule.start(4), []
    for right in shares:
        state = schedule.after_batch(state, feedback([i < right for i in range(4)]))
        found.append(round(float(schedule(NOW, state)), 6))
    return found


def test_gated_rises_only_if_enough_images_were_right():
    gated = built("gated(threshold=0.5, step=0.4, updates=2, low=0.1)")
    assert float(gated(NOW, gated.start(4))) == pytest.approx(0.1)
    # Means of pairs: 0.5, 0.375, 1, 1. It rises, stays, rises, and rises no further than 1.
    found = strengths(gated, [1, 3, 0, 3, 4, 4, 4, 4])
    assert found == [0.1, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 1.0]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=40),
    st.sampled_from([1 / 1000, 0.1, 0.5, 0.9]),
    st.floats(0, 1),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_self_paced_follows_its_formula(counts, chance, level, rise, window, latest):
    schedule = SelfPaced(level=level, rise=rise, window=window, latest=latest)
    state, total, strength = schedule.start(40), len(counts), 0.0
    kept = max(0.0, 1 - min(1 / total / window, 40 * chance / 10))
    for step, right in enumerate(counts):
        now = Progress(step=step, total_steps=total, epoch=0, total_epochs=1)
        batch = feedback([i < right for i in range(40)])
        state = schedule.after_batch(state, attrs.evolve(batch, progress=now, chance=chance))
        ages = [kept**age for age in range(step + 1)]  # of this batch and those before it
        mean = sum(w * n / 40 for w, n in zip(ages, counts[step::-1], strict=True)) / sum(ages)
        least = chance ** (1 - level)
        if abs(mean - least) < 1e-4 and step < latest * total:
            return  # rounding decides
        strength = min(1, strength + (mean >= least or step >= latest * total) / total / rise)
        assert float(schedule(now, state)) == pytest.approx(strength, abs=1e-4)


@pytest.mark.parametrize("chance", [0.7, 0.5, 1 / 1000])
def test_self_paced_waits_at_chance_but_not_for_ever(chance):
    generator = torch.Generator().manual_seed(0)
    schedule, total = SelfPaced(), 1000
    state, found = schedule.start(64), []
    for step in range(total):
        right = torch.rand(64, generator=generator) < chance
        now = Progress(step=step, total_steps=total, epoch=0, total_epochs=1)
        batch = attrs.evolve(feedback(right.tolist()), progress=now, chance=chance)
        state = schedule.after_batch(state, batch)
        found.append(float(schedule(now, state)))
    assert max(found[:400]) < 0.1
    assert found[460] == 1


@given(st.lists(st.integers(0, 4), max_size=30))
def test_fooling_follows_its_formula(shares):
    expected, found = [], strengths(built("fooling(target=0.3, rate=0.2, low=0.1)"), shares)
    now = 0.1
    for right in shares:
        now = min(max(now + 0.2 * (0.3 - (1 - right / 4)), 0.1), 1)
        expected.append(now)
    assert found == pytest.approx(expected, abs=1e-5)


def test_plateau_rises_when_the_clean_accuracy_stops_rising():
    plateau = built("plateau(on=clean, step=0.5, patience=2, low=0.2)")
    state, found = plateau.start(4), []
    for clean in (0.5, 0.6, 0.6, 0.55, 0.1, 0.2, 0.2, 0.2):
        state = plateau.after_epoch(state, {"clean": clean, "joint": 1 - clean})
        found.append(round(float(plateau(NOW, state)), 6))
    assert found == [0.2, 0.2, 0.2, 0.7, 0.7, 0.7, 0.7, 1.0]
    assert torch.equal(plateau.after_batch(state, feedback([True]))["best"], state["best"])


def test_plateau_can_follow_the_joint_accuracy():
    plateau = built("plateau(step=0.5, low=0)")
    state = plateau.start(4)
    for joint in (0.1, 0.2, 0.2):
        state = plateau.after_epoch(state, {"clean": 1 - joint, "joint": joint})
    assert plateau(NOW, state) == 0.5


def test_each_image_has_its_own_strength():
    schedule = built("per-image(up=0.5, down=0.25, low=0.1)")
    state = schedule.start(5)
    torch.testing.assert_close(schedule(NOW, state), torch.full((5,), 0.1))
    state = schedule.after_batch(state, feedback([True, True, False], indices=[4, 0, 2]))
    torch.testing.assert_close(schedule(NOW, state), torch.tensor([0.6, 0.1, 0.1, 0.1, 0.6]))
    state = schedule.after_batch(state, feedback([True, False], indices=[4, 0]))
    torch.testing.assert_close(schedule(NOW, state), torch.tensor([0.35, 0.1, 0.1, 0.1, 1.0]))


def test_anti_is_linear_reversed():
    def curve(text):
        schedule = built(text)
        return [
            schedule(Progress(step=i, total_steps=50, epoch=0, total_epochs=1), {})
            for i in range(50)
        ]

    assert curve("anti(start=0.2, until=0.6)") == curve("linear(start=0.2, until=0.6)")[::-1]
    assert curve("anti")[0] == 1


@pytest.mark.parametrize("each", ["epoch", "update"])
def test_random_strengths_are_uniform_and_depend_on_seed_and_number_alone(each):
    def draws(seed):
        schedule = built(f"random(low=0.2, high=0.6, each={each}, seed={seed})")
        return [
            schedule(Progress(step=i, total_steps=4000, epoch=i // 4, total_epochs=1000), {})
            for i in range(4000)
        ]

    found = draws(0)
    assert found == draws(0) != draws(1)
    assert len(set(found)) == (1000 if each == "epoch" else 4000)
    assert all(0.2 <= value <= 0.6 for value in found)
    shares, _ = torch.histogram(torch.tensor(sorted(set(found))), bins=4, range=(0.2, 0.6))
    expected = len(set(found)) / 4
    # Chi-squared with 3 degrees of freedom exceeds 16.3 in one of a thousand tests.
    assert ((shares - expected) ** 2 / expected).sum() < 16.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gated(threshold=1.1)", "threshold must be at most 1"),
        ("gated(updates=0)", "updates must be 1 or more"),
        ("gated(updates=1e300)", "updates must be at most 1,000,000,000, not about"),
        ("plateau(patience=1e18)", "patience must be at most 1,000,000,000, not 1,000,000,"),
        ("self-paced(level=2)", "level must be at most 1"),
        ("self-paced(rise=0)", "rise must be above 0"),
        ("fooling(rate=0)", "rate must be above 0"),
        ("plateau(on=spatial)", "on must be"),
        ("plateau(patience=0)", "patience must be 1 or more"),
        ("per-image(up=0)", "up must be above 0"),
        ("random(low=0.8, high=0.2)", "low must be at most high"),
        ("anti(until=0)", "until must be above 0"),
    ],
)
def test_a_wrong_argument_is_an_error_of_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        built(text)
    assert "\n" not in str(caught.value)
