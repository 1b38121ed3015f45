"""Print the table of a speedrun: how few passes reach the joint accuracy of plain rot+pgd-10.

    python tests/tools/speedrun_table.py examples/studies/results/speedrun-mnist

A one-way pass is an image forward, or an image backward; validation is counted, which the passes of
`curricula compare` leave out. The first row of the sweep, and each row whose label begins with the
same words, is a reference. The highest of their accuracies, means over seeds, is what the others
must reach.
"""

from pathlib import Path
from statistics import mean

import click
from finished import finished
from markdown_tables import head, line
from script import Script

from curricula.sweeps.comparison import Row
from curricula.training.metrics import in_millions
from curricula.training.run import Run


def one_way_passes(row: Row) -> float:
    """Return the mean number of forward and of backward passes of a row's runs.

    Raises:
        click.ClickException: a run did not count those of its validation.
    """
    found = []
    for outcome in row.outcomes:
        of_epochs = [line.passes.one_way for line in Run.open(outcome.folder).metrics]
        if None in of_epochs:
            raise click.ClickException(f"{outcome.folder} did not count the passes of validation")
        found.append(sum(filter(None, of_epochs)))
    return mean(found)


@click.command(cls=Script)
@click.argument("sweep", type=click.Path(exists=True, path_type=Path))
def main(sweep: Path) -> None:
    """Print a line of Markdown for each row of a SWEEP, the fewest passes first."""
    compared = finished(sweep)
    first = compared.rows[0].label
    references = [row for row in compared.rows if row.label.startswith(first)]
    reference = max(references, key=lambda row: row.mean("joint"))
    most, target = one_way_passes(reference), reference.mean("joint")
    names = list(compared.threats)
    columns = [*names, "reached", "one-way passes, M", "share", "with validation, min"]
    print("\n".join(head("recipe", *columns)))
    for row in sorted(compared.rows, key=one_way_passes):
        passes = one_way_passes(row)
        is_reference, reached = row in references, row.mean("joint") >= target
        cells = [
            f"reference: {row.label}" if is_reference else row.label,
            *(row.shown(name) for name in names),
            "" if is_reference else "yes" if reached else "no",
            in_millions(passes),
            f"{passes / most:.3f}",
            f"{row.minutes:.1f}",
        ]
        print(line(*cells))


if __name__ == "__main__":
    main()
