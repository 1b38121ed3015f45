"""Kill trainings by SIGKILL at random moments, continue each, and compare with one never killed.

    python tests/tools/kill_resume.py [--only NAME] [--kills 20] [--seed 0] [--keep FOLDER]

Each configuration is trained once without interruption. Then it is trained again; the process is
killed after a random delay, the run continued by a new process, and so on, until it was killed as
often as requested; the last process is left alone. A training that ends before is followed by
another. Delays are drawn from a fixed seed, over the time that a whole training takes after its
imports, so that they also fall into the writing of checkpoints (there is one after each update or
two), into validation and into the final evaluation.
metrics.jsonl, evaluation.json and all tensors of both checkpoints must be equal bit for bit. The
exit status is 1 on any difference.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.torch
from PIL import Image

COMMON = [
    "--device", "cpu", "--precision", "float32", "--compile", "off", "--checkpoint-every", "2",
]  # fmt: skip

CONFIGURATIONS: dict[str, list[str]] = {
    "cusp": [
        "--config", "cusp", "--data", "digits", "--model", "smallcnn", "--epochs", "2",
        "--batch-size", "128", "--perturb", "rot:30+pgd(0.1, steps=3)",
    ],
    "per-image": [
        "--perturb", "rot+pgd(0.1, steps=3)", "--schedule", "pgd=per-image", "--epochs", "3",
        "--batch-size", "128",
    ],
    "ema-awp": [
        "--perturb", "trans+pgd(0.1, steps=2)", "--objective", "trades(beta=6)", "--average",
        "ema(decay=0.9)", "--awp", "0.005", "--epochs", "2", "--batch-size", "128",
    ],
    "disk": [
        "--data", "folder(size=16, keep=disk)", "--data-root", "images", "--model", "lenet",
        "--perturb", "rot+pgd(0.03, steps=2)", "--epochs", "3", "--batch-size", "20",
        "--augmentation", "crop+flip",
    ],
    "accumulate": [
        "--perturb", "rot+pgd(0.1, steps=2)", "--accumulate", "3", "--clip-norm", "1", "--epochs",
        "2", "--batch-size", "128",
    ],
    "baseline": ["--perturb", "rot", "--epochs", "2", "--batch-size", "128", "--baseline"],
}  # fmt: skip

SWEEP = """
[base]
data = "digits"
model = "smallcnn"
perturb = "rot+pgd(0.1, steps=2)"
epochs = 1
batch_size = 128
compile = "off"
precision = "float32"
device = "cpu"

[axes]
seed = [0, 1]
objective = ["at", "trades"]

[evaluation]
limit = 100
"""


def command(*arguments: object) -> list[str]:
    """Return a command of curricula, with this Python."""
    return [sys.executable, "-m", "curricula", *map(str, arguments)]


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("ab")
    return subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(arguments: list[str], folder: Path) -> float:
    """Run a command to its end and return the seconds that it took."""
    began = time.perf_counter()
    status = start(arguments, folder).wait()
    if status:
        print((folder / "log").read_text()[-2000:])
        sys.exit(f"{' '.join(arguments)}: exit status {status}")
    return time.perf_counter() - began


def killed_and_continued(
    first: list[str],
    again: list[str],
    marker: Path,
    folder: Path,
    kills: int,
    whole_seconds: float,
    draws: random.Random,
) -> int:
    """Run a command, kill it and continue it until it was killed often enough; return the number of
    kills. `marker` exists once the second command can be used."""
    done = 0
    while done < kills:
        process = start(again if marker.exists() else first, folder)
        if marker.name == "sweep.toml":  # within a cell: a sweep first writes its own files
            wait_until_killed(process, marker.parent / "cells", whole_seconds, draws, share=1 / 8)
        else:
            wait_until_killed(process, marker.parent, whole_seconds, draws)
        if process.returncode == -signal.SIGKILL:
            done += 1
            continue
        finished = "is finished" in (folder / "log").read_text()  # killed while drawing its page
        if process.returncode and not finished:
            print((folder / "log").read_text()[-2000:])
            sys.exit(f"{folder}: exit status {process.returncode}")
        return done  # finished before it could be killed
    process = start(again if marker.exists() else first, folder)
    if process.wait() and "is finished" not in (folder / "log").read_text():
        sys.exit(f"{folder}: exit status {process.returncode}")
    return done


def wait_until_killed(
    process: "subprocess.Popen[bytes]",
    run: Path,
    whole_seconds: float,
    draws: random.Random,
    share: float = 1 / 80,
) -> None:
    """Kill a process a random time after it first wrote a file, at most a share of the time of a
    whole run, or after its start if it wrote none until then; leave it alone if it ends by
    itself."""
    before = newest(run)
    written = draws.uniform(0.0, whole_seconds * share)
    end = time.perf_counter() + draws.uniform(2.0, 2.0 + whole_seconds)
    while process.poll() is None and time.perf_counter() < end:
        if newest(run) > before:
            end, before = min(end, time.perf_counter() + written), float("inf")
        time.sleep(0.005)
    process.kill()
    process.wait()


def newest(folder: Path) -> float:
    """Return the time at which the newest file of a folder changed, in seconds; 0 without files."""
    times = [0.0]
    with contextlib.suppress(FileNotFoundError):  # a file or folder is renamed at this moment
        for path in folder.rglob("*"):
            times.append(path.stat().st_mtime)
    return max(times)


def contents(folder: Path) -> dict[str, object]:
    """Return everything in a folder that must be equal, by path."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("metrics.jsonl", "evaluation.json"):
            found[name] = path.read_bytes()
        elif path.suffix == ".safetensors":
            tensors = safetensors.torch.load(path.read_bytes())
            found |= {f"{name}:{key}": value.numpy().tobytes() for key, value in tensors.items()}
        elif path.name.endswith(".partial"):
            found[name] = "left over"
    return found


def write_images(folder: Path) -> None:
    """Write a small folder of random images in two classes."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 120), ("test", 40)):
        for label, name in enumerate(("dark", "light")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(80 * label, 80 * label + 160, (16, 16, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / part / name / f"{number}.png")


def compare(name: str, folder: Path, kills: int, seed: int) -> bool:
    """Train one configuration with and without kills; return whether all is equal."""
    draws = random.Random(f"{seed}-{name}")
    if name == "sweep":
        first = again = command("sweep", "four.toml", "-o", "run")
        marker = Path("run", "sweep.toml")
    else:
        first = command("train", *CONFIGURATIONS[name], *COMMON, "-o", "run")
        again = command("train", "--resume", "run", "--checkpoint-every", "2")
        marker = Path("run", "config.toml")
    whole = prepared(folder / "whole")
    took = finish(first, whole)
    before = contents(whole / "run")
    done, runs, different = 0, 0, set[str]()
    while done < kills:  # a run that ends too early is followed by another
        broken = prepared(folder / f"broken-{runs}")
        runs += 1
        done += killed_and_continued(
            first, again, broken / marker, broken, kills - done, took, draws
        )
        after = contents(broken / "run")
        different |= {path for path in {**before, **after} if before.get(path) != after.get(path)}
    verdict = f"{len(different)} differ: {sorted(different)[:5]}" if different else "all equal"
    print(
        f"{name}: {took:.1f} s, {runs} runs killed {done} times, {len(before)} items, {verdict}",
        flush=True,
    )
    return not different


def prepared(folder: Path) -> Path:
    """Make a folder with all that the commands read, and return it."""
    folder.mkdir(parents=True)
    write_images(folder / "images")
    (folder / "four.toml").write_text(SWEEP, encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*CONFIGURATIONS, "sweep"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are kept")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else [*CONFIGURATIONS, "sweep"]
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        equal = [compare(name, root / name, arguments.kills, arguments.seed) for name in names]
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    main()
