"""``curricula schedule``."""

from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.argument("schedules", nargs=-1, required=True, metavar="SCHEDULE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="FILE",
    help="Picture: .png, .svg or .pdf; an older one is replaced.",
)
def command(schedules: tuple[str, ...], output: Path) -> None:
    """Draw the strength over training of one or more schedules.

    Example: curricula schedule linear 'step(0:2/3, 0.62:5/6, 0.74:1)' -o schedules.png
    """
    from curricula.reporting.curves import parse_schedules, schedules_figure
    from curricula.reporting.figures import check_figure, write_figure

    check_figure(output)
    write_figure(schedules_figure(parse_schedules(schedules)), output)
    click.echo(f"schedules: {output}")
