"""The examples in docstrings run and print what they say."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from curricula.plugins import registry

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / "curricula", *sorted(ROOT.glob("plugins/*/curricula_*"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples() -> Iterator:
    """Yield every docstring with an example, read from the sources: collecting imports nothing."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if ">>> " not in source:
                continue
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            module = module.removesuffix(".__init__")
            for name, line, docstring in docstrings(ast.parse(source), ""):
                if ">>> " in docstring:
                    yield pytest.param(module, name, line, docstring, id=f"{module}{name}")


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, int, str]]:
    """Yield (qualified name, line, docstring) of a definition and of all definitions within it."""
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, node.body[0].lineno, docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from docstrings(child, f"{name}.{child.name}")


def shared_names() -> dict:
    """Return what an example may use without importing it."""
    import curricula
    from curricula.victim.model_victim import ModelVictim

    return {
        "curricula": curricula,
        "torch": torch,
        "nn": torch.nn,
        "ModelVictim": ModelVictim,
        "Progress": curricula.Progress,
    }


def run(docstring: str, names: dict, name: str, line: int = 0) -> None:
    test = doctest.DocTestParser().get_doctest(docstring, names, name, None, line)
    said = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize(("module", "name", "line", "docstring"), list(examples()))
def test_the_example_prints_what_it_says(module, name, line, docstring, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = shared_names() | vars(importlib.import_module(module))
    run(docstring, names, module + name, line)


@pytest.mark.parametrize("kind", ["perturbation", "schedule"])
def test_every_perturbation_and_schedule_has_an_example(kind):
    records = registry.build_registry(entry_points=False).records(kind)
    assert records
    assert not [name for name, found in records.items() if ">>> " not in found.load().__doc__]
