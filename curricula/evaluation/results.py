"""Results of an evaluation: counts of correct and fooled images, with intervals. Needs no torch."""

import math
from collections import Counter
from collections.abc import Sequence

import attrs

from curricula.errors import shown
from curricula.runtime.records import register_json
from curricula.runtime.values import check_printable


@attrs.frozen(kw_only=True)
class ThreatResult:
    """The numbers of correctly classified and of fooled images, out of ``n``, under one threat.

    >>> result = ThreatResult(name="joint", threat="rot(30)+pgd(0.1)", correct=90, fooled=8, n=100)
    >>> result.accuracy, result.fooling_rate
    (0.9, 0.08)
    >>> print(result)
    joint: 90.0 (82.6 to 94.5) % of 100 images

    Attributes:
        name: name of the threat, for tables.
        threat: its expression, all defaults explicit.
        correct: number of images classified correctly.
        fooled: number of images whose predicted class differs from the one predicted for the clean
            image, whichever of the two is correct.
        n: number of images, 1 or more.
    """

    name: str = attrs.field(validator=check_printable)
    threat: str = attrs.field(validator=check_printable)
    correct: int = attrs.field(validator=attrs.validators.ge(0))
    fooled: int = attrs.field(validator=attrs.validators.ge(0))
    n: int = attrs.field(validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        for name in ("correct", "fooled"):
            if getattr(self, name) > self.n:
                raise ValueError(f"{name} must be at most n, not {getattr(self, name)} of {self.n}")

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly, in [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of the accuracy's 95 % interval, in [0, 1] (Wilson 1927)."""
        return wilson_interval(self.correct, self.n)

    @property
    def fooling_rate(self) -> float:
        """Share of the images whose predicted class the threat changes, in [0, 1] (Kamath et al.
        2021).

        An adversary attacks the label, not the clean prediction, and stops once an image is
        misclassified. So among the images that are correct when clean, this counts exactly the
        fooled ones. An image that is misclassified when clean counts where its class happens to
        change, which is no worst case for a searched threat.
        """
        return self.fooled / self.n

    def __str__(self) -> str:
        """Return one line with the threat's name, the accuracy, its 95 % interval and the number of
        images."""
        return f"{self.name}: {in_percent(self.accuracy, self.interval)} % of {self.n:,} images"


register_json(
    ThreatResult,
    lambda result: {
        "name": result.name,
        "threat": result.threat,
        "accuracy": result.accuracy,
        "interval_95": result.interval,
        "correct": result.correct,
        "fooling_rate": result.fooling_rate,
        "fooled": result.fooled,
        "n": result.n,
    },
)


def check_results(results: Sequence[ThreatResult]) -> None:
    """Check that there are results, and that no two have the same name.

    Raises:
        ValueError: there are none, or two have the same name.
    """
    if not results:
        raise ValueError("there are no results")
    for name, count in Counter(result.name for result in results).items():
        if count > 1:
            raise ValueError(f"the threat {shown(name)} is there twice")


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
