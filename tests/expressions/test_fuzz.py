"""A small share of `tests/tools/fuzz_expressions.py`, whose whole campaign takes minutes."""

import pytest
from tools import fuzz_expressions
from tools.fuzz_expressions import fuzz

from curricula.expressions import syntax


@pytest.mark.parametrize("seed", [0, 1])
def test_random_texts_are_expressions_or_one_clear_line(seed):
    result = fuzz(400, seed=seed)
    assert result.counts.total() == 400
    assert result.accepted.total() > 40
    assert set(result.counts) == set(fuzz_expressions.CHECKS)
    assert not result.failures, str(result)


@pytest.mark.parametrize("only", fuzz_expressions.CHECKS)
def test_an_input_is_made_from_its_number_alone(only):
    texts = [fuzz_expressions.made(3, number, only)[1] for number in range(20)]
    assert texts == [fuzz_expressions.made(3, number, only)[1] for number in range(20)]
    assert len(set(texts)) > 15


def test_a_fault_is_found(monkeypatch):
    def fragile(self):
        if self.numerator < 0:
            raise IndexError("negative")
        return repr(self.numerator)

    monkeypatch.setattr(syntax.Number, "__str__", fragile)
    result = fuzz(300, only="schedule")
    assert any(failure.reason.startswith("IndexError") for failure in result.failures)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ValueError("foreign"), "ValueError: foreign"),
        (RecursionError("deep"), "RecursionError: deep"),
        (AssertionError("prints something else"), "AssertionError: prints"),
        (syntax.ExpressionError("long " * 1000), None),
        (None, None),
    ],
)
def test_only_a_user_error_of_one_line_is_an_answer(answer, reason):
    def check(text):
        if answer is not None:
            raise answer

    problem = fuzz_expressions.problem_of(check, "rot")
    assert (problem or "").startswith(reason or "")
    assert bool(problem) == (reason is not None)


def test_a_slow_input_is_a_failure(monkeypatch):
    monkeypatch.setattr(fuzz_expressions, "MAX_SECONDS", -1.0)
    (failure,) = fuzz(1).failures
    assert "took" in failure.reason
