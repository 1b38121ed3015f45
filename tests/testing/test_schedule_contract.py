"""Every registered schedule keeps the contract, and each clause can be broken."""

from pathlib import Path

import attrs
import pytest
import torch

from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.testing import SCHEDULE_CLAUSES, check_schedule
from curricula.testing import schedules as clauses

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.py"
VARIANTS = ["step(0:2/3, 0.62:5/6, 0.74:1)", "linear(start=1)", "constant(0)", "root(power=100)"]


@pytest.mark.parametrize("text", [*registry.build_registry().records("schedule"), *VARIANTS])
@pytest.mark.parametrize("clause", SCHEDULE_CLAUSES)
def test_every_schedule_keeps_the_contract(text, clause):
    clause(factories.build("schedule", parse_call(text)).value)


@attrs.define(kw_only=True)
class Broken:
    """Rise during training, correctly except for the fault ``how``."""

    how: str
    calls: int = 0

    def __call__(self, progress, state):
        self.calls += 1
        fraction = progress.fraction
        match self.how:
            case "exceeds 1 at the end":
                return (progress.step + 1) / progress.total_steps * 1.1
            case "begins below 0":
                return fraction - 0.01
            case "is not a number":
                return float("nan") if fraction == 0 else fraction
            case "divides by the steps minus one":
                return progress.step / (progress.total_steps - 1)
            case "is a tensor without dimensions":
                return torch.tensor(fraction)
            case "has a value for each image of a batch":
                return torch.full((6,), fraction)
            case "is text":
                return "full"
            case "counts its calls":
                return min(1.0, self.calls / 1e6)
            case "draws from the global random state":
                return float(torch.rand(()))
            case "moves the global random state":
                torch.rand(1)
        return fraction


@attrs.define(kw_only=True)
class Adaptive:
    """Give each image its own strength, correctly except for the fault ``how``."""

    how: str
    batches: int = 0

    def start(self, num_train):
        state = {"strength": torch.zeros(num_train), "level": torch.zeros(())}
        return [("strength", 0.0)] if self.how == "starts with a list" else state

    def __call__(self, progress, state):
        if self.how == "writes to the state when called":
            state["level"].add_(0.01)
        if self.how == "keeps state outside the state":
            return state["strength"] * 0 + min(1.0, self.batches / 1e3)
        return torch.maximum(state["strength"], state["level"])

    def after_batch(self, state, feedback):
        self.batches += 1
        if self.how == "writes to the feedback":
            feedback.strength.add_(0.1)
        if self.how == "updates the state in place":
            state["strength"][feedback.indices] = feedback.strength
            return state
        moved = state["strength"].clone()
        moved[feedback.indices] = (feedback.strength + 0.1 * feedback.correct).clamp(max=1)
        match self.how:
            case "grows above 1":
                moved = moved + 0.5
            case "becomes double":
                moved = moved.double()
            case "drops the images outside the batch":
                moved = moved[feedback.indices]
            case "holds a number":
                return {**state, "strength": moved, "level": 0.0}
            case "moves at random":
                moved = torch.rand_like(moved)
        return {**state, "strength": moved}

    def after_epoch(self, state, validation):
        if self.how == "drops a name after an epoch":
            return {"strength": state["strength"]}
        level = torch.tensor(validation["joint"], dtype=torch.float32)
        return {**state, "level": level}


BROKEN = {
    "exceeds 1 at the end": clauses.strength_is_in_0_to_1,
    "begins below 0": clauses.strength_is_in_0_to_1,
    "is not a number": clauses.strength_is_in_0_to_1,
    "divides by the steps minus one": clauses.strength_is_in_0_to_1,
    "is a tensor without dimensions": clauses.strength_is_in_0_to_1,
    "has a value for each image of a batch": clauses.strength_is_in_0_to_1,
    "is text": clauses.strength_is_in_0_to_1,
    "counts its calls": clauses.arguments_determine_the_strength,
    "draws from the global random state": clauses.arguments_determine_the_strength,
    "moves the global random state": clauses.arguments_determine_the_strength,
}
BROKEN_ADAPTIVE = {
    "grows above 1": clauses.strength_is_in_0_to_1,
    "moves at random": clauses.arguments_determine_the_strength,
    "writes to the state when called": clauses.state_is_not_changed,
    "updates the state in place": clauses.state_is_not_changed,
    "writes to the feedback": clauses.state_is_not_changed,
    "starts with a list": clauses.state_keeps_its_form,
    "becomes double": clauses.state_keeps_its_form,
    "drops the images outside the batch": clauses.state_keeps_its_form,
    "holds a number": clauses.state_keeps_its_form,
    "drops a name after an epoch": clauses.state_keeps_its_form,
    "keeps state outside the state": clauses.checkpoint_restores_the_schedule,
}


def test_the_examples_without_a_fault_pass():
    assert check_schedule(Broken(how="not at all")) == {}
    assert check_schedule(Adaptive(how="not at all")) == {}


def test_a_correct_adaptive_schedule_passes():
    registry.use(registry.build_registry([TINY]))
    assert check_schedule(factories.build("schedule", parse_call("earned")).value) == {}


@pytest.mark.parametrize("how", BROKEN)
def test_each_clause_catches_its_fault(how):
    with pytest.raises((AssertionError, ArithmeticError)):
        BROKEN[how](Broken(how=how))
    assert BROKEN[how].__name__ in check_schedule(Broken(how=how))


@pytest.mark.parametrize("how", BROKEN_ADAPTIVE)
def test_each_clause_catches_its_fault_in_an_adaptive_schedule(how):
    with pytest.raises(AssertionError):
        BROKEN_ADAPTIVE[how](Adaptive(how=how))


def test_every_clause_has_a_broken_example():
    caught = {*BROKEN.values(), *BROKEN_ADAPTIVE.values()}
    assert caught == set(SCHEDULE_CLAUSES)
