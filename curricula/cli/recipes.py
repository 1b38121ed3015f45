"""``curricula recipes``: the shipped configurations."""

import click


@click.command()
def command() -> None:
    """List the recipes that --config takes.

    Example: curricula recipes
    """
    from curricula.recipes import recipes

    known = recipes()
    width = max(map(len, known))
    for name, summary in known.items():
        click.echo(f"{name:<{width}}  {summary}")
