"""A linear classifier and a small network, and the worst input for either.

Legend of shapes: N samples, D features, H hidden units. The sign of a logit is the prediction; a
margin is the label times the logit, so it is above 0 where the prediction is right. A logit of 0
counts as wrong.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

HIDDEN = 64


class Linear(nn.Module):
    """sign(w . x), without a bias: the two classes mirror each other.

    Args:
        weight_D: w.
    """

    def __init__(self, weight_D: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_D)

    @classmethod
    def random(cls, d: int, *, generator: torch.Generator) -> "Linear":
        """Weights drawn from a normal distribution of variance 1 / D."""
        return cls(torch.randn(d, generator=generator) / d**0.5)

    @classmethod
    def of_ratio(cls, d: int, rho: float) -> "Linear":
        """The family of `curricula.theory.closed_forms`: w = (rho, 1, ..., 1)."""
        weight_D = torch.ones(d)
        weight_D[0] = rho
        return cls(weight_D)

    def forward(self, x_ND: Tensor) -> Tensor:
        """The logits, (N,)."""
        logits_N: Tensor = x_ND @ self.weight
        return logits_N

    @property
    def ratio(self) -> float:
        """The strong feature's weight over the mean size of the others: rho, for the family."""
        weight_D = self.weight.detach()
        return float(weight_D[0] / weight_D[1:].abs().mean())


class Network(nn.Module):
    """A multilayer perceptron: one hidden layer of rectified linear units.

    Args:
        d: features.
        hidden: units, H.
        generator: of the initial weights, those of He et al. 2015; the biases start at 0.
    """

    def __init__(self, d: int, *, hidden: int = HIDDEN, generator: torch.Generator) -> None:
        super().__init__()
        # nn.Linear by itself would draw its weights from the global random state.
        self.into: nn.Linear = skip_init(nn.Linear, d, hidden)  # type: ignore[no-untyped-call]
        self.out: nn.Linear = skip_init(nn.Linear, hidden, 1)  # type: ignore[no-untyped-call]
        nn.init.kaiming_normal_(self.into.weight, nonlinearity="relu", generator=generator)
        nn.init.kaiming_normal_(self.out.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.into.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        """The logits, (N,)."""
        logits_N: Tensor = self.out(self.into(x_ND).relu()).squeeze(1)
        return logits_N


def worst_corner(model: Linear, x_ND: Tensor, y_N: Tensor, *, eps: float) -> Tensor:
    """The worst input within eps for a linear classifier, exactly: it lowers the margin by eps
    times the l1 norm of w."""
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
    """Projected descent of the margin by gradient signs in an l-inf ball (Madry et al. 2018).

    The gradient of the loss has the same signs, but vanishes in float32 where the margin is large.
    Features are unbounded: nothing is cut to a box.

    Args:
        model: from (N, D) to logits (N,).
        x_ND: the centres of the balls.
        y_N: labels, -1 or 1.
        start_ND: where to begin, within the balls.
        eps: radius, 0 or more.
        steps: 1 or more.
        rel_step: length of a step, as a share of eps.

    Returns:
        Of the inputs that were met, the one of lowest margin for each sample.
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
    """A uniform draw from the l-inf ball of eps around each sample."""
    return x_ND + eps * (2 * torch.rand(x_ND.shape, generator=generator) - 1)
