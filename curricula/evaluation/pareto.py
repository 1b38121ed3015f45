"""The Pareto frontier of two accuracies, and the hypervolume below it."""

from collections.abc import Sequence

Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    """Whether one point is at least as good in both accuracies, and better in one."""
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def frontier(points: Sequence[Point]) -> list[bool]:
    """Of each point, whether no other dominates it."""
    return [not any(dominates(other, point) for other in points) for point in points]


def hypervolume(points: Sequence[Point], reference: Point = (0.0, 0.0)) -> float:
    """Area of what the points dominate, above and to the right of a reference point (Zitzler and
    Thiele 1999). A point that is not above it in both counts nothing.

    Args:
        points: pairs of accuracies in [0, 1].
        reference: the corner from which the area is measured.
    """
    area, reached = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > reached:
            area += (x - reference[0]) * (y - reached)
            reached = y
    return area
