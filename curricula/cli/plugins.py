"""``curricula plugins``: what is registered, and by whom. Imports no torch."""

import click

from curricula import registry
from curricula.hooks import KINDS


@click.command()
def command() -> None:
    """List every perturbation, model, schedule, objective, data set and command with the
    distribution or file that offers it.

    Example: curricula plugins
    """
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
    for failure in current.failures:
        click.echo(str(failure))
