"""``curricula recipes``: the shipped configurations and sweeps."""

import click


@click.command()
def command() -> None:
    """List the recipes: configurations for `train --config`, and sweeps.

    Example: curricula recipes
    """
    from curricula.recipes import recipes

    configurations, sweeps = recipes(), recipes(sweeps=True)
    width = max(map(len, (*configurations, *sweeps)))
    for usage, known in (
        ("curricula train --config NAME", configurations),
        ("curricula sweep NAME", sweeps),
    ):
        click.echo(f"{usage}:")
        for name, summary in known.items():
            click.echo(f"  {name:<{width}}  {summary}")
