"""Compare what two checkouts of curricula compute, number by number.

    python tests/tools/compare_runs.py --old DIR_OR_PYTHON --new DIR [--only NAME] [--keep FOLDER]

Runs the same fixed configurations in both, each in separate processes on the CPU with one thread,
and compares every file of numbers that they write: metrics.jsonl, evaluation.json, profile.json,
audit.json, config.toml, the checkpoints, and what the commands print as JSON. Numbers must be the
same to the last digit. Keys, names, flags and files are compared through the renames below. One
line is printed for each file; the exit status is 1 on any difference.

--old is commit 79161ce (or its Python, in DIR/.venv/bin), --new the present tree. A checkout with a
.venv uses its Python, otherwise the Python that runs this.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Renames from commit 79161ce to now.
FLAGS = {"--twin": "--baseline", "--out": "--output", "--part": "--split", "--of": "--axes"}
FOLDERS = {"twin": "baseline"}
KEYS: dict[str, str] = {"part": "split", "plain": "baseline", "twin": "baseline"}
NAMES: dict[str, str] = {
    "plain twin": "baseline",
    "natural": "transformed",
    "twin": "baseline",
    "best.safetensors": "best",  # in audit.json
    "last.safetensors": "last",
    "smallcnn, best.safetensors of run": "smallcnn, best checkpoint of run",  # in profile.json
}
SENTENCES = (".finding",)  # keys of audit.json whose values are sentences
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")
# What was not computed at 79161ce; keys of metrics.jsonl, tensors of last.safetensors.
NEW_KEYS = {"findings", "strong_accuracy", "zero_gradient", "on_collapse"}
NEW_TENSORS = re.compile(r"sums\.|random\.(numpy|python|device)")
DROPPED_KEYS = {"curricula", "versions", "date", "started", "minutes"}  # of the machine, the moment

COMMON = ["--device", "cpu", "--precision", "float32", "--compile", "off"]
SWEEP = """
[base]
data = "digits"
model = "smallcnn"
perturb = "rot+pgd"
epochs = 2
compile = "off"
precision = "float32"
device = "cpu"

[axes]
seed = [0, 1]

[evaluation]
limit = 100

[evaluation.threats]
clean = "clean"
spatial = "worst(rot:30, k=3)"
joint = "rot:30+pgd(0.1, steps=10)"
"""

# Each configuration: commands in the words of 79161ce, run one after another in one folder.
CONFIGURATIONS: dict[str, list[list[str]]] = {
    "linear": [
        ["train", "--perturb", "rot+pgd", "--schedule", "linear", "--epochs", "3", "--twin",
         "--out", "run", *COMMON],
    ],
    "cusp": [
        ["train", "--config", "cusp", "--data", "digits", "--model", "smallcnn", "--epochs", "4",
         "--perturb", "rot:30+pgd:0.1", "--out", "run", *COMMON],
    ],
    "trades": [
        ["train", "--perturb", "trans+pgd", "--objective", "trades(beta=6)", "--average",
         "ema(decay=0.9)", "--awp", "0.005", "--epochs", "2", "--out", "run", *COMMON],
    ],
    "per-image": [
        ["train", "--perturb", "rot+pgd", "--schedule", "rot=fooling", "--schedule",
         "pgd=per-image(up=0.5, down=0.1)", "--epochs", "3", "--out", "run", *COMMON],
    ],
    "chains": [
        ["train", "--perturb", "(rot|elastic)+brightness+apgd(0.1, steps=3)", "--average", "swa",
         "--augmentation", "flip", "--epochs", "2", "--seed", "5", "--out", "run", *COMMON],
    ],
    "threats": [
        ["train", "--perturb", "rot+pgd", "--epochs", "2", "--out", "run", *COMMON],
        ["evaluate", "run", "--threat", "worst(rot:30, k=4)+pgd(0.1, steps=5)", "--threat",
         "grid(rot:30+trans:2, rot=5, trans=3)", "--threat", "rot:30|pgd(0.1, steps=5)",
         "--threat", "square(0.1, queries=30)", "--limit", "60", "--format", "json"],
        ["evaluate", "run", "--part", "validation", "--limit", "50", "--seed", "3", "--checkpoint",
         "last", "--format", "json"],
        ["evaluate", "run", "--profile", "--limit", "10"],
        ["evaluate", "run", "--audit", "--limit", "20"],
    ],
    "sweep": [
        ["sweep", "two.toml", "--out", "runs"],
        ["compare", "runs", "--of", "spatial", "joint", "--format", "json"],
    ],
}  # fmt: skip
FINE = {0, 1}  # the exit status of an audit whose check fails is 1


def present(command: Sequence[str]) -> list[str]:
    """Return a command of 79161ce in the present words."""
    words = [FLAGS.get(word, word) for word in command]
    for measurement in ("profile", "audit"):
        if words[0] == "evaluate" and f"--{measurement}" in words:
            words = [measurement, *(word for word in words[1:] if word != f"--{measurement}")]
    return words


def run(checkout: Path, python: Path, command: Sequence[str], folder: Path, printed: Path) -> None:
    """Run one command of a checkout in a folder; what it prints goes into a file there."""
    paths = [checkout, *sorted(checkout.glob("plugins/curricula-*"))]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CURRICULA_")},
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [python, "-m", "curricula", *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in FINE or "Traceback" in done.stderr:
        raise SystemExit(f"{checkout}: curricula {' '.join(command)}\n{done.stderr}")
    if "json" in command:
        printed.write_text(done.stdout, encoding="utf-8")


def numbers(path: Path) -> Any:
    """Return what a file of numbers holds; decimals stay as they are written."""
    text = path.read_text(encoding="utf-8") if path.suffix != ".safetensors" else ""
    match path.suffix:
        case ".jsonl":
            return [json.loads(line, parse_float=str) for line in text.splitlines()]
        case ".json":
            return json.loads(text, parse_float=str)
        case ".toml":
            return tomllib.loads(text, parse_float=str)
        case ".safetensors":
            from safetensors.torch import load_file

            return {
                name: [str(tensor.dtype), list(tensor.shape), tensor.flatten().tolist()]
                for name, tensor in load_file(path).items()
            }
    raise AssertionError(path)


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Yield each difference of two values, the old one through the renames."""
    if isinstance(old, dict) and isinstance(new, dict):
        old = {KEYS.get(key, key) if key not in new else key: value for key, value in old.items()}
        old = {NAMES.get(key, key) if key not in new else key: value for key, value in old.items()}
        for key in dict.fromkeys([*old, *new]):
            added = key not in old and (key in NEW_KEYS or NEW_TENSORS.match(key))
            if key in DROPPED_KEYS or added:
                continue
            if key not in new or key not in old:
                yield f"{place}.{key}: only in the {'old' if key in old else 'new'}"
            else:
                yield from differences(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} and {len(new)} values"
        for number, pair in enumerate(zip(old, new, strict=False)):
            yield from differences(*pair, f"{place}[{number}]")
    elif isinstance(old, str) and isinstance(new, str):
        if place.endswith(SENTENCES):  # rewritten in plain words: their numbers are compared
            old, new = (" ".join(sorted(NUMBER.findall(text))) for text in (old, new))
        if old != new and NAMES.get(old, old) != new:
            yield f"{place}: {old!r} and {new!r}"
    elif type(old) is not type(new) or (old != new and not (old != old and new != new)):
        yield f"{place}: {old!r} and {new!r}"


COMPARED = ("metrics.jsonl", "evaluation.json", "validation.json", "profile.json", "audit.json",
            "config.toml", "best.safetensors", "last.safetensors")  # fmt: skip


def compared_files(folder: Path) -> dict[str, Path]:
    """Return the files to compare, by their present names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name in COMPARED or path.name.startswith("printed-"):
            parts = [FOLDERS.get(part, part) for part in path.relative_to(folder).parts]
            found["/".join(parts)] = path
    return found


def compare(name: str, old: Path, new: Path) -> int:
    """Print a line for each file of a configuration; return the number of files that differ."""
    olds, news = compared_files(old), compared_files(new)
    wrong = 0
    for file in sorted({*olds, *news}):
        if file not in olds or file not in news:
            found = [f"only in the {'old' if file in olds else 'new'}"]
        else:
            found = list(differences(numbers(olds[file]), numbers(news[file])))
        wrong += bool(found)
        verdict = f"DIFFERENT, {len(found)}: {'; '.join(found[:5])}" if found else "the same"
        print(f"{name}/{file}: {verdict}", flush=True)
    if not olds:
        print(f"{name}: DIFFERENT: nothing was written")
    return wrong + (not olds)


def checkout_of(place: Path) -> tuple[Path, Path]:
    """Return (checkout, Python) of a checkout's folder or of the Python in its .venv."""
    if place.is_dir():
        python = place / ".venv" / "bin" / "python"
        return place.resolve(), python.absolute() if python.exists() else Path(sys.executable)
    return place.absolute().parents[2], place.absolute()


def main() -> int:
    """Run the configurations in both checkouts, compare them and return the exit status."""
    parser = argparse.ArgumentParser(description="Compare what two checkouts compute.")
    parser.add_argument(
        "--old", type=Path, required=True, help="Checkout of 79161ce, or its Python."
    )
    parser.add_argument("--new", type=Path, required=True, help="Present checkout, or its Python.")
    parser.add_argument("--only", action="append", choices=CONFIGURATIONS, help="Repeatable.")
    parser.add_argument(
        "--keep", type=Path, help="Folder for the runs, kept.  [default: temporary]"
    )
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        base = (arguments.keep or Path(temporary)).absolute()
        for name in arguments.only or CONFIGURATIONS:
            folders = []
            for state, place in (("old", arguments.old), ("new", arguments.new)):
                checkout, python = checkout_of(place)
                folder = base / name / state
                folder.mkdir(parents=True)
                (folder / "two.toml").write_text(SWEEP)
                for number, command in enumerate(CONFIGURATIONS[name]):
                    words = present(command) if state == "new" else command
                    run(checkout, python, words, folder, folder / f"printed-{number}.json")
                folders.append(folder)
            wrong += compare(name, *folders)
    print(f"{wrong} files differ" if wrong else "all files are the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
