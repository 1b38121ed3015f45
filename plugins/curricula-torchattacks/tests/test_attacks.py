"""torchattacks-pgd: that package's own numbers, an image at its own strength."""

import pytest
import torch
import torchattacks
from curricula_torchattacks.attacks import TorchattacksPGD
from torch import nn

from curricula.victim import ModelVictim

X = torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def attacked(model, strength, **keywords):
    attack = TorchattacksPGD(budget=0.2, **keywords)
    return attack(X, Y, strength=strength, victim=ModelVictim(model), generator=torch.Generator())


def test_without_a_random_start_it_is_torchattacks_to_the_bit(model):
    ours = attacked(model, 0.5, steps=4, rel_step=0.3, random_start=False)
    theirs = torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=4, random_start=False)(X, Y)
    assert torch.equal(ours, theirs)


def test_images_are_grouped_by_strength(model):
    strength = torch.tensor([0, 1.0, 0.25, 0.25, 1.0, 0])
    mixed = attacked(model, strength, steps=3, random_start=False)
    for value in (0, 0.25, 1.0):
        alone = attacked(model, value, steps=3, random_start=False)
        group = strength == value
        assert torch.equal(mixed[group], alone[group])


def test_it_prints_nothing(model, capsys):
    attacked(model, 1.0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("keywords", "message"), [({"steps": 0}, "'steps' must be >= 1"), ({"rel_step": 0.0}, "> 0")]
)
def test_wrong_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        TorchattacksPGD(budget=0.1, **keywords)
