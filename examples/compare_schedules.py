"""Compare two schedules of one curriculum.

Trains the same small network twice on the embedded digits, a few epochs each: once with every
perturbation at full strength from the start, once with a growing attack. Prints the accuracies
under the four standard threats. The runs go to a temporary folder. Run it with

    python examples/compare_schedules.py

A few epochs and one seed show how to compare, not which schedule is better.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

import curricula
from curricula.plugins import registry

SCHEDULES = {
    "constant": ["constant"],
    "growing attack": ["rot=constant", "pgd=linear(until=0.5)"],
}


def tinycnn(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Return two convolutions that read the image at half its size."""
    side = (image_size // 2 - 4) // 2 + 1 - 2
    return nn.Sequential(
        curricula.models.Normalise(),
        nn.AvgPool2d(2),
        nn.Conv2d(in_channels, 16, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * side * side, num_classes),
    )


@curricula.hookimpl
def curricula_models() -> Iterable[curricula.Record]:
    yield curricula.Record(name="tinycnn", factory=tinycnn, summary="two convolutions")


def main() -> None:
    torch.set_num_threads(1)  # a small network gains nothing from more
    # Load this file as a plugin, as `curricula --plugin` does.
    registry.use(registry.build_registry([Path(__file__)]))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, schedule in SCHEDULES.items():
            trained = curricula.train(
                data="digits",
                model="tinycnn",
                perturb="rot:30+pgd(0.1, steps=3)",
                schedule=schedule,
                epochs=2,
                lr=0.005,
                device="cpu",
                output=Path(folder, name.replace(" ", "-")),
            )
            results[name] = trained.results

    print(f"{'test accuracy':<16}" + "".join(f"{name:>16}" for name in results))
    for row in zip(*results.values(), strict=True):
        print(f"{row[0].name:<16}" + "".join(f"{result.accuracy:>16.3f}" for result in row))


if __name__ == "__main__":
    main()
