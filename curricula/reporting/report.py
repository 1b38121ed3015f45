"""The page of a run or a sweep: its results, and the commands that measure the rest."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from curricula.data.dataset import DataSet
from curricula.errors import UserError
from curricula.evaluation.audit import Audit
from curricula.evaluation.certify import Certificates
from curricula.evaluation.intervals import in_percent
from curricula.evaluation.names import CLEAN, JOINT
from curricula.evaluation.results import Draws, Evaluation, ThreatResult
from curricula.evaluation.robustness_profile import Average, RobustnessProfile
from curricula.evaluation.suite_tables import (
    SuiteTable,
    outside_tables,
    tables_of,
)
from curricula.plugins.registry import command_line
from curricula.reporting.certified import certified_figure
from curricula.reporting.confusion import confusion_figure, confusions, worst_classes
from curricula.reporting.example_images import draw_fooled_images, draw_training_images
from curricula.reporting.page import Line, Picture, Section, Table, render_page, write_page
from curricula.reporting.pareto_figure import draw_frontier
from curricula.reporting.profiles import joint_figure, profile_figure
from curricula.reporting.suite_figure import suite_figure
from curricula.reporting.training import learning_figure, training_figure
from curricula.runtime.files import write_output
from curricula.runtime.records import fields_of
from curricula.sweeps.collect import compare
from curricula.sweeps.comparison import Comparison
from curricula.sweeps.folder import search_in, sweep_in
from curricula.sweeps.search_spec import Search
from curricula.sweeps.spec import Sweep
from curricula.training.config import SplitName, TrainConfig
from curricula.training.environment import Environment, environment
from curricula.training.loading import CHECKPOINTS, load_model, open_data
from curricula.training.metrics import EpochMetrics, Finding, forward_and_backward, in_millions
from curricula.training.monitor import EXPLANATIONS
from curricula.training.predictions import read_evaluation
from curricula.training.run import (
    AUDIT,
    BASELINE,
    BEST,
    CERTIFICATES,
    CONFIG,
    PROFILE,
    RESULTS,
    MeasuredWeights,
    Run,
)
from curricula.training.stored_suites import read_suites

MAX_NAME = 40  # characters of a suite in the name of its figure
MAX_ROWS = 15  # rows of a table of classes or of confusions
CHANGED_WEIGHTS = "The weights have changed since this was measured. To measure the current ones:"
CHANGED_BASELINE = (
    "The weights of the baseline have changed since this was measured. To measure the current ones:"
)


def report(folder: Run | str | Path, *, data_root: str | Path | None = None) -> Path:
    """Write the page of a run or a sweep into its folder, as ``report.html``, and return its path.

    The page shows all results and names the commands that measure the rest. Each figure is also
    written as PNG and SVG into ``figures/``.

    Args:
        folder: a run, or the folder of a run or a sweep.
        data_root: folder of the data, if it has moved since the run.

    Raises:
        UserError: the folder holds neither, one of its files is damaged, or it cannot be written
            to.
    """
    path = folder.path if isinstance(folder, Run) else Path(folder)
    sweep = sweep_in(path)
    if sweep is not None:
        compared = compare([path])
        search = search_in(path)
        title, sections = f"Sweep {path.name}", _of_sweep(sweep, compared)
        if search is not None:
            title = f"Search {path.name}"
            sections.append(_of_search(search))
        subtitle = f"{sum(len(row.outcomes) for row in compared.rows)} runs"
    else:
        run = folder if isinstance(folder, Run) else Run.open(path)
        title, sections = f"Run {path.name}", _of_run(run, data_root)
        config = run.model_config
        subtitle = f"{config.model} on {config.data}: {config.perturb}"
    return write_page(path, title=title, subtitle=subtitle, sections=sections)


def report_results(path: Path, results: Evaluation, *, model: str, data: str) -> None:
    """Write a page with the results of an evaluation as a single file, which refers to no other.

    Args:
        path: the file.
        results: the results, one or more.
        model: name of the model.
        data: name of the data set.

    Raises:
        UserError: it cannot be written.
    """
    columns = {"accuracy": results.results}
    if results.baseline is not None:
        columns["baseline"] = results.baseline.results
    sections = [
        *_accuracies(columns, f"images of {data}"),
        *map(_suite, results.tables),
        *_classes(results),
        _of_environment(environment()),
    ]
    page = render_page(title=f"Model {model}", subtitle=f"measured on {data}", sections=sections)
    write_output(path, page.encode())


def _of_run(run: Run, data_root: str | Path | None) -> list[Section]:
    metrics = run.metrics
    sections = [*_headline(run), *_suites(run)]
    if metrics:
        sections.append(_training(metrics))
    evaluations = (read_evaluation(run, split) for split in RESULTS)
    sections += _classes(next((found for found in evaluations if found is not None), None))
    sections += [
        _of_weights(run, PROFILE, "profile", _profile(run)),
        _of_weights(run, AUDIT, "audit", _audit(run)),
        *(_of_weights(run, CERTIFICATES, "certify", each) for each in _certificates(run)),
        _example_images(run, metrics, data_root),
    ]
    config = run.model_config
    again: dict[str, list[str]] = {}
    if isinstance(config, TrainConfig):
        again = {"Run it again:": [command_line("train", "--config", run.path / CONFIG)]}
    values = {name: _text(value) for name, value in attrs.asdict(config).items()}
    sections.append(Section(title="Configuration", values=values, missing=again))
    sections.append(_environment(run))
    return sections


def _of_weights(run: Run, file: str, verb: str, section: Section) -> Section:
    """Return the section of a file of measurements, with the weights that it is of."""
    about = run.read(file, MeasuredWeights)
    return section if about is None else _with_weights(run, about, [verb], section)


def _with_weights(
    run: Run,
    about: MeasuredWeights,
    command: Sequence[str],
    section: Section,
    baseline_changed: bool = False,
) -> Section:
    """Return a section with the checkpoint that it is of, unless it is the best one, and with the
    command that measures the current weights if the run or its baseline has others now."""
    words = [*command, str(run.path)]
    if about.checkpoint != "best":
        words += ["--checkpoint", about.checkpoint]
        section = attrs.evolve(
            section, text=f"{section.text} Weights: the {about.checkpoint} checkpoint."
        )
    changed = {
        CHANGED_WEIGHTS: _has_changed(run, about.checkpoint, about.weights),
        CHANGED_BASELINE: baseline_changed,
    }
    notes = {note: [command_line(*words)] for note, applies in changed.items() if applies}
    return attrs.evolve(section, missing={**section.missing, **notes})


def _has_changed(run: Run, checkpoint: str, measured: str) -> bool:
    """Return whether the digest of a run's checkpoint differs from the one that was measured; False
    if either is unknown."""
    now = run.digest(CHECKPOINTS.get(checkpoint, BEST))
    return "" not in (now, measured) and now != measured


def _headline(run: Run) -> list[Section]:
    tables = {split: run.results(split) for split in RESULTS}
    found = {split: results for split, results in tables.items() if results}
    if not found:
        return [
            Section(
                title="Accuracy",
                missing={
                    "The training did not finish. To measure the checkpoint so far, in the "
                    "terminal:": [command_line("evaluate", run.path)]
                },
            )
        ]
    split, results = next(iter(found.items()))
    columns = {"accuracy": results}
    baseline = Run(run.path / BASELINE).results(split)
    if baseline:
        columns["baseline"] = baseline
    return _accuracies(columns, f"{split} images")


def _suites(run: Run) -> list[Section]:
    """Return the sections of the suites that a run was measured under: in its final evaluation, or
    else after it."""
    found = (tables_of(run.results(split)) for split in RESULTS)
    final = {table.suite: _suite(table) for tables in found for table in tables}
    for name, each in read_suites(run).items():
        seed = f" Seed {each.seed}."
        beside = f" The baseline is {each.baseline}." if each.baseline else ""
        about = MeasuredWeights(checkpoint=each.checkpoint, weights=each.weights)
        command, changed = ["evaluate", "--suite", name], False
        if each.baseline:
            command += ["--baseline", each.baseline]
            changed = _has_changed(Run(each.baseline), each.checkpoint, each.baseline_weights)
        for table in each.tables:
            section = _suite(table, f"{seed}{beside}")
            final[name] = _with_weights(run, about, command, section, changed)
    return [*final.values()]


def _suite(table: SuiteTable, more: str = "") -> Section:
    """Return the section with the heat map of a suite's table, and its normalised errors."""
    findings = "".join(f" {line[0].upper()}{line[1:]}." for line in table.findings)
    header = ["", *table.columns]
    if table.has_severities:
        header += ["mean error", *(["normalised error"] if table.baseline else [])]
    lines = []
    for name, row in table.rows.items():
        shares = [row[each].accuracy if each in row else None for each in table.columns]
        if table.has_severities:
            shares += [table.error(name)]
            shares += [table.normalised_error(name)] if table.baseline else []
        cells = ("" if share is None else f"{100 * share:.1f}" for share in shares)
        lines.append(Line([name, *cells]))
    return Section(
        title=f"Suite {table.suite}",
        text=f"{table.measure.capitalize()}, on {table.n:,} images; 95 % intervals are within "
        f"± {100 * table.widest:.1f} points.{more}{findings}",
        table=Table(header=header, rows=lines),
        pictures=[
            Picture(
                name="suite-" + re.sub(r"[^\w-]", "_", table.suite)[:MAX_NAME],
                figure=suite_figure(table),
                kind="picture",
                alt=f"Heat map of the accuracies in the table of the suite {table.suite}.",
            )
        ],
    )


def _accuracies(columns: Mapping[str, Sequence[ThreatResult]], images: str) -> list[Section]:
    """Return the section with a table of results: a row for each threat of the first column that is
    in no suite's table; none without such threats."""
    columns = {heading: outside_tables(results) for heading, results in columns.items()}
    first = next(iter(columns.values()))
    if not first:
        return []
    by_name = [{result.name: result for result in results} for results in columns.values()]
    header, more = ["threat", *columns], ""
    lines = [[each.name, *(_accuracy(of.get(each.name)) for of in by_name)] for each in first]
    if draws := next((result.draws for result in first if result.draws), None):
        header += ["single draw", "mean of draws"]
        more = (
            " The network draws random numbers. Beside the accuracy of the majority of "
            f"{draws.count:,} draws for each image are that of a single draw and that of their "
            "mean probabilities."
        )
        for line, result in zip(lines, first, strict=True):
            line += _draws(result.draws)
    rows = [Line([*line, each.threat]) for line, each in zip(lines, first, strict=True)]
    return [
        Section(
            title="Accuracy",
            text=f"In %, with 95 % intervals, on {first[0].n:,} {images}, in float32.{more}",
            table=Table(header=[*header, "exactly"], rows=rows, texts=(len(header),)),
        )
    ]


def _draws(draws: Draws | None) -> list[str]:
    """Return the accuracies of a single draw and of the mean as two cells."""
    if draws is None:
        return ["", ""]
    return [
        in_percent(draws.accuracy, draws.interval),
        in_percent(draws.mean_accuracy, draws.mean_interval),
    ]


def _accuracy(result: ThreatResult | None) -> str:
    return "" if result is None else in_percent(result.accuracy, result.interval)


def _classes(found: Evaluation | None) -> list[Section]:
    """Return the sections of the classes that suffer and of what they are taken for, under the
    threats in no suite's table; none without predictions."""
    found = None if found is None else found.outside_tables()
    if not found:
        return []
    last = found[-1].name
    by_threat = {
        name: {each.label: each for each in found.per_class(name)} for name in found.predictions
    }
    worst = worst_classes(found)
    some = ""
    if len(worst) > MAX_ROWS:
        some = f" The {MAX_ROWS} of {len(worst):,} classes with the lowest accuracy."
    rows = [
        Line(
            [
                each.name,
                f"{each.n:,}",
                *(
                    in_percent(of[each.label].accuracy, of[each.label].interval)
                    for of in by_threat.values()
                ),
            ]
        )
        for each in worst[:MAX_ROWS]
    ]
    pairs = confusions(found, last)[:MAX_ROWS]
    counts = [
        {(true, taken): n for true, taken, n in confusions(found, name)} for name in by_threat
    ]
    often = ", ".join(
        f"{found.class_name(true)} as {found.class_name(taken)} ({n:,})"
        for true, taken, n in pairs[:3]
    )
    return [
        Section(
            title="Classes",
            text=f"Accuracy in %, with 95 % intervals; the lowest under {last} first.{some}",
            table=Table(header=["class", "images", *by_threat], rows=rows),
        ),
        Section(
            title="Confusions",
            text=f"The number of images of one class that are taken for another; the most frequent "
            f"under {last} first, at most {MAX_ROWS}.",
            table=Table(
                header=["class", "taken for", *by_threat],
                rows=[
                    Line(
                        [
                            found.class_name(true),
                            found.class_name(taken),
                            *(f"{of.get((true, taken), 0):,}" for of in counts),
                        ]
                    )
                    for true, taken, _ in pairs
                ],
            ),
            pictures=[
                Picture(
                    name="confusion",
                    figure=confusion_figure(found),
                    kind="picture",
                    alt="Heat maps of the share of each class that is taken for each class. Most "
                    f"often under {last}: {often or 'none'}.",
                )
            ],
        ),
    ]


def _training(metrics: Sequence[EpochMetrics]) -> Section:
    kept = max(line.epoch for line in metrics if line.best)
    last = metrics[-1]
    passes = in_millions(forward_and_backward(metrics))
    alt = (
        f"Curves over {len(metrics)} epochs. In the last, validation accuracy is "
        f"{100 * last.validation[CLEAN]:.1f} % clean and "
        f"{100 * last.validation[JOINT]:.1f} % joint, the loss {last.loss:.3f}; "
        f"strengths: {_text(last.strength) or 'none'}."
    )
    return Section(
        title="Training",
        text=f"Epoch {kept} was kept, by joint validation accuracy. {passes} million images "
        f"went through the networks forward and backward.{_findings(metrics)}",
        pictures=[
            Picture(
                name="training",
                figure=training_figure(metrics),
                alt=alt,
                caption="Accuracies, the loss, and the strength of each link of the curriculum at "
                "the end of the epoch. Joint in validation is what this run trains for: its "
                "curriculum at full strength, attacks as PGD-10.",
            )
        ],
    )


def _findings(metrics: Sequence[EpochMetrics]) -> str:
    """Return sentences on what the monitor found in a training; empty if nothing."""
    epochs: dict[Finding, list[int]] = {}
    for line in metrics:
        for finding in line.findings:
            epochs.setdefault(finding, []).append(line.epoch)
    return "".join(
        f" {finding.capitalize()} in {len(found)} of {len(metrics)} epochs, first in epoch "
        f"{found[0]}: {EXPLANATIONS[finding]}."
        for finding, found in epochs.items()
    )


def _profile(run: Run) -> Section:
    title, profile = "Robustness profile", run.read(PROFILE, RobustnessProfile)
    if profile is None:
        command = command_line("profile", run.path)
        return Section(title=title, missing={"Not measured yet:": [command]})
    curves = []
    for series in profile.series:
        first, last = series.measured[0], series.measured[-1]
        curves.append(
            f"{series.name} {series.unit}: {100 * first.accuracy:.1f} % at 0, "
            f"{100 * last.accuracy:.1f} % at {profile.shown(series.unit, series.values[-1])}"
        )
    corner = profile.joint.rows[-1][-1]
    measured: list[ThreatResult | Average] = [profile.clean, *profile.combined, profile.average]
    meanings = _meanings(profile)
    rows = [
        Line(
            [
                m.name,
                in_percent(m.accuracy, m.interval),
                f"{100 * m.fooling_rate:.1f}",
                meanings.get(m.name, ""),
            ]
        )
        for m in measured
    ]
    return Section(
        title=title,
        text=f"Accuracy, with 95 % intervals, and fooling rate in % on {profile.n:,} test images; "
        "the table is at the budgets. The fooling rate is the share of all images whose predicted "
        "class differs from that on the clean image.",
        table=Table(
            header=["threat", "accuracy", "fooling rate", "meaning"], rows=rows, texts=(3,)
        ),
        pictures=[
            Picture(
                name="profile",
                figure=profile_figure(profile),
                alt=f"Accuracy and fooling rate over growing ranges. {'; '.join(curves)}.",
            ),
            Picture(
                name="joint",
                figure=joint_figure(profile),
                kind="picture",
                alt="Heat map of accuracy under a random rotation and then PGD, from "
                f"{100 * profile.clean.accuracy:.1f} % without either to "
                f"{100 * corner.accuracy:.1f} % at the largest of both.",
            ),
        ],
    )


def _meanings(profile: RobustnessProfile) -> dict[str, str]:
    """Return an explanation of each threat of a profile, at its budgets, by the threat's name."""
    degrees, eps = profile.budgets["degrees"], profile.budgets["linf"]
    return {
        "clean": "no change",
        "rotation": f"a random rotation within {degrees} degrees",
        "attack": f"PGD within eps {eps}, l-inf",
        "rotation, then attack": "the attack on the rotated image",
        "worst of 10, each attacked": "counts images robust to 10 random rotations, each attacked",
        "union": "counts images robust to the rotation and to the attack, each alone",
        "average": "mean of the rotation and the attack",
    }


def _audit(run: Run) -> Section:
    title, found = "Audit against gradient masking", run.read(AUDIT, Audit)
    if found is None:
        command = command_line("audit", run.path)
        return Section(title=title, missing={"Not done yet:": [command]})
    rows = [
        Line(
            [check.name, "passed" if check.passed else "FAILED", check.finding],
            failed=not check.passed,
        )
        for check in found.checks
    ]
    caveat = f". {found.caveat}" if found.caveat else ""
    return Section(
        title=title,
        text=f"At eps {found.eps} in {found.norm}, on {found.n:,} test images{caveat}.",
        table=Table(header=["check", "result", "finding"], rows=rows, texts=(2,)),
        missing={f"Left out: {what}.": [] for what in found.left_out},
    )


def _certificates(run: Run) -> list[Section]:
    """Return the section of the certified accuracy; none without certificates, which are for
    networks that were trained with noise."""
    found = run.read(CERTIFICATES, Certificates)
    if found is None:
        return []
    header, lines = found.texts()
    ends = [(found.usual_radii[place], lines[place][1]) for place in (0, -1)]
    return [
        Section(
            title="Certified accuracy",
            text="The share of images that the smoothed classifier provably classifies correctly "
            "within an l-2 radius, in %, with 95 % intervals (Cohen et al. 2019): "
            f"{len(found.images):,} test images, sigma {found.sigma:g}. {found.summary}",
            table=Table(header=header, rows=[Line(line) for line in lines]),
            pictures=[
                Picture(
                    name="certified",
                    figure=certified_figure(found),
                    alt="Curve of certified accuracy over the l-2 radius: "
                    + ", ".join(f"{accuracy} % at {radius:g}" for radius, accuracy in ends)
                    + ".",
                )
            ],
        )
    ]


def _example_images(
    run: Run, metrics: Sequence[EpochMetrics], data_root: str | Path | None
) -> Section:
    title = "Images"
    try:
        data: DataSet = open_data(run, root=data_root)
    except UserError as error:
        command = command_line("report", run.path, "--data-root", "DIR")
        note = f"Not drawn: {error}. If the data has moved:"
        return Section(title=title, missing={note: [command]})
    try:
        model = load_model(run, data=data)
        shown = draw_training_images(run, data, model, metrics) if metrics else None
        fools = draw_fooled_images(run, data, model)
    except UserError as error:
        return Section(title=title, missing={f"Not drawn: {error}.": []})
    pictures = []
    if shown is not None:
        pictures.append(
            Picture(
                name="shown",
                figure=shown,
                kind="picture",
                alt="Training images as the curriculum showed them at some epochs.",
            )
        )
    if fools is not None:
        pictures.append(
            Picture(
                name="fooled",
                figure=fools,
                kind="picture",
                alt="Test images that are fooled by the standard joint threat.",
            )
        )
    return Section(title=title, pictures=pictures)


def _of_sweep(sweep: Sweep, compared: Comparison) -> list[Section]:
    sections = [_comparison(compared, sweep.split)]
    curves = {
        row.name: [Run(outcome.folder).metrics for outcome in row.outcomes] for row in compared.rows
    }
    if curves:
        sections.append(
            Section(
                title="Training",
                pictures=[
                    Picture(
                        name="learning",
                        figure=learning_figure(curves),
                        alt="Curves of joint validation accuracy over training, one per row.",
                        caption="Joint validation accuracy, each row under what it trains for; "
                        "means over seeds.",
                    )
                ],
            )
        )
    base = {name: _text(value) for name, value in sweep.base.items()}
    sections.append(Section(title="What all runs share", values=base))
    for axis, changes in sweep.axes.items():
        values = {label: _text(change) or "nothing changed" for label, change in changes.items()}
        sections.append(Section(title=f"Axis {axis}", values=values))
    for row in compared.rows[:1]:
        run = Run(row.outcomes[0].folder)
        sections.append(_environment(run, text=f"Environment of {run.path.name}."))
    return sections


def _of_search(search: Search) -> Section:
    """Return the section with the settings of a search and its ranges."""
    sections = search.sections
    settings = {name: _text(value) for name, value in sections["search"].items()}
    ranges = {f"range {name}": _text(value) for name, value in sections["ranges"].items()}
    return Section(title="Search", values={**settings, **ranges})


def _environment(run: Run, *, text: str = "") -> Section:
    found = run.environment
    if found is None:
        return Section(title="Environment", text=text)
    return _of_environment(found, text)


def _of_environment(found: Environment, text: str = "") -> Section:
    values = {name: _text(value) for name, value in fields_of(found).items()}
    values["command"] = shlex.join(found.command)
    values["names"] = ", ".join(
        f"{name} of {provider}"
        for of_kind in found.names.values()
        for name, provider in of_kind.items()
    )
    return Section(title="Environment", text=text, values=values)


def _comparison(compared: Comparison, split: SplitName) -> Section:
    x, y = compared.axes
    rows = [
        Line(cells, on_frontier=on_frontier)
        for cells, on_frontier in zip(compared.lines, compared.on_frontier, strict=True)
    ] + [Line(cells) for cells in compared.pruned_lines]
    return Section(
        title="Accuracy",
        text="In %: mean and standard deviation over seeds, or the 95 % interval of a single seed; "
        f'in float32, on {split} images. {compared.legend("★")} The column "passes, M" counts '
        "millions of images that went through the networks forward and backward, "
        '"min" the minutes of training and validation.',
        table=Table(header=compared.header, rows=rows),
        pictures=[
            Picture(
                name="frontier",
                figure=draw_frontier(compared),
                alt=f"Scatter of {x} against {y} accuracy. On the frontier: "
                + ", ".join(
                    f"{row.label} ({100 * row.mean(x):.1f} %, {100 * row.mean(y):.1f} %)"
                    for row, on_frontier in zip(compared.rows, compared.on_frontier, strict=True)
                    if on_frontier
                )
                + ".",
            )
        ]
        if compared.rows
        else [],
        values={name: compared.threats[name] for name in compared.shown_threats},
        missing={f"{line}.": [] for line in compared.unfinished},
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
