"""Curves equal tables of values, and share their general properties."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import Progress
from curricula.training.learning_rate import parse_learning_rate

LOW = 1 / (1 + math.exp(5))  # where the logistic curve of steepness 10 begins


def strength(text, fraction):
    total = 10_000
    progress = Progress(step=round(fraction * total), total_steps=total, epoch=0, total_epochs=1)
    return factories.build("schedule", parse_call(text)).value(progress, {})


@pytest.mark.parametrize(
    ("text", "values"),  # at 0, 0.1, 0.2, 0.4, 0.5, 0.9 of training
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("constant(0.3)", [0.3] * 6),
        ("linear", [0, 0.25, 0.5, 1, 1, 1]),
        ("linear(start=0.2, until=0.5)", [0.2, 0.36, 0.52, 0.84, 1, 1]),
        ("linear(until=1)", [0, 0.1, 0.2, 0.4, 0.5, 0.9]),
        ("cosine", [0, (1 - math.sqrt(0.5)) / 2, 0.5, 1, 1, 1]),
        (
            "exponential(rate=2)",
            [0, (1 - math.exp(-0.5)) / (1 - math.exp(-2)), 1 / (1 + math.exp(-1)), 1, 1, 1],
        ),
        ("root", [0, 0.5, math.sqrt(0.5), 1, 1, 1]),
        ("root(start=0.1)", [0.1, 0.507445, 0.710634, 1, 1, 1]),  # competence of c0 = 0.1
        ("root(power=1)", [0, 0.25, 0.5, 1, 1, 1]),
        ("sigmoid", [0, (1 / (1 + math.exp(2.5)) - LOW) / (1 - 2 * LOW), 0.5, 1, 1, 1]),
        ("step", [0, 0.25, 0.5, 1, 1, 1]),
        ("step(start=0.5, until=0.2, count=1)", [0.5, 0.5, 1, 1, 1, 1]),
        ("step(0:2/3, 0.4:5/6, 0.5:1)", [2 / 3, 2 / 3, 2 / 3, 5 / 6, 1, 1]),
    ],
)
def test_strengths_equal_the_table(text, values):
    found = [strength(text, fraction) for fraction in (0, 0.1, 0.2, 0.4, 0.5, 0.9)]
    assert found == pytest.approx(values, abs=2e-6)


@pytest.mark.parametrize(
    ("until", "exact"),
    [("0.3", "3/10"), ("0.7", "7/10"), ("0.95", "19/20"), ("1/3", "1/3"), ("0.123", "123/1000")],
)
@pytest.mark.parametrize("count", [3, 7, 10, 100])
def test_a_stage_begins_at_the_first_update_of_its_fraction(until, exact, count):
    schedule = factories.build("schedule", parse_call(f"step(until={until}, count={count})")).value
    begins = [Fraction(exact) * i / count for i in range(count + 1)]
    for total in (100, 1000, 2100, 21_000):
        for i, begin in enumerate(begins):
            first = math.ceil(begin * total)
            value = i / count - 1e-9
            assert at(schedule, first, total) >= value
            assert first == 0 or at(schedule, first - 1, total) < value


def at(schedule, step, total):
    """Return the strength at the update with the number ``step``, from 0."""
    return schedule(Progress(step=step, total_steps=total, epoch=0, total_epochs=1), {})


RAMPS = ["linear", "cosine", "exponential", "root", "sigmoid", "step"]


@given(
    st.sampled_from(RAMPS),
    st.floats(0, 1),
    st.floats(0.01, 1),
    st.lists(st.floats(0, 0.999), min_size=2, max_size=5),
)
def test_a_ramp_begins_at_start_never_decreases_and_stays_at_1(name, start, until, fractions):
    text = f"{name}(start={start!r}, until={until!r})"
    assert strength(text, 0) == pytest.approx(start, abs=1e-9)
    found = [strength(text, fraction) for fraction in sorted(fractions)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found))
    assert all(start - 1e-9 <= value <= 1 + 1e-9 for value in found)
    assert all(strength(text, f) == 1 for f in fractions if round(f * 10_000) >= until * 10_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear(start=-0.1)", "start must be 0 or more"),
        ("linear(start=1.1)", "start must be at most 1"),
        ("cosine(until=0)", "until must be above 0"),
        ("root(power=0.5)", "power must lie from 1 to 100"),
        ("exponential(rate=0)", "rate must be above 0"),
        ("sigmoid(steepness=0)", "steepness must lie from 0.001"),
        ("step(0.1:0.5, 0.5:1)", "first stage must begin at 0"),
        ("step(0:0.5, 0.5:1, 0.5:1)", "after the one before"),
        ("step(0:0.5, 0.5:2)", "value must lie from 0 to 1, not 2"),
        ("step(0:0.5, until=0.5)", "for a step without stages"),
        ("step(count=0)", "count must lie from 1 to 1000"),
        ("step(0.5)", "must be a pair|must be"),
        ("linear(0, 1, 2)", "too many arguments"),
        ("linear(until=soon)", "until must be a number, not soon"),
    ],
)
def test_a_wrong_argument_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        strength(text, 0)


@pytest.mark.parametrize(
    ("text", "values"),  # at 0, 0.3, 0.5, 0.9 of training
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (1 + math.cos(0.3 * math.pi)) / 2, 0.5, (1 + math.cos(0.9 * math.pi)) / 2]),
        ("step(0:1, 0.5:0.1)", [1, 1, 0.1, 0.1]),
        ("one-cycle(warmup=0.5)", [0.04, 0.04 + 0.96 * (1 - math.cos(0.6 * math.pi)) / 2, 1, None]),
        ("one-cycle", [0.04, 1, None, None]),
    ],
)
def test_learning_rates_equal_the_table(text, values):
    rate = parse_learning_rate(text).value
    for fraction, expected in zip((0, 0.3, 0.5, 0.9), values, strict=True):
        found = rate(Progress(step=round(fraction * 10), total_steps=10, epoch=0, total_epochs=1))
        if expected is None:
            assert 0 < found < 1
        else:
            assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["linear", "one-cycle(warmup=1)", "step(0:2)", "step(count=4)", "cosine(3)", "x+y"]
)
def test_a_wrong_learning_rate_is_an_error(text):
    with pytest.raises(ValueError, match=r"lr_schedule|one-cycle|step|cosine|single name"):
        parse_learning_rate(text)


def test_stages_given_in_epochs_begin_exactly_there():
    # 74 of 120 epochs, 351 updates each: the stage begins with update 74 * 351, not one later.
    schedule = factories.build("schedule", parse_call("step(0:1/4, 74/120:1/2)")).value
    values = [
        schedule(Progress(step=s, total_steps=120 * 351, epoch=0, total_epochs=120), {})
        for s in (74 * 351 - 1, 74 * 351)
    ]
    assert values == [0.25, 0.5]
