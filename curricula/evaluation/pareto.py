"""The Pareto frontier of pairs of accuracies, and the hypervolume that they dominate."""

from collections.abc import Sequence

Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    """Return whether ``one`` is at least as high as ``other`` in both accuracies, and higher in at
    least one."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def on_frontier(points: Sequence[Point]) -> list[bool]:
    """Return a bool for each point: True if no other point dominates it.

    >>> on_frontier([(0.9, 0.2), (0.8, 0.5), (0.7, 0.4)])
    [True, True, False]
    """
    return [not any(dominates(other, point) for other in points) for point in points]


def hypervolume(points: Sequence[Point], reference: Point = (0.0, 0.0)) -> float:
    """Return the area of the region that lies above ``reference`` and below at least one point
    (Zitzler and Thiele 1999).

    A point that does not exceed the reference in both accuracies adds nothing.

    >>> hypervolume([(0.5, 1.0), (1.0, 0.5)])
    0.75

    Args:
        points: pairs of accuracies in [0, 1].
        reference: lower left corner of the area.
    """
    area, reached = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > reached:
            area += (x - reference[0]) * (y - reached)
            reached = y
    return area
