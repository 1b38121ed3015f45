"""A small share of `tools/fuzz_readers.py`: each damaged file is answered in one line."""

import numpy as np
import pytest
from tools import fuzz_readers

from curricula.errors import UserError

INPUTS = {
    "study": 3,
    "rows": 20,
    "checkpoint": 20,
    "compare": 40,
    "plugin": 40,
}  # fewer where reading takes long
OTHERS = 100
PHOTOS = (
    *fuzz_readers.photos(np.random.default_rng(0)),
    *(f"opened {name}" for name in fuzz_readers.OPENED),
)
INPUTS |= dict.fromkeys(PHOTOS, 30)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Return the folder of the files, and the readers by name."""
    folder = tmp_path_factory.mktemp("files")
    return folder, fuzz_readers.readers(folder, fuzz_readers.write_files(folder))


NAMES = (
    "config", "sweep", "search", "trials", "pruned", "intermediate", "metrics", "timing",
    "environment", "data", "evaluation", "predictions", "profile", "audit", "certificates",
    "suites", "finished", "failure", "elsewhere", "compare", "compare-config", "plugins-config",
    "weights", "checkpoint", "mnist-images", "mnist-labels", "npz", "png", "jpg", "bmp", "tif",
    "webp", "ppm", "identity", "rows", "plugin", "study", "safetensors", "torch", "torch-old",
    *PHOTOS,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_a_reader_answers_damaged_files_in_one_line(known, tiny, name):
    folder, readers = known
    readers[name].read()  # the real file
    found = fuzz_readers.fuzz(name, readers[name], folder, INPUTS.get(name, OTHERS), seed=1)
    assert not found.faults
    assert found.refused >= found.inputs / 5  # the changes are damages


def test_all_readers_are_tried(known):
    assert set(known[1]) == set(NAMES)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("a"), "KeyError in"),
        (RecursionError(), "RecursionError in"),
        (UserError("no name"), "message 'no name'"),
        (SystemExit(), "SystemExit in"),
    ],
)
def test_a_reader_that_fails_otherwise_is_reported(tmp_path, error, fault):
    (tmp_path / "file").write_bytes(b"content")

    def read():
        raise error

    reader = fuzz_readers.Reader(
        file="file", read=read, changes=(fuzz_readers.of_bytes,), named="file"
    )
    found = fuzz_readers.fuzz("reader", reader, tmp_path, 3, seed=0)
    assert any(fault in text for text in found.faults)
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_reader_that_hangs_is_stopped(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(fuzz_readers, "MAX_HANG", 0.05)

    def read():
        while True:
            pass

    reader = fuzz_readers.Reader(
        file="file", read=read, changes=(fuzz_readers.of_bytes,), named="file"
    )
    found = fuzz_readers.fuzz("reader", reader, tmp_path, 1, seed=0)
    assert any("TimeoutError" in text for text in found.faults)
