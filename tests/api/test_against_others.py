"""One line here measures what the two lines of foolbox and of AutoAttack's authors do."""

import functools

import pyautoattack
import pytest
import torch
from curricula_torchattacks.attacks import CLASSES
from curricula_torchattacks.autoattack import AutoAttack
from fixtures.programs import run_python
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import curricula

CLASSES_OF_DIGITS = 4  # as few as AutoAttack takes: it attacks towards each
MAX_IMAGES = 100  # images measured
STEPS = 20  # of APGD
EPS = 0.12  # as in both programs


@pytest.fixture(scope="module")
def case():
    """A residual network of torchvision, briefly trained on digits, and digits to measure it on."""
    data = curricula.load_data("digits")
    x_NCHW, y_N = small(data, data.train)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES_OF_DIGITS)
        optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=5e-3)
        for index in torch.randperm(len(x_NCHW)).split(50)[:-1] * 3:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x_NCHW[index]), y_N[index]).backward()
            optimizer.step()
    x_NCHW, y_N = small(data, data.test)
    return model.eval(), x_NCHW[:MAX_IMAGES], y_N[:MAX_IMAGES]


def small(data, split):
    """Return the digits of the first classes as colour images of 14x14, with their labels."""
    chosen = split.labels < CLASSES_OF_DIGITS
    x_NCHW = data.images(split.pixels[chosen]).repeat(1, 3, 1, 1)
    return nn.functional.avg_pool2d(x_NCHW, 2), split.labels[chosen]


def counts(program, case, capsys, monkeypatch):
    """Return [clean, robust] as another library counts them in a program, and as we do."""
    mine = dict(zip(("model", "x", "y"), case, strict=True))
    printed = run_python(program, capsys, monkeypatch, **mine)
    theirs, ours = ([int(word) for word in line] for line in printed)
    clean, robust = ours
    assert 5 < robust < clean - 5, "counts that could not differ"
    return theirs, ours


def test_foolbox_counts_the_same_images(case, capsys, monkeypatch):
    theirs, ours = counts("beside_foolbox.py", case, capsys, monkeypatch)
    assert theirs == ours


def test_autoattack_of_its_authors_leaves_the_same_images(case, capsys, monkeypatch):
    monkeypatch.setattr(pyautoattack, "AutoAttack", functools.partial(shortened, monkeypatch))
    theirs, ours = counts("beside_autoattack.py", case, capsys, monkeypatch)
    assert theirs[0] == ours[0]
    assert abs(theirs[1] - ours[1]) <= MAX_IMAGES / 100


def shortened(monkeypatch, *arguments, real=pyautoattack.AutoAttack, **keywords):
    """Return the authors' AutoAttack with fewer steps than the published 7,000 passes, and give
    ours as few: enough for this network, where more change nothing."""
    adversary = real(*arguments, **keywords)
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = STEPS
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 3
    adversary.fab.n_iter = adversary.square.n_queries = 10
    ball = {"budget": EPS, "norm": "linf", "n_restarts": 1}
    fab = {"multi_targeted": True, "max_steps": 10, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    square = {"n_queries": 10, "p_init": 0.8, "loss": "margin", "resc_schedule": False}
    parts = (
        CLASSES["APGD"](**ball, loss="ce", steps=STEPS, rho=0.75),
        CLASSES["APGDT"](**ball, steps=STEPS, rho=0.75),
        CLASSES["FAB"](**ball, **fab),
        CLASSES["Square"](**ball, **square),
    )
    monkeypatch.setattr(AutoAttack, "parts", parts)
    return adversary
