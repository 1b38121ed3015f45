"""A search without gradients: the perturbation `square`."""

import math

import attrs
import torch
from attrs.validators import and_, ge, gt, le
from torch import Tensor

from curricula.interfaces import Victim
from curricula.perturbations.attacks.norm_ball import BallAttack, a_budget

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share, for 10,000 queries
SETTLED = 20  # queries between two looks at which images are fooled; looking stalls a GPU


def margin(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """How far the label's logit lies above the highest other one, (N,)."""
    label = logits_NK.gather(1, y_N[:, None])
    others = logits_NK.scatter(1, y_N[:, None], -math.inf)
    return label.squeeze(1) - others.amax(dim=1)


def share_changed(query: int, queries: int, p_init: float) -> float:
    """The share of pixels that query number ``query``, from 0, changes: ``p_init``, halved at fixed
    places of the search (Andriushchenko et al. 2020, section 4.1)."""
    place = query * 10_000 // queries
    return math.ldexp(p_init, -sum(place > halving for halving in HALVINGS))


def search_squares(
    x_NCHW: Tensor,
    y_N: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    queries: int,
    p_init: float,
    generator: torch.Generator,
) -> Tensor:
    """Square Attack in l-inf (Andriushchenko et al. 2020, algorithms 1 and 2), all images at once,
    each with squares of its own.

    An image that is misclassified as it is comes back unchanged; one that is fooled is not changed
    any more, and soon not queried any more.

    Args:
        x_NCHW: the images.
        y_N: the labels.
        eps_N111: the radius of each l-inf ball.
        victim: the model; its logits alone are asked for.
        queries: of each image at most, that of the image itself among them.
        p_init: the share of pixels that the first squares change.
        generator: of all randomness.
    """
    channels, height, width = x_NCHW.shape[1:]
    device = x_NCHW.device
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)

    def draw(values: int, *shape: int) -> Tensor:
        """For every image, so that an image's draws do not depend on which others are open."""
        whole = (len(x_NCHW), *shape)
        return torch.randint(values, whole, generator=generator, device=device)[index]

    found, index = x_NCHW.clone(), torch.arange(len(x_NCHW), device=device)
    open_N = (victim.logits(x_NCHW).argmax(1) == y_N) & (eps_N111.flatten() > 0)
    best, best_margin_N = x_NCHW, torch.full_like(open_N, math.inf, dtype=torch.float32)
    for query in range(queries - 1):
        if query % SETTLED == 0:
            found[index] = best
            still = open_N.nonzero().squeeze(1)
            if len(still) == 0:
                return found
            index, open_N = index[still], open_N[still]
            best, best_margin_N = best[still], best_margin_N[still]
            x, y, eps, some = x_NCHW[index], y_N[index], eps_N111[index], victim.subset(index)
        if query == 0:
            signs = draw(2, channels, 1, width) * 2 - 1  # stripes
            candidate = (x + eps * signs).clamp(0, 1)
        else:
            area = share_changed(query - 1, queries, p_init) * height * width
            side = min(max(round(math.sqrt(area)), 1), height, width)
            top, left = draw(height - side + 1, 1), draw(width - side + 1, 1)
            vertically = (rows >= top) & (rows < top + side)
            horizontally = (columns >= left) & (columns < left + side)
            inside = vertically[:, None, :, None] & horizontally[:, None, None, :]
            signs = draw(2, channels, 1, 1) * 2 - 1
            candidate = torch.where(inside, (x + eps * signs).clamp(0, 1), best)
        logits = some.logits(candidate)
        margin_N, fools = margin(logits, y), logits.argmax(1) != y
        better = open_N & ((margin_N < best_margin_N) | fools)
        best = torch.where(better[:, None, None, None], candidate, best)
        best_margin_N = torch.where(better, margin_N, best_margin_N)
        open_N = open_N & ~fools
    found[index] = best
    return found


@attrs.frozen(kw_only=True)
class Square(BallAttack):
    """`square`: Square Attack in the l-inf ball (Andriushchenko et al. 2020): random squares at the
    corners of the ball, kept where the label's margin falls. It asks for no gradient.

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        queries: of each image at most, 1 or more; the first is the image itself, the second the
            vertical stripes that the search starts from.
        p_init: the share of pixels that the first squares change, above 0 to 1.
    """

    budget: float = attrs.field(validator=a_budget)
    queries: int = attrs.field(default=5000, validator=ge(1))
    p_init: float = attrs.field(default=0.8, validator=and_(gt(0.0), le(1.0)))

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """The images attacked, each within its own radius."""
        return search_squares(
            x_NCHW,
            y_N,
            eps_N111,
            victim=victim,
            queries=self.queries,
            p_init=self.p_init,
            generator=generator,
        )
