"""Write tables in Markdown, for the scripts of this folder."""


def line(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def head(*names: str) -> list[str]:
    """Return the first two lines of a table: the names of its columns, and the rule below them."""
    return [line(*names), f"|{'---|' * len(names)}"]
