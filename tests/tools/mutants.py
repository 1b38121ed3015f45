"""Draw small faults (mutants) of the library with a fixed seed, and run the tests on each.

    python tests/tools/mutants.py draw TREE              write mutants.toml from the sources in TREE
    python tests/tools/mutants.py run TREE --state before   break TREE, one mutant after another
    python tests/tools/mutants.py locate TREE            check that each mutant has its line in TREE

The list was drawn from commit 79161ce, before its names and tests were changed. ``before`` is that
commit and ``after`` the present one; a mutant carries a file, a line and tests for each of them.
TREE is a copy that nothing else uses: its files are changed and put back.
"""

import argparse
import ast
import contextlib
import itertools
import os
import random
import re
import resource
import select
import signal
import sys
import time
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path

LIST = Path(__file__).with_name("mutants.toml")
SEED = 0
MAX_CPU = 600  # seconds of processor time of a test process; an endless loop needs more
INTERNAL_ERROR = 3  # exit status of pytest if pytest itself fails, which judges no mutant
MAX_WALL = 7200  # seconds of a mutant, on a machine that others use too

# The sources of each room at commit 79161ce, and how many mutants are drawn from it.
ROOMS: dict[str, tuple[int, list[str]]] = {
    "expressions": (
        13,
        [
            f"curricula/{name}.py"
            for name in ("expression", "construct", "binding", "tree", "streams", "curriculum")
        ],
    ),
    "victim": (
        13,
        [
            f"curricula/{name}.py"
            for name in ("victim", "resting", "folding", "faithful", "image_layer", "classifier")
        ],
    ),
    "perturbations": (13, ["curricula/perturbations/*.py"]),
    "evaluation": (13, ["curricula/evaluation/*.py"]),
    "training": (12, ["curricula/training/*.py"]),
}

# The tests that judge a file's mutants at commit 79161ce, the fastest first.
TESTS: dict[str, list[str]] = {
    f"curricula/{file}.py": [f"tests/test_{test}.py" for test in tests.split()]
    for file, tests in {
        "expression": "expression curriculum random_expressions",
        "construct": "curriculum schedules objectives random_expressions",
        "binding": "curriculum random_expressions geometry",
        "tree": "curriculum active_set random_expressions geometry",
        "streams": "streams active_set",
        "curriculum": "curriculum active_set",
        "victim": "victim gradient attacks_steps",
        "resting": "victim folding faithful",
        "folding": "folding faithful",
        "faithful": "faithful folding",
        "image_layer": "image_layer folding",
        "classifier": "classifier",
        "perturbations/apgd": "attacks_apgd",
        "perturbations/ball": "attacks_ball attacks_steps attacks_single_step",
        "perturbations/colour": "colour contracts",
        "perturbations/mim": "attacks_single_step attacks_others",
        "perturbations/noise": "colour contracts",
        "perturbations/parametric": "spatial colour catalogue",
        "perturbations/pgd": "attacks_steps gradient attacks_ball contracts",
        "perturbations/restarts": "gradient attacks_apgd",
        "perturbations/single_step": "attacks_single_step gradient",
        "perturbations/spatial": "geometry spatial contracts",
        "perturbations/square": "attacks_square",
        "perturbations/warps": "spatial contracts",
        "perturbations/whole_pixels": "spatial contracts",
        "evaluation/accuracy": "evaluation active_set",
        "evaluation/audit": "audit",
        "evaluation/checks": "audit",
        "evaluation/frontier": "comparison",
        "evaluation/profile": "profile",
        "evaluation/profiling": "profile",
        "evaluation/threats": "evaluation",
        "evaluation/work": "profile evaluation",
        "training/averaging": "weights update",
        "training/compiling": "speed weights",
        "training/config": "training",
        "training/learning_rate": "schedules training",
        "training/loop": "update training",
        "training/passes": "training speed",
        "training/plan": "training speed update",
        "training/run": "training",
        "training/update": "update training",
        "training/weights": "weights update",
    }.items()
}

# Drawn, and then left out: the mutated program does the same, or differs in a message alone.
EXCLUDED: dict[tuple[str, str], str] = {
    (
        "curricula/training/compiling.py",
        'chosen: Literal["on", "off"] = '
        '"on" if not failed and compiled <= GAIN * plainly else "off"',
    ): "two measured times are never equal",
}

COMPARISONS = {
    ast.Lt: ["<=", ">"],
    ast.LtE: ["<", ">"],
    ast.Gt: [">=", "<"],
    ast.GtE: [">", "<"],
    ast.Eq: ["!="],
    ast.NotEq: ["=="],
    ast.Is: ["is not"],
    ast.IsNot: ["is"],
    ast.In: ["not in"],
    ast.NotIn: ["in"],
}
SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
SWAPS = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "argmin": "argmax",
    "argmax": "argmin", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
}  # fmt: skip
# Numbers that name a dimension fail at once, whatever the tests do; so does a flag like strict.
DIMENSIONS = ("dim", "dims", "keepdim", "strict", "indexing")
SHAPES = (
    "permute", "reshape", "view", "transpose", "flatten", "size", "unsqueeze", "squeeze", "unbind",
    "argmax", "argmin", "softmax", "log_softmax",
)  # fmt: skip


def edits(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield every single edit of a source as (line number, old line, new line)."""
    lines = source.splitlines()
    tree = ast.parse(source)
    seen: set[tuple[int, str]] = set()

    def edit(
        start: tuple[int, int], end: tuple[int, int], text: str
    ) -> Iterator[tuple[int, str, str]]:
        (row, left), (last_row, right) = start, end
        if row != last_row:
            return
        line = lines[row - 1]
        # ast counts bytes.
        coded = line.encode()
        new = (coded[:left] + text.encode() + coded[right:]).decode()
        if new != line and (row, new) not in seen:
            seen.add((row, new))
            yield row, line, new

    def between(
        left: ast.expr, right: ast.expr, symbol: str, text: str
    ) -> Iterator[tuple[int, str, str]]:
        """Exchange the symbol that lies between two operands on one line."""
        if left.end_lineno != right.lineno:
            return
        coded = lines[right.lineno - 1].encode()
        gap = coded[left.end_col_offset : right.col_offset].decode()
        if gap.count(symbol) != 1:
            return
        at = left.end_col_offset + gap.index(symbol)
        yield from edit((right.lineno, at), (right.lineno, at + len(symbol)), text)

    def walk(node: ast.AST) -> Iterator[tuple[int, str, str]]:
        match node:
            case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return
            case ast.Expr(value=ast.Constant()):
                return
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                for text in COMPARISONS[type(op)]:
                    yield from between(left, right, SYMBOLS[type(op)], text)
            case ast.BoolOp(op=op, values=values):
                old, new = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
                for left, right in itertools.pairwise(values):
                    yield from between(left, right, f" {old} ", f" {new} ")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                texts = isinstance(left, ast.Constant | ast.JoinedStr) and not isinstance(
                    getattr(left, "value", ""), int | float
                )
                if not texts:
                    yield from between(left, right, *ARITHMETIC[type(op)])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield from edit(
                    (node.lineno, node.col_offset), (operand.lineno, operand.col_offset), ""
                )
            case ast.Return(value=value) if value is not None and not (
                isinstance(value, ast.Constant) and value.value is None
            ):
                yield from edit(
                    (node.lineno, node.col_offset),
                    (node.end_lineno or 0, node.end_col_offset or 0),
                    "return None",
                )
            case ast.Constant(value=bool() as value):
                yield from edit(
                    (node.lineno, node.col_offset),
                    (node.lineno, node.end_col_offset or 0),
                    str(not value),
                )
            case ast.Constant(value=int() | float() as value):
                changed = [value + 1, 2 * value] if isinstance(value, int) else [2 * value or 1.0]
                for number in changed:
                    yield from edit(
                        (node.lineno, node.col_offset),
                        (node.lineno, node.end_col_offset or 0),
                        repr(number),
                    )
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name) as function):
                if name in SWAPS and node.args is not None:
                    end = function.end_col_offset or 0
                    row = function.end_lineno or 0
                    yield from edit((row, end - len(name)), (row, end), SWAPS[name])
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                continue
            if field == "slice" or (isinstance(node, ast.keyword) and node.arg in DIMENSIONS):
                continue
            if field == "args" and _called(node) in SHAPES:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)

    for row, old, new in walk(tree):
        try:
            ast.parse("\n".join([*lines[: row - 1], new, *lines[row:]]))
        except SyntaxError:
            continue
        yield row, old, new


def _called(node: ast.AST) -> str:
    """Return the name that a call calls, or an empty text."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def draw(tree: Path) -> list[dict[str, object]]:
    """Return the mutants of the sources in a tree, by room; the seed is fixed."""
    generator = random.Random(SEED)
    drawn = []
    for room, (count, patterns) in ROOMS.items():
        files = sorted(file for pattern in patterns for file in tree.glob(pattern))
        candidates = [
            (str(file.relative_to(tree)), *edit)
            for file in files
            for edit in edits(file.read_text())
        ]
        generator.shuffle(candidates)
        lines: set[tuple[str, int]] = set()
        chosen: list[dict[str, object]] = []
        for file, row, old, new in candidates:
            if (file, row) in lines or (file, new.strip()) in EXCLUDED:
                continue
            lines.add((file, row))
            source = (tree / file).read_text().splitlines()
            chosen.append(
                {
                    "id": f"{room}-{len(chosen) + 1:02}",
                    "room": room,
                    "file": file,
                    "line": row,
                    # Which of the lines that read the same, from 0.
                    "occurrence": source[: row - 1].count(old),
                    "old": old,
                    "new": new,
                    "tests": TESTS[file],
                }
            )
            if len(chosen) == count:
                break
        drawn += chosen
    return drawn


def read() -> list[dict[str, object]]:
    """Return the stored mutants."""
    mutants: list[dict[str, object]] = tomllib.loads(LIST.read_text())["mutant"]
    return mutants


def write(mutants: list[dict[str, object]]) -> None:
    """Store mutants, each with what is known of it."""
    blocks = [
        "# Written by tests/tools/mutants.py: the faults drawn at commit 79161ce with seed 0, and\n"
        "# which test caught each there (before) and in the present tree (after).\n"
    ]
    for mutant in mutants:
        lines = ["[[mutant]]"]
        for key, value in mutant.items():
            if isinstance(value, list):
                items = ", ".join(_quoted(str(each)) for each in value)
                lines.append(f"{key} = [{items}]")
            else:
                lines.append(f"{key} = {value if isinstance(value, int) else _quoted(str(value))}")
        blocks.append("\n".join(lines) + "\n")
    LIST.write_text("\n".join(blocks))


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def place(mutant: dict[str, object], state: str) -> tuple[str, str, str, int, list[str]]:
    """Return (file, old line, new line, occurrence, tests) of a mutant in a state of the code."""

    def value(key: str) -> object:
        return (
            mutant[f"after_{key}"] if state == "after" and f"after_{key}" in mutant else mutant[key]
        )

    tests = value("tests")
    assert isinstance(tests, list)
    occurrence = value("occurrence")
    assert isinstance(occurrence, int)
    return str(value("file")), str(value("old")), str(value("new")), occurrence, tests


def mutated(source: str, old: str, new: str, occurrence: int) -> str | None:
    """Return a source with one line exchanged, or None where it has no such line."""
    lines = source.splitlines(keepends=True)
    rows = [row for row, line in enumerate(lines) if line.rstrip("\n") == old]
    if len(rows) <= occurrence:
        return None
    lines[rows[occurrence]] = new + "\n"
    return "".join(lines)


def preload() -> None:
    """Import what the tests need and no mutant touches, once: each child begins with it."""
    import matplotlib.figure
    import numpy
    import pytest
    import scipy.stats
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torch.fx
    import torchvision

    torch.set_num_threads(1)
    del matplotlib, numpy, pytest, scipy, sklearn, torchvision


def _cpu_seconds() -> int:
    """Return the processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime) + 1


class _NoDeadlines:
    """Lets examples be slow: on a busy machine a missed deadline would count as a mutant caught."""

    def pytest_configure(self, config: object) -> None:
        import hypothesis

        hypothesis.settings.register_profile("mutants", deadline=None)
        hypothesis.settings.load_profile("mutants")


def judge(tree: Path, tests: list[str], log: Path) -> tuple[str, str, float]:
    """Run tests in a forked child: ("passed" | "failed" | "timeout", first failure, seconds)."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(tree)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        paths = [str(tree), *map(str, sorted(tree.glob("plugins/curricula-*")))]
        sys.path[:0] = paths
        sys.dont_write_bytecode = True
        os.environ |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        resource.setrlimit(resource.RLIMIT_CPU, (_cpu_seconds() + MAX_CPU, resource.RLIM_INFINITY))
        status = INTERNAL_ERROR
        try:
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            status = int(pytest.main([*options, *tests], plugins=[_NoDeadlines()]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    with contextlib.suppress(OSError):  # the child may have done it
        os.setpgid(child, child)
    handle = os.pidfd_open(child)
    ready, _, _ = select.select([handle], [], [], MAX_WALL)
    os.close(handle)
    if not ready:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout", "", time.monotonic() - begun
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == INTERNAL_ERROR:
        raise RuntimeError(f"pytest itself failed: see {log}")
    seconds = time.monotonic() - begun
    if os.waitstatus_to_exitcode(status) == 0:
        return "passed", "", seconds
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return "timeout", "", seconds
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.MULTILINE)
    return "failed", found[0] if found else f"exit {os.waitstatus_to_exitcode(status)}", seconds


def run(tree: Path, state: str, only: str, again: bool) -> None:
    """Judge every mutant that has no verdict yet, and store each verdict at once."""
    preload()
    logs = tree.parent / f"{tree.name}-logs"
    logs.mkdir(exist_ok=True)
    for mutant in read():
        name = str(mutant["id"])
        if not re.search(only, name) or (state in mutant and not again):
            continue
        file, old, new, occurrence, tests = place(mutant, state)
        path = tree / file
        source = path.read_text()
        changed = mutated(source, old, new, occurrence)
        if changed is None:
            print(f"{name}: no such line in {file}: {old.strip()}", flush=True)
            continue
        for cached in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            cached.unlink()
        try:
            path.write_text(changed)
            verdict, by, seconds = judge(tree, tests, logs / f"{name}.{state}.log")
        finally:
            path.write_text(source)
        stored = read()  # it may have been edited meanwhile
        for each in stored:
            if each["id"] == name:
                each[state] = "survived" if verdict == "passed" else "caught"
                each[f"{state}_by"] = by or ("" if verdict == "passed" else verdict)
        write(stored)
        print(f"{name}: {verdict} {by} ({seconds:.0f} s)", flush=True)


def time_tests(tree: Path, tests: list[str]) -> None:
    """Run test files on the unchanged tree and print each one's verdict and seconds."""
    preload()
    for test in tests:
        verdict, by, seconds = judge(tree, [test], tree.parent / f"{tree.name}-unchanged.log")
        print(f"{test}: {verdict} {by} ({seconds:.0f} s)", flush=True)


def locate(tree: Path, state: str) -> int:
    """Print each mutant whose line a tree has not; return how many."""
    lost = 0
    for mutant in read():
        file, old, new, occurrence, tests = place(mutant, state)
        path = tree / file
        source = path.read_text() if path.exists() else ""
        missing = [test for test in tests if not (tree / test.partition("::")[0]).exists()]
        if missing or mutated(source, old, new, occurrence) is None:
            lost += 1
            print(f"{mutant['id']}: {file}: {old.strip()} {' '.join(missing)}")
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["draw", "run", "locate", "time"])
    parser.add_argument("tree", type=Path)
    parser.add_argument("tests", nargs="*", help="time: the test files")
    parser.add_argument("--state", choices=["before", "after"], default="after")
    parser.add_argument("--only", default="", help="run: a pattern of ids")
    parser.add_argument("--again", action="store_true", help="run: those with a verdict too")
    arguments = parser.parse_args()
    tree = arguments.tree.resolve()
    match arguments.action:
        case "draw":
            write(draw(tree))
        case "run":
            run(tree, arguments.state, arguments.only, arguments.again)
        case "locate":
            return min(1, locate(tree, arguments.state))
        case "time":
            time_tests(tree, arguments.tests)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
