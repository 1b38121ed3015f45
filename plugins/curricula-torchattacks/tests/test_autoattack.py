"""The standard AutoAttack has the published parts, and is as strong as the strongest of them."""

from typing import ClassVar

import attrs
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from curricula_torchattacks.attacks import CLASSES
from curricula_torchattacks.autoattack import AutoAttack
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.interfaces import Perturbation
from curricula.testing import PERTURBATION_CLAUSES
from curricula.training.optimizers import AdamW
from curricula.victim.model_victim import ModelVictim


@attrs.frozen(kw_only=True)
class Short(AutoAttack):
    """The same four attacks, with fewer steps and queries."""

    FEWER: ClassVar = {"steps": 3, "max_steps": 3, "n_queries": 10}

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        return tuple(
            attrs.evolve(part, **{k: v for k, v in self.FEWER.items() if hasattr(part, k)})
            for part in super().parts
        )


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("clause", PERTURBATION_CLAUSES)
def test_autoattack_keeps_the_contract(clause, norm):
    clause(Short(budget=0.03 if norm == "linf" else 0.3, norm=norm))


NUM_CLASSES, SIDE = 5, 6


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
        return model.eval(), *draw(30)


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
class Shorter(Short):
    """The four published attacks, with a fifth of their steps and fewer queries."""

    FEWER: ClassVar = {"steps": 20, "max_steps": 20, "n_queries": 100}


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.05), ("l2", 0.3)])
def test_no_single_part_is_stronger(trained, norm, budget):
    attack = Shorter(budget=budget, norm=norm)
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
    apgd, apgdt, fab, square = built_parts(monkeypatch, classes, budget=0.2, norm="l2")
    assert isinstance(apgd, torchattacks.APGD)
    assert isinstance(apgdt, torchattacks.APGDT)
    assert isinstance(fab, torchattacks.FAB)
    assert isinstance(square, torchattacks.Square)
    for part in (apgd, apgdt, fab, square):
        assert (part.norm, part.eps, part.n_restarts) == ("L2", 0.1, 1)
        assert not part.verbose
    assert (apgd.loss, apgd.steps, apgd.eot_iter, apgd.thr_decr) == ("ce", 100, 1, 0.75)
    assert (apgdt.steps, apgdt.eot_iter, apgdt.thr_decr) == (100, 1, 0.75)
    assert (fab.steps, fab.multi_targeted) == (100, True)
    assert (fab.alpha_max, fab.eta, fab.beta) == (0.1, 1.05, 0.9)
    assert apgdt.n_target_classes == fab.n_target_classes == targets
    assert (square.n_queries, square.p_init, square.loss) == (5000, 0.8, "margin")
    assert square.rescale_schedule is False
    assert len({part.seed for part in (apgd, apgdt, fab, square)}) == 4


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
    assert sum(seen) / 2 == pytest.approx(AutoAttack.passes, rel=0.2)
    assert Threat.parse("autoattack:0.1").tree.max_passes == 6900
    worst = Threat.parse("worst(rot:30+autoattack:0.1, k=2)")
    assert worst.tree.max_passes == 2 * 6901


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_are_an_error_that_names_an_alternative(classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes))
    x, y = torch.rand((2, 1, 5, 5)), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match=f"autoattack needs 4 classes or more, not {classes}") as e:
        AutoAttack(budget=0.1)(
            x, y, strength=1.0, victim=ModelVictim(model), generator=torch.Generator()
        )
    assert "torchattacks-apgd" in str(e.value)
    assert "\n" not in str(e.value)
