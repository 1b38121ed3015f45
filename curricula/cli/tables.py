"""How results look on a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curricula.evaluation.accuracy import Measured
from curricula.evaluation.audit import Audit
from curricula.speed.bench import Sample, Speed


def show_accuracies(columns: Mapping[str, Sequence[Measured]]) -> None:
    """A table: a row a threat, a column a model; each accuracy with its 95 % interval."""
    first = next(iter(columns.values()))
    n = first[0].n
    table = Table()
    table.add_column("threat", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(row[0].name, *map(_percent, row))
    console = Console(highlight=False)
    console.print(f"test accuracy in % (95 % interval), {n:,} images", soft_wrap=True)
    console.print(table)
    for result in first:
        if result.threat != result.name:
            console.print(f"{result.name}: {result.threat}", soft_wrap=True)


def _percent(result: Measured) -> str:
    low, high = result.interval
    return f"{100 * result.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def show_audit(audit: Audit) -> None:
    """A table: a row a check, with what was found; then what could not be checked."""
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
    for what in audit.left_out:
        console.print(f"left out: {what}", soft_wrap=True, markup=False)


def show_speed(speed: Speed) -> None:
    """What was measured, its setting, and a row a figure with its median and spread."""
    console = Console(highlight=False)
    for name, value in speed.setting.items():
        console.print(f"{name:<12} {value}", soft_wrap=True, markup=False)
    table = Table()
    table.add_column("")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column(f"of {len(speed.update.values)}, from to", justify="right", no_wrap=True)

    def row(name: str, sample: Sample, scale: float = 1, digits: int = 3) -> None:
        low, high = min(sample.values), max(sample.values)
        shown = [_rounded(scale * value, digits) for value in (sample.median, low, high)]
        table.add_row(name, shown[0], f"{shown[1]} to {shown[2]}")

    row("training, images/s", speed.images_per_second)
    row("update, ms", speed.update, 1000)
    row(f"{speed.gradient_passes:g} x input-gradient pass, ms", speed.gradient_pass, 1000)
    if speed.forward_passes:
        row(f"{speed.forward_passes:g} x forward pass, ms", speed.forward_pass, 1000)
    row(f"{speed.training_passes:g} x training pass, ms", speed.training_pass, 1000)
    row("share of the limit", speed.share)
    for name, sample in speed.rivals.items():
        row(f"{name}, images/s", sample)
        row(f"ratio to {name}", speed.ratios[name])
    if speed.compile_seconds is not None:
        table.add_row("compiling, s", _rounded(speed.compile_seconds, 2), "")
    if speed.peak_memory is not None:
        table.add_row("peak memory, MiB", f"{speed.peak_memory / 2**20:,.0f}", "")
    console.print(table)


def _rounded(value: float, digits: int) -> str:
    """So many significant digits, without exponents."""
    if value >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
