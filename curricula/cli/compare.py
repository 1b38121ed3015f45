"""``curricula compare``."""

import json
from pathlib import Path

import click

from curricula.cli.options import format_option, output_option
from curricula.cli.paths import PATH


@click.command()
@click.argument("folders", metavar="RUN_OR_SWEEP...", nargs=-1, required=True, type=PATH)
@click.option(
    "--axes",
    nargs=2,
    metavar="X Y",
    help="Two threats whose accuracies span the Pareto frontier.  "
    "[default: the sweep's own, else spatial adversarial]",
)
@click.option(
    "--reference",
    nargs=2,
    type=float,
    default=(0.0, 0.0),
    show_default=True,
    metavar="X Y",
    help="Corner from which the hypervolume is measured: two accuracies, from 0 to 1.",
)
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Sort rows by label, passes, minutes or a threat, the best first.",
)
@format_option("csv", "markdown")
@output_option("Picture of the frontier to write: .png, .svg or .pdf.")
def command(
    folders: tuple[Path, ...],
    axes: tuple[str, str] | None,
    reference: tuple[float, float],
    sort: str | None,
    form: str,
    output: Path | None,
) -> None:
    """Compare runs and sweeps: accuracies over seeds, the Pareto frontier, the training cost.

    RUN_OR_SWEEP is a folder that `curricula train` or `curricula sweep` has written.

    Example: curricula compare runs/cusp-vs-baselines-mnist --sort joint -o frontier.png
    """
    from curricula.cli.tables import markdown_of, show_comparison
    from curricula.runtime.records import to_json
    from curricula.sweeps.collect import compare

    if output is not None:
        from curricula.reporting.figures import check_figure

        check_figure(output)
    compared = compare(folders, axes=axes, reference=reference)
    if sort is not None:
        compared = compared.sorted(sort)
    if output is not None:
        from curricula.reporting.figures import write_figure
        from curricula.reporting.pareto_figure import draw_frontier

        write_figure(draw_frontier(compared), output)
    if form == "json":
        click.echo(json.dumps(to_json(compared), indent=2))
    elif form == "csv":
        click.echo(compared.as_csv(), nl=False)
    elif form == "markdown":
        click.echo(markdown_of(compared), nl=False)
    else:
        show_comparison(compared)
    if form in ("csv", "markdown"):  # these two cannot hold the unfinished cells
        for line in compared.unfinished:
            click.echo(line, err=True)
