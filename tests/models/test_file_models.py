"""Models of Python files: run only if the user names the file, refused in one line if wrong."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import curricula
from curricula.cli.main import program
from curricula.errors import UserError
from curricula.expressions.model_files import named_model, names_file
from curricula.models import build_model
from curricula.plugins import registry

SOURCE = """
from pathlib import Path
import torch
from torch import nn

Path(__file__).with_suffix(".ran").touch()

class MyNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, width: int = 4, bias: bool = True):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, width, 3, bias=bias)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.layer(x).amax((2, 3)))

def make_net(width=2):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LazyLinear(10))

def sized(image_size, in_channels, num_classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

ready = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
number = 3

def wrong():
    return 3

def failing(width=3):
    raise KeyError("no such layer")
"""
DATA = "random(size=12, channels=1, images=20)"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("mynet.py")
    path.write_text(SOURCE)
    return path


def built(text):
    return build_model(named_model(text), DATA)


def test_a_class_gets_its_arguments_and_what_it_asks_of_the_data(file):
    assert built("mynet.py:MyNet").layer.out_channels == 4
    model = built("mynet.py:MyNet(width=7, bias=false)")
    assert (model.layer.out_channels, model.layer.bias, model.head.out_features) == (7, None, 10)
    assert built("mynet.py:MyNet(num_classes=5)").head.out_features == 5
    assert built("mynet.py:sized")[1].weight.shape == (10, 144)
    assert built("mynet.py:make_net(6)")[1].out_features == 6


def test_a_network_of_a_file_is_copied(file):
    first, second = built("mynet.py:ready"), built("mynet.py:ready")
    assert torch.equal(first[1].weight, second[1].weight)
    assert first[1].weight.data_ptr() != second[1].weight.data_ptr()


def test_the_expression_states_every_default_and_builds_the_same(file):
    from curricula.data import load_data
    from curricula.models.build import resolve_model

    text = named_model("mynet.py:MyNet(width=7)")
    assert text == 'file("mynet.py", MyNet, width=7)'
    call = resolve_model(text, load_data(DATA)).call
    assert str(call) == 'file("mynet.py", MyNet, width=7, bias=true)'
    assert build_model(str(call), DATA).layer.out_channels == 7


@pytest.mark.parametrize("text", ["lenet", "wrn(depth=10)", 'file("a.py:b", C)', "fileless"])
def test_other_texts_name_no_file(text):
    assert not names_file(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("mynt.py:MyNet", r"mynt.py: no such file; did you mean mynet.py\?"),
        (
            "randomised(mynet.py:MyNet(width=4), rot:15)",
            r'inside of randomised write file\("mynet.py", MyNet\), .* by --plugin mynet.py$',
        ),
        ("mynet.py:MyNt", r"mynet.py:MyNt: the file has no such name; did you mean MyNet"),
        ("mynet.py:", "name its class or function: mynet.py:NAME"),
        ("mynet.py:number", "must be a class or a function, not 3"),
        ("mynet.py:wrong", "must return a torch.nn.Module, not 3"),
        ("mynet.py:failing", "mynet.py:failing: KeyError: no such layer"),
        ("mynet.py:ready(3)", "is a network already, and takes no arguments"),
        ("mynet.py:MyNet(depth=3)", "unknown argument 'depth'"),
        ("mynet.py:MyNet(width=wide)", "width must be a whole number"),
        ("mynet.py:MyNet(width=-1)", "MyNet.*negative"),
        ("mynet.py:MyNet(", "not closed|expected"),
        ("mynet.py:Path(3)", "mynet.py:Path: expected str"),
        ("file(mynet.py)", "unexpected"),
        ("file(MyNet)", r'write file\("FILE.py", NAME\)'),
    ],
)
def test_a_wrong_model_is_one_line(text, match, file):
    with pytest.raises(UserError, match=match) as caught:
        built(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mynet.py", "did you mean mynet.py:MyNet?"),
        ("./mynet.py", "did you mean mynet.py:MyNet?"),
        ("mynet", "did you mean mynet.py:MyNet?"),
        ("mynet:MyNet", "did you mean mynet.py:MyNet?"),
        ("mynet.MyNt(width=3)", "did you mean mynet.py:MyNet(width=3)?"),
        ("mynet:make_net", "did you mean mynet.py:make_net?"),
        ("mynt.py", "there is no such file; did you mean mynet.py?"),
        ("nets/tools.py", "did you mean nets/tools.py:build or nets/tools.py:Helper?"),
        ("nets.tools.build", "did you mean nets/tools.py:build?"),
        ("nets/broken.py", "did you mean nets/broken.py:NAME?"),
        ("net.safetensors", "it is a file of weights: name them with weights (--weights)"),
        ("squeezenet1_1", "did you mean torchvision(squeezenet1_1)?"),
        ("torchvision/resnet18", "did you mean torchvision(resnet18)?"),
        ("torchvision.models.squeezenet1_1", "did you mean torchvision(squeezenet1_1)?"),
        ("lenett", "did you mean lenet?"),
    ],
)
def test_a_text_without_a_model_says_which_it_may_mean_and_runs_nothing(text, meant, file):
    Path("nets").mkdir()
    Path("nets/tools.py").write_text("1 / 0\ndef build(): ...\nclass Helper: ...\n_x = 1")
    Path("nets/broken.py").write_text("def")
    with pytest.raises(UserError, match="model '") as caught:
        built(text)
    assert meant in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("mynet.ran").exists()


def test_the_names_of_torchvision_are_those_that_it_lists():
    import torchvision

    from curricula.models.torchvision_names import names

    assert names() == {*torchvision.models.list_models(module=torchvision.models)}


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("def", "SyntaxError"),
        ("exit(3)", "SystemExit: 3; put what it runs as a program under if __name__"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "it has no hook"),
        ("def curricula_models():\n    yield 1", "it has no hook"),
    ],
)
def test_a_broken_file_is_one_line(source, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mynet.py").write_text(source)
    with pytest.raises(UserError, match=match) as caught:
        named_model("mynet.py:MyNet")
    assert "\n" not in str(caught.value)


def test_a_module_beside_the_file_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "layers_beside.py").write_text("from torch import nn\nclass Net(nn.Flatten): pass")
    (tmp_path / "mynet.py").write_text("from layers_beside import Net\nnet = Net()")
    assert isinstance(built(f"{tmp_path}/mynet.py:Net"), nn.Flatten)


NET = "from torch import nn\nclass Net(nn.Flatten):\n    size = {}\n"


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"pkg_a/net.py": "from .parts_a import Net", "pkg_a/parts_a.py": NET.format(1)}, 1),
        (
            {
                "pkg_b/__init__.py": "",
                "pkg_b/nets/__init__.py": "",
                "pkg_b/nets/net.py": "from ..parts_b import Net",
                "pkg_b/parts_b.py": NET.format(2),
            },
            2,
        ),
        (
            {
                "c d/net.py": "def Net():\n    from parts_c import Net\n    return Net()",
                "c d/parts_c.py": NET.format(3),
            },
            3,
        ),
    ],
    ids=["relative", "package", "late"],
)
def test_the_imports_of_a_file_are_found_beside_it(files, size, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (path,) = tmp_path.rglob("net.py")
    assert built(f"{path}:Net").size == size


def test_a_module_that_hides_the_one_beside_a_file_is_one_line(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "parts_hidden.py").write_text(NET.format(len(folder)))
        (tmp_path / folder / "net.py").write_text("from parts_hidden import Net")
    built(f"{tmp_path}/one/net.py:Net")
    with pytest.raises(UserError, match=r"two/net.py imports parts_hidden, and that is .*one/pa"):
        built(f"{tmp_path}/two/net.py:Net")
    (tmp_path / "torch.py").write_text("")  # hidden by the installed one
    (tmp_path / "net.py").write_text("import torch\nfrom torch import nn\nnet = nn.Flatten()")
    with pytest.raises(UserError, match=r"imports torch, and that is .*: rename one of them"):
        built(f"{tmp_path}/net.py:net")


def test_a_file_runs_as_a_program_without_arguments_and_prints_to_standard_error(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["curricula", "evaluate", "--model", "net.py:make"])
    (tmp_path / "net.py").write_text(
        "import argparse\nfrom torch import nn\nprint('loaded')\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--width', default=3)\n"
        "width = parser.parse_args().width\n"
        "def make(**keywords):\n    print('built')\n    return nn.Linear(width, **keywords)"
    )
    model = built(f"{tmp_path}/net.py:make(out_features=7, bias=false)")
    assert (model.in_features, model.out_features, model.bias) == (3, 7, None)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "loaded\nbuilt\n")


@pytest.fixture
def trained(file):
    curricula.train(
        data=DATA, model="mynet.py:MyNet(width=3)", epochs=1, batch_size=9, compile="off",
        output="run",
    )  # fmt: skip
    registry.use(registry.build_registry())  # a new process
    Path("mynet.ran").unlink()
    return Path("run")


def test_a_run_cannot_start_a_file_that_the_user_did_not_name(trained):
    with pytest.raises(UserError, match=r"runs only if you name it: write curricula --plugin"):
        curricula.load_model(trained)
    for text in ('file("mynet.py", MyNet)', "mynet.py:MyNet"):
        config = trained / "config.toml"
        lines = [line for line in config.read_text().splitlines() if line[:5] != "model"]
        config.write_text("\n".join([f"model = '{text}'", *lines]))
        for words in (["evaluate", "run"], ["report", "run"], ["train", "--config", str(config)]):
            CliRunner().invoke(program, [*words, *(["-o", "other"] * (words[0] == "train"))])
        with pytest.raises(UserError):
            curricula.load_model(trained)
    assert not Path("mynet.ran").exists()


def test_a_named_file_opens_the_run_also_where_it_has_moved(trained, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move("mynet.py", moved / "mynet.py")
    registry.use(registry.build_registry([moved / "mynet.py"]))
    model = curricula.load_model(trained)
    assert model.layer.out_channels == 3
    (moved / "more").mkdir()
    shutil.copy(moved / "mynet.py", moved / "more" / "mynet.py")
    registry.current().add_file(moved / "more" / "mynet.py")
    with pytest.raises(UserError, match="may be one of 2 files; name one alone"):
        curricula.load_model(trained)


def test_the_command_line_trains_a_model_of_a_file_and_opens_its_run(file):
    words = ["train", "--model", "mynet.py:MyNet", "--data", DATA, "--epochs", "1",
             "--batch-size", "9", "--compile", "off", "-o", "run"]  # fmt: skip
    result = CliRunner().invoke(program, words)
    assert result.exit_code == 0, result.output
    assert "curricula --plugin mynet.py evaluate run" in result.output
    result = CliRunner().invoke(program, ["evaluate", "run", "--threat", "clean"])
    assert result.exit_code == 2
    assert "curricula --plugin mynet.py COMMAND" in result.output
    result = CliRunner().invoke(
        program, ["--plugin", "mynet.py", "evaluate", "run", "--threat", "clean"]
    )
    assert result.exit_code == 0, result.output


def test_a_file_is_loaded_once(file):
    named_model("mynet.py:MyNet")
    named_model(f"{os.getcwd()}/mynet.py:MyNet")
    assert [each.name for each in registry.current().files] == ["mynet.py"]
