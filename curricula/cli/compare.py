"""``curricula compare``."""

import json
from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.argument("folders", metavar="RUN_OR_SWEEP...", nargs=-1, required=True, type=PATH)
@click.option(
    "--of",
    "axes",
    nargs=2,
    metavar="THREAT THREAT",
    help="Of the frontier.  [default: the sweep's own, else spatial adversarial]",
)
@click.option(
    "--reference",
    nargs=2,
    type=float,
    default=(0.0, 0.0),
    show_default=True,
    help="Of the hypervolume: an accuracy under each of the two.",
)
@click.option("--sort", metavar="COLUMN", help="label, passes, minutes or a threat.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv", "markdown"]),
    default="table",
    show_default=True,
)
@click.option(
    "-o",
    "--figure",
    type=PATH,
    help="Draw the frontier into a .png, .svg or .pdf file.",
)
def command(
    folders: tuple[Path, ...],
    axes: tuple[str, str] | None,
    reference: tuple[float, float],
    sort: str | None,
    output: str,
    figure: Path | None,
) -> None:
    """Runs and sweeps side by side: accuracies over seeds, the Pareto frontier, what they cost.

    Example: curricula compare runs/cusp-vs-baselines-mnist --sort joint -o frontier.png
    """
    from curricula.cli.tables import markdown_of, show_comparison
    from curricula.reporting.figures import check_figure, write_figure
    from curricula.reporting.frontier import draw_frontier
    from curricula.sweeps.collect import compare

    if figure is not None:
        check_figure(figure)
    compared = compare(folders, axes=axes, reference=reference)
    if sort is not None:
        compared = compared.sorted(sort)
    if figure is not None:
        write_figure(draw_frontier(compared), figure)
    if output == "json":
        click.echo(json.dumps(compared.as_json(), indent=2))
    elif output == "csv":
        click.echo(compared.as_csv(), nl=False)
    elif output == "markdown":
        click.echo(markdown_of(compared), nl=False)
    else:
        show_comparison(compared)
    if output in ("csv", "markdown"):  # which have no room for it
        for line in compared.unfinished:
            click.echo(line, err=True)
