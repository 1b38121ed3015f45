"""Intervals of accuracies. Needs no torch."""

import math


def wilson_interval(correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the ends (low, high), in [0, 1], of Wilson's interval (1927) for the share ``correct /
    n``, by default at 95 %.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)

    Args:
        correct: successes, from 0 to n; a fraction if one trial can score a fraction.
        n: trials, 1 or more.
        z: quantile of the normal distribution.
    """
    share = correct / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the interval touches 0 or 1 exactly; rounding must not move it.
    low = 0.0 if correct == 0 else (middle - half) / scale
    high = 1.0 if correct == n else (middle + half) / scale
    return low, high


def in_percent(accuracy: float, interval: tuple[float, float]) -> str:
    """Return an accuracy and its interval, both in [0, 1], as text in %.

    >>> in_percent(0.9, wilson_interval(90, 100))
    '90.0 (82.6 to 94.5)'
    """
    low, high = interval
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
