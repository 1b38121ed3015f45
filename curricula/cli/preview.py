"""``curricula preview``."""

from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.option(
    "--perturb", required=True, metavar="EXPR", help="Curriculum, for example rot:30+pgd:8/255."
)
@click.option("--data", metavar="DATA", help="Data set.  [default: the run's, or digits]")
@click.option(
    "--data-root", metavar="DIR", help="Folder of its files.  [default: the run's, or data]"
)
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Trained run that attacks are aimed at.  [default: an untrained network]",
)
@click.option(
    "--strengths",
    default="0.25, 0.5, 0.75, 1",
    show_default=True,
    metavar="NUMBERS",
    help="One column each, from 0 to 1.",
)
@click.option("--images", type=int, default=6, show_default=True, help="Test images, a row each.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random draws.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="FILE",
    help="Picture: .png, .svg or .pdf; an older one is replaced.",
)
def command(
    perturb: str,
    data: str | None,
    data_root: str | None,
    run: Path | None,
    strengths: str,
    images: int,
    seed: int,
    output: Path,
) -> None:
    """Draw what a curriculum does to real images as its strength grows.

    Each row is an image; below it is its change from the original. The random draws are the same
    at each strength.

    Example: curricula preview --perturb rot:60+pgd:0.1 --data digits -o preview.png
    """
    from curricula.expressions.binding import parse_number
    from curricula.reporting.figures import check_figure, write_figure
    from curricula.reporting.previews import preview

    check_figure(output)
    figure = preview(
        perturb,
        data=data,
        run=run,
        strengths=[parse_number(text).value for text in strengths.split(",")],
        images=images,
        seed=seed,
        data_root=data_root,
    )
    write_figure(figure, output)
    click.echo(f"preview: {output}")
