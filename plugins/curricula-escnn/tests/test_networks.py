"""Networks over a group: invariant, and unaffected by mode, device and checkpoints."""

import copy
import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from curricula_escnn.plugin import curricula_models

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.models.normalise import with_normalisation
from curricula.models.resnet import resnet18
from curricula.models.small import stdcnn
from curricula.training.optimizers import SGD
from curricula.victim.model_victim import ModelVictim

SIZE = 22  # pixels; the smallest that all three take
GROUPS = ["c1", "c2", "c3", "c4", "c8", "c16", "d1", "d2", "d3", "d4", "d16"]
SMALL = ["gcnn-stdcnn(width=2)", "gcnn-vgg16(width=2)", "gcnn-resnet18(width=2)"]


def build(text, *, channels=2, size=SIZE, classes=5):
    torch.manual_seed(0)
    supplied = {"num_classes": classes, "in_channels": channels, "image_size": size}
    return factories.build("model", parse_call(text), supplied=supplied).value


def over(group, text):
    """Return the expression over a group; over large ones its width is 1, to save time."""
    text = text.replace("(", f"({group}, ")
    return text.replace("width=2", "width=1") if int(group[1:]) > 8 else text


def images(size=SIZE, channels=2):
    """Return a batch without any symmetry, with a black border as in data sets."""
    generator = torch.Generator().manual_seed(1)
    return F.pad(torch.rand((4, channels, size - 4, size - 4), generator=generator), 4 * [2])


X, Y = images(), torch.arange(4)


def train(model, x=X, steps=2, lr=0.01):
    optimizer = SGD(model.train().parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(x), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(text, **supplied):
    """Return a network two steps after its initial weights and batch-norm statistics."""
    model = build(text, **supplied)
    train(model, images(supplied.get("size", SIZE), supplied.get("channels", 2)))
    return model


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


TURNS = {
    "quarter": lambda x: x.rot90(1, (2, 3)),
    "half": lambda x: x.rot90(2, (2, 3)),
    "three quarters": lambda x: x.rot90(3, (2, 3)),
}
MIRRORS = {"mirror": lambda x: x.flip(3)}
MIRRORED_TURNS = {
    "upside down": lambda x: x.flip(2),
    "transposed": lambda x: x.mT,
}


def symmetries(group):
    """Return the moves of pixels to pixels that are elements of a group."""
    rotations = int(group[1:])
    turns, mirrored = {}, {}
    if rotations % 2 == 0:
        turns, mirrored = {"half": TURNS["half"]}, {"upside down": MIRRORED_TURNS["upside down"]}
    if rotations % 4 == 0:
        turns, mirrored = TURNS, MIRRORED_TURNS
    return turns if group[0] == "c" else turns | MIRRORS | mirrored


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("group", GROUPS)
def test_logits_are_invariant_under_the_group_and_no_other(text, group):
    fresh, later = build(over(group, text)), trained(over(group, text))
    moves = TURNS | MIRRORS | MIRRORED_TURNS
    batch = torch.cat([X, *(move(X) for move in moves.values())])
    for model in (fresh.eval(), later.eval()):
        with torch.no_grad():
            logits, *moved = model(batch).split(len(X))
        for name, other in zip(moves, moved, strict=True):
            change = (other - logits).abs().max()
            if name in symmetries(group):
                assert change < 1e-4, name
            else:
                assert change > 1e-3, name


@pytest.mark.parametrize(
    ("named", "general"),
    [
        ("p4cnn", "gcnn-stdcnn"),
        ("p4cnn(3, dropout=0)", "gcnn-stdcnn(c4, 3, 0)"),
        ("p4mcnn", "gcnn-stdcnn(d4)"),
        ("p4mcnn(dropout=0.1)", "gcnn-stdcnn(d4, dropout=0.1)"),
    ],
)
def test_the_named_forms_are_gcnn_stdcnn(named, general):
    one, other = build(named), build(general)
    assert repr(one) == repr(other)
    assert torch.equal(one.eval()(X), other.eval()(X))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("gcnn-stdcnn(width=2)", 22),
        ("gcnn-stdcnn(width=2)", 28),
        ("gcnn-stdcnn(width=2)", 64),
        ("gcnn-vgg16(width=1)", 18),
        ("gcnn-vgg16(width=1)", 28),
        ("gcnn-vgg16(width=1)", 64),
        ("gcnn-vgg16(width=1)", 224),
        ("gcnn-resnet18(width=1)", 8),
        ("gcnn-resnet18(width=1)", 28),
        ("gcnn-resnet18(width=1)", 224),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_is_invariant(text, size, channels):
    model, x = build(text, size=size, channels=channels).eval(), images(size, channels)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (4, 5)
        assert (model(x.rot90(1, (2, 3))) - logits).abs().max() < 1e-4
        assert (model(x.flip(3)) - logits).abs().max() > 1e-4


@pytest.mark.parametrize("normalisation", ["own", "none", "0.4,0.6/0.2"])
@pytest.mark.parametrize("text", SMALL[1:])
def test_the_border_is_black_in_any_normalisation(text, normalisation):
    padded, whole = (
        with_normalisation(build(text, size=size), normalisation, 2).eval() for size in (28, 32)
    )
    whole.load_state_dict(padded.state_dict())
    x = images(28)
    torch.testing.assert_close(padded(x), whole(F.pad(x, 4 * [2])))


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("group", ["c4", "c16", "d16"])
def test_initial_logits_are_moderate_and_training_reduces_the_loss(text, group):
    model = build(over(group, text).replace(")", ", dropout=0)" if "std" in text else ")"))
    logits = model(X)
    assert 0.05 < logits.std() < 20
    F.cross_entropy(logits, Y).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    losses = train(model, steps=10)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("saved_training", [True, False])
@pytest.mark.parametrize("loaded_training", [True, False])
def test_a_checkpoint_loads_in_any_mode(text, saved_training, loaded_training):
    model = trained(text)
    state = copy.deepcopy(model.train(saved_training).state_dict())
    assert sum(tensor.numel() for name, tensor in state.items() if "weight" in name) > 0.9 * sum(
        tensor.numel() for tensor in state.values()
    )  # no filters except the learned ones
    other = build(text).train(loaded_training)
    other.load_state_dict(state)
    assert other.training == loaded_training
    torch.testing.assert_close(other.eval()(X), model.eval()(X))


@pytest.mark.parametrize("text", [*SMALL, "gcnn-resnet18(d16, width=1)"])
def test_the_plain_equivalent_is_the_same_function_and_changes_nothing(text):
    model = trained(text).train()
    model.layers[3].eval()  # a frozen layer, as fine-tuning has it
    flags = [module.training for module in model.modules()]
    weights = [parameter.clone() for parameter in model.parameters()]
    before = torch.get_rng_state()
    plain = model.plain_equivalent().requires_grad_(False)
    assert torch.equal(torch.get_rng_state(), before)
    assert flags == [module.training for module in model.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in plain.modules())
    assert {type(m).__name__ for m in plain.modules()}.isdisjoint({"GroupConv", "FieldNorm"})
    logits = model.eval()(X)
    for network in (plain, copy.deepcopy(plain)):
        assert (network(X) - logits).abs().max() < 1e-5 * logits.abs().max().clamp(min=1)
    train(model)
    assert (plain(X) - logits).abs().max() < 1e-5 * logits.abs().max().clamp(min=1)
    assert not all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_plain_equivalent_has_the_same_device_and_dtype(text, device, dtype):
    model, x = build(text).to(device, dtype).eval(), X.to(device, dtype)
    torch.testing.assert_close(model.plain_equivalent()(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text", SMALL)
def test_the_victim_follows_the_weights(text):
    model = build(text).to(memory_format=torch.channels_last)
    victim = ModelVictim(model)
    for change in (lambda: train(model), lambda: model.load_state_dict(build(text).state_dict())):
        before = victim.logits(X)
        change()
        model.train()
        after = victim.logits(X)
        assert model.training
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, model.eval()(X), atol=1e-5, rtol=1e-5)
    gradient, _, _ = victim.gradient(X, Y)
    assert gradient.abs().sum() > 0
    assert not any(parameter.grad is None for parameter in model.parameters())


def test_models_share_no_tensors():
    first, second = build(SMALL[0]), build(SMALL[0]).eval()
    expected = second(X)
    first.double().eval()
    torch.testing.assert_close(first(X.double()).float(), expected)
    torch.testing.assert_close(build(SMALL[0]).eval()(X), expected)
    torch.testing.assert_close(copy.deepcopy(second)(X), expected)


RECORDS = {record.name: record for record in curricula_models()}
TWINS = {"stdcnn": stdcnn(10, 1, 28), "resnet18": resnet18(10, 3, 32)}
VGG16_CHANNELS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


@pytest.mark.parametrize("name", RECORDS)
def test_the_summary_states_both_parameter_counts(name):
    found = re.search(r"; ([\d,]+) parameters \((\w+) ([\d,]+)\)$", RECORDS[name].summary)
    ours, twin, theirs = found.groups()
    channels, size = (1, 28) if twin == "stdcnn" else (3, 32)
    network = build(name, channels=channels, size=size, classes=10)
    assert count(network) == int(ours.replace(",", ""))
    if twin == "vgg16":
        pairs = itertools.pairwise(VGG16_CHANNELS)
        plain = sum((9 * before + 1 + 2) * after for before, after in pairs) + (512 + 1) * 10
    else:
        plain = count(TWINS[twin])
    assert plain == int(theirs.replace(",", ""))
    assert abs(int(ours.replace(",", "")) / plain - 1) < 0.06


def test_over_one_element_it_is_the_plain_network():
    assert count(build("gcnn-resnet18(c1)", channels=3, classes=10)) == count(TWINS["resnet18"])
    biases_under_norm = 6 * 20
    network = build("gcnn-stdcnn(c1)", channels=1, size=28, classes=10)
    assert network.width == 20
    assert count(network) == count(TWINS["stdcnn"]) - biases_under_norm


@pytest.mark.parametrize("group", GROUPS)
def test_no_other_width_is_nearer_to_the_plain_network(group):
    plain = count(stdcnn(7, 3, 24))
    width = build(f"gcnn-stdcnn({group})", channels=3, size=24, classes=7).width
    distances = {
        other: abs(
            count(build(f"gcnn-stdcnn({group}, {other})", channels=3, size=24, classes=7)) - plain
        )
        for other in range(1, 30)
    }
    assert distances[width] == min(distances.values())


def test_the_resolved_expression_states_the_width():
    supplied = {"num_classes": 10, "in_channels": 3, "image_size": 32}
    built = factories.build("model", parse_call("gcnn-vgg16"), supplied=supplied)
    assert str(built.call) == "gcnn-vgg16(group=c4, width=32)"


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("p4cnn", 27, "an even size of 22x22 or more, up to 64x64, not 27x27"),
        ("p4mcnn", 20, "not 20x20"),
        ("gcnn-stdcnn", 224, "up to 64x64, not 224x224"),
        ("gcnn-vgg16", 33, "gcnn-vgg16 takes images of an even size of 18x18 or more, not 33x33"),
        ("gcnn-vgg16", 16, "not 16x16"),
        ("gcnn-vgg16", (32, 48), "gcnn-vgg16 takes square images of .*, not 32x48"),
        ("gcnn-resnet18", (32, 48), "gcnn-resnet18 takes square images of .*, not 32x48"),
        ("p4cnn", (32, 48), "takes square images of .*, up to 64x64, not 32x48"),
        ("gcnn-resnet18", 6, "gcnn-resnet18 takes images of an even size of 8x8 or more, not 6x6"),
        ("p4cnn(width=0)", 28, "width must lie from 1 to 10,000, not 0"),
        ("gcnn-vgg16(width=-1)", 32, "width must lie from 1 to 10,000, not -1"),
        ("gcnn-stdcnn(dropout=1)", 28, "dropout must lie from 0 to below 1, not 1"),
        ("gcnn-stdcnn(c17)", 28, "group must be c1 to c16 or d1 to d16, not c17"),
        ("gcnn-resnet18(so2, width=2)", 32, "group must be .*, not so2"),
        ("gcnn-vgg16(4)", 32, "group must be a name or a text in quotes, not 4"),
        ("p4cnn(group=c8)", 28, "unknown argument 'group'; model 'p4cnn' takes width, dropout"),
    ],
)
def test_wrong_arguments_are_refused(text, size, message):
    with pytest.raises(UserError, match=message):
        build(text, size=size)


def test_escnns_own_layers_are_attacked_as_they_are_in_eval_mode():
    """They compute their filters when they change to eval mode."""
    from escnn import gspaces
    from escnn import nn as enn

    class Steerable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            space = gspaces.rot2dOnR2(N=4)
            self.image = enn.FieldType(space, [space.trivial_repr])
            fields = enn.FieldType(space, 2 * [space.regular_repr])
            self.conv = enn.R2Conv(self.image, fields, kernel_size=3)
            self.relu = enn.ReLU(fields)
            self.pool = enn.GroupPooling(fields)
            self.last = torch.nn.Linear(2, 3)

        def forward(self, x):
            maps = self.pool(self.relu(self.conv(enn.GeometricTensor(x, self.image))))
            return self.last(maps.tensor.mean((2, 3)))

    torch.manual_seed(0)
    model, x, y = Steerable(), torch.rand(6, 1, 9, 9), torch.arange(6) % 3
    victim = ModelVictim(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        model.train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        gradient, _, logits = victim.gradient(x, y)
        assert gradient.any()
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        torch.testing.assert_close(logits, copy.deepcopy(model).eval()(x).detach())
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
