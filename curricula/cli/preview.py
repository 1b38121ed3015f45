"""``curricula preview``."""

from pathlib import Path

import click

from curricula.cli.options import given, model_option, output_option, training_options
from curricula.cli.paths import PATH
from curricula.errors import prefixed_errors
from curricula.reporting import MAX_IMAGES, MAX_STRENGTHS


@click.command()
@click.option(
    "--perturb",
    required=True,
    metavar="EXPR",
    help="Curriculum of perturbations, such as rot:30+pgd:8/255.",
)
@training_options("data", "data-root", data="the run's, or digits", data_root="the run's, or data")
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Trained run whose network is attacked.  [default: an untrained network]",
)
@model_option()
@click.option(
    "--strengths",
    default="0.25, 0.5, 0.75, 1",
    show_default=True,
    metavar="NUMBERS",
    help=f"Strengths from 0 to 1, one column each, at most {MAX_STRENGTHS}.",
)
@click.option(
    "--images",
    type=click.IntRange(1, MAX_IMAGES),
    default=6,
    show_default=True,
    help=f"Number of test images, 1 to {MAX_IMAGES}, one row each; the classes take turns.",
)
@training_options("seed")
@output_option("Picture to write: .png, .svg or .pdf.", required=True)
def command(
    perturb: str,
    data: str | None,
    data_root: str | None,
    run: Path | None,
    model: str | None,
    strengths: str,
    images: int,
    seed: int | None,
    output: Path,
) -> None:
    """Draw what a curriculum does to images as its strength grows.

    Each row shows an image, and below it the change from the original. The random draws are the
    same at every strength.

    Example: curricula preview --perturb rot:60+pgd:0.1 --data digits -o preview.png
    """
    from curricula.expressions.checks import check_call, check_perturbation
    from curricula.expressions.syntax import parse_number
    from curricula.reporting.figures import check_figure, write_figure
    from curricula.runtime.values import check_number, check_whole
    from curricula.training.config import MAX_SEED
    from curricula.training.run import Run

    check_figure(output)
    check_perturbation(perturb)
    if data is not None:
        check_call("dataset", data)
    opened = None if run is None else Run.open(run, model=model)

    texts = strengths.split(",")
    check_whole("the number of strengths", len(texts), 1, MAX_STRENGTHS)
    with prefixed_errors("strengths"):
        values = [parse_number(text).value for text in texts]
    for value in values:
        check_number("strengths", value, 0, 1)
    if seed is not None:
        check_whole("seed", seed, 0, MAX_SEED)

    from curricula.reporting.previews import preview

    figure = preview(
        perturb,
        data=data,
        run=opened,
        strengths=values,
        images=images,
        **given({"seed": seed}),
        data_root=data_root,
    )
    write_figure(figure, output)
    click.echo(f"preview: {output}")
