"""Exported networks compute what the network computes, in other programs."""

import json
import shutil
import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from fixtures import narrow
from torch import nn

import curricula
from curricula.api import export, exporting
from curricula.cli.main import program
from curricula.data import ImageSpec
from curricula.errors import UserError
from curricula.models import Randomised

DIGITS = ImageSpec(classes=tuple("0123456789"), channels=1, image_size=28)
WIDE = ImageSpec(classes=("a", "b"), channels=1, image_size=(12, 18))
COLOUR = ImageSpec(classes=("cat", "dög", "鳥"), channels=3, image_size=32)


def network_of(text, spec):
    """Return a network of an expression, in eval mode, with statistics of batch norm."""
    torch.manual_seed(0)
    with narrow.narrow_networks():
        network = curricula.build_model(text, spec)
    with torch.no_grad():
        network.train()(torch.rand(8, spec.channels, spec.image_size, spec.image_size))
    return network.eval()


def read(path):
    """Return the function that an exported file computes in a program without curricula."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a short run on some of the digits."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    curricula.train(
        data="random(size=16, classes=3, channels=1, images=30)",
        model="lenet",
        epochs=1,
        batch_size=10,
        lr=0.01,
        compile="off",
        output=folder,
    )
    return folder


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize(("text", "spec"), [("stdcnn", DIGITS), ("resnet18", COLOUR)])
def test_logits_are_the_networks_for_any_number_of_images(tmp_path, text, spec, ending):
    network, path = network_of(text, spec), tmp_path / f"model.{ending}"
    exported = export(network, path, data=spec)
    assert (exported.images, exported.source) == (100, "random images")
    assert exported.difference < 1e-5
    computed = read(path)
    for count in (1, 2, 5):
        x = torch.rand(count, spec.channels, spec.image_size, spec.image_size)
        with torch.no_grad():
            torch.testing.assert_close(computed(x), network(x), atol=1e-5, rtol=1e-5)


def test_a_network_over_a_group_is_exported_as_plain_convolutions(tmp_path):
    pytest.importorskip("curricula_escnn")
    network = network_of("p4cnn(width=2)", DIGITS)
    export(network, tmp_path / "model.onnx", data=DIGITS)
    x = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        expected = network(x)
    torch.testing.assert_close(read(tmp_path / "model.onnx")(x), expected, atol=1e-5, rtol=1e-5)
    operations = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "MatMul" not in operations, "filters must not be expanded in every pass"


def test_the_metadata_say_what_a_program_has_to_know(tmp_path):
    network = network_of("lenet", COLOUR)
    for ending in ("onnx", "pt2"):
        export(network, tmp_path / f"model.{ending}", data=COLOUR)
    of_onnx = {
        each.key: json.loads(each.value)
        for each in onnx.load(tmp_path / "model.onnx").metadata_props
    }
    files = {"curricula.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=files)
    assert json.loads(files["curricula.json"]) == of_onnx
    assert of_onnx["classes"] == ["cat", "dög", "鳥"]
    names = ("channels", "colours", "height", "width", "range", "layout")
    assert [of_onnx[name] for name in names] == [3, "RGB", 32, 32, [0, 1], "NCHW"]
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


class Kept(nn.Sequential):
    """Images of any dtype, with weights of another."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 10 * 16, 2))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_grey_images_that_are_not_square_one_at_a_time(tmp_path, ending, dtype):
    network, path = Kept().to(dtype), tmp_path / f"model.{ending}"
    with torch.autocast("cpu", torch.bfloat16):  # of the caller
        export(network, path, data=WIDE, limit=5)
    x = torch.rand(1, 1, 12, 18)
    with torch.no_grad():
        torch.testing.assert_close(read(path)(x), network.float()(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(Exception, match=r"(?i)expected|guard|dim"):
        read(path)(x.transpose(2, 3))


def test_the_network_is_neither_changed_nor_put_into_eval_mode(tmp_path):
    network = network_of("lenet", DIGITS).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    export(network, tmp_path / "model.pt2", data=DIGITS)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def run(*arguments):
    return CliRunner().invoke(program, ["export", *map(str, arguments)])


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_the_command_exports_a_run_and_compares_it_on_its_test_images(trained, tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    done = run(trained, "-o", path, "--limit", "2")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        f"{path}: the logits of 2 test images of random differ by at most"
    )
    assert done.output.count("\n") == 1
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        expected = curricula.load_model(trained)(x)
    torch.testing.assert_close(read(path)(x), expected, atol=1e-5, rtol=1e-5)


def test_a_run_without_its_data_is_compared_on_random_images(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    data = (folder / "data.json").read_text()
    (folder / "data.json").write_text(data.replace('"test": "', '"test": "0'))
    found = json.loads(run(folder, "-o", tmp_path / "model.pt2", "--format", "json").output)
    assert (found["images"], found["source"]) == (100, "random images")


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_mismatch_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, ending):
    name = {"onnx": "_as_onnx", "pt2": "_as_program"}[ending]
    written = getattr(exporting, name)

    def wrong(*arguments):
        content, compute = written(*arguments)
        return content, lambda x: compute(x) + 1e-3

    monkeypatch.setattr(exporting, name, wrong)
    with pytest.raises(UserError, match=r"differ by 0.001 from .* nothing was written"):
        export(network_of("lenet", DIGITS), tmp_path / f"model.{ending}", data=DIGITS)
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    """Depends on the values of the images, which no exporter follows."""

    def forward(self, x_NCHW):
        logits = x_NCHW.flatten(1)[:, :10]
        return logits if float(x_NCHW.sum()) > 0 else -logits


class InMapping(nn.Module):
    def forward(self, x_NCHW):
        return {"loss": None, "logits": x_NCHW.flatten(1)[:, :10]}


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_logits_in_a_mapping_are_exported_alone(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    export(InMapping(), path, data=DIGITS)
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(read(path)(x), x.flatten(1)[:, :10])


class NotFinite(nn.Module):
    def forward(self, x_NCHW):
        return x_NCHW.flatten(1)[:, :10] * torch.nan


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branching(), "the network cannot be exported as"),
        (NotFinite(), "differ by nan"),
        (
            Randomised(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "gaussian:0.1"),
            "draws random numbers .* export the network inside",
        ),
        (nn.Linear(3, 10), "the network cannot take 2 images of 1x28x28 .*build it for them"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "has a weight without a shape"),
    ],
)
def test_a_network_that_cannot_be_exported_is_one_line(tmp_path, model, message, ending):
    with pytest.raises(UserError, match=message) as caught:
        export(model, tmp_path / f"model.{ending}", data=DIGITS)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_scripted_network_is_one_line(tmp_path):
    scripted = torch.jit.trace(nn.Flatten(), torch.rand(2, 1, 28, 28))
    with pytest.raises(UserError, match="is scripted or traced: export the network that it was"):
        export(scripted, tmp_path / "model.pt2", data=DIGITS)


@pytest.mark.parametrize(
    ("output", "keywords", "message"),
    [
        ("model.pb", {}, r"output .*model\.pb: its name must end in \.onnx or \.pt2"),
        ("none/model.onnx", {}, "there is no folder"),
        ("model.onnx", {"limit": 0}, "limit must"),
        ("model.onnx", {"data": None}, "a model does not state its classes"),
        ("model.onnx", {"checkpoint": "first"}, "checkpoint must be"),
    ],
)
def test_mistakes_are_one_line(tmp_path, output, keywords, message):
    keywords = {"data": DIGITS, **keywords}
    with pytest.raises(UserError, match=message):
        export(nn.Flatten(), tmp_path / output, **keywords)


def test_a_missing_package_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package: pip install onnx"):
        export(nn.Flatten(), tmp_path / "model.onnx", data=DIGITS)
    export(network_of("lenet", DIGITS), tmp_path / "model.pt2", data=DIGITS)


def test_the_file_is_read_by_a_program_without_curricula(tmp_path):
    network, path = network_of("lenet", DIGITS), tmp_path / "model.pt2"
    export(network, path, data=DIGITS)
    code = f"import torch, sys; m = torch.export.load({str(path)!r}).module(); "
    code += "print(tuple(m(torch.zeros(3, 1, 28, 28)).shape), 'curricula' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "(3, 10) False\n"
