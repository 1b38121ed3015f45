"""Every registered model keeps the contract, and each clause can be broken."""

import copy
import functools
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fixtures.narrow import narrow_networks
from torch import nn

from curricula.data.spec import ImageSpec
from curricula.expressions import factories
from curricula.expressions.model_files import named_model
from curricula.expressions.syntax import parse_call
from curricula.models import Normalise
from curricula.models.build import build_model
from curricula.plugins import registry
from curricula.testing import MODEL_CLAUSES, check_model
from curricula.testing import models as clauses

REGISTERED = registry.build_registry().records("model")
OWN = Path(__file__).parents[1] / "fixtures" / "own_net.py"
EXPRESSIONS = {
    "file": f"{OWN}:OwnNet",
    "torchvision": "torchvision(squeezenet1_1)",
    "timm": "timm(test_resnet)",
    "wrn": "wrn(10, 16)",
    "p4cnn": "p4cnn(width=4)",
    "p4mcnn": "p4mcnn(width=4)",
    "gcnn-stdcnn": "gcnn-stdcnn(width=4)",
    "gcnn-vgg16": "gcnn-vgg16(width=4)",
    "gcnn-resnet18": "gcnn-resnet18(width=4)",
}
"""Expressions of models whose name alone is incomplete, or a large network."""
RANDOM = ("randomised", "smoothed")
"""Models that are random by design: tests/models/test_randomised.py tests them."""
LARGE = [name for name in REGISTERED if name.startswith(("vgg", "resnet", "preact", "wrn-"))]
CONTRACTED = [EXPRESSIONS.get(name, name) for name in REGISTERED if name not in RANDOM]
SIZES = (8, 16, 22, 24, 32, 64, 224)


def factory(text):
    """Return the factory of an expression; large networks have fewer channels."""

    def build(num_classes, in_channels, image_size):
        names = tuple(str(number) for number in range(num_classes))
        spec = ImageSpec(classes=names, channels=in_channels, image_size=image_size)
        with narrow_networks():
            return build_model(named_model(text), spec)

    return build


@functools.cache
def smallest(text):
    """Return the smallest of some image sizes that the model takes: the fastest to test."""
    for side in SIZES:
        try:
            factory(text)(num_classes=5, in_channels=3, image_size=side)
        except ValueError:
            continue
        return side
    raise AssertionError(f"{text} takes none of {SIZES}")


@pytest.mark.parametrize("text", CONTRACTED)
@pytest.mark.parametrize("clause", MODEL_CLAUSES)
def test_the_contract_is_kept(text, clause):
    clause(factory(text), image_size=smallest(text))


@pytest.mark.parametrize("name", LARGE)
def test_a_network_with_fewer_channels_has_the_layers_of_the_registered_one(name):
    def layers(network):
        return [(name, type(layer)) for name, layer in network.named_modules()]

    images = {"num_classes": 5, "in_channels": 3, "image_size": 32}
    with torch.device("meta"):
        registered = factories.build("model", parse_call(name), supplied=images).value
        narrow = factory(name)(**images)
    assert layers(narrow) == layers(registered)


def test_the_author_of_a_model_chooses_the_images():
    assert check_model(factory("smallcnn"), image_size=16, channels=[1], num_classes=10) == {}


class Broken(nn.Module):
    """A convolution, batch norm, dropout and a linear layer, correct except for what ``how``
    says."""

    def __init__(self, how, num_classes, in_channels, image_size):
        super().__init__()
        if how == "takes only 32x32":
            image_size = 32
        side = image_size // 2
        if side < 1 and how != "breaks on a pixel":
            raise ValueError(f"takes images of 2x2 or more, not {image_size}x{image_size}")
        self.how = how
        self.normalise = Normalise()
        self.stem = nn.Conv2d(in_channels, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4 * side * side, num_classes + (how == "has a class too many"))
        match how:
            case "has a spare layer":
                self.spare = nn.Linear(2, 2)
            case "draws its weights from a new generator":
                own_generator = torch.Generator()
                own_generator.seed()
                nn.init.normal_(self.head.bias, generator=own_generator)
            case "holds a lock":
                self.lock = threading.Lock()
            case "counts its passes in training":
                self.passes = 0
            case "keeps a plain tensor":
                self.plain = torch.zeros(num_classes)
            case "names a buffer at random":
                self.register_buffer(f"seen{torch.randint(10**9, ()).item()}", torch.zeros(()))

    def forward(self, x):
        if self.how == "writes to its images":
            x.sub_(0.5)
        if self.how == "writes to its images in training" and self.training:
            x.mul_(0.5)
        features = self.stem(self.normalise(x))
        if self.how == "normalises by the batch":
            features = F.batch_norm(features, None, None, training=True)
        features = self.dropout(F.relu(self.norm(features)))
        match self.how:
            case "drops out in eval mode":
                features = F.dropout(features, 0.5, training=True)
            case "draws in eval mode":
                torch.rand(1)
        logits = self.head(features.flatten(1))
        match self.how:
            case "returns probabilities":
                return logits.softmax(1)
            case "overflows in bf16" if torch.is_autocast_enabled("cpu"):
                return logits / 0
            case "learns nothing":
                return logits.detach() + 0 * logits
            case "keeps a plain tensor":
                if self.training:
                    self.plain = logits.detach().mean(0) * 100
                return logits + self.plain
            case "counts its passes in training":
                self.passes += self.training
                return logits * (1 + self.passes)
        return logits

    def state_dict(self, *arguments, **keywords):
        state = super().state_dict(*arguments, **keywords)
        if self.how == "saves fewer tensors in training" and self.training:
            del state["head.bias"]
        if self.how == "keeps its head out of checkpoints":
            del state["head.bias"], state["head.weight"]
        return state

    def load_state_dict(self, state, **keywords):
        loaded = super().load_state_dict(
            state, strict=self.how != "keeps its head out of checkpoints"
        )
        if self.how == "sets eval mode when loaded":
            self.eval()
        return loaded


class Equivalent(Broken):
    """Offers a plain equivalent, correct except for what ``how`` says."""

    remembered = None

    def plain_equivalent(self):
        if self.how == "changes the mode":
            self.eval()
        if self.how == "is built only once" and self.remembered:
            return self.remembered[0]
        parts = copy.deepcopy([self.normalise, self.stem, self.norm, self.head])
        if self.how == "is rounded":
            parts[-1].to(torch.bfloat16).to(torch.float32)
        normalise, stem, norm, head = parts
        plain = nn.Sequential(normalise, stem, norm, nn.ReLU(), nn.Flatten(), head).eval()
        self.remembered = [plain]
        return plain


def broken(how, base=Broken):
    return functools.partial(base, how)


BROKEN = {
    "has a class too many": clauses.model_is_a_classifier,
    "returns probabilities": clauses.model_is_a_classifier,
    "overflows in bf16": clauses.logits_are_finite_in_each_mode_and_precision,
    "normalises by the batch": clauses.eval_logits_do_not_depend_on_the_batch,
    "drops out in eval mode": clauses.eval_logits_do_not_depend_on_the_batch,
    "draws in eval mode": clauses.eval_logits_do_not_depend_on_the_batch,
    "draws its weights from a new generator": clauses.seed_determines_the_weights,
    "names a buffer at random": clauses.checkpoint_loads_in_any_mode,
    "saves fewer tensors in training": clauses.checkpoint_loads_in_any_mode,
    "keeps its head out of checkpoints": clauses.checkpoint_loads_in_any_mode,
    "sets eval mode when loaded": clauses.checkpoint_loads_in_any_mode,
    "keeps a plain tensor": clauses.checkpoint_loads_in_any_mode,
    "has a spare layer": clauses.every_weight_is_trained,
    "learns nothing": clauses.every_weight_is_trained,
    "writes to its images": clauses.input_is_not_changed,
    "writes to its images in training": clauses.input_is_not_changed,
    "holds a lock": clauses.model_is_a_classifier,
    "counts its passes in training": clauses.victim_matches_the_model,
    "takes only 32x32": clauses.unsupported_size_is_refused,
    "breaks on a pixel": clauses.unsupported_size_is_refused,
}
BROKEN_EQUIVALENT = ["is rounded", "is built only once", "changes the mode"]


@pytest.mark.parametrize("base", [Broken, Equivalent])
def test_the_examples_are_right_except_for_the_broken_part(base):
    assert check_model(broken("not at all", base), image_size=8) == {}


def test_a_frozen_layer_is_allowed():
    def half_frozen(**images):
        model = Broken("not at all", **images)
        model.stem.requires_grad_(False)
        return model

    assert check_model(half_frozen, image_size=8) == {}


@pytest.mark.parametrize("how", BROKEN)
def test_each_clause_catches_its_fault(how):
    size = 32 if how == "takes only 32x32" else 8
    with pytest.raises((AssertionError, TypeError)):
        BROKEN[how](broken(how), image_size=size)


@pytest.mark.parametrize("how", BROKEN_EQUIVALENT)
def test_a_wrong_plain_equivalent_is_caught(how):
    with pytest.raises(AssertionError):
        clauses.plain_equivalent_matches_the_model(broken(how, Equivalent), image_size=8)


def test_every_clause_has_a_broken_example():
    caught = {*BROKEN.values(), clauses.plain_equivalent_matches_the_model}
    assert caught == set(MODEL_CLAUSES)
