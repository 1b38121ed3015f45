"""``curricula search``."""

from pathlib import Path

import click

from curricula.cli.options import combined, download_option, output_option, training_options


@click.command()
@click.argument("search", metavar="NAME_OR_FILE")
@output_option("Folder of the search.  [default: runs/NAME]", metavar="DIR")
@combined(training_options("data-root", data_root="the search's"), download_option())
@click.option("--retry", is_flag=True, help="Run failed trials again.")
def command(
    search: str, output: Path | None, data_root: str | None, download: bool, retry: bool
) -> None:
    """Search ranges of values for the best trade-off of two accuracies (a recipe or a TOML file).

    All trials are measured on the validation images. Started again, an interrupted search
    continues. Processes that run the same search at the same time share its trials. The exit status
    is 1 if a trial failed.

    Example: curricula search search-digits
    """
    from curricula.recipes import find_search
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.sweeps.folder import check_same_search, default_folder
    from curricula.sweeps.search_spec import check_search
    from curricula.training.run import check_page

    definition = find_search(search)
    if data_root is not None:
        definition = definition.with_base(data_root=data_root)
    output = output or default_folder(search)
    check_same_search(definition, output)
    check_page(output)
    check_search(definition)
    keep_freed_memory()

    from curricula.cli.tables import show_comparison
    from curricula.plugins.registry import command_line
    from curricula.sweeps.collect import compare
    from curricula.sweeps.search import run_search

    run_search(definition, output, retry=retry, download=download, on_message=click.echo)
    compared = compare([output])
    show_comparison(compared)

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    click.echo(f"report: {report(output)}")
    click.echo("measure the frontier on the test images:")
    threats = [word for threat in definition.threats.values() for word in ("--threat", threat)]
    for row, on_frontier in zip(compared.rows, compared.on_frontier, strict=True):
        if on_frontier:
            command = command_line("evaluate", row.outcomes[0].folder, *threats)
            click.echo(f"  {command}")
    if compared.failures:
        click.get_current_context().exit(1)
