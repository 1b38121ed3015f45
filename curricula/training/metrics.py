"""Figures of a run's ``metrics.jsonl``. Needs no torch."""

from collections.abc import Iterable, Mapping
from typing import Any


def forward_and_backward(metrics: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of forward-backward passes of a run, in images: the cost by which runs are
    compared.

    Forward-only passes are not counted.

    >>> forward_and_backward([{"passes": {"gradient": 500, "forward": 90, "training": 100}}])
    600

    Args:
        metrics: the lines of ``metrics.jsonl``, one per epoch.
    """
    passes = [line["passes"] for line in metrics]
    return sum(counts["gradient"] + counts["training"] for counts in passes)


def in_millions(passes: float) -> str:
    """Return a number of passes in millions, to two decimals, or two digits below 0.1.

    >>> in_millions(1_234_567), in_millions(4_321)
    ('1.23', '0.0043')
    """
    millions = passes / 1e6
    return f"{millions:.2f}" if millions >= 0.1 else f"{millions:.2g}"
