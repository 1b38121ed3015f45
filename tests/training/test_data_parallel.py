"""Processes that torchrun has started share a training and measurements (on gloo)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixtures import shared_work
from safetensors.torch import load_file

import curricula
from curricula.cli.main import program
from curricula.errors import UserError
from curricula.runtime import processes
from curricula.runtime.processes import Place, place, started
from curricula.training.plan import make_plan

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
LAUNCHED = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}


def torchrun(*arguments, folder):
    """Run two processes by torchrun in a folder, and return how they ended, with their output."""
    here = Path(__file__).parents[1]
    paths = [str(here), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [*TORCHRUN, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return what two processes found, the folder of their runs, and how they ended."""
    folder = tmp_path_factory.mktemp("shared")
    ended = torchrun(shared_work.__file__, str(folder), folder=folder)
    assert ended.returncode == 0, ended.stderr
    return torch.load(folder / "found-2.pt", weights_only=False), folder, ended


def difference(one, other):
    """Return the largest difference between the tensors of two trainings."""
    pairs = [(one["tensors"][name], other["tensors"][name]) for name in one["tensors"]]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    "name", ["at", "trades", "per-image", "parts", "branches", "average", "frozen"]
)
def test_two_processes_update_the_weights_as_one_does(shared, name):
    alone, together = shared_work.trained(*shared_work.UPDATES[name]), shared[0][name]
    assert difference(alone, together) < 1e-5
    for (loss, correct), (loss_alone, correct_alone) in zip(
        together["figures"], alone["figures"], strict=True
    ):
        assert loss == pytest.approx(loss_alone, abs=1e-5)
        assert correct == correct_alone
    assert torch.equal(alone["random"], together["random"]), "the next draw differs"


@pytest.mark.parametrize("name", [*shared_work.UPDATES, "partial"])
def test_all_processes_hold_the_same_network(shared, name):
    assert shared[0][name]["same everywhere"]


def test_batch_norm_uses_the_statistics_of_a_processs_share(shared):
    alone = shared_work.trained(*shared_work.UPDATES["batch norm"])
    assert 1e-5 < difference(alone, shared[0]["batch norm"]) < 0.1


def test_parameters_that_some_or_all_processes_do_not_use(shared):
    tensors = shared[0]["partial"]["tensors"]
    assert torch.equal(tensors["unused"], torch.ones(2)), "decayed without a gradient"
    assert not torch.equal(tensors["seldom"], torch.ones(2))


def test_measurements_are_those_of_one_process(shared):
    alone, together = shared_work.measured(), shared[0]["measured"]
    for name in ("results", "labels", "predictions"):
        assert together[name] == alone[name]
    for name, expected in alone["predicted"].items():
        assert torch.equal(together["predicted"][name], expected)


def test_the_first_process_tells_the_others(shared):
    found = shared[0]["exchanged"]
    assert found["failures"] == ["no such thing", "a" * 1000]
    assert found["values"] == [None, [1, "é"], 0.1, b"\0\xff"]
    assert found["largest"] == (1.0, -1.5)


def test_a_signal_to_one_process_ends_all_and_the_training_continues_bit_for_bit(shared):
    found, folder, _ = shared
    assert found["interrupted"].startswith("interrupted; continue with: curricula train --resume")
    whole, resumed = folder / "whole", folder / "interrupted"
    for file in ("metrics.jsonl", "evaluation.json"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()
    expected, weights = (load_file(path / "last.safetensors") for path in (whole, resumed))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_training_of_two_processes_continues_in_one(shared):
    whole, half = shared[1] / "whole", shared[1] / "half"
    curricula.resume(half)
    expected, weights = (load_file(path / "last.safetensors") for path in (whole, half))
    for name in expected:
        if name.startswith("model."):
            torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=1e-5)
    assert (half / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()


def test_the_command_line_prints_once_and_writes_once(shared):
    _, folder, ended = shared
    assert ended.stdout.count(f"run folder: {folder / 'command'}") == 1
    assert ended.stdout.count("epoch   1/1") == 1
    assert "Warning" not in ended.stderr
    assert len((folder / "command" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.fixture
def second_of_three(monkeypatch):
    """This process as the second of three, which exchange nothing."""
    monkeypatch.setattr(processes, "_place", Place(rank=1, count=3, local_rank=1, local_count=3))


def test_the_rows_of_all_processes_make_up_the_batch():
    for images in (3, 7, 100):
        rows = [Place(rank=rank, count=3).rows(images) for rank in range(3)]
        assert [row for part in rows for row in range(images)[part]] == list(range(images))
        sizes = [part.stop - part.start for part in rows]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 2}, "batch_size 2 is too small for 3 processes"),
        ({"batch_size": 26, "accumulate": 13}, "batch_size 26 in 13 parts is too small"),
        ({"batch_size": 26, "sync_batchnorm": True}, "sync_batchnorm (--sync-batchnorm) needs"),
    ],
)
def test_what_processes_cannot_share_is_refused(second_of_three, values, message):
    with pytest.raises(UserError) as error:
        make_plan({**shared_work.VALUES, **values})
    assert message in str(error.value)


def test_a_part_of_the_batch_needs_one_image_for_each_process(second_of_three):
    plan = make_plan({**shared_work.VALUES, "batch_size": 26, "accumulate": 3})  # 9, 9, 8
    assert plan.rows.tolist() == [3, 4, 5, 12, 13, 14, 20, 21, 22]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE must be a whole number from 1"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK must be a whole number from 0 to 1, not '2'"),
        ({"WORLD_SIZE": "2"}, "RANK must be a whole number from 0 to 1, not ''"),
    ],
)
def test_damaged_variables_of_the_environment_are_one_line(monkeypatch, variables, message):
    monkeypatch.delenv("RANK", raising=False)
    for name, value in {**LAUNCHED, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        started()


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # left by something else
    with processes.joined() as found:
        assert found == place() == Place()


def test_commands_for_one_process_say_so(monkeypatch, capsys):
    for name, value in {**LAUNCHED, "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        program(["compare", "runs"])
    assert "compare runs in one process, and torchrun has started 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "begin"), [("0", "Error: WORLD_SIZE"), ("1", "Error (process 1): WORLD_SIZE")]
)
def test_a_damaged_environment_is_one_line_of_the_program(monkeypatch, capsys, rank, begin):
    for name, value in {**LAUNCHED, "WORLD_SIZE": "two", "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        program(["plugins"])
    found = capsys.readouterr().err
    assert found.startswith(begin)
    assert found.count("\n") == 1


def test_each_process_of_a_machine_takes_a_different_gpu(second_of_three, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes.local_device(torch.device("cuda")) == torch.device("cuda:1")
    assert processes.local_device(torch.device("cuda:0")) == torch.device("cuda:1")
    assert processes.local_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="this machine has 2 GPUs for 3 processes"):
        processes.local_device(torch.device("cuda"))
