"""``curricula sweep``."""

from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.argument("sweep", metavar="NAME_OR_FILE")
@click.option("--out", type=PATH, help="Its folder.  [default: runs/NAME]")
@click.option("--data-root", metavar="DIR", help="Folder of the data's files.")
@click.option("--download", is_flag=True, help="Fetch missing data into --data-root.")
@click.option("--storage", metavar="URL", help="Database of its study.  [default: OUT/study.db]")
@click.option("--retry", is_flag=True, help="Run failed cells again.")
def command(
    sweep: str,
    out: Path | None,
    data_root: str | None,
    download: bool,
    storage: str | None,
    retry: bool,
) -> None:
    """Train and measure every cell of a sweep, a recipe's or a TOML file's, and compare them.

    Interrupted and started again it goes on. Started twice, two processes share the cells; with the
    URL of a database, several machines do. The status is 1 if a cell failed.

    Example: curricula sweep cusp-vs-baselines-mnist --data-root data
    """
    from curricula.cli.tables import show_comparison
    from curricula.plugins.registry import command_line
    from curricula.recipes import find_sweep
    from curricula.reporting.report import report
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.sweeps.collect import compare
    from curricula.sweeps.runner import run_sweep

    keep_freed_memory()
    definition = find_sweep(sweep)
    if data_root is not None:
        definition = definition.with_base(data_root=data_root)
    out = out or Path("runs", Path(sweep).stem)
    run_sweep(definition, out, storage=storage, retry=retry, download=download, noted=click.echo)
    compared = compare([out])
    show_comparison(compared)
    click.echo(f"report: {report(out)}")
    click.echo(f"compare it further: {command_line('compare', out)}")
    if compared.failures:
        click.get_current_context().exit(1)
