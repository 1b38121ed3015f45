"""pgd's number of steps is proportional to the strength, or ends at misclassification."""

import pytest
import torch
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks.pgd import PGD, ascend
from curricula.victim.model_victim import ModelVictim

X = torch.rand((6, 2, 5, 4), generator=torch.Generator().manual_seed(3))
Y = torch.arange(6) % 3


class Counting:
    """A victim that counts the images of each gradient, and the calls for logits."""

    def __init__(self, victim):
        self.victim, self.gradients, self.logit_calls = victim, [], 0

    def gradient(self, x, y, loss=None):
        self.gradients.append(len(x))
        return self.victim.gradient(x, y, loss)

    def logits(self, x):
        self.logit_calls += 1
        return self.victim.logits(x)

    def subset(self, index):
        part = Counting(self.victim.subset(index))
        part.gradients = self.gradients
        return part


@pytest.fixture
def victim():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 3))
    return ModelVictim(model)


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("pgd(8/255, step=2/255, steps=auto)", [0, 3, 5, 10]),
        ("pgd(0.3, step=0.075, steps=auto)", [0, 3, 5, 10]),
        ("pgd(0.3, steps=auto)", [0, 3, 5, 10]),
        ("pgd(0.1, step=0.03, steps=auto)", [0, 3, 5, 9]),
        ("pgd(0.1, step=1, steps=auto)", [0, 1, 1, 1]),
        ("pgd(0, steps=auto)", [0, 0, 0, 0]),
        ("pgd(0.1, steps=7)", [7, 7, 7, 7]),
    ],
)
def test_steps_follow_the_strength(written, steps):
    attack = Curriculum.parse(written).tree.leaves["pgd"].perturbation
    strengths = [0.0, 0.25, 0.5, 1.0]
    assert [attack.steps_at(s) for s in strengths] == steps
    each = torch.as_tensor(attack.steps_at(torch.tensor(strengths))).expand(4)
    assert each.tolist() == steps


def test_a_strength_takes_equally_many_steps_as_a_float_and_in_a_tensor():
    attack = PGD(budget=0.1, steps="auto")
    tenths = [i / 10 for i in range(11)]
    assert [attack.steps_at(s) for s in tenths] == list(range(11))
    assert attack.steps_at(torch.tensor(tenths)).tolist() == list(range(11))
    for full in (30, 77, 100, 1000):
        attack = PGD(budget=0.1, steps="auto", step=0.25 / full)
        shares = [i / full for i in range(full + 1)]
        assert [attack.steps_at(s) for s in shares] == list(range(full + 1))
        assert attack.steps_at(torch.tensor(shares)).tolist() == list(range(full + 1))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("tau", [None, 0, 1])
def test_a_batch_of_strengths_equals_each_image_alone(victim, norm, tau, generator):
    budget = {"linf": 0.2, "l2": 1.5, "l1": 5.0}[norm]
    arguments = {"budget": budget, "norm": norm, "random_start": False, "tau": tau}
    strength = torch.tensor([0.5, 0.0, 1.0, 0.25, 0.9, 0.31])
    attack = PGD(steps="auto", **arguments)
    counting = Counting(victim)
    together = attack(X, Y, strength=strength, victim=counting, generator=generator)
    steps, by_itself = [5, 0, 10, 3, 9, 4], Counting(victim)
    for i, count in enumerate(steps):
        alone = PGD(steps=count, step=budget / 4, **arguments)(
            X[i : i + 1], Y[i : i + 1], strength=float(strength[i]), victim=by_itself,
            generator=generator,
        )  # fmt: skip
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    # An image that has taken its steps costs nothing more.
    assert sum(counting.gradients) == sum(by_itself.gradients)
    assert tau is not None or sum(counting.gradients) == sum(steps)
    assert counting.gradients == sorted(counting.gradients, reverse=True)
    assert counting.logit_calls == 0


def test_images_keep_their_own_reference_when_they_are_sorted(victim):
    """KL compares each image with its own reference logits."""
    start = (X + 0.05).clamp(0, 1)
    run = {"loss": ATTACK_LOSSES["kl"], "norm": "linf"}
    eps = torch.full((6, 1, 1, 1), 0.1)
    steps = torch.tensor([1, 4, 2, 0, 3, 4])
    together = ascend(
        X, Y, start, eps, victim=victim.with_reference(X), step_N111=eps / 4, steps=steps, **run
    )
    for i in range(6):
        one = slice(i, i + 1)
        alone = ascend(
            X[one], Y[one], start[one], eps[one], victim=victim.with_reference(X[one]),
            step_N111=eps[one] / 4, steps=int(steps[i]), **run,
        )  # fmt: skip
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=0)


def test_friendly_steps_stop_at_the_closed_form(generator):
    """On a linear model a step of length a lowers the margin by 2 a |w|_1."""
    torch.manual_seed(0)
    layer = nn.Linear(40, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
    w = layer.weight[0].detach()
    victim = Counting(ModelVictim(nn.Sequential(nn.Flatten(), layer)))
    # Images far from 0 and 1, at margins that make 1, 3, 2 and 5 steps misclassify them.
    a, away = 0.01, torch.tensor([0.5, 2.5, 1.5, 4.5])
    flat = torch.full((4, 40), 0.5)
    y = torch.tensor([0, 1, 0, 1])
    side = torch.where(y == 0, 1.0, -1.0)[:, None]
    flat = flat - (flat @ w)[:, None] * w / (w @ w)
    flat = flat + side * (away * a * w.abs().sum())[:, None] * w / (w @ w)
    x = flat.reshape(4, 2, 5, 4)
    assert flat.min() > 0.2
    assert flat.max() < 0.8
    for tau in (0, 1, 3):
        attack = PGD(budget=0.08, step=a, steps=8, random_start=False, tau=tau)
        found = attack(x, y, strength=1.0, victim=victim, generator=generator)
        taken = (found - x).abs().amax(dim=(1, 2, 3)) / a
        expected = (away.ceil() + tau).clamp(max=8)
        torch.testing.assert_close(taken, expected, atol=1e-3, rtol=0)
        # One more gradient finds that an image is finished; none is spent on it afterwards.
        assert sum(victim.gradients) == (expected + 1).clamp(max=8).sum()
        victim.gradients.clear()
    assert victim.logit_calls == 0  # no further forward passes


def test_a_misclassified_image_is_unchanged_at_tau_0(victim, generator):
    wrong = victim.logits(X).argmax(1) != Y
    assert wrong.any()
    assert not wrong.all()
    attack = PGD(budget=0.1, random_start=False, tau=0)
    found = attack(X, Y, strength=1.0, victim=victim, generator=generator)
    assert torch.equal((found == X).flatten(1).all(1), wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("steps=auto, rel_step=0.1", "steps=auto counts steps of one length; give step, not rel"),
        ("steps=auto, step=none", "give one of them"),
        ("steps=many", "steps must be a whole number or auto, not many"),
        ("steps=-1", "steps must be 0 or more"),
        ("steps=0", "steps must be 1 or more, not 0; leave pgd out instead"),
        ("restarts=0", "restarts must be 1 or more, not 0"),
        ("steps=2.5", "steps must be a whole number or auto, not 2.5"),
        ("tau=1, restarts=2", "tau stops early and restarts search on"),
        ("tau=-1", "tau must be 0 or more"),
        ("steps=auto, step=0", "step must be above 0"),
    ],
)
def test_contradictory_arguments_are_an_error_of_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        Threat.parse(f"pgd(0.1, {arguments})")
    assert "\n" not in str(caught.value)


def test_the_stored_expression_of_auto_is_explicit():
    explicit = str(Threat.parse("pgd(8/255, steps=auto)"))
    assert explicit.startswith("pgd(8/255, norm=linf, steps=auto, step=2/255")
    assert str(Threat.parse(explicit)) == explicit
    # It overrides a data set's number of steps.
    curriculum = Curriculum.parse("pgd(0.1, steps=auto)", defaults={"steps": "5"})
    assert curriculum.tree.leaves["pgd"].perturbation.steps_at(1.0) == 10


def test_an_unknown_word_for_steps_is_an_error():
    with pytest.raises(ValueError, match="a whole number or auto, not 'atuo'"):
        PGD(budget=0.1, steps="atuo")
