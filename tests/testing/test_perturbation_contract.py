"""Every registered perturbation keeps the contract, and each clause can be broken."""

import attrs
import pytest
import torch
from fixtures.small import BUDGETS, small_perturbations

from curricula.expressions.binding import bind
from curricula.interfaces import NormBound
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.pgd import PGD
from curricula.perturbations.attacks.square import Square
from curricula.perturbations.geometric.affine import Rotation, Translation
from curricula.perturbations.geometric.warps import Elastic, Perspective
from curricula.perturbations.geometric.whole_pixels import Crop, Flip
from curricula.perturbations.intensity.colour import Brightness, Contrast, Hue, Saturation
from curricula.perturbations.intensity.noise import Cutout
from curricula.testing import PERTURBATION_CLAUSES, check_perturbation
from curricula.testing import perturbations as clauses


def registered():
    """Yield every built-in perturbation, small enough for a test; a plugin tests its own."""
    for name, call in small_perturbations(provider="curricula").items():
        (leaf,) = bind(call, budgets=BUDGETS).leaves.values()
        yield pytest.param(leaf.perturbation, id=name)


VARIANTS = [
    pytest.param(PGD(budget=0.7, norm="l2", steps=3), id="pgd-l2"),
    pytest.param(PGD(budget=0.1, steps=2, restarts=2), id="pgd-restarts"),
    pytest.param(PGD(budget=0.1, steps=2, step=0.05), id="pgd-step"),
    pytest.param(PGD(budget=0.1, steps=2, loss="kl"), id="pgd-kl"),
    pytest.param(PGD(budget=0.1, steps=2, loss="dlr", random_start=False), id="pgd-dlr"),
    pytest.param(PGD(budget=5.0, norm="l1", steps=3), id="pgd-l1"),
    pytest.param(PGD(budget=0.1, steps="auto"), id="pgd-auto"),
    pytest.param(PGD(budget=0.1, steps="auto", loss="kl", step=0.04), id="pgd-auto-kl"),
    pytest.param(PGD(budget=0.1, steps=3, tau=1), id="pgd-tau"),
    pytest.param(APGD(budget=0.1, steps=5, loss="dlr", restarts=2), id="apgd-dlr"),
    pytest.param(APGD(budget=0.7, steps=5, norm="l2"), id="apgd-l2"),
    pytest.param(APGD(budget=5.0, steps=5, norm="l1"), id="apgd-l1"),
    pytest.param(Square(budget=0.7, queries=9, norm="l2"), id="square-l2"),
    pytest.param(Square(budget=5.0, queries=9, norm="l1"), id="square-l1"),
    pytest.param(Rotation(budget=180.0, interpolation="nearest"), id="rot-nearest"),
    pytest.param(Translation(budget=4.0, padding="reflection"), id="trans-reflection"),
    pytest.param(Translation(budget=2.5), id="trans-half"),
    pytest.param(Flip(budget=1.0, direction="vertical"), id="flip-vertical"),
    pytest.param(Crop(budget=20, padding="reflection"), id="crop-reflection"),
    pytest.param(Crop(budget=20, padding="border"), id="crop-border"),
    pytest.param(Perspective(budget=0.6, interpolation="nearest"), id="perspective-nearest"),
    pytest.param(Perspective(budget=0.6, padding="reflection"), id="perspective-reflection"),
    pytest.param(Elastic(budget=3.0, sigma=50.0, padding="border"), id="elastic-wide"),
    pytest.param(Brightness(budget=3.0, ascent=3), id="brightness-ascent"),
    pytest.param(Contrast(budget=0.4, ascent=3), id="contrast-ascent"),
    pytest.param(Saturation(budget=0.4, ascent=3), id="saturation-ascent"),
    pytest.param(Hue(budget=0.5, ascent=3), id="hue-ascent"),
    pytest.param(Cutout(budget=2.0, fill=1.0), id="cutout-all"),
]


@pytest.mark.parametrize("perturbation", [*registered(), *VARIANTS])
@pytest.mark.parametrize("clause", PERTURBATION_CLAUSES)
def test_every_perturbation_keeps_the_contract(perturbation, clause):
    clause(perturbation)


@attrs.frozen(kw_only=True)
class Broken:
    """Add uniform noise, correctly except for the fault ``how``."""

    how: str
    budget: float = 0.1
    kind: str = "pixel"
    unit: str = "linf"
    channels: frozenset | None = None
    training_only: bool = False
    norm: str = "linf"

    @property
    def norm_bound(self):
        return None if self.how == "has no norm bound" else NormBound(norm="linf", radius=0.1)

    def __call__(self, x, y, *, strength, victim, generator):
        noise = torch.rand(x.shape, generator=generator) * 2 - 1
        eps = torch.as_tensor(strength).expand(len(x)).reshape(-1, 1, 1, 1) * self.budget
        model = victim._frozen._source[0]
        match self.how:
            case "ignores strength":
                eps = torch.full_like(eps, self.budget)
            case "takes the mean strength":
                eps = eps.mean()
            case "exceeds its ball":
                noise = noise * 1.5
            case "uses global randomness":
                noise = torch.rand(x.shape) * 2 - 1
            case "moves global randomness":
                torch.rand(1)
            case "writes to its input":
                x.clamp_(0.1, 0.9)
            case "returns its input":
                return x
            case "writes to a weight":
                with torch.no_grad():
                    model[1].weight.add_(1)
            case "clears gradients":
                model.zero_grad()
            case "adds gradients":
                model[1].weight.grad += 1
            case "moves batch norm":
                model.train()
                model(x)
            case "sets the mode":
                model.eval()
            case "freezes a weight":
                model[1].weight.requires_grad_(False)
            case "works on three channels":
                noise = noise * torch.ones(3)[:, None, None]
            case "works on squares":
                noise = noise + torch.zeros_like(noise).transpose(2, 3)
            case "works on many":
                noise = noise / (len(x) - 1)
        out = x + eps * noise
        out = out if self.how == "leaves 0 to 1" else out.clamp(0, 1)
        match self.how:
            case "is attached":
                return out.requires_grad_()
            case "is double":
                return out.double()
            case "is nan":
                return out * float("nan")
            case "drops an image":
                return out[1:]
        return out


@attrs.frozen(kw_only=True)
class Searched(Broken):
    """Add one grey level to each image, correctly except for the fault ``how``."""

    def sample(self, n, strength, generator):
        drawn = torch.rand((n, 2 if self.how == "samples more than it has" else 1))
        return (drawn * 2 - 1) * torch.as_tensor(strength).reshape(-1, 1) * self.budget

    def grid(self, strength, points):
        axis = torch.linspace(-self.budget, self.budget, points)[:, None]
        if self.how == "has no identity":
            axis = axis + 0.01
        if self.how == "ignores strength in its grid":
            strength = torch.ones_like(torch.as_tensor(strength))
        if isinstance(strength, torch.Tensor) and strength.ndim:
            return axis[:, None] * strength[:, None]
        return axis * strength

    def apply(self, x, parameters):
        out = x + parameters[:, :1, None, None]
        return out if self.how == "leaves 0 to 1 when searched" else out.clamp(0, 1)


SEARCHED = [
    "samples more than it has",
    "has no identity",
    "ignores strength in its grid",
    "leaves 0 to 1 when searched",
]

BROKEN = {
    "ignores strength": clauses.strength_zero_is_the_identity,
    "takes the mean strength": clauses.strength_zero_is_the_identity,
    "exceeds its ball": clauses.norm_bound_holds_for_each_image,
    "uses global randomness": clauses.generator_determines_the_result,
    "moves global randomness": clauses.generator_determines_the_result,
    "writes to its input": clauses.input_is_not_changed,
    "returns its input": clauses.input_is_not_changed,
    "writes to a weight": clauses.model_is_not_changed,
    "clears gradients": clauses.model_is_not_changed,
    "adds gradients": clauses.model_is_not_changed,
    "moves batch norm": clauses.model_is_not_changed,
    "sets the mode": clauses.model_is_not_changed,
    "freezes a weight": clauses.model_is_not_changed,
    "works on three channels": clauses.any_batch_works,
    "works on squares": clauses.any_batch_works,
    "works on many": clauses.any_batch_works,
    "leaves 0 to 1": clauses.output_is_an_image_like_the_input,
    "is attached": clauses.output_is_an_image_like_the_input,
    "is double": clauses.output_is_an_image_like_the_input,
    "is nan": clauses.output_is_an_image_like_the_input,
    "drops an image": clauses.output_is_an_image_like_the_input,
    "has no norm bound": clauses.attributes_are_declared,
    **dict.fromkeys(SEARCHED, clauses.parameters_can_be_searched),
}


def test_the_examples_without_a_fault_pass():
    assert check_perturbation(Broken(how="not at all")) == {}
    assert check_perturbation(Searched(how="not at all")) == {}


@pytest.mark.parametrize("how", BROKEN)
def test_each_clause_catches_its_fault(how):
    with pytest.raises((AssertionError, RuntimeError)):
        BROKEN[how]((Searched if how in SEARCHED else Broken)(how=how))


def test_every_clause_has_a_broken_example():
    assert set(BROKEN.values()) == set(PERTURBATION_CLAUSES)
