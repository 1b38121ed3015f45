"""Print the tables of docs/results.md on a trade-off, from the finished cells of its sweep.

    python tests/tools/tradeoff_tables.py examples/studies/results/tradeoff-spatial-photos

The first has the accuracies of each network divided by its clean accuracy, in %. The second has the
change of both robustnesses, in points, at each step to a wider range of training, and in brackets
the number of seeds in which it has the sign that the paper claims.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from statistics import mean

import attrs
import click
from finished import finished
from markdown_tables import head, line
from script import Script

from curricula.sweeps.comparison import Row, mean_and_deviation

MODELS = ("stdcnn", "p4cnn")
CLEAN = ("clean", "rot 0")  # the clean threat's names


@attrs.frozen
class Claim:
    """Trainings of a growing range, with the threats whose accuracies the paper says rise and
    fall."""

    name: str
    trainings: tuple[str, ...]
    rises: str
    falls: str


ROTATIONS = ("0 degrees", "60 degrees", "120 degrees", "180 degrees")
SHIFTS = ("0 degrees", "shift 1/6", "shift 1/3", "shift 2/3")
BOTH = ("0 degrees", "60 degrees, shift 1/3", "120 degrees, shift 2/3")
MNIST_SHIFTS = ("0 degrees", "shift 1/3", "shift 2/3", "shift 1")
MNIST_BOTH = (
    "0 degrees",
    "60 degrees, shift 1/3",
    "120 degrees, shift 2/3",
    "180 degrees, shift 1",
)
EPS = ("eps 0", "eps 2/255", "eps 4/255", "eps 8/255")
CLAIMS = (
    Claim("(a) rotations", ROTATIONS, "rot 180", "eps 0.8/255"),
    Claim("(a) shifts", SHIFTS, "shift 2/3", "eps 0.8/255"),
    Claim("(a) both", BOTH, "rot 120", "eps 0.8/255"),
    Claim("(a) both", BOTH, "shift 2/3", "eps 0.8/255"),
    Claim("(a) shifts", MNIST_SHIFTS, "shift 1", "eps 0.05"),
    Claim("(a) both", MNIST_BOTH, "both 1", "eps 0.05"),
    Claim("(b) rotations", EPS, "eps 8/255", "rot 60"),
    Claim("(b) shifts", EPS, "eps 8/255", "shift 1/6"),
)


def shares(row: Row, threat: str, clean: str) -> list[float]:
    """Return the accuracy under a threat divided by the clean accuracy, one per seed."""
    pairs = zip(row.accuracies(threat), row.accuracies(clean), strict=True)
    return [accuracy / upright for accuracy, upright in pairs]


def steps(values: list[list[float]], sign: int) -> str:
    """Return the mean changes from each training to the next in points, as text, and in brackets
    in how many seeds a change has the given sign.

    Args:
        values: fractions of each training, one per seed.
        sign: 1 or -1.
    """
    found = []
    for before, after in pairwise(values):
        changes = [100 * (new - old) for old, new in zip(before, after, strict=True)]
        found.append(f"{mean(changes):+.1f} ({sum(sign * each > 0 for each in changes)})")
    return ", ".join(found)


def tables(folder: Path) -> Iterator[str]:
    """Yield the lines of both tables."""
    compared = finished(folder)
    (clean,) = (threat for threat in compared.threats if threat in CLEAN)
    threats = [threat for threat in compared.threats if threat != clean]
    yield from head("of the clean accuracy, %", *threats)
    for row in compared.rows:
        quotients = (shares(row, threat, clean) for threat in threats)
        yield line(row.label, *map(mean_and_deviation, quotients))
    yield ""
    yield from head("claim", "network", "rises", "falls", "falls, of the clean accuracy")
    rows = {row.label: row for row in compared.rows}
    for claim, model in product(CLAIMS, MODELS):
        of_model = [rows.get(f"{model}, {training}") for training in claim.trainings]
        found = [row for row in of_model if row]
        measured = {claim.rises, claim.falls} <= {*compared.threats}
        if len(found) < len(claim.trainings) or not measured:
            continue  # a claim of another study
        yield line(
            claim.name,
            model,
            f"{claim.rises}: {steps([row.accuracies(claim.rises) for row in found], 1)}",
            f"{claim.falls}: {steps([row.accuracies(claim.falls) for row in found], -1)}",
            steps([shares(row, claim.falls, clean) for row in found], -1),
        )


@click.command(cls=Script)
@click.argument("sweep", type=click.Path(exists=True, path_type=Path))
def main(sweep: Path) -> None:
    """Print both tables of the SWEEP of a trade-off."""
    print("\n".join(tables(sweep)))


if __name__ == "__main__":
    main()
