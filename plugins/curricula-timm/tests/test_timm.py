"""Networks of timm, with random weights, and with pretrained ones from a cache that the tests make:
nothing is downloaded."""

import re
from pathlib import Path

import pytest
import timm
import torch
from curricula_timm.plugin import curricula_models
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import nn
from torchvision.transforms.v2 import functional as transforms

import curricula
from curricula.api import export
from curricula.api.networks import open_network
from curricula.data.spec import ImageSpec
from curricula.errors import Notice, UserError
from curricula.models.build import build_model, resolve_model
from curricula.plugins import registry
from curricula.testing import MODEL_CLAUSES

TINY = "test_resnet"
TAGGED = "test_resnet.r160_in1k"
FOLDER = "models--timm--test_resnet.r160_in1k"
PLUGIN = Path(curricula_models.__code__.co_filename)
COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True, scope="module")
def registered():
    """Use a registry with this plugin, whether or not its distribution is installed."""
    before = registry.current()
    if "timm" not in before.records("model"):
        registry.use(registry.build_registry([PLUGIN]))
    yield
    registry.use(before)


def spec(classes=10, channels=3, size=32):
    names = tuple(str(number) for number in range(classes))
    return ImageSpec(classes=names, channels=channels, image_size=size)


def images(channels=3, size=(32, 32)):
    return torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Return a function that makes a network of timm's, puts its random weights into a cache of the
    hub as the pretrained ones, and returns the network in eval mode."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, *, file="model.safetensors"):
        torch.manual_seed(0)
        network = timm.create_model(name)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                nn.init.uniform_(layer.running_var, 0.9, 1.1)
        folder = tmp_path / f"models--{get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        path = folder / "snapshots" / COMMIT / file
        if file.endswith(".safetensors"):
            save_file(network.state_dict(), path)
        else:
            torch.save(network.state_dict(), path)
        return network.eval()

    return put


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize(
    ("classes", "channels", "size"), [(7, 1, 32), (2, 3, 64), (10, 3, (32, 64)), (5, 4, 160)]
)
def test_a_network_takes_any_classes_channels_and_sizes(name, classes, channels, size):
    network = build_model(f"timm({name})", spec(classes, channels, size)).eval()
    shape = size if isinstance(size, tuple) else (size, size)
    assert network(images(channels, shape)).shape == (2, classes)


def test_without_pretrained_weights_it_is_timms_network_on_images_from_minus_1_to_1():
    torch.manual_seed(3)
    ours = build_model(f"timm({TINY})", spec()).eval()
    torch.manual_seed(3)
    theirs = timm.create_model(TINY, num_classes=10).eval()
    torch.testing.assert_close(ours(images()), theirs(images() * 2 - 1))


@pytest.mark.parametrize("clause", MODEL_CLAUSES)
def test_the_contract_is_kept(clause):
    def build(num_classes, in_channels, image_size):
        return build_model("timm(test_vit)", spec(num_classes, in_channels, image_size))

    clause(build, image_size=32)


@pytest.mark.parametrize("text", [f"timm({TINY}, true)", f'timm("{TAGGED}", pretrained=true)'])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_pretrained_weights_give_timms_logits_on_images_in_0_to_1(cached, text, file):
    theirs = cached(TINY, file=file)
    ours = build_model(text, spec(1000)).eval()
    config = get_pretrained_cfg(TINY)
    expected = theirs(transforms.normalize(images(), list(config.mean), list(config.std)))
    torch.testing.assert_close(ours(images()), expected)
    assert expected.std(0).max() > 1e-6, "the logits must depend on the image"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_other_classes_get_a_new_last_layer_and_a_line_says_so(cached, name):
    theirs = cached(name).state_dict()
    message = rf"^timm\({name}\) was made for 1,000 classes: its last layer, for 7, is new"
    with pytest.warns(Notice, match=message):
        ours = build_model(f"timm({name}, pretrained=true)", spec(7, size=160))[1]
    head = get_pretrained_cfg(name).classifier
    for key, tensor in ours.state_dict().items():
        if key.startswith(f"{head}."):
            assert len(tensor) == 7
        else:
            assert torch.equal(tensor, theirs[key]), key


def test_the_first_filters_are_adapted_to_grey_images_and_a_line_says_so(cached):
    theirs = cached(TINY)
    with pytest.warns(Notice, match="made for 3 channels: for 1, its first filters are adapted"):
        ours = build_model(f"timm({TINY}, pretrained=true)", spec(1000, channels=1)).eval()
    config = get_pretrained_cfg(TINY)
    mean, std = ([sum(values) / 3] * 3 for values in (config.mean, config.std))
    expected = theirs(transforms.normalize(images(1).expand(-1, 3, -1, -1), mean, std))
    torch.testing.assert_close(ours(images(1)), expected, atol=1e-5, rtol=1e-5)


def test_a_transformer_interpolates_its_positions_to_the_images(cached):
    cached("test_vit")
    ours = build_model("timm(test_vit, pretrained=true)", spec(1000, size=(32, 64)))
    assert ours[1].pos_embed.shape[1] == 1 + 2 * 4


def test_a_run_of_pretrained_weights_needs_no_cache_afterwards(cached, tmp_path, monkeypatch):
    cached(TINY)
    monkeypatch.setattr("curricula.evaluation.threats.TEST_STEPS", 1)
    with pytest.warns(Notice, match="last layer"):
        trained = curricula.train(
            data="random(size=32, classes=3, images=20)",
            model=f'timm("{TAGGED}", pretrained=true)',
            epochs=1,
            batch_size=10,
            compile="off",
            output=tmp_path / "run",
        )
    assert f'name="{TAGGED}", pretrained=true' in trained.run.config.model
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    network = curricula.load_model(trained.run)
    assert network(images()).shape == (2, 3)


def test_weights_that_follow_from_a_checkpoint_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    network = resolve_model(f"timm({TINY}, true)", spec(), fetch=False).value
    assert network[0].mean.flatten().tolist() == pytest.approx(get_pretrained_cfg(TINY).mean)


def no_reply(monkeypatch):
    """Direct the hub's client to a port that no program serves."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    address = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("state", "reason"), [(offline, "offline mode is enabled"), (no_reply, "Connection refused")]
)
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, state, reason):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    state(monkeypatch)
    with pytest.raises(UserError) as caught:
        build_model(f"timm({TINY}, true)", spec())
    message = str(caught.value)
    assert "\n" not in message
    weights = f"model.safetensors of timm/{TAGGED}"
    for part in (f"timm({TINY})", weights, "HF_HOME", str(tmp_path), FOLDER, reason):
        assert part in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"{}", ""),
        ({"conv1.0.weight": torch.ones(2)}, "Missing key"),
    ],
)
def test_a_damaged_file_of_the_cache_is_named(cached, tmp_path, content, reason):
    cached(TINY)
    path = tmp_path / FOLDER / "snapshots" / COMMIT / "model.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged .*{reason}") as caught:
        build_model(f"timm({TINY}, pretrained=true)", spec())
    assert "\n" not in str(caught.value)


class Trap:
    """Runs code when a pickle of it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def test_a_file_of_the_cache_is_never_executed(cached, tmp_path):
    cached(TINY, file="pytorch_model.bin")
    torch.save(Trap(), tmp_path / FOLDER / "snapshots" / COMMIT / "pytorch_model.bin")
    with pytest.raises(UserError, match="is damaged"):
        build_model(f"timm({TINY}, pretrained=true)", spec())


@pytest.mark.parametrize(
    ("text", "image", "message"),
    [
        ("timm(resnet81)", {}, "unknown timm model 'resnet81': did you mean resnet"),
        ('timm("test_resnet.r160")', {}, "did you mean test_resnet.r160_in1k"),
        ("timm(zzzz)", {}, "unknown timm model 'zzzz': https://huggingface.co/timm lists them"),
        ('timm("hf-hub:timm/resnet18")', {}, "unknown timm model 'hf-hub:timm/resnet18'"),
        ('timm("../resnet18")', {}, "unknown timm model"),
        ("timm(3)", {}, "name must be a name"),
        ("timm()", {}, "name is missing"),
        ("timm(test_resnet, dropout=1)", {}, "dropout must lie from 0 to below 1"),
        ("timm(test_resnet, depth=3)", {}, "unknown argument 'depth'"),
        ("timm(vgg11, drop_path=0.1)", {"size": 64}, "vgg11.* leave out dropout and drop_path"),
        ("timm(test_vit)", {"size": 28}, "does not take images of 28x28; it takes 32x32, for exam"),
        ("timm(test_vit)", {"size": (32, 40)}, "not take images of 32x40; it takes 32x48"),
        ("timm(qwen3_vit_88m_enc)", {"size": 384}, "is no classifier: its outputs are of shape"),
        ("timm(resnet10t, pretrained=1)", {}, "pretrained must be true or false"),
        ("timm(test_vit4, pretrained=true)", {}, "no pretrained weights in timm"),
    ],
)
def test_mistakes_are_one_line(text, image, message):
    with pytest.raises(UserError, match=message) as caught:
        build_model(text, spec(**image))
    assert "\n" not in str(caught.value)


def test_a_network_that_does_not_fit_into_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("curricula.runtime.memory.total_bytes", lambda: 10**6)
    with pytest.raises(UserError, match=r"training timm\(test_resnet\) of .* weights would take"):
        build_model(f"timm({TINY})", spec())


def test_dropout_acts_in_training():
    torch.manual_seed(0)
    model = build_model(f"timm({TINY}, dropout=0.5, drop_path=0.5)", spec()).train()
    assert not torch.equal(model(images()), model(images()))
    model.eval()
    assert torch.equal(model(images()), model(images()))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_an_exported_network_has_the_same_logits(tmp_path, ending):
    network = build_model(f"timm({TINY})", spec()).eval()
    exported = export(network, tmp_path / f"model.{ending}", data=spec())
    assert (exported.images, exported.difference < 1e-5) == (100, True)


def test_weights_of_timms_network_give_the_same_counts_as_the_module(tmp_path):
    network = timm.create_model(TINY, num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    text = "random(size=32, classes=3, images=30)"
    opened = open_network(
        f"timm({TINY})", text, weights=tmp_path / "net.safetensors", normalise="cifar10"
    )
    threats = ["clean", "rot:30", "pgd(8/255, steps=2)"]
    module = curricula.evaluate(network, text, threats, normalise="cifar10")
    of_text = curricula.evaluate(opened, threats=threats)
    assert [each.correct for each in of_text] == [each.correct for each in module]


def test_a_name_of_timm_is_suggested_without_importing_it():
    from curricula_timm.names import names

    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    assert {*timm.list_models()} <= names() <= known | {name for name in names() if "." in name}
    for text, meant in [("resnet10t", "timm(resnet10t)"), (TAGGED, f'timm("{TAGGED}")')]:
        with pytest.raises(UserError, match=re.escape(f"did you mean {meant}?")):
            build_model(text, "random(size=32, images=20)")
