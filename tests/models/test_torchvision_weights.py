"""Pretrained weights of torchvision, from a cache that the tests make: nothing is downloaded."""

import hashlib
import re
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms.v2 import functional as transforms

import curricula
from curricula.data.spec import ImageSpec
from curricula.errors import Notice, UserError
from curricula.models.build import build_model, resolve_model
from curricula.models.weights import Weights, load_weights

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def spec(classes=1000, channels=3, size=64):
    names = tuple(str(number) for number in range(classes))
    return ImageSpec(classes=names, channels=channels, image_size=size)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Return a function that makes a network of torchvision's with random weights and statistics,
    puts them into the cache as its pretrained ones, and returns the network in eval mode."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(name, *, state=None, **keywords):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None, **keywords)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                nn.init.uniform_(layer.running_var, 0.9, 1.1)
        store(name, network.state_dict() if state is None else state)
        return network.eval()

    def store(name, content):
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / "new.pth")
        digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
        path = (folder / "new.pth").rename(folder / f"{name}-{digest[:8]}.pth")
        default = torchvision.models.get_model_weights(name).DEFAULT
        monkeypatch.setattr(default.value, "url", f"https://download.invalid/models/{path.name}")
        return path

    put.store = store
    return put


def images(channels=3, size=64):
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("weights", ["default", "DEFAULT", "IMAGENET1K_V1"])
def test_pretrained_weights_give_torchvisions_logits_on_images_in_0_to_1(cached, weights):
    theirs = cached("shufflenet_v2_x0_5")
    ours = build_model(f"torchvision(shufflenet_v2_x0_5, weights={weights})", spec()).eval()
    x = images()
    expected = theirs(transforms.normalize(x, MEAN, STD))
    torch.testing.assert_close(ours(x), expected)
    assert expected.std(0).max() > 1e-6, "the logits must depend on the image"


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "mnasnet0_5", "squeezenet1_1"])
def test_weights_of_every_age_and_form_are_loaded(cached, name):
    aux = {"aux_logits": True, "init_weights": True} if name == "googlenet" else {}
    theirs = cached(name, **aux)
    if name == "densenet121":  # its published file has the names of an older torch
        old = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): tensor
            for key, tensor in theirs.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        assert old.keys() - theirs.state_dict().keys()
        cached.store(name, OrderedDict(old))
    ours = build_model(f"torchvision({name}, weights=default)", spec()).eval()
    x = images()
    if name == "googlenet":
        theirs.transform_input = True  # as torchvision sets it for these weights
    torch.testing.assert_close(
        ours(x), theirs(transforms.normalize(x, MEAN, STD)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "head"),
    [("shufflenet_v2_x0_5", "fc."), ("squeezenet1_1", "classifier.1.")],
)
def test_other_classes_get_a_new_last_layer_and_a_line_says_so(cached, name, head):
    theirs = cached(name).state_dict()
    message = rf"torchvision\({name}, .*1,000 classes: its last layer, for 7, is new and not"
    with pytest.warns(Notice, match=message):
        ours = build_model(f"torchvision({name}, weights=default)", spec(classes=7))
    for key, tensor in ours[1].state_dict().items():
        if key.startswith(head):
            assert len(tensor) == 7
        else:
            assert torch.equal(tensor, theirs[key]), key


def test_filters_for_grey_images_respond_as_the_pretrained_ones_do(cached):
    theirs = cached("shufflenet_v2_x0_5")
    text = "torchvision(shufflenet_v2_x0_5, weights=default)"
    with pytest.warns(Notice, match="made for 3 channels: for 1, its first filters are adapted"):
        ours = build_model(text, spec(channels=1)).eval()
    x = images(channels=1)
    mean, std = ([sum(values) / 3] * 3 for values in (MEAN, STD))
    expected = theirs(transforms.normalize(x.expand(-1, 3, -1, -1), mean, std))
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)


def test_a_vision_transformer_interpolates_its_positions_to_the_images(cached):
    theirs = cached("vit_b_32")
    ours = build_model("torchvision(vit_b_32, weights=default)", spec(size=64))
    position = ours[1].encoder.pos_embedding
    assert position.shape == (1, 1 + 2 * 2, 768)
    assert torch.equal(position[:, 0], theirs.encoder.pos_embedding[:, 0])
    assert torch.equal(ours[1].heads.head.weight, theirs.heads.head.weight)


def test_weights_that_are_not_cached_and_cannot_be_fetched_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    default = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    url = "http://127.0.0.1:9/models/squeezenet1_1-b8a52dc0.pth"
    monkeypatch.setattr(default.value, "url", url)
    with pytest.raises(UserError) as caught:
        build_model("torchvision(squeezenet1_1, weights=default)", spec())
    message = str(caught.value)
    assert "\n" not in message
    for part in ("squeezenet1_1-b8a52dc0.pth", "TORCH_HOME", str(tmp_path), "refused", url):
        assert part in message


def test_a_damaged_file_of_the_cache_is_named(cached):
    cached("squeezenet1_1")
    default = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    path = cached.store("squeezenet1_1", OrderedDict(a=torch.ones(2)))
    assert path.name in default.url
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{path.name} is damaged \(its content is not .*delete"):
        build_model("torchvision(squeezenet1_1, weights=default)", spec())


@pytest.mark.parametrize("content", [OrderedDict(a=torch.ones(2)), [1, 2], {"a": 1}])
def test_a_file_that_holds_something_else_is_one_line(cached, content):
    cached.store("squeezenet1_1", content)
    with pytest.raises(UserError, match=r"squeezenet1_1.*(not weights of this|no weights by name)"):
        build_model("torchvision(squeezenet1_1, weights=default)", spec())


class Trap:
    """Runs code when a pickle of it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def test_a_file_of_the_cache_is_never_executed(cached):
    cached.store("squeezenet1_1", OrderedDict(a=Trap()))
    with pytest.raises(UserError, match="is damaged"):
        build_model("torchvision(squeezenet1_1, weights=default)", spec())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights=IMAGENET1K_V3", "unknown weights 'IMAGENET1K_V3' .*did you mean IMAGENET1K_V1"),
        ("weights=best", "known: none, default, IMAGENET1K_V1"),
        ("weights=1", "weights must be a name"),
    ],
)
def test_unknown_weights_are_one_line(text, message):
    with pytest.raises(UserError, match=message):
        build_model(f"torchvision(squeezenet1_1, {text})", spec())


def test_weights_that_follow_from_a_checkpoint_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    text = "torchvision(squeezenet1_1, weights=IMAGENET1K_V1)"
    network = resolve_model(text, spec(classes=5), fetch=False).value
    torch.testing.assert_close(network[0].mean.flatten(), torch.tensor(MEAN))
    assert not list(tmp_path.iterdir())


def test_a_run_of_pretrained_weights_needs_no_cache_afterwards(cached, tmp_path, monkeypatch):
    cached("squeezenet1_1")
    few = "random(size=32, classes=3, images=20)"
    with pytest.warns(Notice, match="last layer"):
        trained = curricula.train(
            data=few,
            model="torchvision(squeezenet1_1, weights=default)",
            epochs=1,
            batch_size=10,
            lr=1e-4,
            compile="off",
            output=tmp_path / "run",
        )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    network = curricula.load_model(trained.run)
    assert network(images(size=32)).shape == (2, 3)


@pytest.mark.parametrize("size", [(64, 48), (32, 80)])
def test_torchvision_takes_images_that_are_not_square(size):
    network = build_model("torchvision(shufflenet_v2_x0_5)", spec(classes=4, size=size)).eval()
    assert network(torch.rand(2, 3, *size)).shape == (2, 4)


def test_a_side_that_is_too_small_and_a_square_network_are_one_line():
    with pytest.raises(UserError, match="takes images of 63x63 or more, not 40x80"):
        build_model("torchvision(alexnet)", spec(size=(40, 80)))
    with pytest.raises(UserError, match=r"vit_b_32.* takes square images, not 32x64"):
        build_model("torchvision(vit_b_32)", spec(size=(32, 64)))
    with pytest.raises(UserError, match=r"multiple of 224, not 224x300"):
        build_model("torchvision(maxvit_t)", spec(size=(224, 300)))


def test_a_network_whose_layers_have_versions_takes_plain_weights():
    network, again = (build_model("torchvision(mnasnet0_5)", spec(classes=3)) for _ in range(2))
    load_weights(again, Weights(tensors=dict(network.state_dict()), source="weights"))
    assert torch.equal(again[1].classifier[1].weight, network[1].classifier[1].weight)
