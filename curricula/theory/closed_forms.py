"""Accuracies of the classifiers sign(w . x), w = (rho, 1, ..., 1), rho > 0, without sampling.

The derivation is docs/theory.md. Of all w = (a, b, ..., b) only the ratio rho = a / b matters:
rho = 1 does not feel shifts, and with rho growing the classifier looks at the strong feature alone.
Everything is float64; ``rho`` may have any shape, and the result has the same.
"""

import math

import torch
from torch import Tensor

from curricula.theory.setting import Setting


def Phi(value: Tensor) -> Tensor:  # noqa: N802, its name in the derivation
    """Distribution function of the standard normal."""
    share: Tensor = torch.special.ndtr(value)
    return share


def clean_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """C(rho), of inputs as they are."""
    rho = _float64(rho)
    root, signal = math.sqrt(setting.weak), setting.eta * setting.weak
    return _mixture(setting, (signal + rho) / root, (signal - rho) / root)


def adversarial_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """A(rho), under the worst change within eps: it costs the margin eps times the l1 norm of w."""
    rho = _float64(rho)
    root, eps = math.sqrt(setting.weak), setting.eps
    signal = (setting.eta - eps) * setting.weak
    return _mixture(setting, (signal + rho * (1 - eps)) / root, (signal - rho * (1 + eps)) / root)


def shifted_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """R(rho), of inputs that were shifted by any places but 0: the strong feature meets the weight
    1, and a weak one the weight rho."""
    mean, deviation = _shifted_moments(setting, _float64(rho))
    return _mixture(setting, (mean + 1) / deviation, (mean - 1) / deviation)


def spatial_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """Sp(rho) = C / d + (1 - 1 / d) R, under a uniform cyclic shift."""
    stay = 1 / setting.d
    return stay * clean_accuracy(setting, rho) + (1 - stay) * shifted_accuracy(setting, rho)


def frontier(setting: Setting) -> tuple[Tensor, Tensor]:
    """The best that the family of rho >= 1 reaches if it may toss a coin between two members for
    each input: the corners of the least concave curve above its own, (K,) each.

    An adversary who does not see the coin cannot do better against it: the same change is the worst
    for all members at once. So the accuracies of a mixture are the mixtures of the accuracies.

    Returns:
        Spatial accuracies, rising, and the adversarial accuracy at each.
    """
    rho = torch.logspace(8, 0, 4001, dtype=torch.float64)
    spatial, adversarial = spatial_accuracy(setting, rho), adversarial_accuracy(setting, rho)
    corners: list[tuple[float, float]] = []
    # Monotone chain (Andrew 1979): a corner goes that lies on or below the line past it.
    for x, y in sorted(zip(spatial.tolist(), adversarial.tolist(), strict=True)):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):
                break
            corners.pop()
        corners.append((x, y))
    hull = torch.tensor(corners, dtype=torch.float64)
    return hull[:, 0], hull[:, 1]


def best_ratio(setting: Setting) -> float:
    """The ratio of highest clean accuracy, log(p / (1 - p)) / (2 eta): that of the Bayes rule."""
    return math.log(setting.p / (1 - setting.p)) / (2 * setting.eta)


def critical_ratio(setting: Setting) -> float:
    """rho*, below which adversarial accuracy is below 1/2: (eps - eta) S / (1 - eps).

    At eps = 2 eta that is eta S / (1 - 2 eta). Up to eps = eta it is 0 or less, and excludes
    nothing; beyond, from eps = 1 on, it is infinite, since the strong feature falls too.
    """
    if setting.eps >= 1:
        return math.inf if setting.eps > setting.eta else 0.0
    return (setting.eps - setting.eta) * setting.weak / (1 - setting.eps)


def shifted_bound(setting: Setting) -> float:
    """What R is at most, for rho of 1 or more with A(rho) >= 1/2.

    It is R itself at rho*, or at 1 if that is larger, wherever R is proved to fall from there on;
    elsewhere it is a little more. NaN where no rho has A >= 1/2, from eps = 1 on beyond eta.
    """
    least = max(critical_ratio(setting), 1.0)
    if math.isinf(least):
        return math.nan
    if least >= _falls_from(setting):
        return float(shifted_accuracy(setting, least))
    mean, deviation = _shifted_moments(setting, _float64(least))
    return float(_mixture(setting, (mean + 1) / deviation, mean / deviation))


def shifted_limit(c: float) -> float:
    """What `shifted_bound` tends to at eps = 2 eta and fixed c as S grows: Phi(c / sqrt(1 + c^2)).

    It is below Phi(1) = 0.8413 whatever c is.
    """
    return float(Phi(_float64(c / math.hypot(1, c))))


def _falls_from(setting: Setting) -> float:
    """A ratio from which on R is proved to fall."""
    if 2 * setting.eta <= math.log(setting.p / (1 - setting.p)):
        return 1.0
    pull = setting.eta * (setting.weak - 1)
    return pull / (pull - 1) if pull > 1 else math.inf


def _shifted_moments(setting: Setting, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (in the label's direction) and deviation of what the normal features give to a shifted
    input's w . x."""
    return setting.eta * (rho + setting.weak - 1), torch.sqrt(rho * rho + setting.weak - 1)


def _mixture(setting: Setting, right: Tensor, wrong: Tensor) -> Tensor:
    """Accuracy from the margins, in deviations, with a strong feature that is right, and wrong."""
    return setting.p * Phi(right) + (1 - setting.p) * Phi(wrong)


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
