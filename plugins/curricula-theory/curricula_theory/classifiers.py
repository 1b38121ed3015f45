"""A linear classifier and a small network, and the worst input for each.

Legend of shapes: N samples, D features, H hidden units. The sign of a logit is the prediction. A
margin is the label times the logit: it is above 0 if the prediction is correct. A logit of 0 counts
as wrong.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

NUM_HIDDEN = 64  # units


class Linear(nn.Module):
    """The linear classifier sign(w . x), without a bias: the two classes mirror each other.

    Args:
        weight_D: w.

    >>> Linear.of_ratio(5, rho=3.0).ratio
    3.0
    """

    def __init__(self, weight_D: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_D)

    @classmethod
    def random(cls, d: int, *, generator: torch.Generator) -> "Linear":
        """Return a classifier whose weights are normal with mean 0 and variance 1 / D."""
        return cls(torch.randn(d, generator=generator) / d**0.5)

    @classmethod
    def of_ratio(cls, d: int, rho: float) -> "Linear":
        """Return the classifier with weights w = (rho, 1, ..., 1), to which `closed_forms`
        applies."""
        weight_D = torch.ones(d)
        weight_D[0] = rho
        return cls(weight_D)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the logits w . x, (N,)."""
        logits_N: Tensor = x_ND @ self.weight
        return logits_N

    @property
    def ratio(self) -> float:
        """Weight of the strong feature over the mean magnitude of the other weights; rho for w =
        (rho, 1, ..., 1)."""
        weight_D = self.weight.detach()
        return float(weight_D[0] / weight_D[1:].abs().mean())


class Network(nn.Module):
    """A multilayer perceptron: one hidden layer of rectified linear units.

    Args:
        d: number of features.
        hidden: number of units, H.
        generator: draws the initial weights as He et al. 2015 do; the biases start at 0.
    """

    def __init__(self, d: int, *, hidden: int = NUM_HIDDEN, generator: torch.Generator) -> None:
        super().__init__()
        # nn.Linear would draw its weights from the global random state.
        self.into: nn.Linear = skip_init(nn.Linear, d, hidden)  # type: ignore[no-untyped-call]
        self.out: nn.Linear = skip_init(nn.Linear, hidden, 1)  # type: ignore[no-untyped-call]
        nn.init.kaiming_normal_(self.into.weight, nonlinearity="relu", generator=generator)
        nn.init.kaiming_normal_(self.out.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.into.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the logits, (N,), positive for the label 1."""
        logits_N: Tensor = self.out(self.into(x_ND).relu()).squeeze(1)
        return logits_N


def worst_corner(model: Linear, x_ND: Tensor, y_N: Tensor, *, eps: float) -> Tensor:
    """Return the input x_ND within l-inf distance eps that has a linear classifier's smallest
    margin, exactly.

    It lowers the margin by eps times the l1 norm of w.
    """
    return x_ND - eps * y_N[:, None] * model.weight.detach().sign()


def pgd(
    model: nn.Module,
    x_ND: Tensor,
    y_N: Tensor,
    *,
    start_ND: Tensor,
    eps: float,
    steps: int,
    rel_step: float,
) -> Tensor:
    """Descend the margin y * logit by gradient signs within an l-inf ball, and return the
    adversarial inputs x_ND (Madry et al. 2018).

    The gradient of the loss has the same signs, but vanishes in float32 if the margin is large.
    Features are unbounded: nothing is clipped to a box.

    Args:
        model: from (N, D) to logits (N,).
        x_ND: centres of the balls.
        y_N: labels, -1 or 1.
        start_ND: starting points, within the balls.
        eps: radius, 0 or more.
        steps: number of steps, 1 or more.
        rel_step: step length as a share of eps.

    Returns:
        For each sample the input of lowest margin among all that were visited.
    """
    at_ND, found_ND = start_ND, start_ND
    lowest_N = torch.full_like(y_N, torch.inf)
    for step in range(steps + 1):
        last = step == steps
        at_ND = at_ND.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            margin_N = y_N * model(at_ND)
        lower_N = margin_N.detach() < lowest_N
        found_ND = torch.where(lower_N[:, None], at_ND.detach(), found_ND)
        lowest_N = torch.where(lower_N, margin_N.detach(), lowest_N)
        if not last:
            (gradient_ND,) = torch.autograd.grad(margin_N.sum(), at_ND)
            moved_ND = at_ND.detach() - rel_step * eps * gradient_ND.sign()
            at_ND = torch.clamp(moved_ND, x_ND - eps, x_ND + eps)
    return found_ND


def random_start(x_ND: Tensor, *, eps: float, generator: torch.Generator) -> Tensor:
    """Return a uniformly random point of the l-inf ball of radius eps about each sample, (N, D)."""
    return x_ND + eps * (2 * torch.rand(x_ND.shape, generator=generator) - 1)
