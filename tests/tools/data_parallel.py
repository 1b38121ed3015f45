"""Compare two processes with one: weights after 50 updates, counts of an evaluation, speed.

    python tests/tools/data_parallel.py weights
    python tests/tools/data_parallel.py counts --data-root data
    python tests/tools/data_parallel.py speed

Each part starts the processes that it needs by torchrun and prints a table in Markdown. Run `speed`
alone on the machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from fixtures.shared_work import trained  # noqa: E402

import curricula  # noqa: E402
from curricula.evaluation.accuracy import predictions  # noqa: E402
from curricula.runtime.processes import joined, place  # noqa: E402

WEIGHTS = {
    "at": {"lr": 0.01},
    "trades": {"lr": 0.005, "objective": "trades"},
    "at, per-image": {"lr": 0.01, "schedule": ["pgd=per-image(low=0.5)"]},
    "at, batch norm": {"lr": 0.01, "model": "stdcnn(width=4, dropout=0)"},
}
DIGITS = {"data": "digits", "batch_size": 25}
SPEED = {
    "smallcnn, digits, batch 128": {"data": "digits", "model": "smallcnn", "batch_size": 128},
    "resnet18, 32x32, batch 64": {
        "data": "random(size=32, channels=3, images=200)",
        "model": "resnet18",
        "batch_size": 64,
    },
}
THREATS = {
    "clean": "clean",
    "rot+pgd": "rot:30+pgd(0.1, steps=10)",
    "worst+square": "worst(rot:30|trans:3, k=5)+square(0.1, queries=50)",
}


def weights(_):
    """Return the weights after 50 updates, by training."""
    return {name: trained({**DIGITS, **values}, 50)["tensors"] for name, values in WEIGHTS.items()}


def counts(arguments):
    """Return the predicted classes of 1,000 MNIST images under each threat."""
    data = curricula.load_data("mnist", root=arguments.data_root)
    torch.manual_seed(0)
    model = curricula.build_model("lenet", data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for begin in range(0, 6400, 64):  # so that the attacks have something to fool
        batch = data.train[slice(begin, begin + 64)].load()
        loss = torch.nn.functional.cross_entropy(model(data.images(batch.pixels)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    threats = {name: curricula.Threat.parse(text) for name, text in THREATS.items()}
    split = data.test[slice(1000)]
    found = predictions(model.eval(), data, split, threats, batch_size=250)
    return {name: (classes, split.labels) for name, classes in found.items()}


def speed(_):
    """Return the seconds of an update, by training: the median of several rounds."""
    found = {}
    for name, values in SPEED.items():
        rounds = []
        for _ in range(3):
            begin = time.perf_counter()
            trained({"perturb": "rot:30+pgd(0.1, steps=10)", **values}, 1)
            one = time.perf_counter() - begin
            trained({"perturb": "rot:30+pgd(0.1, steps=10)", **values}, 4)
            rounds.append((time.perf_counter() - begin - 2 * one) / 3)
        found[name] = statistics.median(rounds)
    return found


PARTS = {"weights": weights, "counts": counts, "speed": speed}


def run(arguments, processes, threads):
    """Return what a part finds in a number of processes of a number of threads each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes]
        flags = ["--data-root", arguments.data_root, "--save", file]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        command += [Path(__file__), arguments.part, *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(list(map(str, command)), env=environment, check=True)
        return torch.load(file, weights_only=False)


def main():
    """Run a part in one process and in two, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.save is not None:
        with joined():
            found = PARTS[arguments.part](arguments)
            if place().is_first:
                torch.save(found, arguments.save)
        return
    if arguments.part == "speed":
        print("| training | 1 process, 1 thread | 1 process, 2 threads | 2 processes, 1 thread |")
        print("|---|---|---|---|")
        found = [run(arguments, *counts) for counts in ((1, 1), (1, 2), (2, 1))]
        for name in SPEED:
            print(f"| {name} | {' | '.join(f'{each[name]:.3f} s' for each in found)} |")
        return
    one, two = run(arguments, 1, 1), run(arguments, 2, 1)
    for name in one:
        if arguments.part == "weights":
            pairs = [(one[name][key], two[name][key]) for key in one[name]]
            largest = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
            print(f"| {name} | {largest:.1e} |")
        else:
            (first, labels), (second, _) = one[name], two[name]
            correct = [int((classes == labels).sum()) for classes in (first, second)]
            print(f"| {name} | {correct[0]} | {correct[1]} | {int((first != second).sum())} |")


if __name__ == "__main__":
    main()
