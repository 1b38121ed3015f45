"""A model that one has, from the command line to its page."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.own_net import OwnNet
from fixtures.programs import run_commands
from PIL import Image

import curricula
from curricula.cli.main import program
from curricula.plugins import registry
from curricula.training.run import Run

OWN = Path(__file__).parents[1] / "fixtures" / "own_net.py"
DATA = "random(size=12, channels=1, images=30)"
RUN = ["--plugin", "mynet.py"]
MEASURE = ["--data", DATA, "--threat", "clean", "--threat", "rot:30"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with mynet.py and net.pt, as a user has them, and the network's own counts."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(OWN, "mynet.py")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OwnNet()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}},
        "net.pt",
    )
    return model


def called(*words):
    registry.use(registry.build_registry())  # as a new process
    return CliRunner().invoke(program, [*map(str, words)])


def counted(text):
    return [(row["correct"], row["fooled"], row["n"]) for row in json.loads(text)]


def test_weights_of_an_own_model_to_a_report_page(place, quick_audit):
    (result,) = run_commands("own_weights.sh")
    assert result.exit_code == 0, result.output
    assert "recognised the key 'state_dict', the prefix 'module.'" in result.stderr
    assert "measure it further: curricula --plugin mynet.py profile kept" in result.output
    page = Path("kept/report.html").read_text()
    assert "rot(30" in page
    assert "Run it again" not in page
    expected = curricula.evaluate(place, DATA, ["clean", "rot:30"])
    assert [r.correct for r in Run("kept").results("test")] == [r.correct for r in expected]

    again = called(*RUN, "evaluate", "kept", "--threat", "rot:30", "--format", "json")
    assert counted(again.stdout) == [(expected[1].correct, expected[1].fooled, expected[1].n)]
    for words in (["profile", "kept"], ["audit", "kept"]):
        assert called(*RUN, *words, "--limit", "1").exit_code in (0, 1)
    for file in ("profile.json", "audit.json"):
        assert Path("kept", file).exists()
    Image.new("L", (12, 12), 128).save("photo.png")
    for words in (["predict", "kept", "photo.png"], ["export", "kept", "-o", "net.pt2"]):
        result = called(*RUN, *words)
        assert result.exit_code == 0, result.output
    assert called(*RUN, "report", "kept").exit_code == 0


def test_a_measured_model_is_compared_without_a_cost(place):
    for name in ("one", "two"):
        called(
            "evaluate", "--model", "mynet.py:OwnNet", "--weights", "net.pt", *MEASURE, "-o", name
        )
    result = called("compare", "one", "two", "--axes", "clean", "rot:30", "--format", "json")
    rows = json.loads(result.output)["rows"]
    assert [row["label"] for row in rows] == ["one", "two"]
    assert {(row["passes"], row["minutes"], row["seeds"]) for row in rows} == {(None, None, "")}
    assert called("compare", "one", "--axes", "clean", "rot:30").exit_code == 0


def test_weights_of_a_run_measure_as_the_run_does(place):
    curricula.train(
        data=DATA, model="lenet", epochs=1, batch_size=9, compile="off", normalise="0.3/0.2",
        output="run",
    )  # fmt: skip
    expected = called("evaluate", "run", "--threat", "rot:30", "--format", "json").stdout
    for weights in ("run", "run/best.safetensors"):
        result = called(
            "evaluate", "--model", "lenet", "--weights", weights, "--data", DATA, "--threat",
            "rot:30", "--format", "json", "-o", f"kept-{weights[-4:]}",
        )  # fmt: skip
        assert counted(result.stdout) == counted(expected), result.output
        again = called("evaluate", f"kept-{weights[-4:]}", "--threat", "rot:30", "--format", "json")
        assert counted(again.stdout) == counted(expected), again.output


def test_the_normalisation_of_foreign_weights_has_to_be_stated(place):
    model = curricula.build_model("lenet", DATA)
    tensors = {name: t for name, t in model.state_dict().items() if not name.startswith("0.")}
    torch.save(tensors, "lenet.pt")
    words = ["evaluate", "--model", "lenet", "--weights", "lenet.pt", *MEASURE, "--format", "json"]
    result = called(*words)
    assert result.exit_code == 2
    assert (
        "do not state how the images were normalised in their training: state it" in result.output
    )
    found = {}
    for text in ("mnist", "none", "own"):
        result = called(*words, "--normalise", text)
        stated = "0.5/0.5" if text == "own" else text
        expected = curricula.evaluate(model, DATA, ["clean", "rot:30"], normalise=stated)
        found[text] = counted(result.stdout)
        assert found[text] == [(r.correct, r.fooled, r.n) for r in expected]
    result = called(*words, "--normalise", "imagenet")
    assert "imagenet has 3 for the channels of an image, and these images have 1" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate", "there is nothing to measure: name a run folder, or add --model"),
        ("evaluate --weights net.pt", "--weights belongs to a model: add --model"),
        ("evaluate --normalise mnist", "--normalise belongs to a model: add --model"),
        ("evaluate -o kept", "--output belongs to a model: add --model"),
        ("evaluate --model lenet", "model lenet is measured on data: add --data"),
        ("evaluate run --model lenet", "run run has its model and its folder: leave out --model"),
        ("evaluate run --weights net.pt", "leave out --weights"),
        ("evaluate run -o kept", "leave out --output"),
        ("evaluate --model lenet --data digits", "model lenet has random weights: name the file"),
        ("evaluate --model lenet --data digits --checkpoint last", "--checkpoint is for a run"),
        (
            "evaluate --model lenet --data digits --weights nett.pt",
            "nett.pt: no such file; did you mean net.pt?",
        ),
        ("evaluate --model lenet --data digits --weights net.pt", "do not fit model lenet"),
        ("evaluate --model lenet --data digits --weights net.pt --normalise mist", "mean mnist?"),
        ("evaluate --model lenett --data digits --weights net.pt", "did you mean lenet?"),
        ("evaluate --model lenet --data digts --weights net.pt", "did you mean digits?"),
        ("evaluate --model no.py:Net --data digits --weights net.pt", "no.py: no such file"),
        ("evaluate --model mynet.py:OwnNt --data digits --weights net.pt", "did you mean OwnNet?"),
        ("evaluate net.pt", "evaluate --model MODEL --weights net.pt --data DATA"),
        ("evaluate mynet.py", "evaluate --model mynet.py:OwnNet --data DATA"),
        ("audit mynet.py:OwnNet", "evaluate --model mynet.py:OwnNet --data DATA"),
        ("profile lenet", "lenet is not a run folder; .*evaluate --model lenet --data DATA"),
        ("predict net.pt x.png", "evaluate --model MODEL --weights net.pt --data DATA"),
        ("evaluate --model net.pt --data digits", "a file of weights: name them with weights"),
        ("evaluate --model mynet.py --data digits", "did you mean mynet.py:OwnNet?"),
        ("train --model mynet:OwnNet(width=3)", "did you mean mynet.py:OwnNet(width=3)?"),
        ("evaluate --ckpt net.pt", "did you mean --weights?"),
        ("evaluate --model-weights net.pt", "did you mean --weights?"),
        ("evaluate --std 0.5", "did you mean --normalise?"),
        ("evaluate --checkpoint net.pt", "'net.pt' is a file of weights: name it with --weights"),
    ],
)
def test_a_contradiction_or_mistake_is_one_line(words, message, place):
    result = called(*words.split())
    assert result.exit_code == 2
    assert all(part in result.output for part in message.split(".*"))
    assert result.output.count("\n") == 1
    assert not Path("kept").exists()


def test_certificates_are_printed_as_they_are_kept(place):
    model = ["--model", "mynet.py:OwnNet", "--weights", "net.pt", "--data", DATA, "--limit", "1"]
    words = ["--noise", "gaussian:0.25", "--n0", "2", "--draws", "20", "-o", "kept"]
    printed = json.loads(called("certify", *model, *words, "--format", "json").stdout)
    assert printed == json.loads(Path("kept/certificates.json").read_text())
    assert printed["weights"] == Run.open("kept").digest("best.safetensors") != ""


@pytest.mark.parametrize("command", ["profile", "audit"])
def test_a_profile_or_audit_of_a_model_is_printed(command, place, quick_audit):
    model = ["--model", "mynet.py:OwnNet", "--weights", "net.pt", "--data", DATA, "--limit", "1"]
    result = called(command, *model, "--format", "json", "-o", "kept")
    assert result.exit_code in (0, 1), result.output
    assert json.loads(result.stdout)["n"] == 1
    assert json.loads(result.stdout) == json.loads(Path("kept", f"{command}.json").read_text())
    assert Path("kept/report.html").exists()
    assert called(*RUN, "evaluate", "kept", "--threat", "clean", "--limit", "1").exit_code == 0
    result = called(command, *model)
    assert 'model: file("mynet.py", OwnNet, width=8), weights of net.pt' in result.stdout
    assert "report" not in result.stdout
    result = called(command, *model, "-o", "kept")
    assert result.exit_code == 2
    assert "kept already holds a run" in result.output
    result = called(*RUN, command, "kept", "-o", "other")
    assert "leave out --output" in result.output
    result = called(command, *model[:4])
    assert "is measured on data: add --data" in result.output
    assert called(command).exit_code == 2


def test_a_run_on_other_data_keeps_its_own_results(place, quick_audit):
    curricula.train(
        data=DATA, model="lenet", epochs=1, batch_size=9, compile="off", output="run"
    )  # fmt: skip
    other = "random(size=12, channels=1, images=31)"
    for command in ("profile", "audit", "evaluate"):
        threat = ["--threat", "clean"] if command == "evaluate" else []
        result = called(command, "run", "--data", other, "--limit", "1", *threat)
        assert result.exit_code in (0, 1), result.output
        assert "report:" not in result.stdout
    assert not Path("run/profile.json").exists()
    assert not Path("run/audit.json").exists()
    result = called("evaluate", "run", "--data", "digits")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1


def test_a_run_of_a_network_given_in_python_is_used_by_naming_its_file(place, monkeypatch):
    (found,) = curricula.evaluate(place, DATA, ["rot:30"], limit=5, output="run")
    x = torch.rand(1, 1, 12, 12)
    (expected,) = curricula.predict(Run.open("run", model=place), x, top=1)
    Image.fromarray((x[0, 0] * 255).byte().numpy()).save("new.png")
    own = ["--model", "mynet.py:OwnNet"]
    words = ["evaluate", "run", "--threat", "rot:30", "--limit", "5", "--format", "json"]
    assert counted(called(*words, *own).stdout) == [(found.correct, found.fooled, found.n)]
    rows = called("predict", "run", "new.png", *own, "--format", "csv").stdout.splitlines()
    assert rows[1].split(",")[:3] == ["new.png", "1", expected.classes[0]]
    for words in (
        ["predict", "run", "new.png"],
        ["export", "run", "-o", "other.pt2"],
        ["evaluate", "run"],
        ["preview", "--perturb", "pgd:0.1", "--run", "run", "-o", "preview.png", "--images", "1"],
    ):
        result = called(*words)
        assert result.exit_code == 2
        assert "was given in Python, as given(OwnNet): give it again" in result.output
        assert result.output.count("\n") == 1
    config = Path("run/config.toml")
    config.write_text(config.read_text().replace(f"data = '{DATA}'", "data = 'gone'")
                      .replace(f'data = "{DATA}"', 'data = "gone"'))  # fmt: skip
    result = called("preview", "--perturb", "rot", "--run", "run", *own, "-o", "preview.png")
    assert "run/config.toml: unknown dataset 'gone'" in result.output
    assert "not of this model" in called("predict", "run", "new.png", "--model", "lenet").output
    drawn = []
    monkeypatch.setattr(
        "curricula.reporting.report.report", lambda *found, **_: drawn.append(found)
    )
    assert called("report", "run", *own).exit_code == 0
    assert drawn[0][0].model == 'file("mynet.py", OwnNet)'
