"""A file of someone else cannot execute code: the source has no call that would do so.

What such files do to their readers is tested beside the readers, and by `tools/fuzz_readers.py`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "curricula", *sorted(ROOT.glob("plugins/*/curricula_*"))]

MODULES = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml",
    "ruamel", "jsonpickle", "runpy", "code", "codeop", "subprocess", "ctypes", "imp", "pty",
}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
ATTRIBUTES = {
    "exec_module", "load_module", "import_module", "system", "popen", "spawnl", "spawnv", "execv",
    "execve", "execvp", "startfile", "load_library", "literal_eval", "read_pickle", "fromregex",
}  # fmt: skip
LOADERS = {("torch", "load"), ("np", "load"), ("numpy", "load"), ("torch", "hub"), ("jit", "load")}

EXPLAINED = {
    ("curricula/runtime/malloc.py", "ctypes"): "a setting of the allocator of this process",
    (
        "curricula/plugins/registry.py",
        "exec_module",
    ): "plugin files that the user names by --plugin",
    ("curricula/plugins/registry.py", "import_module"): "factories that installed plugins register",
    ("curricula/benchmark/baselines.py", "import_module"): "libraries named in the source",
    (
        "curricula/testing/data.py",
        "pickle",
    ): "a reader of images in memory, as for a worker process",
    ("curricula/data/npz.py", "np.load"): "arrays of the user, with allow_pickle=False",
    ("curricula/data/npz.py", "allow_pickle"): "False",
    ("curricula/models/weights.py", "torch.load"): "weights of the user, with weights_only=True",
    (
        "curricula/models/torchvision_models.py",
        "torch.load",
    ): "pretrained weights, with weights_only=True",
    ("curricula/models/pretrained.py", "torch.hub"): "fetches a file, and executes nothing",
    ("curricula/testing/models.py", "torch.load"): "weights that the same function has just saved",
}


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield each import and call by which a file could execute code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom):
            yield from (each.name for each in node.names if each.name in ATTRIBUTES)
            owner = (node.module or "").removeprefix("torch.")
            yield from (f"{owner}.{a.name}" for a in node.names if (owner, a.name) in LOADERS)
        elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).removeprefix("torch.")
            if node.attr in ATTRIBUTES:
                yield node.attr
            if (owner, node.attr) in LOADERS:
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            yield node.arg


def found() -> set[tuple[str, str]]:
    return {
        (str(path.relative_to(ROOT)), use)
        for folder in SOURCES
        for path in folder.rglob("*.py")
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    }


def test_no_source_can_execute_what_it_reads_except_in_explained_uses():
    assert found() == set(EXPLAINED)


@pytest.mark.parametrize(
    ("source", "use"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import subprocess as s", "subprocess"),
        ("eval('1')", "eval"),
        ("f = exec", "exec"),
        ("model.eval()", None),
        ("torch.compile(model)", None),
        ("x = torch.load(path, weights_only=True)", "torch.load"),
        ("np.load(path)", "np.load"),
        ("from numpy import load", "numpy.load"),
        ("torch.jit.load(path)", "jit.load"),
        ("np.loadtxt(path, allow_pickle=True)", "allow_pickle"),
        ("run(x, shell=False)", "shell"),
        ("os.system('ls')", "system"),
        ("from os import system", "system"),
        ("importlib.import_module(name)", "import_module"),
        ("safetensors.torch.load(content)", None),
        ("from safetensors.torch import load", None),
    ],
)
def test_each_kind_of_use_is_found(source, use):
    assert list(uses(ast.parse(source))) == ([] if use is None else [use])
