"""``curricula evaluate``."""

import json
from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, kept_option, measurement_options
from curricula.cli.paths import PATH
from curricula.cli.subject import Subject, subject_options
from curricula.plugins.registry import command_line
from curricula.runtime.records import to_json


@click.command()
@subject_options
@click.option(
    "--threat",
    "threats",
    multiple=True,
    metavar="EXPR",
    help="Threat, such as rot:30+pgd(8/255, steps=40); repeatable.  "
    "[default: clean, spatial, adversarial and joint]",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Images to measure: the test images, or the training images held out for validation.",
)
@measurement_options("all")
@kept_option()
@click.option(
    "--draws",
    type=int,
    help="Classify each image DRAWS times, 1 to 1,000,000, with a network that draws random "
    "numbers: accuracies of the majority, of a single draw and of the mean.  [default: once]",
)
@click.option(
    "--per-class", is_flag=True, help="Also print the accuracy of each class under each threat."
)
@click.option(
    "--save-predictions",
    type=PATH,
    metavar="FILE.npz|FILE.csv",
    help="Also write the label of each image and the class predicted under each threat.",
)
@format_option()
def command(
    subject: Subject,
    threats: tuple[str, ...],
    split: Any,
    output: Path | None,
    per_class: bool,
    save_predictions: Path | None,
    form: str,
    **flags: Any,
) -> None:
    """Measure the accuracy of a run, or of a model that you have, under threats, in float32.

    RUN is a folder that `curricula train -o RUN` or `curricula evaluate -o RUN` has written.

    Example: curricula evaluate runs/first --threat 'worst(rot:30, k=10)+pgd:0.1'

    Example: curricula evaluate --model resnet18 --weights net.pt --normalise cifar10 --data cifar10
    """
    from curricula.api.measuring import evaluate
    from curricula.cli.tables import show_accuracies, show_classes
    from curricula.evaluation.results import check_predictions
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import from_first, joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import check_free, check_page

    settings = given(flags)
    subject.check(output=output, checkpoint=settings.get("checkpoint"))
    if save_predictions is not None:
        check_predictions(save_predictions)
    keep_freed_memory()
    with joined() as place, ProgressBar("evaluation") as bar:
        if output is not None:
            from_first(lambda: check_free(output))
            from_first(lambda: check_page(output))
        opened = subject.open(settings.get("data_root"))
        results = evaluate(
            opened,
            subject.other_data,
            threats=threats or None,
            split=split,
            output=output,
            progress=bar.progress,
            **settings,
        )
    if not place.is_first:
        return
    if save_predictions is not None:
        results.save_predictions(save_predictions)
    if form == "json":
        rows = to_json(results)
        if per_class:
            rows = [{**row, "classes": to_json(results.per_class(row["name"]))} for row in rows]
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(subject.title(opened))
        show_accuracies({"accuracy": results}, split)
        if per_class:
            show_classes(results)
    if output is None:
        return

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    click.echo(f"run folder: {output}", err=form == "json")
    click.echo(f"report: {report(output)}", err=form == "json")
    further = command_line("profile", output)
    click.echo(f"measure it further: {further}", err=form == "json")
