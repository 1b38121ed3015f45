"""``curricula schedule``."""

from pathlib import Path

import click

from curricula.cli.options import output_option


@click.command()
@click.argument("schedules", nargs=-1, required=True, metavar="SCHEDULE...")
@output_option("Picture to write: .png, .svg or .pdf.", required=True)
def command(schedules: tuple[str, ...], output: Path) -> None:
    """Draw schedules: the strength, from 0 to 1, over the course of training.

    Example: curricula schedule linear 'step(0:2/3, 0.62:5/6, 0.74:1)' -o schedules.png
    """
    from curricula.expressions import factories
    from curricula.expressions.syntax import parse_call
    from curricula.reporting.figures import check_figure, write_figure

    check_figure(output)
    for text in schedules:
        factories.build("schedule", parse_call(text))

    from curricula.reporting.curves import parse_schedules, schedules_figure

    write_figure(schedules_figure(parse_schedules(schedules)), output)
    click.echo(f"schedules: {output}")
