"""Measure the accuracy of networks on images turned by quarter turns.

    python examples/quarter_turns.py RUN [RUN ...]

prints the accuracy of trained runs on the test images turned by exactly 0, 90, 180 and 270 degrees,
pixel for pixel. RUN is a folder that `curricula train -o RUN` has written. Without a run it first
trains two small networks on upright digits, a few epochs each.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import curricula
from curricula import DataSet, Run, UserError
from curricula.plugins import registry

TURNS = (0, 90, 180, 270)


def accuracies(model: nn.Module, data: DataSet) -> list[float]:
    """Return the accuracy on the test images for each turn."""
    correct = dict.fromkeys(TURNS, 0)
    with torch.no_grad():
        for start in range(0, len(data.test), 500):
            batch = data.test[start : start + 500].load()
            x = data.images(batch.pixels)
            for turn in TURNS:
                turned = x.rot90(turn // 90, dims=(2, 3))
                correct[turn] += int((model(turned).argmax(1) == batch.labels).sum())
    return [count / len(data.test) for count in correct.values()]


def trained(path: Path) -> tuple[str, nn.Module, DataSet]:
    """Return the model expression, network and data set of a run."""
    run = Run.open(path)
    data = curricula.load_data(run.config.data, root=run.config.data_root)
    return run.config.model, curricula.load_model(run, data=data), data


def train_small_ones() -> Iterator[tuple[str, nn.Module, DataSet]]:
    """Train the plain network and, if its plugin is installed, an equivariant one."""
    data = curricula.load_data("digits")
    models = ["stdcnn(width=8, dropout=0)"]
    if "p4cnn" in registry.current().records("model"):
        models.append("p4cnn(width=4, dropout=0)")
    for name in models:
        torch.manual_seed(0)
        model = curricula.build_model(name, data)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        order = torch.Generator().manual_seed(0)
        for _ in range(4):
            for _, batch in curricula.batches(data.train, 64, generator=order):
                loss = nn.functional.cross_entropy(model(data.images(batch.pixels)), batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        yield name, model.eval(), data


def main() -> None:
    networks = [trained(Path(path)) for path in sys.argv[1:]] or train_small_ones()
    print(f"{'accuracy in % at':<28}" + "".join(f"{turn:>8}" for turn in TURNS))
    for name, model, data in networks:
        row = accuracies(model, data)
        print(f"{name[:27]:<28}" + "".join(f"{100 * value:>8.2f}" for value in row))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
