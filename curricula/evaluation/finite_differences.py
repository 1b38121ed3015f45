"""Compare a network's gradient in its images with finite differences of its logits."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from curricula.interfaces import Norm, Victim
from curricula.perturbations.attacks.apgd import other_classes
from curricula.perturbations.attacks.norm_ball import l2_norm
from curricula.runtime.random_state import seeded

SHARES = (1 / 10, 1 / 100)  # lengths of the differences, as shares of the radius of each pixel
MAX_ERROR = 0.5  # share of the slope by which gradient and difference may disagree
ROUNDING = 1e-6  # rounding of logits, as a share of the largest
RANDOM, ADVERSARIAL = "random", "adversarial"  # kinds of directions


def pixel_radius(radius: float, norm: Norm, values: int) -> float:
    """Return the change of each value that makes a change of length ``radius`` of the whole image,
    if all of its ``values`` change equally."""
    return {"linf": radius, "l2": radius / math.sqrt(values), "l1": radius / values}[norm]


def wrong_gradients(
    victim: Victim, x_NCHW: Tensor, y_N: Tensor, radius: float, *, seed: int
) -> dict[str, Tensor]:
    """Return the mask (N,) of images at which the gradient disagrees with central differences,
    along a random direction and along that of the gradient's signs.

    The function is the logit of the strongest other class less that of the label, at a random image
    near each image, so that no two pixels are equal. A gradient disagrees if neither of two lengths
    of differences gives half to twice the slope that it predicts, apart from rounding. The scale of
    a slope is at least that of a typical direction.

    Args:
        victim: the model; one that draws random numbers has the same draws in each pass.
        x_NCHW: images.
        y_N: their labels.
        radius: change of each value, in [0, 1] pixel units.
        seed: seed of the images and directions, and of the model's draws.
    """
    generator = torch.Generator(x_NCHW.device).manual_seed(seed)

    def uniform() -> Tensor:
        drawn = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device)
        return drawn.to(x_NCHW.dtype) * 2 - 1

    def same_draws(compute: Callable[[], Tensor]) -> Tensor:
        with seeded(seed, x_NCHW.device):
            return compute()

    margin = 1 - 2 * SHARES[0] * radius  # leave room for the differences
    near = (x_NCHW + radius * uniform()).abs()
    near = (1 - (1 - near).abs() - 0.5) * margin + 0.5  # reflected at the ends of [0, 1]
    with torch.no_grad():
        logits_NK = same_draws(lambda: victim.logits(near))
    rival_N = other_classes(logits_NK, y_N)[:, 0]

    def lead(logits_NK: Tensor, y_N: Tensor, reference: object) -> Tensor:
        rival, label = (logits_NK.gather(1, at[:, None]).squeeze(1) for at in (rival_N, y_N))
        return rival - label

    gradient = same_draws(lambda: victim.gradient(near, y_N, lead)[0])
    typical_N = l2_norm(gradient).flatten()
    largest_N = logits_NK.abs().amax(1)

    def measured(way: Tensor, h: float) -> Tensor:
        """Return the slope (N,) between the images moved by h and by -h along a direction."""
        with torch.no_grad():
            upper = lead(same_draws(lambda: victim.logits(near + h * way)), y_N, None)
            lower = lead(same_draws(lambda: victim.logits(near - h * way)), y_N, None)
        return (upper - lower) / (2 * h)

    found = {}
    for kind, way in ((RANDOM, uniform().sign()), (ADVERSARIAL, gradient.sign())):
        slope_N = (gradient * way).sum(dim=(1, 2, 3))
        agrees_N = torch.zeros_like(y_N, dtype=torch.bool)
        for share in SHARES:
            h = share * radius
            measured_N = measured(way, h)
            scale_N = torch.stack([measured_N.abs(), slope_N.abs(), typical_N]).amax(0)
            allowed_N = torch.maximum(MAX_ERROR * scale_N, ROUNDING * largest_N / h)
            agrees_N |= (measured_N - slope_N).abs() <= allowed_N
        found[kind] = ~agrees_N
    return found
