"""AutoAttack has the published parts, and is as strong as the strongest of them."""

from typing import ClassVar

import attrs
import pyautoattack
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from curricula_torchattacks.attacks import CLASSES
from curricula_torchattacks.autoattack import AutoAttack
from curricula_torchattacks.fab_l1 import FABL1
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from curricula.curriculum import Threat
from curricula.errors import Notice, UserError
from curricula.interfaces import Perturbation
from curricula.losses import cross_entropy, towards
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.norm_ball import random_start
from curricula.perturbations.attacks.pgd import ascend
from curricula.testing import PERTURBATION_CLAUSES
from curricula.training.optimizers import AdamW
from curricula.victim.model_victim import ModelVictim


@attrs.frozen(kw_only=True)
class Short(AutoAttack):
    """The same four attacks, with fewer steps and queries."""

    FEWER: ClassVar = {"steps": 3, "max_steps": 3, "n_queries": 10, "queries": 10}

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        return tuple(
            attrs.evolve(part, **{k: v for k, v in self.FEWER.items() if hasattr(part, k)})
            for part in super().parts
        )


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.03), ("l2", 0.3), ("l1", 2.0)])
@pytest.mark.parametrize("clause", PERTURBATION_CLAUSES)
def test_autoattack_keeps_the_contract(clause, norm, budget):
    clause(Short(budget=budget, norm=norm))


NUM_CLASSES, SIDE, NUM_IMAGES = 5, 6, 30


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network trained on noisy patterns, and new images with their labels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        patterns = torch.rand((NUM_CLASSES, 1, SIDE, SIDE))

        def draw(n: int) -> tuple[Tensor, Tensor]:
            y = torch.arange(n) % NUM_CLASSES
            return (0.5 * patterns[y] + 0.5 * torch.rand((n, 1, SIDE, SIDE))).clamp(0, 1), y

        model = nn.Sequential(
            nn.Flatten(),
            nn.Linear(SIDE * SIDE, 32),
            nn.ReLU(),
            nn.Linear(32, NUM_CLASSES),
        )
        optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0)
        x, y = draw(400)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model.eval(), *draw(NUM_IMAGES)


def robust(trained, attack: Perturbation, seed: int = 0) -> Tensor:
    model, x, y = trained
    result = attack(
        x,
        y,
        strength=1.0,
        victim=ModelVictim(model),
        generator=torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        return model(result).argmax(1) == y


@attrs.frozen(kw_only=True)
class Quick(Short):
    """The published attacks, with enough steps and queries for the small networks here."""

    FEWER: ClassVar = {
        "steps": 30,
        "max_steps": 20,
        "n_queries": 50,
        "queries": 50,
        "restarts": 2,
        "targets": 4,
    }


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.05), ("l2", 0.3), ("l1", 1.0)])
def test_no_single_part_is_stronger(trained, norm, budget):
    attack = Quick(budget=budget, norm=norm)
    together = robust(trained, attack).sum()
    alone = [robust(trained, part).sum() for part in attack.parts]
    assert 0 < together <= min(alone)
    assert min(alone) < robust(trained, CLASSES["GN"](budget=0.0)).sum()


def built_parts(monkeypatch, classes: int, **keywords) -> list[torchattacks.attack.Attack]:
    """Return torchattacks' objects of one run in which every image stays robust."""
    made = []
    for name in ("APGD", "APGDT", "FAB", "Square"):
        real = CLASSES[name].theirs

        def build(*args, real=real, **given):
            made.append(real(*args, **given))
            made[-1].forward = lambda images, labels: images
            return made[-1]

        monkeypatch.setattr(CLASSES[name], "theirs", staticmethod(build))
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes)).eval()
    x = torch.rand((3, 1, 5, 5))
    y = model(x).argmax(1)
    AutoAttack(**keywords)(
        x, y, strength=0.5, victim=ModelVictim(model), generator=torch.Generator()
    )
    return made


@pytest.mark.parametrize(("classes", "targets"), [(4, 3), (10, 9), (100, 9)])
def test_the_parts_are_the_published_ones(monkeypatch, classes, targets):
    """As in section 6 of Croce and Hein 2020 and in fra31/auto-attack, version standard."""
    apgd, apgdt, fab, square = built_parts(monkeypatch, classes, budget=0.2, norm="linf")
    assert isinstance(apgd, torchattacks.APGD)
    assert isinstance(apgdt, torchattacks.APGDT)
    assert isinstance(fab, torchattacks.FAB)
    assert isinstance(square, torchattacks.Square)
    for part in (apgd, apgdt, fab, square):
        assert (part.norm, part.eps, part.n_restarts) == ("Linf", 0.1, 1)
        assert not part.verbose
    assert (apgd.loss, apgd.steps, apgd.eot_iter, apgd.thr_decr) == ("ce", 100, 1, 0.75)
    assert (apgdt.steps, apgdt.eot_iter, apgdt.thr_decr) == (100, 1, 0.75)
    assert (fab.steps, fab.multi_targeted) == (100, True)
    assert (fab.alpha_max, fab.eta, fab.beta) == (0.1, 1.05, 0.9)
    assert apgdt.n_target_classes == fab.n_target_classes == targets
    assert (square.n_queries, square.p_init, square.loss) == (5000, 0.8, "margin")
    assert square.rescale_schedule is False
    assert len({part.seed for part in (apgd, apgdt, fab, square)}) == 4


@pytest.mark.parametrize(("norm", "runs", "targets"), [("l2", 1, 9), ("l1", 5, 5)])
def test_the_parts_in_l2_and_l1_are_the_published_ones(norm, runs, targets):
    """As in fra31/auto-attack, version standard."""
    apgd, fab, square = AutoAttack(budget=0.2, norm=norm).parts
    assert {part.norm_bound.norm for part in (apgd, fab, square)} == {norm}
    assert {part.budget for part in (apgd, fab, square)} == {0.2}
    assert (apgd.loss, apgd.steps, apgd.restarts, apgd.targets) == ("ce", 100, runs, targets)
    assert fab.passes == 9 * 100
    assert square.passes == 5000


class Largest(TorchDispatchMode):
    """Records the number of values of the largest tensor that is computed."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(found):
            if isinstance(each, Tensor):
                self.values = max(self.values, each.numel())
        return found


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_thousand_classes_need_no_gradient_for_each(norm):
    """No tensor has a value for each image, class and pixel, as FAB without targets would need."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 1000)).eval()
    x = torch.rand((8, 3, 5, 5))
    with torch.no_grad():
        y = model(x).argmax(1)
    with Largest() as largest:
        Short(budget=1e-6, norm=norm)(
            x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()
        )
    assert 8 * 1000 <= largest.values < 8 * 1000 * 75 / 4  # the weights have 75,000


@attrs.frozen(kw_only=True)
class Recorded:
    """Fool the first ``fooled`` of the given images, and record the images and strengths."""

    given: list
    fooled: int

    def __call__(self, x_NCHW, y_N, *, strength, victim, generator):
        self.given.append((x_NCHW.clone(), strength))
        result = x_NCHW.clone()
        result[: self.fooled] = 1 - result[: self.fooled]
        return result


def test_a_fooled_image_is_not_attacked_again():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 4, bias=False))
    with torch.no_grad():  # class 1 above a half, class 0 below
        model[1].weight.copy_(torch.tensor([[1.0], [2.0], [0.0], [0.0]]))
    model = nn.Sequential(Shifted(), model)
    x = torch.tensor([0.9, 0.8, 0.2, 0.7, 0.6]).reshape(5, 1, 1, 1)
    y = torch.ones(5, dtype=torch.long)
    given: list = []
    parts = (Recorded(given=given, fooled=1), Recorded(given=given, fooled=2))

    class Two(AutoAttack):
        parts = property(lambda self: (*parts, Recorded(given=given, fooled=0)))

    strength = torch.tensor([1, 0.9, 0.8, 0.7, 0.6])
    result = Two(budget=1.0)(
        x, y, strength=strength, victim=ModelVictim(model), generator=torch.Generator()
    )
    attacked = [[round(float(value), 3) for value in x.flatten()] for x, _ in given]
    assert attacked == [[0.9, 0.8, 0.7, 0.6], [0.8, 0.7, 0.6], [0.6]]
    assert torch.equal(given[1][1], strength[[1, 3, 4]])
    expected = torch.tensor([0.1, 0.2, 0.2, 0.3, 0.6]).reshape(5, 1, 1, 1)
    torch.testing.assert_close(result, expected)


class Shifted(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW - 0.5


def test_the_declared_number_of_passes_is_that_of_a_robust_image(monkeypatch):
    model, seen, linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), [], F.linear
    with torch.no_grad():
        model[1].bias[3] = 1000  # class 3 for every image

    def counted(x_ND, *weights):
        seen.append(len(x_ND))
        return linear(x_ND, *weights)

    monkeypatch.setattr(F, "linear", counted)
    x, y = torch.rand((2, 1, 4, 4)), torch.full((2,), 3)
    AutoAttack(budget=0.1)(
        x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()
    )
    # FAB computes the logits of each step before its gradients, which counts as one pass.
    assert sum(seen) / 2 == pytest.approx(AutoAttack(budget=0.1).passes, rel=0.2)
    assert Threat.parse("autoattack:0.1").tree.max_passes == 6900
    worst = Threat.parse("worst(rot:30+autoattack:0.1, k=2)")
    assert worst.tree.max_passes == 2 * 6901


@pytest.mark.parametrize(
    ("norm", "budget"), [("linf", 0.08), ("l2", 0.3), ("l1", 1.0)]
)  # fmt: skip
def test_every_image_that_the_authors_code_fools_is_fooled(trained, norm, budget, monkeypatch):
    model, x, y = trained
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    adversary = pyautoattack.AutoAttack(model, norm=name, eps=budget, seed=0)
    adversary.apgd.n_iter_orig = adversary.apgd.n_iter = 30
    adversary.apgd_targeted.n_iter_orig = adversary.apgd_targeted.n_iter = 30
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = NUM_CLASSES - 1
    adversary.fab.n_iter, adversary.square.n_queries = 20, 50
    adversary.apgd.n_restarts = 2 if norm == "l1" else 1
    found, _ = adversary.run_standard_evaluation(x, y)
    with torch.no_grad():
        theirs = model(found).argmax(1) == y
    assert 0 < int(theirs.sum()) < NUM_IMAGES - 3
    assert torch.equal(robust(trained, Quick(budget=budget, norm=norm)), theirs)


def test_fab_in_l1_ends_where_the_authors_code_leaves_each_image(trained):
    model, x, y = trained
    theirs = FABAttack_PT(
        model, n_restarts=1, n_iter=20, eps=1.5, norm="L1", targeted=True, device="cpu",
        n_target_classes=NUM_CLASSES - 1,
    )  # fmt: skip
    expected = theirs.perturb(x, y)
    found = FABL1(budget=1.5, max_steps=20)(
        x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()
    )
    with torch.no_grad():
        fooled = model(found).argmax(1) != y
        assert 0 < int(fooled.sum()) < NUM_IMAGES
        assert torch.equal(fooled, model(expected).argmax(1) != y)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=[2, 3])
def few(request) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of two or three classes, whose large weights saturate the cross-entropy; images and
    the classes that it predicts for them."""
    classes = request.param
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, classes)
        )  # fmt: skip
        with torch.no_grad():
            model[1].weight.mul_(6)
            model[3].weight[:, :3] *= 400
        x = torch.rand((NUM_IMAGES, 1, 3, 3))
    with torch.no_grad():
        return model.eval(), x, model(x).argmax(1)


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.08), ("l2", 0.2), ("l1", 0.3)])
def test_with_few_classes_the_figure_is_that_of_brute_force(few, norm, budget):
    """The brute force is 40 starts of PGD on cross-entropy, and 40 on each difference of logits."""
    model, x, y = few
    left = robust(few, Quick(budget=budget, norm=norm))
    survives = torch.ones_like(left)
    classes = int(y.max()) + 1
    x, y, victim = x.repeat(40, 1, 1, 1), y.repeat(40), ModelVictim(model)
    eps = torch.full((len(x), 1, 1, 1), budget)
    start = random_start(x, eps, norm, torch.Generator().manual_seed(0))
    step = {"victim": victim, "norm": norm, "step_N111": eps / 8, "steps": 20}
    for loss in (cross_entropy, *(towards((y + k) % classes) for k in range(1, classes))):
        with torch.no_grad():
            correct = model(ascend(x, y, start, eps, loss=loss, **step)).argmax(1) == y
        survives &= correct.reshape(40, NUM_IMAGES).all(0)
    assert 3 < int(survives.sum()) < NUM_IMAGES - 3
    assert not (left & ~survives).any()


class Noisy(nn.Module):
    """A network that adds uniform noise to each image."""

    def __init__(self, network: nn.Module, noise: float) -> None:
        super().__init__()
        self.network, self.noise = network, noise

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.network(x_NCHW + self.noise * (torch.rand_like(x_NCHW) - 0.5))


@attrs.frozen(kw_only=True)
class QuickRand(Quick):
    """The version for random networks, with fewer steps."""

    FEWER: ClassVar = {"steps": 15}
    version: str = "rand"
    eot: int = 3


@attrs.frozen(kw_only=True)
class LongRand(QuickRand):
    """The version for random networks as a network without draws needs it."""

    FEWER: ClassVar = {"steps": 40}
    eot: int = 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rand_has_the_published_parts(norm):
    """As in fra31/auto-attack, version rand: 20 draws in each gradient, one run of each loss."""
    built = Threat.parse(f"autoattack(0.1, norm={norm}, version=rand)")
    assert str(built) == f"autoattack(0.1, norm={norm}, version=rand, eot=20)"
    assert str(Threat.parse(f"autoattack(0.1, norm={norm})")).endswith("version=standard)")
    theirs = pyautoattack.AutoAttack(nn.Identity(), version="rand", seed=0)
    parts = AutoAttack(budget=0.1, norm=norm, version="rand").parts
    assert [f"apgd-{part.loss}" for part in parts] == theirs.attacks_to_run
    for part in parts:
        assert (part.steps, part.restarts, part.targets) == (theirs.apgd.n_iter, 1, 0)
        assert part.eot == theirs.apgd.eot_iter
        assert (part.budget, part.norm) == (0.1, norm)
    assert built.tree.max_passes == sum(part.passes for part in parts) + 2 * 20


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.08), ("l2", 0.3)])
def test_rand_fools_the_images_that_the_authors_code_fools(trained, norm, budget):
    """On a network without draws, where the two can be compared image by image."""
    model, x, y = trained
    name = {"linf": "Linf", "l2": "L2"}[norm]
    adversary = pyautoattack.AutoAttack(model, norm=name, eps=budget, seed=0, version="rand")
    adversary.apgd.n_iter_orig = adversary.apgd.n_iter = 40
    adversary.apgd.eot_iter = 1
    found, _ = adversary.run_standard_evaluation(x, y)
    with torch.no_grad():
        theirs = model(found).argmax(1) == y
    assert 3 < int(theirs.sum()) < NUM_IMAGES - 3
    assert torch.equal(robust(trained, LongRand(budget=budget, norm=norm)), theirs)


def share_correct(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of correct single draws, of 300 for each image."""
    with torch.no_grad():
        predicted = torch.cat([model(x.repeat(100, 1, 1, 1)).argmax(1) for _ in range(3)])
    return float((predicted.reshape(300, -1) == y).float().mean())


def test_rand_is_as_strong_as_the_authors_code_on_a_random_network(trained):
    """Single draws at the images that each returns. The authors' code leaves an image unchanged if
    the last draw is correct, so the images of highest loss of its two runs are compared too."""
    inner, x, y = trained
    model = Noisy(inner, 1.0).eval()
    adversary = pyautoattack.AutoAttack(model, eps=0.1, seed=0, version="rand")
    adversary.apgd.n_iter_orig = adversary.apgd.n_iter = 15
    adversary.apgd.eot_iter = 10
    theirs = [share_correct(model, adversary.run_standard_evaluation(x, y)[0], y)]
    for loss in ("ce", "dlr"):
        adversary.apgd.loss = loss
        theirs.append(share_correct(model, adversary.apgd.perturb(x, y, best_loss=True), y))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = QuickRand(budget=0.1, eot=10)(
            x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()
        )
    assert share_correct(model, found, y) < min(theirs) + 0.03 < theirs[0] - 0.1


def test_rand_with_two_classes_is_as_strong_as_many_starts():
    """The DLR loss needs three classes; the difference of the two logits replaces it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 2))
        model = Noisy(inner, 0.3).eval()
        x = torch.rand((NUM_IMAGES, 1, 3, 3))
        y = inner(x).argmax(1)
        many = APGD(budget=0.1, restarts=5, eot=3, steps=20)
        ours, starts = (
            share_correct(
                model,
                attack(x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()),
                y,
            )
            for attack in (QuickRand(budget=0.1), many)
        )
    assert ours < starts + 0.02 < share_correct(model, x, y)


def test_the_standard_version_of_a_random_network_is_said(trained):
    model, x, y = trained
    with pytest.warns(Notice, match=r"more robust than it is: give version=rand, as in autoa"):
        robust((Noisy(model, 1.0).eval(), x[:3], y[:3]), Short(budget=0.1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("autoattack(0.1, eot=5)", "eot is for version=rand, not standard; add version=rand"),
        ("autoattack(0.1, version=rand, eot=0)", "eot"),
        ("autoattack(0.1, version=plus)", "version must be standard or rand, not plus"),
    ],
)
def test_other_versions_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        Threat.parse(text)
    assert "\n" not in str(caught.value)
