"""The contract of a learning-rate schedule holds for the built-in ones, and each clause can be
broken."""

import itertools

import pytest
import torch

from curricula.testing import LR_SCHEDULE_CLAUSES, check_lr_schedule
from curricula.training.learning_rate import parse_learning_rate

TEXTS = ["constant", "constant(0.5, warmup=0.1)", "step(0:1, 0.5:0.1, warmup=0.3)", "cosine",
         "cosine(warmup=0.2, cycles=3, mult=2)", "one-cycle"]  # fmt: skip


@pytest.mark.parametrize("clause", LR_SCHEDULE_CLAUSES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_built_in_schedule_keeps_the_contract(clause, text):
    clause(parse_learning_rate(text).value)


calls = itertools.count()
BROKEN = [
    (lambda progress: -0.5, "multiple_is_finite", "a multiple of -0.5 at step 0 of 1"),
    (lambda progress: float("inf"), "multiple_is_finite", "a multiple of inf"),
    (lambda progress: float("nan"), "multiple_is_finite", "a multiple of nan"),
    (lambda progress: torch.ones(()), "multiple_is_finite", "a Tensor at step 0"),
    (lambda progress: 0.0, "multiple_is_finite", "0 throughout"),
    (lambda progress: 1 / (1 + next(calls)), "progress_determines_the_multiple", "a second call"),
    (lambda progress: float(torch.rand(())), "progress_determines_the_multiple", "random state"),
]


@pytest.mark.parametrize(("schedule", "clause", "message"), BROKEN)
def test_a_broken_clause_is_named(schedule, clause, message):
    (found,) = [each for each in LR_SCHEDULE_CLAUSES if each.__name__ == clause]
    with torch.random.fork_rng([]):
        with pytest.raises(AssertionError, match=message):
            found(schedule)
        assert clause in check_lr_schedule(schedule)
