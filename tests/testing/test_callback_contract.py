"""The contract of a callback holds for the built-in one, and each clause can be broken."""

import random

import numpy as np
import pytest
import torch

from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.plugins import registry
from curricula.testing import CALLBACK_CLAUSES, check_callback
from curricula.training import NoCallback


def built(text):
    return factories.build("callback", parse_call(text)).value


@pytest.mark.parametrize("clause", CALLBACK_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", registry.build_registry(entry_points=False).records("callback"))
def test_a_built_in_callback_keeps_the_contract(clause, name):
    clause(built(name))


@pytest.mark.parametrize("clause", CALLBACK_CLAUSES, ids=lambda clause: clause.__name__)
def test_no_callback_keeps_the_contract(clause):
    clause(NoCallback())


class Lacking:
    def on_message(self, line):
        pass


class Drawing(NoCallback):
    def __init__(self, draw):
        self.draw = draw

    def on_step_end(self, update):
        self.draw()


class Writing(NoCallback):
    """Write to the images of an update."""

    def on_step_end(self, update):
        update.parts[0].clean.zero_()


class WritingToCopies(NoCallback):
    def on_step_end(self, update):
        update.views(2).map(torch.Tensor.zero_)
        update.views(4).map(torch.Tensor.zero_)


class Metrics(NoCallback):
    def on_train_start(self, run, plan, steps):
        self.run = run

    def on_epoch_end(self, metrics):
        with (self.run.path / "metrics.jsonl").open("a") as file:
            file.write(" ")


class Once(NoCallback):
    """Follow one training only."""

    used = False

    def on_train_start(self, run, plan, steps):
        assert not self.used, "used twice"
        self.used = True


class Resumed(NoCallback):
    def on_resume(self, step):
        raise NotImplementedError


class Old(NoCallback):
    """An event of an earlier version."""

    def on_step_end(self, progress, loss, strengths):
        pass


BROKEN = [
    (Lacking(), "every_event_is_a_method", "no method on_train_start, on_resume"),
    (NoCallback, "every_event_is_a_method", "a class; give an object"),
    (Drawing(random.random), "training_is_not_changed", "a global random state changed"),
    (Drawing(np.random.rand), "training_is_not_changed", "a global random state changed"),
    (Drawing(lambda: torch.rand(1)), "training_is_not_changed", "a global random state changed"),
    (Writing(), "training_is_not_changed", "a tensor of the update was written to"),
    (Metrics(), "training_is_not_changed", "metrics.jsonl changed"),
    (Once(), "several_trainings_are_followed", "used twice"),
    (Resumed(), "interrupted_training_is_continued", "failed in on_resume (NotImplementedError"),
    (Old(), "training_is_not_changed", "failed in on_step_end (TypeError"),
]


@pytest.mark.parametrize(("callback", "clause", "message"), BROKEN)
def test_a_broken_clause_is_named(callback, clause, message):
    (found,) = [each for each in CALLBACK_CLAUSES if each.__name__ == clause]
    with pytest.raises(AssertionError) as caught:
        found(callback)
    assert message in str(caught.value)


def test_views_are_copies():
    (found,) = [each for each in CALLBACK_CLAUSES if each.__name__ == "training_is_not_changed"]
    found(WritingToCopies())


def test_all_clauses_at_once():
    assert check_callback(Resumed()).keys() == {"interrupted_training_is_continued"}
