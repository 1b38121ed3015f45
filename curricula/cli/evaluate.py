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
    "--suite",
    "suites",
    multiple=True,
    metavar="SUITE",
    help="Suite of threats, measured before those of --threat: standard, spatial, corruptions or "
    "another that `curricula plugins` lists, or all; repeatable.",
)
@click.option(
    "--baseline",
    type=PATH,
    metavar="RUN",
    help="Measure this run too, under the same threats on the same images; the errors of a suite "
    "are also normalised by its.",
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
    suites: tuple[str, ...],
    baseline: Path | None,
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

    Example: curricula evaluate runs/first --suite corruptions --baseline runs/plain

    Example: curricula evaluate --model resnet18 --weights net.pt --normalise cifar10 --data cifar10
    """
    from curricula.api.measuring import evaluate
    from curricula.cli.tables import show_accuracies, show_classes, show_suite
    from curricula.evaluation.results import check_predictions
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import from_first, joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import Run, check_free, check_page

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
            suite=suites,
            baseline=baseline,
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
        if suites or baseline is not None:
            tables, beside = to_json(results.tables), to_json(results.baseline)
            click.echo(
                json.dumps({"threats": rows, "baseline": beside, "suites": tables}, indent=2)
            )
        else:
            click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(subject.title(opened))
        columns = {"accuracy": results}
        if results.baseline is not None:
            columns["baseline"] = results.baseline
        show_accuracies(columns, split)
        for table in results.tables:
            show_suite(table, split)
        if per_class:
            show_classes(results)
    is_kept = subject.kept is not None and split == "test" and bool(results.tables)
    if output is None and not is_kept:
        return

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    if output is None:
        assert isinstance(opened, Run)
        page = report(opened, data_root=settings.get("data_root"))
        click.echo(f"report: {page}", err=form == "json")
        return
    click.echo(f"run folder: {output}", err=form == "json")
    click.echo(f"report: {report(output)}", err=form == "json")
    further = command_line("profile", output)
    click.echo(f"measure it further: {further}", err=form == "json")
