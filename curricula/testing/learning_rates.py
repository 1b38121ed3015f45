"""The contract of a learning-rate schedule: one function for each clause, which raises
AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", LR_SCHEDULE_CLAUSES)
    def test_poly_keeps_the_contract(clause):
        clause(poly(power=2))
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch

from curricula.interfaces import Progress
from curricula.testing.contract import broken_clauses
from curricula.testing.schedules import LENGTHS, updates
from curricula.training.learning_rate import LearningRate


def _moments() -> Iterator[Progress]:
    for length in LENGTHS:
        yield from updates(*length)


def multiple_is_finite(schedule: LearningRate) -> None:
    """Check that the multiple of `lr` is a finite number, 0 or more, at every update, and not
    always 0."""
    found = []
    for progress in _moments():
        multiple = schedule(progress)
        where = f"at step {progress.step} of {progress.total_steps}"
        assert isinstance(multiple, (float, int)), f"a {type(multiple).__name__} {where}"
        assert 0 <= multiple < math.inf, f"a multiple of {multiple:g} {where}"
        found.append(multiple)
    assert any(found), "the learning rate is 0 throughout"


def progress_determines_the_multiple(schedule: LearningRate) -> None:
    """Check that the multiple depends on the progress alone, in any order of calls, and that the
    global random state is not used."""
    moments = list(_moments())
    found = [schedule(progress) for progress in moments]
    for progress, multiple in reversed([*zip(moments, found, strict=True)]):
        before = torch.get_rng_state()
        again = schedule(progress)
        assert torch.equal(before, torch.get_rng_state()), "the global random state changed"
        assert again == multiple, (
            f"{again:g} in a second call at step {progress.step} of {progress.total_steps}, after "
            f"{multiple:g}"
        )


LR_SCHEDULE_CLAUSES: tuple[Callable[[LearningRate], None], ...] = (
    multiple_is_finite,
    progress_determines_the_multiple,
)


def check_lr_schedule(schedule: LearningRate) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(LR_SCHEDULE_CLAUSES, schedule)
