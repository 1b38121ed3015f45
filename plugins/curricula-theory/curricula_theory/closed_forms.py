"""Accuracies of the classifiers sign(w . x), w = (rho, 1, ..., 1), rho > 0, without sampling.

The derivation is in docs/theory.md. For w = (a, b, ..., b) only the ratio rho = a / b matters:
rho = 1 is invariant to shifts, and as rho grows the classifier uses the strong feature alone.
Everything is float64; ``rho`` may have any shape, and the result has the same shape.
"""

import math

import torch
from torch import Tensor

from curricula_theory.setting import Setting


def Phi(value: Tensor) -> Tensor:  # noqa: N802, its name in the derivation
    """Return the distribution function of the standard normal at each value."""
    share: Tensor = torch.special.ndtr(value)
    return share


def clean_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """Return C(rho), the accuracy in [0, 1] on unperturbed inputs, for each rho."""
    rho = _float64(rho)
    root, signal = math.sqrt(setting.weak), setting.eta * setting.weak
    return _mixture(setting, (signal + rho) / root, (signal - rho) / root)


def adversarial_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """Return A(rho), the accuracy in [0, 1] under the worst l-inf perturbation within eps.

    It lowers the margin by eps times the l1 norm of w.
    """
    rho = _float64(rho)
    root, eps = math.sqrt(setting.weak), setting.eps
    signal = (setting.eta - eps) * setting.weak
    return _mixture(setting, (signal + rho * (1 - eps)) / root, (signal - rho * (1 + eps)) / root)


def shifted_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """Return R(rho), the accuracy in [0, 1] on inputs shifted by any number of places except 0.

    The strong feature meets the weight 1, and one weak feature meets the weight rho.
    """
    mean, deviation = _shifted_moments(setting, _float64(rho))
    return _mixture(setting, (mean + 1) / deviation, (mean - 1) / deviation)


def spatial_accuracy(setting: Setting, rho: Tensor | float) -> Tensor:
    """Return Sp(rho) = C / d + (1 - 1 / d) R, the accuracy in [0, 1] under a uniform cyclic shift.

    >>> setting = Setting(d=101, p=0.95, c=2)
    >>> [round(float(spatial_accuracy(setting, rho)), 3) for rho in (1, 20, 100)]
    [0.982, 0.867, 0.66]
    """
    stay = 1 / setting.d
    return stay * clean_accuracy(setting, rho) + (1 - stay) * shifted_accuracy(setting, rho)


def frontier(setting: Setting) -> tuple[Tensor, Tensor]:
    """Return the best (spatial, adversarial) accuracies of a random choice between two classifiers
    w = (rho, 1, ..., 1), rho >= 1.

    They are the corners of the least concave curve above the family's own curve. An adversary who
    does not see the choice cannot exploit it: the same perturbation is the worst for all members
    at once. So the accuracies of a mixture are the mixtures of the accuracies.

    Returns:
        Spatial accuracies, rising, and the adversarial accuracy at each, (K,) both.
    """
    rho = torch.logspace(8, 0, 4001, dtype=torch.float64)
    spatial, adversarial = spatial_accuracy(setting, rho), adversarial_accuracy(setting, rho)
    corners: list[tuple[float, float]] = []
    # Monotone chain (Andrew 1979): drop a corner that lies on or below the line past it.
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
    """Return the ratio rho of highest clean accuracy, that of the Bayes rule: log(p / (1 - p)) / (2
    eta)."""
    return math.log(setting.p / (1 - setting.p)) / (2 * setting.eta)


def critical_ratio(setting: Setting) -> float:
    """Return rho* = (eps - eta) S / (1 - eps), below which adversarial accuracy is below 1/2; S is
    the number of weak features, eta their mean.

    At eps = 2 eta it is eta S / (1 - 2 eta). For eps <= eta it is 0 or less and excludes no ratio.
    For eps >= 1 > eta it is infinite: the adversary flips the strong feature too.
    """
    if setting.eps >= 1:
        return math.inf if setting.eps > setting.eta else 0.0
    return (setting.eps - setting.eta) * setting.weak / (1 - setting.eps)


def shifted_bound(setting: Setting) -> float:
    """Return an upper bound of the shifted accuracy R(rho) over all rho >= 1 whose adversarial
    accuracy A(rho) is 1/2 or more.

    It is R(max(rho*, 1)) if R is proved to fall from there on, and slightly more otherwise. It is
    NaN if no rho has A >= 1/2 (eps >= 1 and eps > eta).
    """
    least = max(critical_ratio(setting), 1.0)
    if math.isinf(least):
        return math.nan
    if least >= _falls_from(setting):
        return float(shifted_accuracy(setting, least))
    mean, deviation = _shifted_moments(setting, _float64(least))
    return float(_mixture(setting, (mean + 1) / deviation, mean / deviation))


def shifted_limit(c: float) -> float:
    """Return the limit of `shifted_bound` as the number S of weak features grows at eps = 2 eta,
    where eta = c / sqrt(S) is their mean: Phi(c / sqrt(1 + c^2)).

    It is below Phi(1) = 0.8413 for every c.
    """
    return float(Phi(_float64(c / math.hypot(1, c))))


def _falls_from(setting: Setting) -> float:
    """Return a ratio rho beyond which the shifted accuracy R(rho) is proved to fall."""
    if 2 * setting.eta <= math.log(setting.p / (1 - setting.p)):
        return 1.0
    pull = setting.eta * (setting.weak - 1)
    return pull / (pull - 1) if pull > 1 else math.inf


def _shifted_moments(setting: Setting, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the weak features' part of a shifted input's margin,
    for each rho."""
    return setting.eta * (rho + setting.weak - 1), torch.sqrt(rho * rho + setting.weak - 1)


def _mixture(setting: Setting, right: Tensor, wrong: Tensor) -> Tensor:
    """Return the accuracy p Phi(right) + (1 - p) Phi(wrong), given the mean margins, in standard
    deviations, for a right and a wrong strong feature."""
    return setting.p * Phi(right) + (1 - setting.p) * Phi(wrong)


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
