"""Print the tables of docs/results.md on the self-pacing schedule, from the finished cells of its
study.

    python tests/tools/pacing_tables.py examples/studies/results

The first has the ramps that were tried on each task, the second the tuned ramp and the schedule on
other seeds.
"""

from collections.abc import Iterator
from pathlib import Path

import click
from markdown_tables import head, line
from script import Script

import curricula
from curricula.sweeps.comparison import Row
from curricula.training.metrics import in_millions

TASKS = {
    "mnist-60": "MNIST, 60 degrees",
    "mnist-180": "MNIST, all angles",
    "digits": "digits",
    "cifar10": "CIFAR-10",
}
RAMPS = (
    *("constant", "both to 5 %", "both to 10 %", "both to 20 %", "both to 40 %", "both to 70 %"),
    *("pgd to 10 %", "pgd to 20 %"),
)


def rows(folder: Path, study: str) -> dict[str, Row]:
    """Return the rows of a study's finished cells by their labels; none before it has begun."""
    sweep = folder / study
    return {row.label: row for row in curricula.compare(sweep).rows} if sweep.exists() else {}


def ramps(folder: Path) -> Iterator[str]:
    """Yield the lines of the table of the ramps: joint accuracy on validation images in %."""
    tried = [rows(folder, f"pacing-ramps-{task}") for task in TASKS]
    best = [max(of.values(), key=lambda row: row.mean("joint"), default=None) for of in tried]
    yield from head("ramp", *TASKS.values())
    for ramp in RAMPS:
        cells = []
        for of, winner in zip(tried, best, strict=True):
            row = of.get(ramp)
            shown = row.shown("joint") if row else ""
            cells.append(f"**{shown}**" if row and row is winner else shown)
        yield line(ramp, *cells)


def confirmed(folder: Path) -> Iterator[str]:
    """Yield the lines of the table of the confirmation: accuracies on test images in %."""
    threats = ("clean", "spatial", "adversarial", "joint")
    yield from head("task", "schedule", *threats, "joint of each seed", "passes, M")
    means = []
    for task, name in TASKS.items():
        found = rows(folder, f"pacing-tuned-{task}") | rows(folder, f"pacing-self-paced-{task}")
        means.append([row.mean("joint") for row in found.values()])
        for label, row in found.items():
            seeds = ", ".join(f"{100 * share:.1f}" for share in row.accuracies("joint"))
            yield line(name, label, *map(row.shown, threats), seeds, in_millions(row.passes or 0))
    if all(len(each) == 2 for each in means):
        tuned, own = (100 * sum(each) / len(means) for each in zip(*means, strict=True))
        yield f"\nMean of the four tasks, joint: tuned ramps {tuned:.2f}, self-paced {own:.2f}"


@click.command(cls=Script)
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(folder: Path) -> None:
    """Print both tables, from the FOLDER of the studies' results."""
    if not any(folder.glob("pacing-*")):
        raise click.ClickException(f"{folder} has no results of a study pacing-...")
    print("\n".join([*ramps(folder), "", *confirmed(folder)]))


if __name__ == "__main__":
    main()
