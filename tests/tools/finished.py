"""Read a sweep all of whose cells have finished, for the scripts of this folder."""

from pathlib import Path

import click

import curricula
from curricula.sweeps.comparison import Comparison


def finished(sweep: Path) -> Comparison:
    """Return the comparison of a sweep's rows, each of which has an outcome for every seed.

    Raises:
        click.ClickException: a cell has failed or has not been run yet.
    """
    compared = curricula.compare(sweep)
    if compared.unfinished:
        raise click.ClickException(f"{sweep}: {'; '.join(compared.unfinished)}")
    return compared
