"""The contract of a schedule: one function for each clause, which raises AssertionError.

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

NUM_TRAIN = 12  # training images
CHANCE = 1 / 3  # accuracy of the best constant answer
LENGTHS = ((1, 1), (1, 7), (3, 4), (20, 5))  # (epochs, updates per epoch)


@attrs.frozen(kw_only=True, eq=False)
class Moment:
    """One update of a training: its progress, the state of the schedule, and the strength."""

    progress: Progress
    state: ScheduleState
    strength: Strength

    def __str__(self) -> str:
        return f"at step {self.progress.step} of {self.progress.total_steps}"


def updates(epochs: int, steps_per_epoch: int, first: int = 0) -> Iterator[Progress]:
    """Yield the progress at each update of a training, from the update `first` on."""
    total = epochs * steps_per_epoch
    for step in range(first, total):
        yield Progress(
            step=step, total_steps=total, epoch=step // steps_per_epoch, total_epochs=epochs
        )


def training(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Iterator[Moment]:
    """Yield a `Moment` for each update of a simulated training, in which images are correct at
    random, half of them at first and more later."""
    state: ScheduleState = {}
    if isinstance(schedule, AdaptiveSchedule):
        state = schedule.start(NUM_TRAIN)
    yield from _onwards(schedule, state, 0, epochs, steps_per_epoch)


def _onwards(
    schedule: Schedule, state: ScheduleState, first: int, epochs: int, steps_per_epoch: int
) -> Iterator[Moment]:
    for progress in updates(epochs, steps_per_epoch, first):
        strength = schedule(progress, state)
        yield Moment(progress=progress, state=state, strength=strength)
        if isinstance(schedule, AdaptiveSchedule):
            state = schedule.after_batch(state, _feedback(progress, strength))
            done = progress.step + 1
            if done % steps_per_epoch == 0:
                share = done / progress.total_steps
                state = schedule.after_epoch(state, {"clean": share, "joint": share / 2})


def _feedback(progress: Progress, strength: Strength) -> Feedback:
    generator = torch.Generator().manual_seed(progress.step)
    indices = torch.randperm(NUM_TRAIN, generator=generator)[: NUM_TRAIN // 2]
    correct_N = torch.rand(len(indices), generator=generator) < 0.5 + progress.fraction / 2
    strength = torch.as_tensor(strength, dtype=torch.float32)
    of_batch = strength[indices] if strength.ndim else strength.expand(len(indices))
    return Feedback(
        indices=indices,
        correct=correct_N,
        strength=of_batch,
        progress=progress,
        chance=CHANCE,
    )


def strength_is_in_0_to_1(schedule: Schedule) -> None:
    """Check that the strength is in [0, 1] at every update, in trainings of several lengths; it is
    a float, or a tensor with one value for each training image."""
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
    """Check that strength and next state depend only on progress and state, in any order of calls,
    and that the global random state is not used."""
    for length in LENGTHS:
        moments = list(training(schedule, *length))
        for moment in reversed(moments):
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(moment.progress.step + 987)
                before = torch.get_rng_state()
                again = schedule(moment.progress, moment.state)
                assert torch.equal(before, torch.get_rng_state()), "the global random state changed"
            assert _equal(moment.strength, again), f"a different strength in a second call {moment}"
        for first, second in zip(moments, training(schedule, *length), strict=True):
            assert _same_state(first.state, second.state), (
                f"the state differs in a second run {second}"
            )


def state_is_not_changed(schedule: Schedule) -> None:
    """Check that no call changes a state that was returned before, or the feedback."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    for length in LENGTHS:
        before: list[tuple[Moment, ScheduleState]] = []
        for moment in training(schedule, *length):
            before.append((moment, _cloned(moment.state)))
            feedback = _feedback(moment.progress, moment.strength)
            given = attrs.evolve(
                feedback,
                indices=feedback.indices.clone(),
                correct=feedback.correct.clone(),
                strength=feedback.strength.clone(),
            )
            schedule.after_batch(moment.state, given)
            for name in ("indices", "correct", "strength"):
                kept = torch.equal(getattr(given, name), getattr(feedback, name))
                assert kept, f"the feedback's {name} were written to"
            schedule.after_epoch(moment.state, {"clean": 0.5, "joint": 0.25})
        for moment, state in before:
            assert _same_state(moment.state, state), f"the state {moment} was written to later"


def state_keeps_its_form(schedule: Schedule) -> None:
    """Check that the state is a mapping of tensors whose names, shapes and dtypes do not change."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    start = _form(schedule.start(NUM_TRAIN))
    for length in LENGTHS:
        for moment in training(schedule, *length):
            after = schedule.after_batch(moment.state, _feedback(moment.progress, moment.strength))
            ended = schedule.after_epoch(moment.state, {"clean": 0.5, "joint": 0.25})
            for state, when in ((after, "a batch"), (ended, "an epoch")):
                assert _form(state) == start, (
                    f"the state is {_form(state)} after {when} {moment}; it started as {start}"
                )


def checkpoint_restores_the_schedule(schedule: Schedule) -> None:
    """Check that a copy of the schedule continues identically from a saved state."""
    if not isinstance(schedule, AdaptiveSchedule):
        return
    copied = copy.deepcopy(schedule)
    for epochs, steps_per_epoch in LENGTHS:
        moments = list(training(schedule, epochs, steps_per_epoch))
        middle = len(moments) // 2
        saved = safetensors.torch.save(
            {name: tensor.clone().contiguous() for name, tensor in moments[middle].state.items()}
        )
        loaded = safetensors.torch.load(saved)
        resumed = _onwards(copied, loaded, middle, epochs, steps_per_epoch)
        for moment, after in zip(moments[middle:], resumed, strict=True):
            assert _equal(moment.strength, after.strength), f"a different strength {moment}"
            assert _same_state(moment.state, after.state), f"a different state {moment}"


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
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(SCHEDULE_CLAUSES, schedule)
