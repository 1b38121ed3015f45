"""Print results as tables on a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curricula.errors import printable
from curricula.evaluation.intervals import in_percent
from curricula.evaluation.results import ClassResult, Evaluation, ThreatResult
from curricula.evaluation.suite_tables import outside_tables
from curricula.training.config import SplitName

if TYPE_CHECKING:  # a command imports what it shows, and nothing else
    from curricula.api.predicting import Prediction
    from curricula.benchmark.measure import Samples, Speed
    from curricula.evaluation.audit import Audit
    from curricula.evaluation.certify import Certificates
    from curricula.evaluation.robustness_profile import Average, RobustnessProfile
    from curricula.evaluation.suite_tables import SuiteTable
    from curricula.sweeps.comparison import Comparison

FILE_WIDTH = 1000  # characters; width of a table in a file, where no line should wrap


def show_accuracies(
    columns: Mapping[str, Sequence[ThreatResult]], split: SplitName = "test"
) -> None:
    """Print a table of accuracies with 95 % intervals: one row per threat, one column per model.

    Args:
        columns: the results of each model, by heading.
        split: the images that were measured.
    """
    columns = {heading: outside_tables(results) for heading, results in columns.items()}
    first = next(iter(columns.values()))
    if not first:
        return
    n = first[0].n
    table = Table()
    table.add_column("threat", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    by_name = [{result.name: result for result in results} for results in columns.values()]
    for name in by_name[0]:
        cells = (_percent(found[name]) if name in found else "" for found in by_name)
        table.add_row(Text(name), *cells)
    console = Console(highlight=False)
    console.print(f"{split} accuracy in % (95 % interval), {n:,} images", soft_wrap=True)
    console.print(table)
    for result in first:
        if result.draws is not None:
            console.print(
                f"{result.name}, majority of {result.draws.count:,} draws; {result.draws}",
                soft_wrap=True,
                markup=False,
            )
    for result in first:
        if result.threat != result.name:
            console.print(f"{result.name}: {result.threat}", soft_wrap=True, markup=False)


def show_suite(suite: "SuiteTable", split: SplitName = "test") -> None:
    """Print the table of a suite: accuracies by row and column and, for severities, the means and
    the mean error, unnormalised and normalised by a baseline."""
    table = Table()
    table.add_column("", no_wrap=True)
    for column in suite.columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    if suite.has_severities:
        table.add_column("mean", justify="right", no_wrap=True)
        if suite.baseline:
            table.add_column("error,\nnormalised", justify="right", no_wrap=True)
    for name, row in suite.rows.items():
        cells = [_points(row[each].accuracy) if each in row else "" for each in suite.columns]
        if suite.has_severities:
            cells.append(_points(1 - suite.error(name)))
            error = suite.normalised_error(name)
            cells += [] if not suite.baseline else ["" if error is None else _points(error)]
        table.add_row(Text(name), *cells)
    if suite.has_severities:
        means = [*suite.column_means, 1 - suite.mean_error]
        table.add_section()
        table.add_row("mean", *map(_points, means))
    console = Console(highlight=False)
    console.print(
        f"suite {suite.suite}: {split} {suite.measure}, {suite.n:,} images; 95 % intervals "
        f"are within ± {_points(suite.widest)} points",
        soft_wrap=True,
        markup=False,
    )
    console.print(table)
    for line in suite.findings:
        console.print(line, soft_wrap=True, markup=False)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def show_classes(evaluation: Evaluation) -> None:
    """Print a table of accuracies with 95 % intervals: one row per class, one column per threat
    that is in no suite's table."""
    evaluation = evaluation.outside_tables()
    if not evaluation:
        return
    table = Table()
    table.add_column("class", overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    columns = [evaluation.per_class(result.name) for result in evaluation]
    for result in evaluation:
        table.add_column(Text(result.name), justify="right", overflow="fold")
    for row in zip(*columns, strict=True):
        table.add_row(Text(printable(row[0].name)), f"{row[0].n:,}", *map(_percent, row))
    Console(highlight=False).print(table)


def show_predictions(predictions: "Sequence[Prediction]") -> None:
    """Print the most probable classes of images: one row per image, with probabilities in %."""
    table = Table()
    table.add_column("image", overflow="fold")
    for rank in range(1, 1 + len(predictions[0].classes)):
        table.add_column("class" if rank == 1 else f"{rank}.", overflow="fold")
        table.add_column("%", justify="right", no_wrap=True)
    for each in predictions:
        cells = [Text(printable(each.image))]
        for name, probability in zip(each.classes, each.probabilities, strict=True):
            cells += [Text(printable(name)), Text(f"{100 * probability:.1f}")]
        table.add_row(*cells)
    Console(highlight=False).print(table)


def show_profile(profile: "RobustnessProfile") -> None:
    """Print a robustness profile: a table per unit of range, the joint grid, and the combined
    threats at the budgets."""
    console = Console(highlight=False)
    console.print(
        f"accuracy in % (95 % interval), {profile.n:,} images; fooled: % of the images whose "
        "predicted class differs from that on the clean image",
        soft_wrap=True,
    )
    headings = {"degrees": "rotation, ± degrees", "pixels": "translation, ± px", "linf": "eps"}
    for unit, heading in headings.items():
        lines = profile.of_unit(unit)
        table = Table(title=f"{heading}; budget {profile.budgets[unit]}", title_justify="left")
        table.add_column("", justify="right", no_wrap=True)
        for line in lines:
            table.add_column(line.name, justify="right", no_wrap=True)
            table.add_column("fooled", justify="right", no_wrap=True)
        rows = zip(*(line.measured for line in lines), strict=True)
        for value, row in zip(lines[0].values, rows, strict=True):
            cells = [cell for found in row for cell in (_percent(found), _fooled(found))]
            table.add_row(profile.shown(unit, value), *cells)
        console.print(table)
    table = Table(title="rotation, ± degrees, then PGD-40 within eps", title_justify="left")
    table.add_column("", justify="right", no_wrap=True)
    joint = profile.joint
    for eps in joint.linf:
        table.add_column(f"eps {profile.shown('linf', eps)}", justify="right", no_wrap=True)
    for number, degrees in enumerate(joint.degrees):
        table.add_row(
            profile.shown("degrees", degrees),
            *("\n".join(_percent(row[number]).split(" ", 1)) for row in joint.rows),
        )
    console.print(table)
    table = Table(title="at the budgets", title_justify="left")
    for heading in ("threat", "accuracy", "fooled"):
        table.add_column(heading, justify="left" if heading == "threat" else "right")
    results: list[ThreatResult | Average] = [profile.clean, *profile.combined, profile.average]
    for result in results:
        table.add_row(result.name, _percent(result), _fooled(result))
    console.print(table)
    console.print(
        "union: robust to rotation and to the attack, each alone; average: the mean of the two",
        soft_wrap=True,
    )


def _fooled(result: "ThreatResult | Average") -> str:
    return f"{100 * result.fooling_rate:.1f}"


def _percent(result: "ThreatResult | ClassResult | Average") -> str:
    return in_percent(result.accuracy, result.interval)


def show_audit(audit: "Audit") -> None:
    """Print a table with one row per check of an audit and its finding, then the checks that were
    left out."""
    table = Table()
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("finding", overflow="fold")
    for check in audit.checks:
        verdict = Text("passed") if check.passed else Text("FAILED", style="bold red")
        table.add_row(check.name, verdict, Text(check.finding))
    console = Console(highlight=False)
    console.print(
        f"audit at eps {audit.eps} in {audit.norm}, {audit.n:,} images, seed {audit.seed}",
        soft_wrap=True,
    )
    console.print(table)
    if audit.caveat:
        console.print(audit.caveat, soft_wrap=True)
    for what in audit.left_out:
        console.print(f"left out: {what}", soft_wrap=True, markup=False)


def show_certificates(found: "Certificates", radii: tuple[float, ...] | None) -> None:
    """Print a table of the certified accuracy at some l-2 radii, by default the usual ones, with
    the rate of abstention and the settings."""
    header, lines = found.texts(radii)
    table = Table()
    for heading in header:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console = Console(highlight=False)
    console.print(
        f"certified accuracy in % (95 % interval), sigma {found.sigma:g}, "
        f"{len(found.images):,} images",
        soft_wrap=True,
    )
    console.print(table)
    console.print(found.summary, soft_wrap=True)


def show_comparison(compared: "Comparison") -> None:
    """Print a table of compared runs: accuracies in % with their spread over seeds, the Pareto
    frontier, and the training cost."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    for name in compared.shown_threats:
        console.print(f"{name}: {compared.threats[name]}", soft_wrap=True, markup=False)
    header, *lines = _with_frontier(compared)
    table = Table()
    for number, heading in enumerate(header):
        table.add_column(
            Text(heading),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number > 0,
        )
    for line in lines:
        table.add_row(*map(Text, line))
    if lines:
        console.print(table)
        console.print(compared.legend("*"), soft_wrap=True, markup=False)
    for unfinished in compared.unfinished:
        console.print(unfinished, soft_wrap=True, markup=False)


def markdown_of(compared: "Comparison") -> str:
    """Return a comparison as a Markdown table: accuracies in % with their spread, the Pareto
    frontier, and the training cost."""
    header, *rows = (
        [cell.replace("|", r"\|") for cell in line] for line in _with_frontier(compared)
    )
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def _with_frontier(compared: "Comparison") -> list[list[str]]:
    """Return the header and the rows of a comparison as text cells, with a last column that marks
    the Pareto frontier; runs whose training a search ended come last."""
    marks = ["*" if front else "" for front in compared.on_frontier]
    lines = [
        *zip(compared.lines, marks, strict=True),
        *((line, "") for line in compared.pruned_lines),
    ]
    return [[*compared.header, "frontier"], *([*line, mark] for line, mark in lines)]


def show_speed(speed: "Speed") -> None:
    """Print the configuration of a speed measurement, and one row per measured quantity with its
    median, minimum and maximum."""
    console = Console(highlight=False)
    width = max(map(len, speed.setting))
    for name, value in speed.setting.items():
        console.print(f"{name:<{width}} {value}", soft_wrap=True, markup=False)
    table = Table()
    table.add_column("")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column(f"range of {len(speed.update.values)}", justify="right", no_wrap=True)

    def row(name: str, sample: "Samples", scale: float = 1, digits: int = 3) -> None:
        low, high = min(sample.values), max(sample.values)
        shown = [_rounded(scale * value, digits) for value in (sample.median, low, high)]
        table.add_row(name, shown[0], f"{shown[1]} to {shown[2]}")

    row("training, images/s", speed.images_per_second)
    row("update, ms", speed.update, 1000)
    for name, passes, sample in (
        ("input-gradient pass", speed.gradient_passes, speed.gradient_pass),
        ("forward pass", speed.forward_passes, speed.forward_pass),
        ("training pass", speed.training_passes, speed.training_pass),
    ):
        if passes:
            row(f"{name}, ms ({passes:g} in an update)", sample, 1000)
    row("share of the limit", speed.share)
    for name, sample in speed.baselines.items():
        row(f"{name}, images/s", sample)
        row(f"ratio to {name}", speed.ratios[name])
    if speed.compile_seconds is not None:
        table.add_row("compiling, s", _rounded(speed.compile_seconds, 2), "")
    if speed.peak_memory is not None:
        table.add_row("peak memory, MiB", f"{speed.peak_memory / 2**20:,.0f}", "")
    console.print(table)
    console.print(
        "At the limit, an update takes as long as its passes, each timed alone: nothing but the "
        "network runs. A share above 1 is noise of the timing.",
        soft_wrap=True,
    )


def _rounded(value: float, digits: int) -> str:
    """Return a number as text with ``digits`` significant digits, without an exponent."""
    if value >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
