"""Logits are taken from a tensor, or found under that name; everything else is one line."""

import math
from collections import UserDict, namedtuple

import pytest
import torch
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.victim.model_checks import check_classifier, check_measurable
from curricula.victim.model_victim import ModelVictim

X, Y = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
Output = namedtuple("Output", ["logits", "auxiliary"])


class Answer:
    """As Hugging Face's outputs have their logits in an attribute."""

    def __init__(self, logits):
        self.loss, self.logits = None, logits


class Returns(nn.Module):
    """A linear classifier whose logits go through a function."""

    def __init__(self, function, classes=3):
        super().__init__()
        self.linear, self.function = nn.Linear(16, classes), function

    def forward(self, x):
        return self.function(self.linear(x.flatten(1)))


TAKEN = {
    "mapping": lambda logits: {"loss": None, "logits": logits},
    "other mapping": lambda logits: UserDict(logits=logits),
    "attribute": Answer,
    "named tuple": lambda logits: Output(logits, logits * 0),
    "float64": lambda logits: logits.double(),
}
REFUSED = {
    "tuple": (lambda logits: (logits, logits), "a tuple, not a tensor; let it return only"),
    "list": (lambda logits: [logits], "a list, not a tensor"),
    "mapping": (lambda logits: {"scores": logits}, "a dict, not a tensor"),
    "empty logits": (lambda logits: {"logits": None}, "a dict, not a tensor"),
    "none": (lambda logits: None, "a NoneType, not a tensor"),
    "map": (lambda logits: logits[:, :, None, None], r"shape \(\d, 3, 1, 1\) .* flatten it"),
    "large map": (
        lambda logits: logits[:, :, None].expand(-1, -1, 4),
        r"shape \(\d, 3, 4\) for \d",
    ),
    "labels": (lambda logits: logits.argmax(1), r"shape \(\d,\) for \d images"),
    "one": (lambda logits: logits[:, :1], r"shape \(\d, 1\) .*(two for two|num_classes outputs)"),
    "half the images": (lambda logits: logits[:3], r"shape \(3, 3\) for \d+ images"),
    "scalar": (lambda logits: logits.sum(), r"shape \(\) for \d images"),
    "transposed": (lambda logits: logits.t(), r"shape \(3, \d\) for \d images"),
    "in a mapping": (lambda logits: {"logits": logits[:, :, None]}, r"shape \(\d, 3, 1\)"),
    "integers": (lambda logits: logits.long(), "type torch.int64, not floating logits"),
    "booleans": (lambda logits: logits > 0, "type torch.bool, not floating logits"),
    "complex": (lambda logits: logits + 0j, "type torch.complex64, not floating logits"),
    "nan": (lambda logits: logits * math.nan, "logits that are not finite; look for"),
    "inf": (lambda logits: logits + math.inf, "logits that are not finite"),
    "-inf": (lambda logits: logits.masked_fill(logits > 0, -math.inf), "are not finite"),
}


def attacked(model, text):
    curriculum = curricula.Curriculum.parse(text)
    strengths = dict.fromkeys(curriculum.tree.leaves, 1.0)
    victim = curricula.ModelVictim(model)
    return curriculum(X, Y, strengths=strengths, victim=victim, generator=torch.Generator())


DOORS = {
    "training": lambda model: check_classifier(model, X, 3),
    "evaluation": lambda model: check_measurable(model, X, Y),
    "victim": lambda model: ModelVictim(model).logits(X),
    "gradient": lambda model: ModelVictim(model).gradient(X, Y),
    "pgd": lambda model: attacked(model, "pgd(0.1, steps=1)"),
    "square": lambda model: attacked(model, "square(0.1, queries=1)"),
    "worst": lambda model: attacked(model, "worst(rot:30, k=2)"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", TAKEN)
def test_logits_are_found(name, door):
    torch.manual_seed(0)
    DOORS[door](Returns(TAKEN[name]))


@pytest.mark.parametrize("name", TAKEN)
def test_the_logits_that_are_found_are_the_networks(name):
    model = Returns(TAKEN[name])
    expected = model.linear(X.flatten(1))
    torch.testing.assert_close(ModelVictim(model).logits(X), expected)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_in_one_line(name, door):
    torch.manual_seed(0)
    function, message = REFUSED[name]
    with pytest.raises(UserError, match=f"^the model .*{message}") as caught:
        DOORS[door](Returns(function))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_the_number_of_outputs_is_that_of_the_classes(classes):
    model = Returns(lambda logits: logits, classes)
    with pytest.raises(UserError, match=f"has {classes} outputs .* the data have 3 classes; give"):
        check_measurable(model, X, Y * 0, 3)
    check_measurable(model, X, Y * 0, classes)
    check_measurable(model, X, Y * 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_are_given_in_the_dtype_of_the_weights(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.to(dtype)
    check_classifier(model, X, 3)
    check_measurable(model, X, Y, 3)
    gradient, _, logits = ModelVictim(model).gradient(X, Y)
    assert gradient.dtype == logits.dtype == torch.float32
    expected = model.eval()(X.to(dtype)).float()
    torch.testing.assert_close(logits, expected, rtol=2e-2, atol=2e-2)
    assert gradient.any()


def test_images_of_any_dtype_are_taken():
    model = Returns(lambda logits: logits)
    victim = ModelVictim(model)
    expected = victim.logits(X)
    for dtype in (torch.float64, torch.float16):
        gradient, _, logits = victim.gradient(X.to(dtype), Y)
        assert gradient.dtype == dtype
        torch.testing.assert_close(logits, expected, rtol=1e-2, atol=1e-2)


def test_a_lazy_network_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"weight without a shape \(1.weight\); run it once"):
        check_measurable(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), X, Y)


class Writes(nn.Module):
    """Normalises its images in place."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x):
        x.sub_(0.5).div_(0.5)
        return self.linear(x.flatten(1))


class WritesLater(Writes):
    """Writes to its images from its second pass on, in one of them."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > 1:
            x[0].zero_()
        return self.linear(x.flatten(1))


class WritesThroughRelu(Writes):
    def forward(self, x):
        return self.linear(nn.functional.relu_(x.sub_(0.3)).flatten(1))


class WritesThroughData(Writes):
    def forward(self, x):
        x.data.sub_(0.3)
        return self.linear(x.flatten(1))


class ChangesAxes(Writes):
    def forward(self, x):
        return self.linear(x.transpose_(2, 3).squeeze_(1).flatten(1))


class WritesThroughArray(Writes):
    def forward(self, x):
        x.detach().numpy()[...] *= 0.5
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    "kind",
    [Writes, WritesLater, WritesThroughRelu, WritesThroughData, ChangesAxes, WritesThroughArray],
)
@pytest.mark.parametrize(
    "text", ["pgd(0.1, steps=2)", "worst(rot:30, k=3)", "square(0.1, queries=3)"]
)
def test_a_network_that_writes_to_its_images_gets_a_copy(kind, text):
    torch.manual_seed(0)
    before = X.clone()
    found = attacked(kind(), text)
    assert torch.equal(X, before)
    assert torch.equal(found.clean, before)
    if kind is Writes:  # the same network that does not write
        torch.manual_seed(0)
        linear = Writes().linear
        model = nn.Sequential(curricula.models.Normalise(), nn.Flatten(), linear)
        torch.testing.assert_close(found.perturbed, attacked(model, text).perturbed)


@pytest.mark.parametrize("kind", [Writes, WritesThroughRelu])
def test_training_refuses_a_network_that_writes_to_its_images(kind):
    with pytest.raises(UserError, match="writes to its images, which are used again; let it work"):
        check_classifier(kind(), X, 3)
