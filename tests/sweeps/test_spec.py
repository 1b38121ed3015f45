"""The file of a sweep, which may come from someone else."""

import os
import time

import pytest

from curricula.errors import UserError
from curricula.runtime.files import inside
from curricula.sweeps.folder import default_folder
from curricula.sweeps.spec import MAX_CELLS, Sweep, parse_sweep, read_sweep

BASE = "[base]\nmodel = 'lenet'\n[axes]\n"
NAMES = [
    "../x", "/x", "a/b", ".", "..", "", "con", "nul.txt", "x" * 5000, "\N{SNOWMAN}" * 200,
    "𝒳" * 200, "$HOME", "%s", "<b>", "'", "a\\b", "~", "-rf", " ", "é" * 119,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_a_folder_inside_the_sweep_whatever_its_names(tmp_path, name):
    if len(name) > 2000:
        name = name[:2000]
    quoted = name.replace("\\", "\\\\")
    text = f'{BASE}seed = [0, 1]\n[axes."{quoted}"]\n"{quoted}" = {{}}\n'
    for cell in parse_sweep(text).cells:
        path = inside(tmp_path, f"cells/{cell.name}")
        assert path.parent == tmp_path / "cells"
        path.mkdir(parents=True)
        (path.parent / f".{cell.name}.lock").touch()
    assert len(list((tmp_path / "cells").iterdir())) == 4


@pytest.mark.parametrize("name", ["a\\nb", "\\u001b[2J", "\\u202e", "\\u0000", "x" * 2001])
def test_a_name_that_cannot_be_shown_is_refused(name):
    for text in (
        f'[axes."{name}"]\na = {{}}\n',
        f'[axes.a]\n"{name}" = {{}}\n',
        f'[axes]\nseed = [0]\n[evaluation.threats]\n"{name}" = "rot"\nb = "rot"\n',
    ):
        with pytest.raises(UserError, match="characters that can be printed") as raised:
            parse_sweep(text)
        assert str(raised.value).isprintable()


def test_a_small_file_cannot_ask_for_millions_of_cells():
    axes = "".join(f"[axes.a{i}]\nb = {{}}\nc = {{}}\n" for i in range(5000))
    began = time.perf_counter()
    with pytest.raises(UserError, match=f"combinations; at most {MAX_CELLS:,} are allowed"):
        parse_sweep(axes)
    assert time.perf_counter() - began < 1


def test_a_sweep_made_in_python_is_bounded_as_well():
    axis = {str(number): {"seed": number} for number in range(10)}
    with pytest.raises(UserError, match="have 1,000,000,000 combinations; at most 10,000 are"):
        Sweep(base={}, axes={f"axis{number}": axis for number in range(9)})


def test_the_rows_of_many_cells_are_named_within_a_second():
    values = ", ".join(str(number) for number in range(1, 10_001))
    sweep = parse_sweep(f"{BASE}epochs = [{values}]\n")
    began = time.process_time()
    assert [sweep.row(cell) for cell in sweep.cells][::9999] == ["epochs=1", "epochs=10000"]
    assert time.process_time() - began < 3  # quadratic time: a minute


def test_many_cells_of_long_names_are_named_within_a_second():
    axes = "".join(f"[axes.{i}{'a' * 1900}]\nb = {{}}\nc = {{}}\n" for i in range(11))
    began = time.perf_counter()
    assert len({cell.name for cell in parse_sweep(axes).cells}) == 2**11
    assert time.perf_counter() - began < 3  # of processors that others use too


@pytest.mark.parametrize("value", ["1" * 5000, "0x" + "f" * 9000, "[" * 3000, "1e999", "{}", "nan"])
def test_strange_values_are_one_line(value):
    for text in (
        f"[base]\nepochs = {value}\n[axes]\nseed = [0]\n",
        f"[axes]\nseed = [{value}]\n",
        f"[axes]\nseed = {value}\n",
        f"base = {value}\n",
        f"[axes]\nseed = [0]\n[evaluation]\nlimit = {value}\n",
        f"[axes]\nseed = [0]\n[evaluation]\nfrontier = {value}\n",
    ):
        with pytest.raises(UserError) as raised:
            parse_sweep(text)
        assert len(str(raised.value)) < 500


def test_a_file_that_is_not_a_text_is_one_line(tmp_path):
    path = tmp_path / "sweep.toml"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"sweep.toml: cannot be read \(not a regular file\)"):
        read_sweep(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep(path)
    path.unlink()
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep("a\0b")
    path.write_bytes(b"\xef\xbb\xbf[axes]\r\nseed = [0]\r\n")
    assert len(read_sweep(path).cells) == 1


@pytest.mark.parametrize("name", ["...toml", "..toml", ".toml", "a/...toml", "mine.toml", "mine"])
def test_without_an_output_a_sweep_has_its_own_folder_in_runs(name):
    path = default_folder(name)
    assert path.parent.name == "runs"
    assert path.name not in ("", ".", "..")
