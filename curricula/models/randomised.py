"""Networks behind a random perturbation: `randomised`, and the smoothed classifier `smoothed`."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from curricula.data.spec import ImageSpec
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.expressions.nodes import Context, Node
from curricula.expressions.syntax import Expression, parse
from curricula.interfaces import Views
from curricula.models.build import resolve_model
from curricula.plugins.names import GRID, WORST
from curricula.runtime.values import check_choice, check_whole
from curricula.victim.outputs import checked_logits

Vote = Literal["mean", "majority"]
MAX_DRAWS = 1_000_000
RAISED = 1e-3  # by which the logit of most votes exceeds a higher mean probability's
NOISE = parse("gaussian:0.25")
PIXELS_AT_ONCE = 2**20
"""Pixels (images x H x W) of the draws that run together: 1,024 images of 32x32."""


class Randomised(nn.Module):
    """A network that perturbs its images at random before it classifies them.

    In eval mode each forward pass draws the perturbation ``draws`` times for each image, from
    torch's global random state, and returns the logarithm of the mean probabilities. With a
    majority vote the class of most votes is raised to the top of them: shares of votes have no
    useful gradient. With one draw and ``vote="mean"`` it returns the network's logits. In training
    mode the network classifies the images as they are.

    Its gradient in the images is that of the drawn change, or where the change has none, that of
    the identity (BPDA, Athalye et al. 2018).

    Args:
        network: from images in [0, 1] to logits, or to a mapping with the key ``logits``.
        perturb: spatial and intensity perturbations and their unions; text, syntax or a bound node.
        draws: draws of the perturbation for each image and pass, 1 to 1,000,000.
        vote: ``mean`` of the probabilities, or ``majority`` of the predicted classes.
        model: expression of the network, for the resolved expression of both.

    Raises:
        UserError: a perturbation that queries the network: an attack or a search; a value out of
            range.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> defended = Randomised(network, "rot:15+gaussian:0.1", draws=10).eval()
        >>> x = torch.rand(2, 1, 4, 4)
        >>> torch.equal(defended(x), defended(x))
        False
        >>> defended(x).exp().sum(1)
        tensor([1.0000, 1.0000], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        network: nn.Module,
        perturb: str | Expression | Node,
        *,
        draws: int = 1,
        vote: Vote = "mean",
        model: Expression | None = None,
    ) -> None:
        super().__init__()
        check_whole("draws", draws, 1, MAX_DRAWS)
        check_choice("vote", vote, ("mean", "majority"))
        self.network = network
        self.tree = perturb if isinstance(perturb, Node) else bind(perturb)
        self.draws, self.vote = draws, vote
        self.model = model
        _check_queries_nothing(self.tree)

    @property
    def perturb(self) -> Expression:
        """The perturbation, with all defaults explicit."""
        return self.tree.expression

    def perturbed(self, x_NCHW: Tensor) -> Tensor:
        """Return the images after one draw of the perturbation for each, NCHW in [0, 1]."""
        context = Context(
            y_N=torch.zeros(len(x_NCHW), dtype=torch.long, device=x_NCHW.device),
            strengths=dict.fromkeys(self.tree.leaves, 1.0),
            victim=_NoVictim(),  # type: ignore[arg-type]
            generator=_global_generator(x_NCHW.device),
            threat=False,
            differentiable=True,
        )
        views = Views(clean=x_NCHW, transformed=x_NCHW, perturbed=x_NCHW)
        with torch.autocast(x_NCHW.device.type, enabled=False):  # maps in bf16 are inexact
            return self.tree.run(views, context).perturbed

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self.training:
            return checked_logits(self.network(x_NCHW), len(x_NCHW))
        n, _, height, width = x_NCHW.shape
        at_once = max(1, PIXELS_AT_ONCE // max(1, n * height * width))
        log_mean, counted = [], []
        for first in range(0, self.draws, at_once):
            count = min(at_once, self.draws - first)
            output = self.network(self.perturbed(x_NCHW.repeat(count, 1, 1, 1)))
            logits = checked_logits(output, count * n)
            if self.draws == 1 and self.vote == "mean":
                return logits
            # bfloat16 counts to 256 only.
            precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
            log_shares = precise.log_softmax(1).reshape(count, n, -1)
            log_mean.append(log_shares.logsumexp(0))
            votes = nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            counted.append(votes.reshape(count, n, -1).sum(0))
        log_mean_NK = torch.stack(log_mean).logsumexp(0) - math.log(self.draws)
        if self.vote == "mean":
            return log_mean_NK
        # Ties go to the class of higher mean probability.
        fixed_NK = log_mean_NK.detach()
        winner_N1 = (torch.stack(counted).sum(0) + fixed_NK.exp() / 2).argmax(1, keepdim=True)
        top_N1 = fixed_NK.amax(1, keepdim=True)
        raised_N1 = torch.where(fixed_NK.gather(1, winner_N1) < top_N1, top_N1 + RAISED, top_N1)
        return log_mean_NK + fixed_NK.scatter(1, winner_N1, raised_N1) - fixed_NK


def randomised(
    num_classes: int,
    in_channels: int,
    image_size: int | tuple[int, int],
    fetch: bool,
    model: Expression,
    perturb: Expression,
    draws: int = 1,
    vote: Vote = "mean",
) -> Randomised:
    """Build a network that perturbs its images at random before it classifies them, at inference:
    ``randomised(resnet18, rot:15+gaussian:0.1, draws=10)``. Its mean probability over the draws
    decides.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels.
        fetch: load pretrained weights that ``model`` names.
        model: expression of the network.
        perturb: expression of the perturbation, without attacks and searches.
        draws: draws for each image and pass, 1 to 1,000,000.
        vote: ``mean`` of the probabilities, or ``majority`` of the predicted classes.

    Raises:
        UserError: an unknown model or perturbation, a perturbation that queries the network, or a
            value out of range.
    """
    spec = ImageSpec(
        classes=tuple(map(str, range(num_classes))), channels=in_channels, image_size=image_size
    )
    built = resolve_model(str(model), spec, fetch=fetch)
    return Randomised(built.value, perturb, draws=draws, vote=vote, model=built.call)


def smoothed(
    num_classes: int,
    in_channels: int,
    image_size: int | tuple[int, int],
    fetch: bool,
    model: Expression,
    perturb: Expression = NOISE,
    draws: int = 100,
) -> Randomised:
    """Build the smoothed classifier of a network: the majority vote over draws of Gaussian noise,
    ``smoothed(resnet18, gaussian:0.25)`` (Cohen et al. 2019, "Certified adversarial robustness via
    randomized smoothing").

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels.
        fetch: load pretrained weights that ``model`` names.
        model: expression of the network.
        perturb: expression of the noise, without attacks and searches; by default gaussian:0.25.
        draws: votes for each image and pass, 1 to 1,000,000.

    Raises:
        UserError: as `randomised` does.
    """
    return randomised(
        num_classes, in_channels, image_size, fetch, model, perturb, draws, "majority"
    )


def _check_queries_nothing(tree: Node) -> None:
    attacks = [name for name, leaf in tree.leaves.items() if leaf.max_passes]
    if attacks or any(f"{search}(" in str(tree) for search in (WORST, GRID)):
        raise UserError(
            f"perturb of a randomised network must not query it, but {tree} does; leave out "
            "attacks and searches"
        )


class _NoVictim:
    """The victim of perturbations that never query one."""

    def with_reference(self, x_NCHW: Tensor) -> "_NoVictim":
        return self

    def subset(self, index: Tensor) -> "_NoVictim":
        return self


def _global_generator(device: torch.device) -> torch.Generator:
    """Return the generator that torch uses on a device if none is given."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index]
    return torch.default_generator
