"""Learning-rate schedules equal those of torch, and warm-up and warm restarts what is published."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from curricula.errors import UserError
from curricula.interfaces import Progress
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.plugins.registry import Provider
from curricula.training.learning_rate import checked, parse_learning_rate

STEPS = 60


def ours(text, steps=STEPS):
    rate = parse_learning_rate(text).value
    return [
        rate(Progress(step=i, total_steps=steps, epoch=0, total_epochs=1)) for i in range(steps)
    ]


def torchs(make, steps=STEPS):
    """Return the learning rates of a scheduler of torch, for a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warmed(make, updates):
    """Return a scheduler of torch after a linear warm-up from 1/25."""

    def sequence(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / 25, total_iters=updates)
        after = make(optimizer)
        return lr_scheduler.SequentialLR(optimizer, [warmup, after], milestones=[updates])

    return sequence


def annealing(updates):
    return lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=updates)


def restarts(first, factor=1):
    return lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=first, T_mult=factor
    )


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("constant(warmup=1/4)", lambda o: lr_scheduler.LinearLR(o, 1 / 25, total_iters=15)),
        ("step(0:1, 1/3:0.1, 2/3:0.01)", lambda o: lr_scheduler.MultiStepLR(o, [20, 40])),
        ("cosine", annealing(60)),
        ("cosine(warmup=1/5)", warmed(annealing(48), 12)),
        ("cosine(warmup=0.05)", warmed(annealing(57), 3)),
        ("cosine(cycles=3)", restarts(20)),
        ("cosine(cycles=4, warmup=1/5)", warmed(restarts(12), 12)),
        ("cosine(cycles=4, mult=2)", restarts(4, 2)),
        ("cosine(cycles=2, mult=3, warmup=1/3)", warmed(restarts(10, 3), 20)),
        ("cosine(cycles=7)", restarts(6)),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step()`")
def test_rates_are_those_of_torch(text, oracle):
    steps = 42 if text == "cosine(cycles=7)" else STEPS
    assert ours(text, steps) == pytest.approx(torchs(oracle, steps), abs=1e-12)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 20), st.sampled_from([1, 2, 3]))
def test_every_cycle_begins_at_1_exactly_at_its_update(cycles, first, warmup, mult):
    lengths = [first * mult**i for i in range(min(cycles, 6))]
    steps = warmup + sum(lengths)
    rates = ours(f"cosine(warmup={warmup}/{steps}, cycles={len(lengths)}, mult={mult})", steps)
    begins = [warmup + sum(lengths[:i]) for i in range(len(lengths))]
    assert [i for i, rate in enumerate(rates) if rate == pytest.approx(1, abs=1e-9)] == begins
    for begin, length in zip(begins, lengths, strict=True):
        wave = [(1 + math.cos(math.pi * i / length)) / 2 for i in range(length)]
        assert rates[begin : begin + length] == pytest.approx(wave, abs=1e-7)
    assert all(a < b for a, b in itertools.pairwise(rates[: warmup + 1]))
    assert not warmup or rates[0] == pytest.approx(1 / 25)


def test_warm_up_scales_the_stages():
    rates = ours("step(0:1, 1/4:0.1, warmup=1/2)")
    full = ours("step(0:1, 1/4:0.1)")
    factors = [a / b for a, b in zip(rates, full, strict=True)]
    assert factors == pytest.approx([min(1, 0.04 + 0.96 * i / 30) for i in range(60)])


@pytest.mark.parametrize(
    ("text", "warmed"),
    [
        ("constant", "constant(warmup=0)"),
        ("constant:0.3", "constant(0.3, warmup=0)"),
        ("cosine", "cosine(warmup=0, cycles=1, mult=2)"),
        ("step(0:1, 0.5:0.1)", "step(0:1, 0.5:0.1, warmup=0)"),
    ],
)
def test_a_warm_up_of_nothing_changes_no_bit(text, warmed):
    assert ours(text) == ours(warmed)


def test_cosine_without_arguments_is_the_formula_bit_for_bit():
    assert ours("cosine") == [(1 + math.cos(math.pi * (i / STEPS))) / 2 for i in range(STEPS)]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("constant", "constant(value=1, warmup=0)"),
        ("cosine:0.05", "cosine(warmup=0.05, cycles=1, mult=1)"),
        ("step(0:1, 0.5:0.1)", "step(0:1, 0.5:0.1, warmup=0)"),
        ("one-cycle", "one-cycle(warmup=0.3)"),
    ],
)
def test_the_printed_form_builds_the_same(text, printed):
    assert str(parse_learning_rate(text).call) == printed
    assert str(parse_learning_rate(printed).call) == printed
    assert ours(printed) == ours(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine(warmup=1)", "warmup must lie from 0 to below 1, not 1"),
        ("constant(warmup=-0.1)", "warmup must lie from 0 to below 1, not -0.1"),
        ("cosine(cycles=0)", "cycles must lie from 1 to 100, not 0"),
        ("cosine(cycles=2.5)", "cycles must be a whole number, not 2.5"),
        ("cosine(mult=0.5)", "mult must lie from 1 to 10, not 0.5"),
        ("step", "it needs stages, for example step"),
        ("step(warmup=0.1)", "it needs stages, for example step"),
        ("step(0:1, count=3)", "unknown argument 'count'"),
        ("cosin", "did you mean cosine"),
    ],
)
def test_a_wrong_argument_is_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_learning_rate(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda progress: -1.5, "gave -1.5: it must be a multiple of lr, 0 or more"),
        (lambda progress: float("nan"), "gave nan: it must be a multiple"),
        (lambda progress: float("inf") if progress.step else 1.0, "gave inf: it must be"),
        (lambda progress: None, "failed"),
        (lambda: 1.0, "failed"),
        (3, "failed"),
    ],
)
def test_a_schedule_of_a_plugin_is_checked_at_every_update(value, message):
    class Plugin:
        @hookimpl
        def curricula_lr_schedules(self):
            yield Record(name="odd", factory=lambda: value, summary="odd")

    built = registry.build_registry(entry_points=False)
    built.add(Plugin(), Provider(name="odd", version="1", source="distribution"))
    registry.use(built)
    rate = checked(parse_learning_rate("odd"))
    begin, later = (Progress(step=i, total_steps=3, epoch=0, total_epochs=1) for i in range(2))
    with pytest.raises(UserError, match=message) as caught:
        print(rate(begin), rate(later))
    assert str(caught.value).startswith("lr_schedule odd ")
