"""The contract of an objective: one function for each clause, which raises AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", OBJECTIVE_CLAUSES)
    def test_smooth_keeps_the_contract(clause):
        clause(Smooth(share=0.2))
"""

import math
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor

from curricula.interfaces import Objective, TrainingLoss, Views
from curricula.losses import ATTACK_LOSSES
from curricula.testing.contract import broken_clauses
from curricula.testing.fixtures import Fixture, assert_unchanged, make_fixture, state_of

TOLERANCE = 1e-5  # difference of a logit


def _fixture(*, training: bool) -> Fixture:
    fixture = make_fixture(6, 3, 12, 12)
    fixture.model.train(training)
    for parameter in fixture.model.parameters():
        parameter.grad = None
    return fixture


def _views(x_NCHW: Tensor) -> Views:
    """Return a clean, a transformed and a perturbed view that differ, all of the same images."""
    return Views(clean=x_NCHW, transformed=x_NCHW.flip(3), perturbed=x_NCHW * 0.75)


def _loss(objective: Objective, fixture: Fixture, views: Views) -> TrainingLoss:
    with torch.random.fork_rng([]):  # dropout uses it
        loss = objective(fixture.model, views, fixture.y_N)
    assert isinstance(loss, TrainingLoss), f"a {type(loss).__name__}, not a TrainingLoss"
    return loss


def attack_loss_is_known(objective: Objective) -> None:
    """Check that `attack_loss` is a loss that attacks can ascend: a known name, or a function that
    returns a loss for each image."""
    loss = getattr(objective, "attack_loss", None)
    if not callable(loss):
        known = ", ".join(ATTACK_LOSSES)
        assert loss in ATTACK_LOSSES, f"attack_loss is {loss!r}; known: {known}, or a function"
        return
    fixture = _fixture(training=False)
    reference, logits = (fixture.model(x).detach() for x in (fixture.x_NCHW, fixture.x_NCHW / 2))
    loss_N = loss(logits.requires_grad_(), fixture.y_N, lambda: reference)
    shape = tuple(loss_N.shape)
    assert shape == (len(logits),), f"attack_loss returns a shape of {shape}, not ({len(logits)},)"
    (gradient,) = torch.autograd.grad(loss_N.sum(), logits)
    assert gradient.isfinite().all(), "the gradient of attack_loss is not finite"
    assert gradient.any(), "the gradient of attack_loss is zero"


def value_is_a_finite_scalar(objective: Objective) -> None:
    """Check that the value is a finite scalar, attached to the weights, also for equal views."""
    for training in (True, False):
        fixture = _fixture(training=training)
        x = fixture.x_NCHW
        same = Views(clean=x, transformed=x, perturbed=x)
        for views, which in ((_views(x), "different"), (same, "equal")):
            value = _loss(objective, fixture, views).value
            assert isinstance(value, Tensor), f"the value is a {type(value).__name__}"
            assert value.ndim == 0, f"the value has shape {tuple(value.shape)}, not ()"
            number = float(value.detach())
            assert math.isfinite(number), f"the value is {number} if the views are {which}"
            assert value.requires_grad, "the value is not attached to the weights"


def logits_match_the_perturbed_view(objective: Objective) -> None:
    """Check that logits are detached, (N, K), and in eval mode equal the model's logits on the
    perturbed view."""
    fixture = _fixture(training=False)
    views = _views(fixture.x_NCHW)
    logits = _loss(objective, fixture, views).logits
    expected = fixture.model(views.perturbed).detach()
    assert logits.shape == expected.shape, f"logits of shape {tuple(logits.shape)}"
    assert not logits.requires_grad, "the logits are not detached"
    difference = float((logits - expected).abs().max())
    assert difference <= TOLERANCE, f"the logits differ by {difference:.2e} from the model's"


def gradients_reach_the_weights(objective: Objective) -> None:
    """Check that every weight gets a finite gradient, also if all views are equal, and that some
    are not zero."""
    for training in (True, False):
        fixture = _fixture(training=training)
        x = fixture.x_NCHW
        for views in (_views(x), Views(clean=x, transformed=x, perturbed=x)):
            _loss(objective, fixture, views).value.backward()  # type: ignore[no-untyped-call]
            moved = False
            for name, parameter in fixture.model.named_parameters():
                gradient = parameter.grad
                assert gradient is not None, f"no gradient reaches {name}"
                assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
                moved = moved or bool(gradient.any())
            assert moved, "every gradient is zero"


def views_are_not_changed(objective: Objective) -> None:
    """Check that views and labels are not written to and get no gradient."""
    fixture = _fixture(training=True)
    views = _views(fixture.x_NCHW)
    before, labels = views.map(torch.clone), fixture.y_N.clone()
    _loss(objective, fixture, views).value.backward()  # type: ignore[no-untyped-call]
    for name in ("clean", "transformed", "perturbed"):
        view = getattr(views, name)
        assert torch.equal(view, getattr(before, name)), f"the {name} view was written to"
        assert not view.requires_grad, f"the {name} view now requires a gradient"
        assert view.grad is None, f"a gradient was left on the {name} view"
    assert torch.equal(fixture.y_N, labels), "the labels were written to"


def value_depends_on_the_perturbed_view(objective: Objective) -> None:
    """Check that the value depends on the perturbed view; without it, training ignores attacks."""
    fixture = _fixture(training=False)
    views = _views(fixture.x_NCHW)
    other = attrs.evolve(views, perturbed=1 - fixture.x_NCHW)
    values = [_loss(objective, fixture, v).value.detach() for v in (views, other)]
    assert not torch.equal(*values), "the value is the same for a different perturbed view"


def model_is_not_changed(objective: Objective) -> None:
    """Check that weights, gradients, flags and, in eval mode, buffers do not change."""
    fixture = _fixture(training=False)
    fixture.model[0].train()  # type: ignore[index]  # not all in one mode
    before = state_of(fixture.model)
    _loss(objective, fixture, _views(fixture.x_NCHW))
    assert_unchanged(fixture.model, before)


OBJECTIVE_CLAUSES: tuple[Callable[[Objective], None], ...] = (
    attack_loss_is_known,
    value_is_a_finite_scalar,
    logits_match_the_perturbed_view,
    gradients_reach_the_weights,
    views_are_not_changed,
    value_depends_on_the_perturbed_view,
    model_is_not_changed,
)


def check_objective(objective: Objective) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(OBJECTIVE_CLAUSES, objective)
