"""A network that one has, made more robust from the command line."""

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.own_net import OwnNet
from fixtures.programs import run_commands
from safetensors.torch import load_file

from curricula.cli.main import program
from curricula.plugins import registry
from curricula.training.run import Run

OWN = Path(__file__).parents[1] / "fixtures" / "own_net.py"
DATA = "random(size=12, channels=1, images=30)"
TRAIN = ["--data", DATA, "--epochs", "1", "--batch-size", "9", "--lr", "0.01", "--device", "cpu"]


@pytest.fixture
def place(tmp_path, monkeypatch, quick_audit):
    """A folder with mynet.py and net.pt, as a user has them."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(OWN, "mynet.py")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OwnNet()
    torch.save({"state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, "net.pt")
    return model


def called(*words):
    registry.use(registry.build_registry())  # as a new process
    return CliRunner().invoke(program, [*map(str, words)])


def test_an_own_model_is_fine_tuned_from_its_file(place):
    (result,) = run_commands("fine_tuning.sh")
    assert result.exit_code == 0, result.output
    said = result.output
    assert "tensors from net.pt (the key 'state_dict', the prefix 'module.')" in said
    assert "freeze: 4 parameters are not trained (backbone)" in said
    assert "head: head, with learning rate 0.1" in said
    held = load_file("run/last.safetensors")
    moved = {n for n, t in place.state_dict().items() if not torch.equal(t, held[f"model.{n}"])}
    last = [*dict(place.named_modules())][-1]
    assert moved == {f"{last}.weight", f"{last}.bias"}
    config = Run("run").config
    assert config.freeze == ("backbone",)
    assert config.head_lr == 0.1
    words = ["--model", "mynet.py:OwnNet", "--init", "run", "--perturb", "rot", "-o", "again"]
    again = called("train", *TRAIN, *words)
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--init", "nte.pt"], "weights nte.pt: no such file; did you mean net.pt?"),
        (["--init", "net.pt", "--init-head", "maybe"], "init_head must be load or new"),
        (["--init", "net.pt", "--freeze", "nothing"], "matches no layer of model"),
        (["--init", "net.pt", "--freeze", "*"], "freezes all layers"),
        (["--head-lr", "-1"], "head_lr must be 0 or more"),
        (["--init-head", "new"], "name their run or file with init (--init)"),
        (["--resume", "run", "--init", "net.pt"], "leave out --init"),
        (["--resume", "run", "--head-lr", "1"], "leave out --head-lr"),
    ],
)
def test_mistakes_are_one_line(place, words, message):
    result = called("train", "--model", "mynet.py:OwnNet", *TRAIN, *words, "-o", "run")
    if "--resume" in words:
        result = called("train", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path("run").exists()
