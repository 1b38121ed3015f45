"""A random search that uses no gradients: the perturbation `square`."""

import math

import attrs
import torch
from attrs.validators import ge
from torch import Tensor

from curricula.interfaces import Norm, Victim
from curricula.perturbations.attacks.norm_ball import BallAttack, per_image
from curricula.perturbations.attacks.square_windows import Draw, moved, side_of, tiled
from curricula.perturbations.validators import above_zero, valid_budget

# Queries, of 10,000, after which the share of changed pixels is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
QUERIES_PER_CHECK = 20  # queries between two removals of fooled images, which stall a GPU


def margin(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Return the label's logit minus the highest other logit, (N,)."""
    label = logits_NK.gather(1, y_N[:, None])
    others = logits_NK.scatter(1, y_N[:, None], -math.inf)
    return label.squeeze(1) - others.amax(dim=1)


def share_changed(query: int, queries: int, p_init: float) -> float:
    """Return the share of pixels changed by query number ``query``, from 0: ``p_init``, halved at
    fixed points of the search (Andriushchenko et al. 2020, section 4.1).

    >>> [share_changed(query, queries=100, p_init=0.8) for query in (0, 1, 50, 99)]
    [0.8, 0.2, 0.00625, 0.0015625]
    """
    place = query * 10_000 // queries
    return math.ldexp(p_init, -sum(place > halving for halving in HALVINGS))


def search_squares(
    x_NCHW: Tensor,
    y_N: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    norm: Norm,
    queries: int,
    p_init: float,
    generator: torch.Generator,
) -> Tensor:
    """Search a norm ball with random squares, and return for each image the image found with the
    lowest margin, NCHW (Square Attack, Andriushchenko et al. 2020, algorithms 1 to 3; in l-1 as in
    AutoAttack, Croce and Hein 2021).

    All images are searched at once, each with its own squares. An image that is misclassified from
    the start is returned unchanged; one that is fooled is not changed further, and soon no longer
    queried.

    Args:
        x_NCHW: the images.
        y_N: the labels.
        eps_N111: the radius of each ball, in [0, 1] pixel units.
        victim: the model; only its logits are used.
        norm: ``linf``, ``l2`` or ``l1``.
        queries: maximum number of queries per image, including the one of the image itself.
        p_init: the share of pixels that the first squares change.
        generator: the source of all randomness.
    """
    height, width = x_NCHW.shape[2:]
    device = x_NCHW.device

    def draw(values: int, *shape: int) -> Tensor:
        """Return random whole numbers below ``values`` for the active images, drawn for all images,
        so that an image's numbers do not depend on which are active."""
        whole = (len(x_NCHW), *shape)
        return torch.randint(values, whole, generator=generator, device=device)[index]

    found, index = x_NCHW.clone(), torch.arange(len(x_NCHW), device=device)
    active_N = (victim.logits(x_NCHW).argmax(1) == y_N) & (eps_N111.flatten() > 0)
    best, best_margin_N = x_NCHW, torch.full_like(active_N, math.inf, dtype=torch.float32)
    for query in range(queries - 1):
        if query % QUERIES_PER_CHECK == 0:
            found[index] = best
            still = active_N.nonzero().squeeze(1)
            if len(still) == 0:
                return found
            index, active_N = index[still], active_N[still]
            best, best_margin_N = best[still], best_margin_N[still]
            x, y, eps, some = x_NCHW[index], y_N[index], eps_N111[index], victim.subset(index)
        area = share_changed(max(query - 1, 0), queries, p_init) * height * width
        if query == 0:
            candidate = striped(x, eps, draw) if norm == "linf" else tiled(x, eps, norm, draw)
        elif norm == "linf":
            side = min(max(round(math.sqrt(area)), 1), height, width)
            candidate = squared(x, best, eps, side, draw)
        else:
            candidate = moved(x, best, eps, side_of(area, height, width), norm, draw)
        logits = some.logits(candidate)
        margin_N, fools = margin(logits, y), logits.argmax(1) != y
        better = active_N & ((margin_N < best_margin_N) | fools)
        best = per_image(better, candidate, best)
        best_margin_N = torch.where(better, margin_N, best_margin_N)
        active_N = active_N & ~fools
    found[index] = best
    return found


def striped(x_NCHW: Tensor, eps_N111: Tensor, draw: Draw) -> Tensor:
    """Return each image with vertical stripes of random sign, at a corner of its l-inf ball,
    NCHW."""
    signs = draw(2, x_NCHW.shape[1], 1, x_NCHW.shape[3]) * 2 - 1
    return (x_NCHW + eps_N111 * signs).clamp(0, 1)


def squared(x_NCHW: Tensor, best_NCHW: Tensor, eps_N111: Tensor, side: int, draw: Draw) -> Tensor:
    """Return each best image with a square at a corner of the l-inf ball: of random place, and of
    random sign in each channel, NCHW."""
    channels, height, width = x_NCHW.shape[1:]
    rows = torch.arange(height, device=x_NCHW.device)
    columns = torch.arange(width, device=x_NCHW.device)
    top, left = draw(height - side + 1, 1), draw(width - side + 1, 1)
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    signs = draw(2, channels, 1, 1) * 2 - 1
    return torch.where(inside, (x_NCHW + eps_N111 * signs).clamp(0, 1), best_NCHW)


@attrs.frozen(kw_only=True)
class Square(BallAttack):
    """Search a norm ball with random squares, each kept if it lowers the label's margin (Square
    Attack, Andriushchenko et al. 2020; in l-1, Croce and Hein 2021). It uses no gradients.

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf``, ``l2`` or ``l1``.
        queries: maximum number of queries per image, 1 or more; the first is the image itself, the
            second the vertical stripes, or in l-2 and l-1 the tiles, that the search starts from.
        p_init: the share of pixels that the first squares change, above 0 to 1.

    Raises:
        ValueError: a value out of range.

    Example:
        Only correctly classified images are attacked; they end at corners of the ball.

        >>> x = torch.full((3, 1, 4, 4), 0.5)
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> y = victim.logits(x).argmax(1)
        >>> y[0] = (y[0] + 1) % 3
        >>> attack = Square(budget=0.1, queries=20)
        >>> adversarial = attack(x, y, strength=1.0, victim=victim, generator=torch.Generator())
        >>> (adversarial - x).abs().mean((1, 2, 3))
        tensor([0.0000, 0.1000, 0.1000])
    """

    budget: float = attrs.field(validator=valid_budget)
    norm: Norm = "linf"
    queries: int = attrs.field(default=5000, validator=ge(1))
    p_init: float = attrs.field(default=0.8, validator=above_zero(1.0))

    @property
    def passes_of_draw(self) -> int:
        return self.queries

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        return search_squares(
            x_NCHW,
            y_N,
            eps_N111,
            victim=victim,
            norm=self.norm,
            queries=self.queries,
            p_init=self.p_init,
            generator=generator,
        )
