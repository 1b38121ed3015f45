"""Every registered objective keeps the contract, and each clause can be broken."""

from types import SimpleNamespace

import attrs
import pytest
import torch
import torch.nn.functional as F

from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import TrainingLoss
from curricula.plugins import registry
from curricula.testing import OBJECTIVE_CLAUSES, check_objective
from curricula.testing import objectives as clauses

VARIANTS = ["trades(beta=1)"]


@pytest.mark.parametrize("text", [*registry.build_registry().records("objective"), *VARIANTS])
@pytest.mark.parametrize("clause", OBJECTIVE_CLAUSES)
def test_the_contract_is_kept(text, clause):
    clause(factories.build("objective", parse_call(text)).value)


@attrs.frozen(kw_only=True)
class Broken:
    """Half clean and half perturbed cross-entropy, correct except for what ``how`` says."""

    how: str

    @property
    def attack_loss(self):
        if self.how == "declares no attack loss":
            raise AttributeError("attack_loss")
        match self.how:
            case "gives one attack loss for the batch":
                return lambda logits, y, reference: F.cross_entropy(logits, y)
            case "gives an attack loss without a gradient":
                return lambda logits, y, reference: 0 * logits.sum(1)
        return "crossentropy" if self.how == "misspells its attack loss" else "ce"

    def __call__(self, model, views, y):
        match self.how:
            case "writes to a view":
                views.transformed.clamp_(0.1, 0.9)
            case "writes to the labels":
                y.fill_(0)
            case "requires a gradient of a view":
                views.perturbed.requires_grad_()
            case "sets the mode":
                model.train()
            case "freezes a weight":
                model[1].weight.requires_grad_(False)
            case "descends by itself":
                with torch.no_grad():
                    model[1].weight.mul_(0.9)
            case "leaves gradients":
                F.cross_entropy(model(views.clean), y).backward()
            case "changes the statistics":
                model.train()(views.clean)
                model.eval()[0].train()
        perturbed, clean = model(views.perturbed), model(views.clean)
        value = (F.cross_entropy(perturbed, y) + F.cross_entropy(clean, y)) / 2
        logits = perturbed.detach()
        match self.how:
            case "returns a tuple":
                return value, logits
            case "looks like a loss":
                return SimpleNamespace(value=value, logits=logits)
            case "returns a loss for each image":
                value = F.cross_entropy(perturbed, y, reduction="none")
            case "is detached":
                value = value.detach()
            case "is a number":
                value = value.item()
            case "divides by the change":
                value = value / (views.perturbed - views.clean).norm()
            case "takes the root of the change of the logits":
                value = value + (perturbed - clean).pow(2).sum(1).sqrt().mean()
            case "returns the clean logits":
                logits = clean.detach()
            case "returns attached logits":
                logits = perturbed
            case "returns labels":
                logits = logits.argmax(1)
            case "trains only the last layer":
                value = F.cross_entropy(model[-1](model[:-1](views.perturbed).detach()), y)
            case "is flat":
                value = value * 0
            case "forgets the perturbed view":
                value = F.cross_entropy(clean, y)
        return TrainingLoss(value=value, logits=logits)


BROKEN = {
    "declares no attack loss": clauses.attack_loss_is_known,
    "misspells its attack loss": clauses.attack_loss_is_known,
    "gives one attack loss for the batch": clauses.attack_loss_is_known,
    "gives an attack loss without a gradient": clauses.attack_loss_is_known,
    "returns a tuple": clauses.value_is_a_finite_scalar,
    "looks like a loss": clauses.value_is_a_finite_scalar,
    "returns a loss for each image": clauses.value_is_a_finite_scalar,
    "is detached": clauses.value_is_a_finite_scalar,
    "is a number": clauses.value_is_a_finite_scalar,
    "divides by the change": clauses.value_is_a_finite_scalar,
    "returns the clean logits": clauses.logits_match_the_perturbed_view,
    "returns attached logits": clauses.logits_match_the_perturbed_view,
    "returns labels": clauses.logits_match_the_perturbed_view,
    "trains only the last layer": clauses.gradients_reach_the_weights,
    "is flat": clauses.gradients_reach_the_weights,
    "takes the root of the change of the logits": clauses.gradients_reach_the_weights,
    "writes to a view": clauses.views_are_not_changed,
    "writes to the labels": clauses.views_are_not_changed,
    "requires a gradient of a view": clauses.views_are_not_changed,
    "forgets the perturbed view": clauses.value_depends_on_the_perturbed_view,
    "sets the mode": clauses.model_is_not_changed,
    "freezes a weight": clauses.model_is_not_changed,
    "descends by itself": clauses.model_is_not_changed,
    "leaves gradients": clauses.model_is_not_changed,
    "changes the statistics": clauses.model_is_not_changed,
}


def test_the_example_is_right_except_for_the_broken_part():
    assert check_objective(Broken(how="not at all")) == {}


@pytest.mark.parametrize("how", BROKEN)
def test_each_clause_catches_its_fault(how):
    with pytest.raises(AssertionError):
        BROKEN[how](Broken(how=how))


def test_every_clause_has_a_broken_example():
    assert set(BROKEN.values()) == set(OBJECTIVE_CLAUSES)
