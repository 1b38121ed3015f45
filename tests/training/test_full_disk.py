"""A disk that fills up during a training, a sweep or a report, on a small file system:
one clear line, no checkpoint lost, and the same end once there is space again."""

import os
import shutil
import subprocess

import pytest
from fixtures.outcomes import outcome

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.reporting.report import report
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.spec import parse_sweep
from curricula.training.callbacks import NoCallback
from curricula.training.run import BEST, LAST, METRICS, Run

SIZE = 2**21  # bytes of the file system
SMALL = {
    "data": "tiny", "model": "tinycnn(width=8)", "epochs": 2, "precision": "float32",
    "perturb": "rot", "compile": "off",
}  # fmt: skip
NO_SPACE = r"cannot be written \(No space left on device\)"


@pytest.fixture(scope="module")
def file_system(tmp_path_factory):
    """Return the folder of a small, empty file system, or skip where none can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root and the program mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Disk:
    """A small file system that can be filled and freed."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, free):
        """Leave a number of bytes free."""
        left = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, left.f_bavail * left.f_frsize - free)

    def free(self):
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(file_system, tiny):
    yield Disk(file_system)
    for path in file_system.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the outcome of a training with space."""
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("whole") / "run"
    curricula.train(**SMALL, output=path)
    return outcome(path)


class FillAt(NoCallback):
    """Fill the disk at an event of a training."""

    def __init__(self, disk, event, free):
        self.disk, self.event, self.space = disk, event, free

    def _at(self, event):
        if event == self.event:
            self.disk.fill(self.space)

    def on_step_end(self, update):
        self._at(update.progress.step)

    def on_epoch_end(self, metrics):
        self._at("epoch") if metrics.epoch == 1 else None

    def on_eval_start(self, batches):
        self._at("evaluation")


def checkpoints(path):
    return {file: (path / file).read_bytes() for file in (BEST, LAST) if (path / file).exists()}


@pytest.mark.parametrize(
    ("event", "free", "file"),
    [
        (3, 0, LAST),
        (5, 8192, LAST),  # a part of the checkpoint has space
        ("epoch", 12288, None),
        ("evaluation", 0, "predictions.safetensors"),
    ],
)
def test_a_training_goes_on_once_there_is_space(disk, whole, event, free, file):
    path = disk.folder / "run"
    with pytest.raises(UserError, match=NO_SPACE) as raised:
        curricula.train(
            **SMALL, output=path, checkpoint_every=2,
            callbacks=[FillAt(disk, event, free)],
        )  # fmt: skip
    assert "\n" not in str(raised.value)
    assert file is None or str(path / file) in str(raised.value)
    before = checkpoints(path)
    assert LAST in before
    Run(path).load(LAST)  # refuses a damaged one
    assert not list(path.glob(".*.partial"))
    with pytest.raises(UserError, match=NO_SPACE):  # still full
        curricula.resume(path, checkpoint_every=2)
    assert checkpoints(path) == before
    disk.free()
    curricula.resume(path)
    assert outcome(path) == whole


def test_a_training_that_cannot_begin_leaves_the_folder_free(disk, whole):
    disk.fill(0)
    path = disk.folder / "run"
    with pytest.raises(UserError, match="No space left on device"):
        curricula.train(**SMALL, output=path)
    disk.free()
    curricula.train(**SMALL, output=path)
    assert outcome(path) == whole


def contents(folder):
    """Return the bytes of all files that are not empty, by path."""
    files = [path for path in folder.rglob("*.*") if path.is_file() and path.stat().st_size]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_report_keeps_the_older_page_and_is_written_once_there_is_space(disk):
    path = disk.folder / "run"
    curricula.train(**SMALL, output=path)
    before = contents(path)
    disk.fill(0)
    with pytest.raises(UserError, match="No space left on device") as raised:
        report(path)
    assert "\n" not in str(raised.value)
    assert contents(path) == before
    disk.free()
    report(path)
    page = (path / "report.html").read_bytes()
    disk.fill(0)
    with pytest.raises(UserError, match="No space left on device"):
        report(path)
    assert (path / "report.html").read_bytes() == page
    assert not list(path.rglob("*.partial"))


SWEEP = """
[base]
data = "tiny"
model = "tinycnn(width=8)"
epochs = 1
perturb = "rot"
compile = "off"

[axes]
seed = [0, 1]

[evaluation]
limit = 20
threats = { clean = "clean", turned = "rot" }
"""


def cells(folder):
    """Return what must be equal of a sweep: each cell's metrics and results."""
    files = [*folder.rglob(METRICS), *folder.rglob("evaluation.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole_sweep(tmp_path_factory):
    """Return the cells of a sweep with space."""
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    run_sweep(parse_sweep(SWEEP), folder)
    return cells(folder)


@pytest.mark.parametrize(("line", "free"), [("2 cells", 0), ("seed=1: begins", 24576)])
def test_a_sweep_goes_on_once_there_is_space(disk, whole_sweep, line, free):
    folder = disk.folder / "sweep"
    filled = []

    def hear(said):
        if line in said and not filled:
            filled.append(said)
            disk.fill(free)

    with pytest.raises(UserError) as raised:
        run_sweep(parse_sweep(SWEEP), folder, on_message=hear)
    assert filled
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    disk.free()
    run_sweep(parse_sweep(SWEEP), folder, retry=True)
    assert cells(folder) == whole_sweep
