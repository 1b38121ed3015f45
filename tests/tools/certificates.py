"""Attack the certificates of a run, which no attack within their radius may break.

    python tests/tools/certificates.py RUN --noise gaussian:0.25 --radius 0.25 --radius 0.5

The smoothed classifier is attacked by PGD in l-2, whose gradients are those of the mean probability
of several draws (EOT). The majority of as many fresh draws, which the certificates do not share,
decides what each attacked image is classified as; with --group, each rotation and reflection of it
too. A line per radius says how many images are certified correct, how many are still classified
correctly under the attack, and how many certificates were broken. At most a share of alpha of them
is wrong by design; the exit status is 1 if more are broken than a binomial count of that share
reaches once in 1,000 times.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from scipy import stats
from torch import Tensor, nn

import curricula
from curricula import ModelVictim, Threat
from curricula.data.dataset import DataSet, Split
from curricula.evaluation.certify import Certificates, gaussian_threat, orbit
from curricula.models.randomised import Randomised
from curricula.training.run import Run

DRAWS, EOT, STEPS = 4, 4, 20  # draws in a mean probability, such gradients averaged, steps of PGD
AT_ONCE = 1000  # noisy images in one pass
RARE = 0.999


@attrs.frozen
class Tried:
    """Hold what an attack within a radius found.

    Attributes:
        radius: the l-2 radius.
        certified: images that are certified correct at it.
        correct: images whose majority is correct under the attack.
        broken: images that are certified correct and were fooled.
        allowed: largest number of broken ones that a share of alpha explains.
    """

    radius: float
    certified: int
    correct: int
    broken: int
    allowed: int


def attacked(network: nn.Module, noise: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Return images attacked by PGD within an l-2 radius, on the smoothed classifier."""
    defended = Randomised(network, noise, draws=DRAWS).eval()
    text = f"pgd({radius}, norm=l2, steps={STEPS}, rel_step=0.125, eot={EOT})"
    torch.manual_seed(1)
    found = Threat.parse(text)(
        x, y, victim=ModelVictim(defended), generator=torch.Generator().manual_seed(1)
    )
    assert float((found - x).flatten(1).norm(dim=1).max()) <= radius * (1 + 1e-5)
    return found


def majority(network: nn.Module, x: Tensor, sigma: float, n: int, seed: int) -> Tensor:
    """Return the class that most of n draws of clipped noise give each image, (N,)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    with torch.no_grad():
        for image in x:
            votes: Tensor | int = 0
            for first in range(0, n, AT_ONCE):
                noise = torch.randn((min(AT_ONCE, n - first), *image.shape), generator=generator)
                logits = network((image + sigma * noise).clamp(0, 1))
                votes = votes + torch.bincount(logits.argmax(1), minlength=logits.shape[1])
            found.append(votes.argmax())
    return torch.stack(found)


def tried(
    network: nn.Module, data: DataSet, split: Split, found: Certificates, noise: str, radius: float
) -> Tried:
    """Return what an attack within a radius finds against the certificates of a split."""
    network = network.eval()
    _, sigma = gaussian_threat(noise)
    x, y = data.images(split.pixels), split.labels
    changed = attacked(network, noise, x, y, radius)
    correct = torch.ones_like(y, dtype=torch.bool)
    for number, each in enumerate(
        [changed] if found.group is None else orbit(changed, found.group)
    ):
        correct &= majority(network, each, sigma, found.draws, seed=number + 2) == y
    certified = torch.tensor(found.correct_radii) > radius
    count = int(certified.sum())
    return Tried(
        radius,
        count,
        int(correct.sum()),
        int((certified & ~correct).sum()),
        int(stats.binom.ppf(RARE, count, found.alpha)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what attacks find, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--noise", default="gaussian:0.25")
    parser.add_argument("--radius", type=float, action="append", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--group")
    given = parser.parse_args(arguments)
    run = Run.open(given.run)
    network = curricula.load_model(run)
    data = curricula.load_data(run.config.data, root=run.config.data_root)
    split = data.test[slice(given.images)].load()
    found = curricula.certify(
        network, data, noise=given.noise, draws=given.draws, alpha=given.alpha, group=given.group,
        limit=given.images, progress=False,
    )  # fmt: skip
    print(f"{given.images} images, {found.summary}")
    status = 0
    for radius in given.radius:
        one = tried(network, data, split, found, given.noise, radius)
        print(
            f"radius {radius:g}: certified correct {one.certified}, correct under the attack "
            f"{one.correct}, certificates broken {one.broken} (at most {one.allowed})",
            flush=True,
        )
        status |= one.broken > one.allowed
    return status


if __name__ == "__main__":
    raise SystemExit(main())
