"""The contract of an optimiser holds for the built-in ones and torch's, and each clause can be
broken."""

import pytest
import torch

from curricula.plugins import registry
from curricula.testing import OPTIMIZER_CLAUSES, check_optimizer
from curricula.training.optimizers import SGD


@pytest.mark.parametrize("clause", OPTIMIZER_CLAUSES)
@pytest.mark.parametrize("name", registry.build_registry(entry_points=False).records("optimizer"))
def test_a_built_in_optimizer_keeps_the_contract(clause, name):
    clause(registry.build_registry(entry_points=False).find("optimizer", name).load())


def test_arguments_and_optimisers_of_torch_keep_the_contract():
    sgd = registry.current().find("optimizer", "sgd").load()
    assert check_optimizer(sgd, nesterov=True) == {}
    for cls in (torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam, torch.optim.Adafactor):
        assert check_optimizer(cls) == {}, cls


class Rate(SGD):
    """The optimiser that the broken ones below derive from."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)


class NoRate(SGD):
    def __init__(self, params, weight_decay=0.0):
        super().__init__(params, lr=0.01)


class OneRate(SGD):
    def __init__(self, params, lr):
        parameters = [each for group in params for each in group["params"]]
        super().__init__(parameters, lr=lr)


class Ascent(SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr, maximize=True)


class Deaf(Rate):
    def step(self):
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.data -= 0.01 * each.grad


class Greedy(Rate):
    def step(self):
        for group in self.param_groups:
            for each in group["params"]:
                each.data *= 1 - group["lr"]


class Counting(SGD):
    """Keeps a number, `kind` says where, that the rate depends on."""

    kind = "attribute"

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.count = 0

    def step(self):
        self.count += 1
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.data -= group["lr"] * each.grad / self.count


class InGroup(Rate):
    def step(self):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for each in group["params"]:
                if each.grad is not None:
                    each.data -= group["lr"] * each.grad / group["count"]


class InState(Rate):
    def step(self):
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    state = self.state[each]
                    state["count"] = state.get("count", 0) + 1
                    each.data -= group["lr"] * each.grad / state["count"]


BROKEN = [
    (NoRate, "groups_keep_their_rates", "no parameter lr"),
    (OneRate, "groups_keep_their_rates", "lr and base_lr of the groups are"),
    (Ascent, "updates_lower_the_loss", "the loss rose from"),
    (Deaf, "updates_follow_the_learning_rate", "moves at a learning rate of 0"),
    (Greedy, "parameters_without_gradient_stay", "without gradient changed"),
    (Counting, "state_is_tensors_of_parameters", "its updates change count, which"),
    (Counting, "checkpoint_restores_the_optimizer", "takes other updates"),
    (InGroup, "state_is_tensors_of_parameters", r"change param_groups\[0\]\['count'\], which"),
    (InState, "state_is_tensors_of_parameters", "its state count is 2, not a tensor"),
    (lambda params, lr: None, "updates_lower_the_loss", "not a torch.optim.Optimizer"),
    (torch.optim.LBFGS, "state_is_tensors_of_parameters", "."),
]


@pytest.mark.parametrize(("factory", "clause", "message"), BROKEN)
def test_a_broken_clause_is_named(factory, clause, message):
    (found,) = [each for each in OPTIMIZER_CLAUSES if each.__name__ == clause]
    with pytest.raises((AssertionError, ValueError), match=message):
        found(factory)
    assert clause in check_optimizer(factory)


def test_every_clause_has_a_broken_optimizer():
    assert {clause for _, clause, _ in BROKEN} == {each.__name__ for each in OPTIMIZER_CLAUSES}
