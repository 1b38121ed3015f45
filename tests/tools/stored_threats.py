"""Print the accuracies that were measured beside a study, from the JSON files in its cells.

    python tests/tools/stored_threats.py \\
        examples/studies/results/cusp-vs-baselines-photos autoattack.json

Each line is a cell: its accuracies in % with their 95 % intervals, the lowest last accuracy below.
"""

import json
from pathlib import Path

import click
from markdown_tables import head, line
from script import Script

from curricula.evaluation.intervals import in_percent


@click.command(cls=Script)
@click.argument("sweep", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
def main(sweep: Path, name: str) -> None:
    """Print the results in the files NAME of the cells of a SWEEP."""
    found = {
        file.parent.name: json.loads(file.read_text()) for file in sweep.glob(f"cells/*/{name}")
    }
    if not found:
        raise click.ClickException(f"no cell of {sweep} has a file {name}")
    named = {cell: [result["name"] for result in results] for cell, results in found.items()}
    threats = next(iter(named.values()))
    if any(names != threats for names in named.values()):
        raise click.ClickException(f"the cells of {sweep} were measured under different threats")
    print("\n".join(head("cell", *threats)))
    for cell, results in sorted(found.items(), key=lambda each: -each[1][-1]["accuracy"]):
        print(line(cell, *(in_percent(each["accuracy"], each["interval_95"]) for each in results)))


if __name__ == "__main__":
    main()
