"""Intervals of accuracies. Needs no torch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson_interval(correct: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return the ends (low, high), in [0, 1], of Wilson's interval (1927) for the share ``correct /
    n``, by default at 95 %.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)

    Args:
        correct: successes, from 0 to n; a fraction if one trial can score a fraction.
        n: trials, 1 or more; a fraction if trials are not independent.
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


def exceeds(count: int, n: int, share: float, error: float) -> bool:
    """Return whether ``count`` of n independent trials are too many for a probability of ``share``
    or less: whether ``count`` or more then have a probability of at most ``error`` (the exact
    one-sided binomial test).

    It is wrong with a probability of at most ``error``, for every n.

    >>> exceeds(9, 200, 0.02, 0.01), exceeds(10, 200, 0.02, 0.01)
    (False, True)

    Args:
        count: trials counted, from 0 to n.
        n: trials, 0 or more.
        share: the probability that is allowed, in [0, 1].
        error: the largest probability of a false alarm, in [0, 1].
    """
    from scipy.special import bdtrc

    return count > 0 and float(bdtrc(count - 1, n, share)) <= error


def clopper_pearson_lower(correct: int, n: int, alpha: float) -> float:
    """Return the lower end, in [0, 1], of the one-sided interval of Clopper and Pearson (1934) for
    the share ``correct / n``: the true share is below it with a probability of at most ``alpha``.

    >>> round(clopper_pearson_lower(990, 1000, 0.001), 4)
    0.976
    >>> clopper_pearson_lower(1000, 1000, 0.001) == 0.001 ** (1 / 1000)
    True

    Args:
        correct: successes, from 0 to n.
        n: trials, 1 or more.
        alpha: probability of an error, above 0 and below 1.
    """
    if correct == 0:
        return 0.0
    if correct == n:
        return float(alpha ** (1 / n))

    from scipy.special import betaincinv

    return float(betaincinv(correct, n - correct + 1, alpha))


def draws_interval(correct: int, squares: int, draws: int, n: int) -> tuple[float, float]:
    """Return the ends (low, high), in [0, 1], of the 95 % interval for the accuracy of one draw of
    a random classifier, measured by some draws on each of n images.

    The draws of one image are not independent images: the interval follows from the variance of the
    images' shares of correct draws, which contains that of the draws. It takes Wilson's form, with
    Student's quantile (n - 1 degrees of freedom) for the few images that the variance is estimated
    from. It is at most as wide as that of n images of one draw each.

    >>> draws_interval(90, 90, draws=1, n=100) == wilson_interval(90, 100)
    True

    Args:
        correct: correct draws of all images together, from 0 to draws x n.
        squares: sum over the images of the squared number of correct draws.
        draws: draws of each image, 1 or more.
        n: images, 1 or more.
    """
    share = correct / (draws * n)
    spread = squares / draws**2 / n - share**2
    if n == 1 or draws == 1 or spread <= 0:
        return wilson_interval(share * n, n)

    from scipy.special import stdtrit

    variance = spread / (n - 1) * (float(stdtrit(n - 1, 0.975)) / Z) ** 2
    trials = min(max(share * (1 - share) / variance, n), draws * n)
    return wilson_interval(share * trials, trials)


def seeds_interval(
    correct: Sequence[int], n: int, images_SN: "NDArray[Any] | None" = None
) -> tuple[float, float]:
    """Return the ends (low, high), in [0, 1], of a 95 % interval for the mean accuracy of networks
    trained with other seeds, measured on other images of the same kind.

    Two things vary at random: the seeds and the images, which are the same for all seeds. Their
    variances are estimated by the analysis of variance with two crossed factors. The half width of
    the normal approximation is the root of the sum of two squares: 1.96 standard errors of the
    images, and Student's quantile (seeds - 1 degrees of freedom) times that of the seeds. Wilson's
    interval (1927) takes it for its own half width, so that the ends stay in [0, 1].

    The simulations in ``tests/evaluation/test_intervals.py`` hold that it covers at least 93 % with
    three seeds or more, and 88 % with two, which say little about the spread of seeds.

    >>> low, high = seeds_interval([90, 94, 92], 100)
    >>> round(low, 3), round(high, 3)
    (0.816, 0.968)

    Args:
        correct: correctly classified images with each seed, from 0 to n.
        n: images, 1 or more.
        images_SN: bool, True where an image is classified correctly with a seed. Without it, the
            images' variance is taken to be the largest that the counts allow, so the interval is
            wider.
    """
    count = len(correct)
    share = sum(correct) / (count * n)
    if count == 1 or n == 1 or share in (0, 1):
        return wilson_interval(share * n, n)

    from scipy.special import stdtrit

    accuracies = [each / n for each in correct]
    seeds = sum((each - share) ** 2 for each in accuracies) / (count - 1) / count
    if images_SN is None:
        images = sum(each * (1 - each) for each in accuracies) / count / n
    else:
        of_images = images_SN.mean(0)
        images = float(of_images.var(ddof=1)) / n
        residuals = images_SN - images_SN.mean(1, keepdims=True) - of_images + share
        rest = float((residuals**2).sum()) / ((n - 1) * (count - 1))
        seeds = max(0.0, seeds - rest / (n * count))
    variance = images + seeds * (float(stdtrit(count - 1, 0.975)) / Z) ** 2
    # At least the variance of images that are all independent.
    trials = min(share * (1 - share) / variance, count * n) if variance else count * n
    return wilson_interval(share * trials, trials)


def in_percent(accuracy: float, interval: tuple[float, float]) -> str:
    """Return an accuracy and its interval, both in [0, 1], as text in %.

    >>> in_percent(0.9, wilson_interval(90, 100))
    '90.0 (82.6 to 94.5)'
    """
    low, high = interval
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
