"""Several processes that each perturb a part of a batch draw the same numbers as one process."""

import warnings

import pytest
import torch
from fixtures.small import BUDGETS, small_perturbations
from torch import nn

from curricula import ModelVictim
from curricula.curriculum import Curriculum
from curricula.expressions.batch_rows import BatchRows
from curricula.interfaces import Progress

N = 9
FULL = Progress(step=10, total_steps=10, epoch=1, total_epochs=1)
EXPRESSIONS = {
    "fused": "rot+trans",
    "random branch": "rot|pgd(0.1, steps=2)|trans+gaussian:0.1",
    "branch in a branch": "(rot|trans)+(gaussian:0.1|pgd(0.1, steps=1))",
    "random search": "worst(rot|trans, k=3)+pgd(0.1, steps=2, restarts=2)",
    "search over branches": "worst((rot+gaussian:0.1)|trans, k=2)",
    "grid": "grid(rot, rot=3)+uniform:0.1",
    **small_perturbations("curricula"),
}
STOPS_EARLY = {EXPRESSIONS["square"]}  # draws no more when all its images are fooled


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    return ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 10, 4)), precision="float32")


def perturbed(curriculum, victim, x, y, strengths, rows=None):
    generator = torch.Generator().manual_seed(3)
    views = curriculum(x, y, strengths=strengths, victim=victim, generator=generator, rows=rows)
    return views.perturbed, generator.get_state()


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_each_process_perturbs_its_images_as_one_process_would(text, victim):
    curriculum = Curriculum.parse(text, ["constant"], budgets=BUDGETS)
    torch.manual_seed(1)
    x, y = torch.rand(N, 3, 10, 10), torch.randint(4, (N,))
    strengths = curriculum.strengths(FULL)
    whole, state = perturbed(curriculum, victim, x, y, strengths)
    for part in (slice(0, 2), slice(2, 8), slice(8, 9)):
        rows = BatchRows(torch.arange(N)[part], N)
        own, own_state = perturbed(curriculum, victim, x[part], y[part], strengths, rows)
        # A matrix product of fewer images may round differently.
        torch.testing.assert_close(own, whole[part], rtol=0, atol=1e-5)
        if text not in STOPS_EARLY:
            assert torch.equal(own_state, state), "the next draw would differ"


def test_strengths_of_each_image_stay_with_it(victim):
    curriculum = Curriculum.parse("rot:40|gaussian:0.3", ["constant"])
    x, y = torch.rand(N, 3, 10, 10), torch.randint(4, (N,))
    strengths = dict.fromkeys(curriculum.schedules, torch.linspace(0, 1, N))
    whole, _ = perturbed(curriculum, victim, x, y, strengths)
    part = slice(3, 7)
    cut = {label: strength[part] for label, strength in strengths.items()}
    rows = BatchRows(torch.arange(N)[part], N)
    own, _ = perturbed(curriculum, victim, x[part], y[part], cut, rows)
    torch.testing.assert_close(own, whole[part])


@pytest.mark.parametrize(
    "draw",
    [
        lambda x, g: torch.rand(*x.shape, generator=g),
        lambda x, g: torch.rand(x.shape, generator=g),
        lambda x, g: torch.randn(size=x.shape, generator=g),
        lambda x, g: torch.randint(2, 9, (len(x), 4), generator=g),
        lambda x, g: torch.randint(high=5, size=[len(x)], generator=g),
        lambda x, g: x.new_empty(x.shape).exponential_(generator=g),
        lambda x, g: torch.empty_like(x).uniform_(-1, 1, generator=g),
        lambda x, g: torch.bernoulli(x, generator=g),
        lambda x, g: torch.normal(x, 0.1, generator=g),
        lambda x, g: torch.normal(0.0, 1.0, size=(len(x), 2), generator=g),
        lambda x, g: torch.rand(x.shape, generator=g, out=torch.empty_like(x)),
        lambda x, g: torch.rand((), generator=g).expand(len(x), 1),
        lambda x, g: torch.rand((1, 3), generator=g).expand(len(x), 3),
    ],
)
def test_every_way_to_draw(draw):
    x = torch.rand(N, 2, 3)
    whole = draw(x, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    part = slice(2, 6)
    with BatchRows(torch.arange(N)[part], N).drawing(generator):
        own = draw(x[part].clone(), generator)
    assert torch.equal(own, whole[part])


def test_other_generators_and_numbers_of_rows_are_left_alone():
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    with BatchRows(torch.arange(2), N).drawing(generator):
        drawn = torch.rand((2, 3), generator=other)
        torch.manual_seed(0)
        global_draw = torch.rand(2, 3)
        five = torch.rand((5, 3), generator=generator)
    expected = torch.rand((2, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, expected)
    assert torch.equal(global_draw, expected)
    assert five.shape == (5, 3)


def test_a_draw_that_depends_on_the_number_of_processes_gives_one_warning():
    generator = torch.Generator()
    with BatchRows(torch.arange(4), N).drawing(generator):
        with pytest.warns(UserWarning, match="randperm: this draw depends on the number of proc"):
            torch.randperm(4, generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.randperm(4, generator=generator)
