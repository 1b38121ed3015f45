"""``curricula recipes``: the shipped configurations, sweeps and searches."""

from typing import get_args

import click


@click.command()
def command() -> None:
    """List the recipes: configurations for `train --config`, sweeps and searches.

    Example: curricula recipes
    """
    from curricula.recipes import Kind, recipes, usage

    found = {kind: recipes(kind) for kind in get_args(Kind)}
    width = max(len(name) for known in found.values() for name in known)
    for kind, known in found.items():
        click.echo(f"{usage(kind)} NAME:")
        for name, summary in known.items():
            click.echo(f"  {name:<{width}}  {summary}")
