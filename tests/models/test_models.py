"""Networks: shapes, sizes, formulas."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
import torchvision
from fixtures.narrow import narrow_networks
from torch import nn

from curricula.data.spec import ImageSpec
from curricula.errors import UserError
from curricula.models.build import build_model, resolve_model
from curricula.models.normalise import Normalise
from curricula.models.resnet import PreActivationBlock
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.plugins.registry import Provider
from curricula.victim.model_victim import ModelVictim

OURS = [
    "smallcnn", "stdcnn", "lenet", "madry-mnist", "vgg11", "vgg13", "vgg16", "vgg19", "resnet18",
    "resnet34", "resnet50", "preact-resnet18", "wrn-28-10", "wrn-34-10", "wrn(16, 4)",
]  # fmt: skip


def built(text, *, classes=10, channels=1, size=28):
    names = tuple(str(number) for number in range(classes))
    return build_model(text, ImageSpec(classes=names, channels=channels, image_size=size))


def outlined(text, **kwargs):
    """Return the model on torch's meta device: shapes without values."""
    with torch.device("meta"):
        return built(text, **kwargs)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("text", "classes", "channels", "size"),
    [
        ("smallcnn", 10, 1, 28),
        ("smallcnn", 7, 3, 32),
        ("stdcnn", 10, 1, 28),
        ("stdcnn(width=5, dropout=0)", 4, 3, 32),
        ("lenet", 10, 1, 28),
        ("lenet", 7, 3, 32),
        ("lenet", 7, 3, 12),
        ("lenet", 7, 3, 64),
        ("madry-mnist", 10, 1, 28),
        ("madry-mnist", 7, 3, 32),
        ("madry-mnist", 7, 3, 29),
        ("madry-mnist", 7, 3, 3),
        ("vgg11", 10, 1, 28),
        ("vgg11", 7, 3, 32),
        ("vgg11", 7, 1, 17),
        ("resnet18", 10, 3, 32),
        ("resnet18", 3, 1, 28),
        ("preact-resnet18", 10, 3, 32),
        ("preact-resnet18", 7, 1, 28),
        ("preact-resnet18", 7, 1, 8),
        ("wrn(10, 1)", 10, 1, 28),
        ("wrn(depth=16, width=2, dropout=0.3)", 7, 3, 32),
        ("wrn(10, 1)", 7, 3, 4),
        ("wrn(10, 1)", 7, 3, 64),
        ("torchvision(squeezenet1_1)", 7, 1, 28),
        ("torchvision(mobilenet_v3_small)", 10, 3, 32),
        ("torchvision(shufflenet_v2_x0_5)", 10, 3, 224),
        ("torchvision(regnet_x_400mf)", 10, 1, 32),
        ("p4cnn", 10, 1, 28),
        ("p4cnn(width=2)", 4, 3, 32),
    ],
)
def test_a_model_takes_images_to_logits_and_can_be_trained_and_attacked(
    text, classes, channels, size
):
    with contextlib.nullcontext() if text.startswith("wrn") else narrow_networks():
        model = built(text, classes=classes, channels=channels, size=size)
    x, y = torch.rand(3, channels, size, size), torch.tensor([0, 1, 2])
    untouched = x.clone()
    logits = model(x)
    assert logits.shape == (3, classes)
    F.cross_entropy(logits, y).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    gradient, _, _ = ModelVictim(model).gradient(x, y)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert torch.equal(x, untouched)


@pytest.mark.parametrize("text", OURS)
def test_every_model_takes_grey_and_colour_of_the_usual_sizes(text):
    for classes, channels, size in ((10, 1, 28), (7, 3, 32), (7, 1, 64)):
        model = outlined(text, classes=classes, channels=channels, size=size)
        x = torch.empty((2, channels, size, size), device="meta")
        assert model(x).shape == (2, classes)


@pytest.mark.parametrize("size", [(24, 41), (41, 24), (22, 100)])
@pytest.mark.parametrize("text", [*OURS, "torchvision(squeezenet1_1)", "torchvision(resnet18)"])
def test_every_model_takes_images_that_are_not_square(text, size):
    model = outlined(text, classes=3, channels=1, size=size)
    assert model(torch.empty(2, 1, *size, device="meta")).shape == (2, 3)
    if text in ("smallcnn", "stdcnn", "lenet", "madry-mnist"):
        with torch.random.fork_rng([]):
            model = built(text, classes=3, channels=1, size=size)
        assert model(torch.rand(2, 1, *size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smallcnn", "smallcnn takes images of 16x16 or more, not 15x40"),
        ("stdcnn", "stdcnn takes images of 22x22 or more, not 15x40"),
        ("vgg11", "vgg11 takes images of 17x17 or more, not 15x40"),
        ("torchvision(vit_b_16)", r"torchvision.vit_b_16. takes .*not 15x40"),
        ("squares", "model squares takes one number as image_size, so square images, not 15x40"),
    ],
)
def test_images_that_are_too_low_or_not_square_are_one_line(text, message):
    def squares(num_classes, in_channels, image_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, num_classes))

    class Squares:
        @hookimpl
        def curricula_models(self):
            return [Record(name="squares", factory=squares, summary="")]

    registry.current().add(Squares(), Provider(name="squares", source="file"))
    with pytest.raises(UserError, match=message) as caught:
        built(text, size=(15, 40))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["lenet", "vgg11", "resnet18", "preact-resnet18", "wrn(10, 2)"])
def test_in_eval_mode_the_logits_of_an_image_depend_on_no_other_image(text):
    torch.manual_seed(0)
    model, x = built(text), torch.rand(4, 1, 28, 28)
    model(x)  # gives batch norm its statistics
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", [*OURS, "torchvision(resnet18)"])
def test_normalisation_comes_first(text):
    model = outlined(text)
    assert isinstance(model[0], Normalise)
    torch.testing.assert_close(
        Normalise()(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0, 1])
    )


def vgg_count(repeats, classes, channels):
    """Count the parameters of convolutions with biases, batch norms and the linear layer."""
    total, before = 512 * classes + classes, channels
    for repeat, width in zip(repeats, (64, 128, 256, 512, 512), strict=True):
        for _ in range(repeat):
            total += 9 * before * width + width + 2 * width
            before = width
    return total


def pre_activation_count(stem, widths, blocks, classes, channels):
    """Count the parameters of 3x3 convolutions without biases, a batch norm before each except the
    first and one at the end, and a 1x1 convolution where the number of channels changes."""
    total, before = 9 * channels * stem, stem
    for width in widths:
        for _ in range(blocks):
            total += 2 * before + 9 * before * width + 2 * width + 9 * width * width
            total += before * width if before != width else 0
            before = width
    return total + 2 * before + before * classes + classes


def test_sizes_are_those_of_the_papers():
    assert count(outlined("smallcnn")) == 312_202
    conv, linear = 25 * 6 + 6 + 25 * 6 * 16 + 16, 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10
    assert count(outlined("lenet")) == conv + linear == 61_706
    conv = 25 * 32 + 32 + 25 * 32 * 64 + 64
    assert count(outlined("madry-mnist")) == conv + 3136 * 1024 + 1024 + 10_250 == 3_274_634
    plain, equivariant = count(built("stdcnn")), count(built("p4cnn"))
    assert plain == 21_750
    assert abs(equivariant / plain - 1) < 0.1


@pytest.mark.parametrize(
    ("text", "parameters"),
    [  # for 32x32 colour images and 10 classes, as published
        ("vgg11", 9_231_114),
        ("vgg13", 9_416_010),
        ("vgg16", 14_728_266),
        ("vgg19", 20_040_522),
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("preact-resnet18", 11_171_146 + 2 * 512),  # the final batch norm, which some leave out
        ("wrn-28-10", 36_479_194),
        ("wrn-34-10", 46_160_474),
    ],
)
def test_sizes_of_the_networks_for_small_images(text, parameters):
    assert count(outlined(text, channels=3, size=32)) == parameters


@pytest.mark.parametrize(("classes", "channels"), [(10, 3), (7, 1)])
def test_sizes_follow_from_the_tables_of_the_papers(classes, channels):
    def size(text):
        return count(outlined(text, classes=classes, channels=channels, size=32))

    assert size("vgg11") == vgg_count((1, 1, 2, 2, 2), classes, channels)
    assert size("vgg13") == vgg_count((2, 2, 2, 2, 2), classes, channels)
    assert size("vgg16") == vgg_count((2, 2, 3, 3, 3), classes, channels)
    assert size("vgg19") == vgg_count((2, 2, 4, 4, 4), classes, channels)
    preact = pre_activation_count(64, (64, 128, 256, 512), 2, classes, channels)
    assert size("preact-resnet18") == preact
    for text, depth, width in [
        ("wrn-28-10", 28, 10), ("wrn-34-10", 34, 10), ("wrn(16, 4)", 16, 4), ("wrn(10, 1)", 10, 1),
    ]:  # fmt: skip
        widths = (16 * width, 32 * width, 64 * width)
        wide = pre_activation_count(16, widths, (depth - 4) // 6, classes, channels)
        assert size(text) == wide


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_layers_of_a_vgg_are_torchvisions(depth):
    def layers(network):
        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)
        found = [layer for layer in network.modules() if isinstance(layer, kinds)]
        return [(type(layer), *(tuple(p.shape) for p in layer.parameters())) for layer in found]

    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"vgg{depth}_bn").features
    ours = outlined(f"vgg{depth}", channels=3, size=32)
    assert layers(ours) == layers(theirs)


def maps(text, size):
    """Return (kernel size, side of the output map) of every convolution, in order of execution."""
    model, found = outlined(text, channels=3, size=size), []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda conv, _, out: found.append((conv.kernel_size[0], out.shape[-1]))
            )
    model(torch.empty((2, 3, size, size), device="meta"))
    return found


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("vgg11", 32, [32, 16, 8, 4, 2]),
        ("vgg11", 28, [28, 14, 7, 4, 2]),
        ("vgg11", 17, [17, 9, 5, 3, 2]),
        ("resnet18", 32, [32, 16, 8, 4]),
        ("resnet50", 28, [28, 14, 7, 4]),
        ("preact-resnet18", 32, [32, 16, 8, 4]),
        ("preact-resnet18", 28, [28, 14, 7, 4]),
        ("wrn-28-10", 32, [32, 16, 8]),
        ("wrn(10, 1)", 28, [28, 14, 7]),
    ],
)
def test_each_stage_has_its_map(text, size, expected):
    assert list(dict.fromkeys(side for _, side in maps(text, size))) == expected


@pytest.mark.parametrize(
    ("text", "convolutions", "projections"),
    [  # depth counts the stem and the 3x3 convolutions, and in a resnet the linear layer, in a
        # wrn three projections (width 1 needs only two)
        ("resnet18", 17, 3),
        ("resnet34", 33, 3),
        ("preact-resnet18", 17, 3),
        ("wrn-28-10", 25, 3),
        ("wrn-34-10", 31, 3),
        ("wrn(40, 1)", 37, 2),
    ],
)
def test_a_network_is_as_deep_as_its_name(text, convolutions, projections):
    kernels = [kernel for kernel, _ in maps(text, 32)]
    assert kernels.count(3) == convolutions
    assert kernels.count(1) == projections
    assert len(kernels) == convolutions + projections


@pytest.mark.parametrize(("before", "after", "stride"), [(4, 4, 1), (4, 6, 1), (4, 6, 2)])
def test_a_pre_activation_block_is_its_formula(before, after, stride):
    torch.manual_seed(0)
    block = PreActivationBlock(before, after, stride, 0.0).double()
    x = torch.randn(3, before, 8, 8).double()
    for _ in range(3):
        block(torch.randn(16, before, 8, 8).double())
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    block.eval()
    gain1, bias1, conv1, gain2, bias2, conv2, *projection = block.parameters()
    mean1, var1, _, mean2, var2, _ = block.buffers()
    a = F.batch_norm(x, mean1, var1, gain1, bias1).relu()
    h = F.batch_norm(F.conv2d(a, conv1, stride=stride, padding=1), mean2, var2, gain2, bias2)
    shortcut = F.conv2d(a, projection[0], stride=stride) if projection else x
    torch.testing.assert_close(block(x), F.conv2d(h.relu(), conv2, padding=1) + shortcut)
    assert len(projection) == (before != after)


def test_pre_activation_networks_end_in_batch_norm_relu_average_and_one_linear_layer():
    torch.manual_seed(0)
    model = built("wrn(10, 1)", classes=5).eval()
    seen = []
    norm, linear = model[1][-5], model[1][-1]
    norm.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    logits = model(torch.rand(2, 1, 28, 28))
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(logits, linear(seen[0].relu().mean((2, 3))))


def test_dropout_acts_only_in_training_and_before_the_second_convolution():
    torch.manual_seed(0)
    model, x = built("wrn(10, 1, dropout=0.5)"), torch.rand(4, 1, 28, 28)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    block = PreActivationBlock(3, 3, 1, 0.5)
    dropped = [isinstance(layer, nn.Dropout) for layer in block.residual]
    assert dropped.index(True) == len(dropped) - 2
    zero = built("wrn(10, 1)")
    assert torch.equal(zero(x), zero(x))


@pytest.mark.parametrize("text", ["vgg11", "resnet18", "preact-resnet18", "wrn(16, 4)"])
def test_convolutions_have_the_initial_weights_of_he_et_al(text):
    torch.manual_seed(0)
    for layer in built(text).modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 10_000:
            height, width = layer.kernel_size
            expected = (2 / (height * width * layer.out_channels)) ** 0.5
            weight = layer.weight.detach()
            assert abs(float(weight.std()) / expected - 1) < 0.05
            assert abs(float(weight.mean())) < 0.1 * expected


FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18",
    "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_classifiers_take_any_channels_and_classes_in_training_too(name):
    model = outlined(f"torchvision({name})", classes=7, channels=1, size=224).train()
    assert model(torch.empty((2, 1, 224, 224), device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "inception_v3"])
def test_torchvision_classifiers_are_the_published_ones(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    model = outlined(f"torchvision({name})", classes=1000, channels=3, size=224)
    assert count(model) == published


@pytest.mark.parametrize("name", ["convnext_tiny", "googlenet", "resnet18", "vit_b_32"])
def test_for_grey_images_a_torchvision_classifier_loses_two_thirds_of_its_first_filters(name):
    colour = outlined(f"torchvision({name})", channels=3, size=224)
    grey = outlined(f"torchvision({name})", channels=1, size=224)
    theirs, ours = first_convolution(colour), first_convolution(grey)
    assert count(colour) - count(grey) == theirs.weight.numel() * 2 / 3
    assert ours.weight.shape == (len(theirs.weight), 1, *theirs.weight.shape[2:])
    assert (ours.stride, ours.padding) == (theirs.stride, theirs.padding)


def first_convolution(network):
    return next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize(
    "name", ["alexnet", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1", "vgg11"]
)
def test_torchvision_classifiers_report_their_smallest_image_size(name):
    smallest, _ = torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"]
    outlined(f"torchvision({name})", size=smallest)
    message = (
        rf"^torchvision\({name}\) takes images of {smallest}x{smallest} or more, "
        rf"not {smallest - 1}x{smallest - 1}$"
    )
    with pytest.raises(UserError, match=message):
        outlined(f"torchvision({name})", size=smallest - 1)


def test_checking_the_size_does_not_change_a_torchvision_classifier():
    torch.manual_seed(0)
    ours = built("torchvision(resnet18)", classes=5, channels=3, size=32)[1]
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5)
    assert ours.training
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("torchvision(resnet18)", "torchvision(name=resnet18, weights=none)"),
        ("wrn(16, 4)", "wrn(depth=16, width=4, dropout=0)"),
        ("wrn-28-10", "wrn-28-10(dropout=0)"),
        ("preact-resnet18", "preact-resnet18"),
    ],
)
def test_the_resolved_call_is_complete_and_builds_the_same_model(text, call):
    spec = ImageSpec(classes=("cat", "dog"), channels=1, image_size=32)
    with torch.device("meta"):
        first, again = (resolve_model(each, spec) for each in (text, call))
    assert str(first.call) == str(again.call) == call


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("smallcnn", 15, "16x16 or more, not 15x15"),
        ("stdcnn", 21, "22x22 or more"),
        ("stdcnn(width=0)", 28, "width must lie from 1 to 10,000, not 0"),
        ("stdcnn(dropout=1)", 28, "dropout must lie from 0 to below 1"),
        ("stdcnn(depth=3)", 28, "unknown argument 'depth'; model 'stdcnn' takes width, dropout"),
        ("stdcnn(num_classes=3)", 28, "unknown argument 'num_classes'"),
        ("lenet", 11, "lenet takes images of 12x12 or more, not 11x11"),
        ("madry-mnist", 2, "madry-mnist takes images of 3x3 or more, not 2x2"),
        ("vgg11", 16, "vgg11 takes images of 17x17 or more, not 16x16"),
        ("vgg19", 16, "vgg19 takes images of 17x17 or more, not 16x16"),
        ("resnet18", 4, "8x8 or more"),
        ("resnet50", 7, "resnet50 takes images of 8x8 or more, not 7x7"),
        ("preact-resnet18", 7, "preact-resnet18 takes images of 8x8 or more, not 7x7"),
        ("wrn(10, 1)", 3, "wrn takes images of 4x4 or more, not 3x3"),
        ("wrn-28-10", 3, "4x4 or more, not 3x3"),
        ("wrn", 32, "depth is missing"),
        ("wrn(28)", 32, "width is missing"),
        ("wrn(28.5, 10)", 32, "depth must be a whole number"),
        (
            "wrn(27, 10)",
            32,
            r"depth must be 6n \+ 4 \(10, 16, 22, 28, 34, 40...\), at most 1,000, not 27",
        ),
        ("wrn(4, 10)", 32, r"depth must be 6n \+ 4 .*, not 4"),
        ("wrn(-2, 10)", 32, r"depth must be 6n \+ 4 .*, not -2"),
        ("wrn(28, 0)", 32, "width must lie from 1 to 10,000, not 0"),
        ("wrn-34-10(dropout=1)", 32, "dropout must lie from 0 to below 1, not 1"),
        ("wrn-34-10(width=2)", 32, "unknown argument 'width'; model 'wrn-34-10' takes dropout"),
        ("torchvision", 32, "name is missing"),
        ("torchvision(3)", 32, "name must be a name or a text in quotes, not 3"),
        ("torchvision(resnet51)", 32, "unknown torchvision model 'resnet51': did you mean resnet"),
        ("torchvision(fcn_resnet50)", 32, "unknown torchvision model 'fcn_resnet50': did you mean"),
        ("torchvision(qqq)", 32, "unknown torchvision model 'qqq': known: alexnet, "),
        ("torchvision(resnet18, weights=imagenet)", 32, "unknown weights 'imagenet' of"),
        ("torchvision(vit_b_16)", 28, "a multiple of 16, not 28x28"),
        ("torchvision(vit_h_14)", 32, "a multiple of 14, not 32x32"),
        ("torchvision(maxvit_t)", 32, "a multiple of 224, not 32x32"),
        ("p4cnn", 27, "an even size of 22x22 or more"),
        ("resnet81", 32, "did you mean resnet18"),
    ],
)
def test_wrong_models_are_refused(text, size, message):
    with pytest.raises(UserError, match=message) as caught:
        built(text, size=size)
    assert "\n" not in str(caught.value)
