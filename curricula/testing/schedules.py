"""The contract of a schedule, one function a clause; each raises AssertionError when broken.

Under pytest::

    @pytest.mark.parametrize("clause", SCHEDULE_CLAUSES)
    def test_sawtooth_keeps_the_contract(clause):
        clause(sawtooth(teeth=3))
"""

import copy
from collections.abc import Callable, Iterator, Mapping

import attrs
import safetensors.torch
import torch
from torch import Tensor

from curricula.interfaces import (
    AdaptiveSchedule,
    Feedback,
    Progress,
    Schedule,
    ScheduleState,
    Strength,
)
from curricula.testing.contract import broken_clauses

NUM_TRAIN = 12
LENGTHS = ((1, 1), (1, 7), (3, 4), (20, 5))  # (epochs, updates an epoch)


@attrs.frozen(kw_only=True, eq=False)
class Moment:
    """One update of a training: how far it is, the schedule's state, and the strength."""

    progress: Progress
    state: ScheduleState
    strength: Strength

    def __str__(self) -> str:
        return f"at step {self.progress.step} of {self.progress.total_steps}"


def training(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Iterator[Moment]:
    """A training as a schedule sees it: images that are got right at random, half of them at
    first and more later."""
    state: ScheduleState = {}
    if isinstance(schedule, AdaptiveSchedule):
        state = schedule.start(NUM_TRAIN)
    yield from _onwards(schedule, state, 0, epochs, steps_per_epoch)


def _onwards(
    schedule: Schedule, state: ScheduleState, first: int, epochs: int, steps_per_epoch: int
) -> Iterator[Moment]:
    total = epochs * steps_per_epoch
    for step in range(first, total):
        progress = Progress(
            step=step,
            total_steps=total,
            epoch=step // steps_per_epoch,
            total_epochs=epochs,
        )
        strength = schedule(progress, state)
        yield Moment(progress=progress, state=state, strength=strength)
        if isinstance(schedule, AdaptiveSchedule):
            state = schedule.after_batch(state, _feedback(progress, strength))
            if (step + 1) % steps_per_epoch == 0:
                share = (step + 1) / total
                state = schedule.after_epoch(state, {"clean": share, "joint": share / 2})


def _feedback(progress: Progress, strength: Strength) -> Feedback:
    generator = torch.Generator().manual_seed(progress.step)
    indices = torch.randperm(NUM_TRAIN, generator=generator)[: NUM_TRAIN // 2]
    right = torch.rand(len(indices), generator=generator) < 0.5 + progress.fraction / 2
    strength = torch.as_tensor(strength, dtype=torch.float32)
    of_batch = strength[indices] if strength.ndim else strength.expand(len(indices))
    return Feedback(indices=indices, correct=right, strength=of_batch)


def strength_is_in_0_to_1(schedule: Schedule) -> None:
    """A float, or a floating tensor of one value for each training image, from 0 to 1, at every
    update of trainings of several lengths, one update included."""
    for length in LENGTHS:
        for moment in training(schedule, *length):
            strength = moment.strength
            if isinstance(strength, Tensor):
                assert strength.shape == (NUM_TRAIN,), (
                    f"a tensor of shape {tuple(strength.shape)} {moment}; give a float, or one "
                    f"value for each of the {NUM_TRAIN} training images"
                )
                assert strength.is_floating_point(), f"a tensor of {strength.dtype} {moment}"
                low, high = float(strength.min()), float(strength.max())
            else:
                assert isinstance(strength, (float, int)), (
                    f"a {type(strength).__name__} {moment}; give a float or a tensor"
                )
                low = high = float(strength)
            assert 0 <= low <= high <= 1, f"a strength from {low:g} to {high:g} {moment}"


def arguments_determine_the_strength(schedule: Schedule) -> None:
    """Same progress and state, same strength and same next state, in whatever order they are asked
    for; global random state neither read nor moved."""
    for length in LENGTHS:
        moments = list(training(schedule, *length))
        for moment in reversed(moments):
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(moment.progress.step + 987)
                before = torch.get_rng_state()
                again = schedule(moment.progress, moment.state)
                assert torch.equal(before, torch.get_rng_state()), "the global random state moved"
            assert _equal(moment.strength, again), f"another strength when asked again {moment}"
        for first, second in zip(moments, training(schedule, *length), strict=True):
            assert _same_state(first.state, second.state), f"another state in a second run {second}"


def state_is_not_changed(schedule: Schedule) -> None:
    """Neither asking nor feedback changes a state that was given out before, nor the feedback."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    for length in LENGTHS:
        before: list[tuple[Moment, ScheduleState]] = []
        for moment in training(schedule, *length):
            before.append((moment, _cloned(moment.state)))
            feedback = _feedback(moment.progress, moment.strength)
            told = attrs.evolve(
                feedback,
                indices=feedback.indices.clone(),
                correct=feedback.correct.clone(),
                strength=feedback.strength.clone(),
            )
            schedule.after_batch(moment.state, told)
            for name in ("indices", "correct", "strength"):
                kept = torch.equal(getattr(told, name), getattr(feedback, name))
                assert kept, f"the feedback's {name} were written to"
            schedule.after_epoch(moment.state, {"clean": 0.5, "joint": 0.25})
        for moment, state in before:
            assert _same_state(moment.state, state), f"the state {moment} was written to later"


def state_keeps_its_form(schedule: Schedule) -> None:
    """Named tensors, of the same names, shapes and dtypes throughout."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    start = _form(schedule.start(NUM_TRAIN))
    for length in LENGTHS:
        for moment in training(schedule, *length):
            told = schedule.after_batch(moment.state, _feedback(moment.progress, moment.strength))
            ended = schedule.after_epoch(moment.state, {"clean": 0.5, "joint": 0.25})
            for state, when in ((told, "a batch"), (ended, "an epoch")):
                assert _form(state) == start, (
                    f"the state is {_form(state)} after {when} {moment}; it started as {start}"
                )


def checkpoint_restores_the_schedule(schedule: Schedule) -> None:
    """A copy of the schedule that is given a saved state goes on exactly as the schedule does."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    fresh = copy.deepcopy(schedule)
    for epochs, steps_per_epoch in LENGTHS:
        moments = list(training(schedule, epochs, steps_per_epoch))
        middle = len(moments) // 2
        saved = safetensors.torch.save(
            {name: tensor.clone().contiguous() for name, tensor in moments[middle].state.items()}
        )
        loaded = safetensors.torch.load(saved)
        resumed = _onwards(fresh, loaded, middle, epochs, steps_per_epoch)
        for moment, after in zip(moments[middle:], resumed, strict=True):
            assert _equal(moment.strength, after.strength), f"another strength {moment}"
            assert _same_state(moment.state, after.state), f"another state {moment}"


def _equal(a: Strength, b: Strength) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _same_state(a: ScheduleState, b: ScheduleState) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _cloned(state: ScheduleState) -> ScheduleState:
    return {name: tensor.clone() for name, tensor in state.items()}


def _form(state: ScheduleState) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
    assert isinstance(state, Mapping), f"the state is a {type(state).__name__}, not a mapping"
    for name, tensor in state.items():
        assert isinstance(name, str), f"the state's key {name!r} is not a name"
        assert isinstance(tensor, Tensor), f"{name} is a {type(tensor).__name__}, not a tensor"
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


SCHEDULE_CLAUSES: tuple[Callable[[Schedule], None], ...] = (
    strength_is_in_0_to_1,
    arguments_determine_the_strength,
    state_is_not_changed,
    state_keeps_its_form,
    checkpoint_restores_the_schedule,
)


def check_schedule(schedule: Schedule) -> Mapping[str, str]:
    """Every clause at once: what is broken, by the clause's name; empty if all is well."""
    return broken_clauses(SCHEDULE_CLAUSES, schedule)
