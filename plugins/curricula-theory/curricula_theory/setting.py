"""The setting: one strong feature that may be wrong, many weak features, cyclic shifts.

It follows Tsipras et al. 2019 (Robustness May Be at Odds with Accuracy), with cyclic shifts as
spatial changes. Legend of shapes: N samples, D features, of which S = D - 1 are weak.
"""

import math

import attrs
import torch
from torch import Tensor

from curricula.errors import UserError, shown

MAX_D = 10**12  # features
MAX_C = 1e6  # standard deviations
MAX_EPS = 1e9  # standard deviations


def _critical_size(setting: "Setting") -> float:
    # Validators run after all fields are set, so an invalid d must pass through here.
    return 2 * setting.eta if 1 < setting.d <= MAX_D else math.nan


@attrs.frozen(kw_only=True)
class Setting:
    """The distribution of features and label (x, y), and the radius of the adversary.

    The label y is -1 or 1, each with probability 1/2. Given y the features are independent: x_0 is
    y with probability p and -y otherwise; the others are normal of mean eta * y and variance 1.

    Attributes:
        d: number of features, 3 to 10^12.
        p: probability that the strong feature is correct, at least 0.5 and below 1.
        c: signal of all weak features together, above 0 to 10^6: alone they reach the accuracy
            Phi(c).
        eps: l-inf radius of the adversary, from 0 to 10^9; by default 2 eta, which flips the mean
            of every weak feature.

    Raises:
        UserError: a value is out of its range.

    >>> setting = Setting(d=101, p=0.95, c=2)
    >>> setting.eta, setting.eps
    (0.2, 0.4)
    """

    d: int = attrs.field()
    p: float = attrs.field()
    c: float = attrs.field()
    eps: float = attrs.field(default=attrs.Factory(_critical_size, takes_self=True))

    @d.validator
    def _check_d(self, attribute: object, d: int) -> None:
        if d < 3:
            raise UserError(
                f"d must be 3 or more (one strong feature, two weak ones), not {shown(d)}"
            )
        if d > MAX_D:
            raise UserError(f"d must be at most {MAX_D:,}, not {shown(d)}")

    @p.validator
    def _check_p(self, attribute: object, p: float) -> None:
        if not 0.5 <= p < 1:
            raise UserError(
                f"p must be at least 0.5 and below 1, not {p:g}: it is the probability that the "
                "strong feature is correct"
            )

    @c.validator
    def _check_c(self, attribute: object, c: float) -> None:
        if not 0 < c <= MAX_C:
            raise UserError(f"c must be a number above 0 to {MAX_C:g}, not {c:g}")

    @eps.validator
    def _check_eps(self, attribute: object, eps: float) -> None:
        if not 0 <= eps <= MAX_EPS:
            raise UserError(f"eps must be a number from 0 to {MAX_EPS:g}, not {eps:g}")

    @property
    def weak(self) -> int:
        """Number of weak features, S."""
        return self.d - 1

    @property
    def eta(self) -> float:
        """Mean of a weak feature given the label 1, c / sqrt(S), in standard deviations."""
        return self.c / math.sqrt(self.weak)

    def sample(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return N independent samples: x_ND and labels y_N (-1 or 1), both float32.

        Args:
            n: number of samples.
            generator: CPU generator of all random numbers.
        """
        y_N = torch.randint(2, (n,), generator=generator) * 2.0 - 1
        x_ND = torch.randn((n, self.d), generator=generator).add_(self.eta * y_N[:, None])
        right_N = torch.rand(n, generator=generator) < self.p
        x_ND[:, 0] = torch.where(right_N, y_N, -y_N)
        return x_ND, y_N


def shift(x_ND: Tensor, places_N: Tensor) -> Tensor:
    """Return x_ND with each row shifted cyclically to the right by its own number of places.

    Args:
        x_ND: samples.
        places_N: int64, any whole numbers; only their values modulo D matter.

    >>> shift(torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([1, 2])).tolist()
    [[3, 1, 2], [2, 3, 1]]
    """
    d = x_ND.shape[1]
    return x_ND.gather(1, (torch.arange(d) - places_N[:, None]) % d)
