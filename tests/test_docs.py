"""The documentation does what it says: its Python blocks run, its examples run, nothing is left
out. One example runs as a user runs it, in a separate process; the other examples and the pages
run in the process of the tests, which saves the imports."""

import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fixtures.few_digits import few_digits
from fixtures.quick import shorten_attacks

import curricula
from curricula.api.training import TrainValues
from curricula.data import digits
from curricula.plugins.hookspecs import KINDS
from curricula.training.config import FIELDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:`(?P<file>\w+)\.py`:\n\n)?^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL
)  # a block that follows the name of a file is saved as that file
PRINTED = re.compile(r"^prints\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OWN_PROCESS = "plugin_file.py"
STATES_TRAINING_IMAGES = ("training.md",)  # pages that state the number of training images
STATES_ATTACKS = ("evaluation.md",)  # pages that state the standard attacks


def blocks(page):
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def in_a_process(script, folder):
    """Run a script in its own process, where every warning is an error; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:invalid escape sequence", script],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_this_process(script, folder, capsys, monkeypatch, arguments=()):
    """Run a script in this process, which has imported torch already, and return its output."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    module = ModuleType("__main__")  # as in a separate process: pickled names are found there
    module.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", module)
    threads = torch.get_num_threads()
    capsys.readouterr()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            exec(compile(script.read_text(encoding="utf-8"), script, "exec"), vars(module))
    finally:
        torch.set_num_threads(threads)
    return capsys.readouterr().out


def check_page(page, run, folder):
    """Check that the blocks of a page run in their order and print what the page says. A block that
    the reader saves as a file is imported from it, as in a new session."""
    script = folder / "page.py"
    parts = []
    for block in blocks(page):
        code = block["code"]
        if block["file"] is not None:
            (folder / f"{block['file']}.py").write_text(code, encoding="utf-8")
            code = f"import {block['file']}"
        parts.append(code)
    script.write_text("\n\n".join(parts), encoding="utf-8")
    try:
        output = run(script, folder)
    finally:
        for block in blocks(page):
            sys.modules.pop(block["file"], None)
    for printed in PRINTED.findall(page.read_text(encoding="utf-8")):
        assert printed in output


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name
)
def test_the_python_blocks_of_a_page_run_in_their_order_and_print_what_it_says(
    page, tmp_path, capsys, monkeypatch, quick_audit
):
    number = {"train": None} if page.name in STATES_TRAINING_IMAGES else {}
    monkeypatch.setattr(digits, "digits", functools.partial(few_digits, **number))
    if page.name not in STATES_ATTACKS:
        shorten_attacks(monkeypatch)
    run = functools.partial(in_this_process, capsys=capsys, monkeypatch=monkeypatch)
    check_page(page, run, tmp_path)


def test_one_example_runs_in_a_process(tmp_path):
    assert in_a_process(ROOT / "examples" / OWN_PROCESS, tmp_path).strip()


@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if path.name != OWN_PROCESS], ids=lambda path: path.name
)
def test_each_example_runs(example, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digits, "digits", few_digits)
    shorten_attacks(monkeypatch)
    assert in_this_process(example, tmp_path, capsys, monkeypatch).strip()


@pytest.mark.parametrize("name", ["attacks_against_others.py", "quarter_turns.py"])
def test_an_example_that_finds_no_run_says_so_in_one_line(name, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="Error: absent is not a run folder"):
        in_this_process(
            ROOT / "examples" / name, tmp_path, capsys, monkeypatch, arguments=["absent"]
        )


def test_there_are_examples():
    assert EXAMPLES


def test_every_hook_has_its_place_in_the_reference():
    reference = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    for kind in KINDS:
        place = re.search(rf"^## curricula_{kind}s\n(.*?)^## ", reference, re.MULTILINE | re.DOTALL)
        assert place, kind
        for part in ("**The factory", f"def curricula_{kind}s():"):
            assert part in place[1], f"{kind}: {part}"


PUBLIC = [
    curricula,
    *(value for name in curricula.__all__ if inspect.ismodule(value := getattr(curricula, name))),
]


def test_the_top_holds_about_twenty_names():
    names = [name for name in curricula.__all__ if not inspect.ismodule(getattr(curricula, name))]
    assert 15 <= len(names) <= 22


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_there_and_documented(module):
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert set(names) <= set(dir(module))
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = curricula.no_such_name
    assert curricula.__version__.count(".") == 2


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    for name in curricula.__all__:
        assert re.search(rf"\bcurricula\.{name}\b", reference), name


def test_the_keywords_of_train_are_the_fields_of_its_configuration():
    assert list(TrainValues.__annotations__) == list(FIELDS)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
