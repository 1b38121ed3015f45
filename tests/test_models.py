"""Networks and objectives: shapes, sizes, formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula import construct
from curricula.errors import UserError
from curricula.expression import parse_call
from curricula.interfaces import Views
from curricula.models.normalise import Normalise
from curricula.victim import ModelVictim


def built(text, *, classes=10, channels=1, size=28):
    context = {"num_classes": classes, "in_channels": channels, "image_size": size}
    return construct.build("model", parse_call(text), context=context).value


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("text", "classes", "channels", "size"),
    [
        ("smallcnn", 10, 1, 28),
        ("smallcnn", 7, 3, 32),
        ("stdcnn", 10, 1, 28),
        ("stdcnn(width=5, dropout=0)", 4, 3, 32),
        ("resnet18", 10, 3, 32),
        ("resnet18", 3, 1, 28),
        ("p4cnn", 10, 1, 28),
        ("p4cnn(width=2)", 4, 3, 32),
    ],
)
def test_a_model_takes_images_to_logits_and_can_be_trained_and_attacked(
    text, classes, channels, size
):
    model = built(text, classes=classes, channels=channels, size=size)
    x, y = torch.rand(3, channels, size, size), torch.tensor([0, 1, 2])
    logits = model(x)
    assert logits.shape == (3, classes)
    F.cross_entropy(logits, y).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    gradient, _, _ = ModelVictim(model).gradient(x, y)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("text", ["smallcnn", "stdcnn", "resnet18"])
def test_normalisation_comes_first(text):
    model = built(text)
    assert isinstance(model[0], Normalise)
    torch.testing.assert_close(model[0](torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0, 1]))


def test_sizes_are_those_of_the_papers():
    assert count(built("smallcnn")) == 312_202
    assert count(built("resnet18", channels=3, size=32)) == 11_173_962  # the 32x32 form
    plain, equivariant = count(built("stdcnn")), count(built("p4cnn"))
    assert plain == 21_750
    assert abs(equivariant / plain - 1) < 0.1


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("smallcnn", 15, "16x16 or more, not 15x15"),
        ("stdcnn", 21, "22x22 or more"),
        ("stdcnn(width=0)", 28, "width must be 1 or more, not 0"),
        ("stdcnn(dropout=1)", 28, "dropout must lie from 0 to below 1"),
        ("stdcnn(depth=3)", 28, "unknown argument 'depth'; model 'stdcnn' takes width, dropout"),
        ("stdcnn(num_classes=3)", 28, "unknown argument 'num_classes'"),
        ("resnet18", 4, "8x8 or more"),
        ("p4cnn", 27, "an even size of 22x22 or more"),
        ("resnet81", 32, "did you mean resnet18"),
    ],
)
def test_wrong_models_are_refused(text, size, message):
    with pytest.raises(UserError, match=message):
        built(text, size=size)


X = torch.rand((4, 1, 3, 3), generator=torch.Generator().manual_seed(0))
VIEWS = Views(clean=X, natural=X * 0.9, perturbed=X * 0.7)
Y = torch.tensor([0, 1, 2, 1])


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))


def objective(text):
    return construct.build("objective", parse_call(text)).value


def test_at_is_cross_entropy_at_the_perturbed_view():
    model = linear()
    loss = objective("at")(model, VIEWS, Y)
    torch.testing.assert_close(loss.value, F.cross_entropy(model(X * 0.7), Y))
    torch.testing.assert_close(loss.logits, model(X * 0.7).detach())
    assert not loss.logits.requires_grad
    assert objective("at").attack_loss == "ce"


def test_trades_is_its_formula_and_trains_both_terms():
    model = linear()
    loss = objective("trades(beta=3)")(model, VIEWS, Y)
    p, q = model(X * 0.9).softmax(1), model(X * 0.7).softmax(1)
    expected = -p.log()[range(4), Y].mean() + 3 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss.value, expected)
    ours = torch.autograd.grad(loss.value, model.parameters())
    theirs = torch.autograd.grad(expected, model.parameters())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert objective("trades").attack_loss == "kl"
    assert objective("trades").beta == 6
    with pytest.raises(UserError, match="'beta' must be >= 0"):
        objective("trades(beta=-1)")
