"""PGD and FGSM against closed forms, against torchattacks, and within their balls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import in_order
from curricula.errors import UserError
from curricula.losses import ATTACK_LOSSES, adversarial_rank, difference_of_logits_ratio
from curricula.perturbations.attacks.norm_ball import project, steepest
from curricula.perturbations.attacks.pgd import PGD
from curricula.perturbations.attacks.restarts import worst_of
from curricula.perturbations.attacks.single_step import FGSM
from curricula.victim.model_victim import ModelVictim


def linear_victim():
    """Two classes, logits (w.x, -w.x): the worst perturbation is known."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
    return ModelVictim(nn.Sequential(nn.Flatten(), layer)), layer.weight[0].detach()


X = 0.4 + 0.2 * torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 0, 1, 0])


def test_on_a_linear_model_linf_attacks_reach_the_closed_form(generator):
    victim, w = linear_victim()
    sign = torch.where(Y == 0, -1.0, 1.0)[:, None] * w.sign()
    expected = X + 0.1 * sign.reshape(-1, 1, 4, 4)
    for attack in (FGSM(budget=0.1), PGD(budget=0.1, steps=10)):
        found = attack(X, Y, strength=1.0, victim=victim, generator=generator)
        torch.testing.assert_close(found, expected)


def test_on_a_linear_model_l2_pgd_reaches_the_closed_form(generator):
    victim, w = linear_victim()
    direction = torch.where(Y == 0, -1.0, 1.0)[:, None] * w / w.norm()
    expected = X + 0.3 * direction.reshape(-1, 1, 4, 4)
    attack = PGD(budget=0.3, norm="l2", steps=50, rel_step=0.2)
    found = attack(X, Y, strength=1.0, victim=victim, generator=generator)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_step_is_absolute_or_a_share_of_the_current_radius(generator):
    victim, w = linear_victim()
    still = {"steps": 1, "random_start": False}
    sign = (torch.where(Y == 0, -1.0, 1.0)[:, None] * w.sign()).reshape(-1, 1, 4, 4)
    absolute = PGD(budget=0.2, step=0.03, **still)
    share = PGD(budget=0.2, rel_step=0.5, **still)
    run = {"victim": victim, "generator": generator}
    torch.testing.assert_close(absolute(X, Y, strength=0.5, **run), X + 0.03 * sign)
    torch.testing.assert_close(share(X, Y, strength=0.5, **run), X + 0.05 * sign)
    # An absolute step longer than the radius is cut to the ball.
    torch.testing.assert_close(absolute(X, Y, strength=0.1, **run), X + 0.02 * sign)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["linf", "l2"]),
    st.floats(0, 3),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
    st.integers(0, 2**30),
)
def test_every_image_stays_in_its_own_ball_and_in_0_1(norm, budget, strengths, seed):
    victim, _ = linear_victim()
    x = torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    attack = PGD(budget=budget, norm=norm, steps=3)
    found = attack(
        x,
        Y,
        strength=torch.tensor(strengths),
        victim=victim,
        generator=torch.Generator().manual_seed(seed),
    )
    change = (found - x).flatten(1).double()
    length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (length <= budget * torch.tensor(strengths, dtype=torch.float64) + 2e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_projection_does_not_change_images_inside_the_ball():
    x = torch.full((2, 1, 2, 2), 0.5)
    near = x + 0.01
    eps = torch.full((2, 1, 1, 1), 0.1)
    for norm in ("linf", "l2"):
        torch.testing.assert_close(project(near, x, eps, norm), near)


def test_restarts_never_lose_a_candidate_that_fools(robust_digits):
    model, data = robust_digits
    victim = ModelVictim(model)
    batch = data.test[slice(150)]
    x = data.images(batch.pixels)
    wrong = []
    for restarts in (1, 4):
        attack = PGD(budget=0.12, steps=5, restarts=restarts)
        found = attack(
            x, batch.labels, strength=1.0, victim=victim, generator=torch.Generator().manual_seed(3)
        )
        wrong.append(victim.logits(found).argmax(1) != batch.labels)
    first, several = wrong
    # The first of the restarts is the single run: images fooled there are still fooled.
    assert (several | ~first).all()


class ShowsItsLogits:
    """A victim of ten classes, whose logits are the first three channels of a one-pixel image, the
    third repeated eight times."""

    def __init__(self, threat):
        self.threat = threat

    def logits(self, x):
        return x[:, [0, 1] + [2] * 8, 0, 0]

    def subset(self, index):
        return self

    def active(self, logits, y):
        return (logits.argmax(1) == y) | torch.tensor(not self.threat)


@pytest.mark.parametrize("threat", [False, True])
def test_the_worst_run_is_taken_image_by_image(threat):
    """Misclassified before correct, then by cross-entropy, then the first; in a threat a fooled
    image is not run again."""
    sure, fair, unsure = (5.0, 0.0, 0.0), (2.0, 0.0, 0.0), (0.01, 0.0, 0.0)
    # `close` is wrong, but its cross-entropy is far lower than that of `unsure`: 0.74 and 2.29.
    close, wrong, far = (1.0, 1.1, -9.0), (0.0, 3.0, 0.0), (0.0, 9.0, 0.0)
    runs_worst_fooled = [
        ((unsure, close, sure), 1, 1),
        ((close, unsure, unsure), 0, 0),
        ((far, close, wrong), 0, 0),
        ((close, far, wrong), 1, 0),
        ((sure, fair, unsure), 2, 9),
        ((unsure, wrong, wrong), 1, 1),
        ((fair, fair, fair), 0, 9),
    ]
    logits = torch.tensor([runs for runs, _, _ in runs_worst_fooled])  # image, run, channel
    number = torch.arange(3.0).expand(7, 3)[..., None]  # marks each run; no logit depends on it
    candidates = torch.cat((logits, number), dim=2).transpose(0, 1)[..., None, None]
    runs, y, ran = iter(candidates), torch.zeros(7, dtype=torch.long), []

    def run(index, start):
        ran.append(index.tolist())
        return start

    found = worst_of(lambda: next(runs), run, 3, y, ShowsItsLogits(threat))
    worst, fooled = torch.tensor([[worst, fooled] for _, worst, fooled in runs_worst_fooled]).T
    if threat:
        assert ran == [[i for i in range(7) if fooled[i] >= number] for number in range(3)]
        worst = torch.minimum(worst, fooled)
    else:
        assert ran == [list(range(7))] * 3
    assert torch.equal(found, candidates[worst, torch.arange(7)])
    assert next(runs, None) is None


def test_runs_end_when_all_images_are_fooled():
    fooled = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    runs = iter([fooled, fooled])
    y = torch.zeros(1, dtype=torch.long)
    worst_of(lambda: next(runs), lambda index, start: start, 2, y, ShowsItsLogits(True))
    assert next(runs, None) is not None


def test_pgd_agrees_with_torchattacks_on_a_trained_model(robust_digits):
    """Compare robust accuracy on 1,000 images at equal eps, step and steps."""
    model, data = robust_digits
    victim = ModelVictim(model)
    split = data.train[slice(1000)]
    accuracy = {}
    for name in ("pgd", "torchattacks-pgd"):
        threat = Threat.parse(f"{name}(0.1, steps=10, rel_step=0.25)")
        generator = torch.Generator().manual_seed(0)
        correct = 0
        for batch in in_order(split, 250):
            x = data.images(batch.pixels)
            found = threat(x, batch.labels, victim=victim, generator=generator)
            correct += int((victim.logits(found).argmax(1) == batch.labels).sum())
        accuracy[name] = correct / len(split)
    assert 0.2 < accuracy["pgd"] < 0.98  # a model on which attacks are partly successful
    assert abs(accuracy["pgd"] - accuracy["torchattacks-pgd"]) <= 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": -1.0}, "'budget' must be >= 0"),
        ({"budget": 0.1, "steps": -1}, "'steps' must be >= 0"),
        ({"budget": 0.1, "step": 0.1, "rel_step": 0.1}, "contradict"),
        ({"budget": 0.1, "restarts": 2, "random_start": False}, "random_start=true"),
        ({"budget": 0.1, "restarts": 0}, "'restarts' must be >= 1"),
        ({"budget": 0.1, "rel_step": 0.0}, "'rel_step' must be > 0"),
        ({"budget": 0.1, "rel_step": None}, "give one of them"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(**arguments)


def test_each_loss_is_its_formula():
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.1, 0.7, 0.3, 0.2]])
    y = torch.tensor([0, 2])
    reference = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 2.0, 0.0]])
    p, q = reference.softmax(1), logits.softmax(1)
    torch.testing.assert_close(
        ATTACK_LOSSES["kl"](logits, y, lambda: reference), (p * (p / q).log()).sum(1)
    )
    torch.testing.assert_close(
        ATTACK_LOSSES["ce"](logits, y, lambda: reference), -q.log()[[0, 1], y]
    )
    # DLR: -(z_y - max of the others) / (z_1 - z_3), by hand.
    expected = torch.tensor([-(2.0 - 1.0) / (2.0 - 0.5), -(0.3 - 0.7) / (0.7 - 0.2)])
    torch.testing.assert_close(difference_of_logits_ratio(logits, y, lambda: reference), expected)
    with pytest.raises(ValueError, match="three classes"):
        difference_of_logits_ratio(logits[:, :2], y, lambda: reference)


@pytest.mark.parametrize(("values", "label"), [([1.0, 1, 0, -1], 0), ([0.0, 1, 1, -1], 2)])
def test_dlr_distinguishes_the_label_from_a_class_of_equal_logit(values, label):
    """Its numerator is z_k - z_y with k not y, even if their logits are the same."""
    logits = torch.tensor([values], requires_grad=True)
    loss = difference_of_logits_ratio(logits, torch.tensor([label]), lambda: logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    expected = torch.zeros(4)
    expected[label] = -1
    expected[1 if label != 1 else 0] = 1
    third = logits.detach().sort(descending=True).values[0, 2]
    torch.testing.assert_close(gradient[0], expected / (logits.max().detach() - third))


def test_adversarial_rank_puts_every_misclassified_image_above_every_correct_one():
    logits = torch.tensor([[9.0, 0, 0], [0.41, 0.4, 0.4], [0.4, 0.41, 0.4], [0.0, 30, 0]])
    order = adversarial_rank(logits, torch.zeros(4, dtype=torch.long)).argsort()
    assert order.tolist() == [0, 1, 2, 3]
    broken = torch.tensor([[9.0, 0, 0], [torch.nan, 0, 0], [-torch.inf, 0, 0]])
    assert (adversarial_rank(broken, torch.zeros(3, dtype=torch.long))[1:] > 1).all()
    with_nan_first = adversarial_rank(
        torch.cat([broken[1:2], logits]), torch.zeros(5, dtype=torch.long)
    )
    assert with_nan_first.argmax() == 0


def test_a_loss_that_compares_needs_a_reference(generator):
    victim, _ = linear_victim()
    attack = PGD(budget=0.1, loss="kl")
    with pytest.raises(ValueError, match="with_reference"):
        attack(X, Y, strength=1.0, victim=victim, generator=generator)
    attack(X, Y, strength=1.0, victim=victim.with_reference(X), generator=generator)


def test_zero_steps_without_a_random_start_return_the_image(generator):
    victim, _ = linear_victim()
    attack = PGD(budget=0.1, steps=0, random_start=False)
    assert torch.equal(attack(X, Y, strength=1.0, victim=victim, generator=generator), X)


def test_an_unknown_argument_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"unknown argument 'foo'; perturbation 'pgd' takes budget"):
        Threat.parse("pgd(0.1, foo=1)")


def test_an_l2_step_has_its_length_however_small_the_gradient(generator):
    """The tiny gradient of a confident model must not make the attack weaker."""
    victim, _ = linear_victim()

    def faint(logits, y, reference):
        return ATTACK_LOSSES["ce"](logits, y, reference) * 1e-20

    attack = PGD(budget=0.3, norm="l2", steps=1, rel_step=1, random_start=False)
    plain = attack(X, Y, strength=1.0, victim=victim, generator=generator)
    gradient = victim.gradient(X, Y, faint)[0]
    assert gradient.abs().max() < 1e-19
    torch.testing.assert_close(X + 0.3 * steepest(gradient, "l2"), plain)
    assert torch.equal(steepest(torch.zeros_like(X), "l2"), torch.zeros_like(X))


def test_fgsm_ascends_cross_entropy_under_trades_too(generator):
    victim, _ = linear_victim()
    model = victim.as_module()
    under_trades = ModelVictim(model, loss="kl").with_reference(X)
    run = {"strength": 1.0, "generator": generator}
    assert torch.equal(
        FGSM(budget=0.1)(X, Y, victim=under_trades, **run),
        FGSM(budget=0.1)(X, Y, victim=victim, **run),
    )
    with pytest.raises(UserError, match="loss must be ce or dlr, not kl"):
        Threat.parse("fgsm(0.1, loss=kl)")
    with pytest.raises(ValueError, match="at the image its gradient is zero"):
        PGD(budget=0.1, loss="kl", random_start=False)


class _Opaque(torch.autograd.Function):
    """The identity, whose backward pass returns no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None


@pytest.mark.parametrize("layer", ["opaque", "no_grad", "detached"])
@pytest.mark.parametrize("convolution", [False, True])
def test_a_missing_gradient_is_an_error_and_no_gradient_of_zero(layer, convolution):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3) if convolution else nn.Identity()
            self.last = nn.LazyLinear(3)

        def forward(self, x):
            features = self.first(x).flatten(1)
            if layer == "opaque":
                features = _Opaque.apply(features)
            if layer == "detached":
                features = features.detach()
            with torch.set_grad_enabled(layer != "no_grad" and torch.is_grad_enabled()):
                return self.last(features)

    x, y = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    model = Net()
    model(x)
    with pytest.raises(UserError, match=r"no gradient in its images.*such as square"):
        ModelVictim(model).gradient(x, y)


def test_a_model_that_cannot_be_differentiated_is_one_line_under_every_attack():
    class Net(nn.Module):
        def __init__(self, change):
            super().__init__()
            self.change, self.last = change, nn.Linear(64, 4)

        def forward(self, x):
            return self.last(self.change(x).flatten(1))

    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    for change, message in (
        (
            lambda x: torch.sub(x, 0.5, out=x),
            r"differentiated in its images \(sub\(\): functions wi",
        ),
        (
            lambda x: x.resize_(len(x), 64),
            r"differentiated in its images \(cannot resize variables",
        ),
        (lambda x: x.detach_(), "no gradient in its images"),
    ):
        for text in ("pgd(0.1, steps=1)", "fgsm:0.1", "torchattacks-pgd(0.1, steps=1)"):
            victim = ModelVictim(Net(change), early_stop=True)
            with pytest.raises(UserError, match=message):
                Threat.parse(text)(x, y, victim=victim, generator=torch.Generator())
