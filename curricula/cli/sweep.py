"""``curricula sweep``."""

from pathlib import Path

import click

from curricula.cli.options import combined, download_option, output_option, training_options


@click.command()
@click.argument("sweep", metavar="NAME_OR_FILE")
@output_option("Folder of the sweep.  [default: runs/NAME]", metavar="DIR")
@combined(training_options("data-root", data_root="the sweep's"), download_option())
@click.option(
    "--storage",
    metavar="URL",
    help="Database that workers share, such as postgresql://USER@HOST/NAME.  [default: SQLite in "
    "OUTPUT/study.db]",
)
@click.option("--retry", is_flag=True, help="Run failed cells again.")
def command(
    sweep: str,
    output: Path | None,
    data_root: str | None,
    download: bool,
    storage: str | None,
    retry: bool,
) -> None:
    """Train and evaluate every cell of a sweep (a recipe or a TOML file), and compare them.

    Started again, an interrupted sweep continues. Processes that run the same sweep at the same
    time share its cells; with --storage, on several machines too, with or without a shared folder.
    The exit status is 1 if a cell failed.

    Example: curricula sweep cusp-vs-baselines-mnist --data-root data
    """
    from curricula.recipes import find_sweep
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.sweeps.folder import check_same_sweep, default_folder
    from curricula.sweeps.spec import check_sweep
    from curricula.training.run import check_page

    definition = find_sweep(sweep)
    if data_root is not None:
        definition = definition.with_base(data_root=data_root)
    output = output or default_folder(sweep)
    check_same_sweep(definition, output)
    check_page(output)
    check_sweep(definition)
    keep_freed_memory()

    from curricula.cli.tables import show_comparison
    from curricula.plugins.registry import command_line
    from curricula.sweeps.collect import compare
    from curricula.sweeps.runner import run_sweep

    run_sweep(
        definition, output, storage=storage, retry=retry, download=download, on_message=click.echo
    )
    compared = compare([output])
    show_comparison(compared)

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    click.echo(f"report: {report(output)}")
    click.echo(f"compare it further: {command_line('compare', output)}")
    if compared.failures:
        click.get_current_context().exit(1)
