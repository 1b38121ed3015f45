"""How results look on a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from curricula.evaluation.accuracy import Measured


def show_accuracies(columns: Mapping[str, Sequence[Measured]]) -> None:
    """A table: a row a threat, a column a model; each accuracy with its 95 % interval."""
    first = next(iter(columns.values()))
    n = first[0].n
    table = Table()
    table.add_column("threat", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(row[0].name, *map(_percent, row))
    console = Console(highlight=False)
    console.print(f"test accuracy in % (95 % interval), {n:,} images", soft_wrap=True)
    console.print(table)
    for result in first:
        if result.threat != result.name:
            console.print(f"{result.name}: {result.threat}", soft_wrap=True)


def _percent(result: Measured) -> str:
    low, high = result.interval
    return f"{100 * result.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
