"""``curricula plugins``: list what is registered and by which provider, or start a new plugin.

Imports no torch.
"""

from pathlib import Path

import click

from curricula.cli.options import output_option
from curricula.plugins import registry
from curricula.plugins.hookspecs import KINDS
from curricula.plugins.scaffold import write_plugin


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List every perturbation, model, schedule, objective, optimiser, learning-rate schedule, data
    set, callback, suite and command with the distribution or file that provides it. `plugins new`
    writes a new plugin.

    Example: curricula plugins
    """
    if context.invoked_subcommand is not None:
        return
    current = registry.current()
    for kind in KINDS:
        rows = current.records(kind)
        click.echo(f"{kind}s")
        name_width = max(map(len, rows), default=0)
        providers = {name: str(registered.provider) for name, registered in rows.items()}
        provider_width = max(map(len, providers.values()), default=0)
        for name, registered in rows.items():
            click.echo(
                f"  {name:<{name_width}}  {providers[name]:<{provider_width}}  "
                f"{registered.record.summary}"
            )
        click.echo()
    for clash in current.clashes():
        click.echo(clash)
    for failure in current.failures:
        click.echo(str(failure))
    for provider in current.disabled:
        click.echo(f"plugin {provider} is left out by {registry.DISABLE_VARIABLE}")


@command.command(short_help="Write a package that adds a perturbation.")
@click.argument("name")
@output_option(
    "Folder in which curricula-NAME is made.", metavar="DIR", default=".", show_default=True
)
def new(name: str, output: Path) -> None:
    """Write a package that adds the perturbation NAME, with its code, tests and pyproject.toml.

    Example: curricula plugins new haze
    """
    folder = write_plugin(name, output)
    click.echo(f"{folder} is written. Next, where curricula is installed from its clone:")
    click.echo(f"  pip install -e '{folder}[test]'")
    click.echo(f"  pytest {folder}")
    click.echo(f"  curricula train --perturb {name}+pgd")
