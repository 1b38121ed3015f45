"""Certify a classifier in l-2 by randomised smoothing (Cohen, Rosenfeld and Kolter 2019, "Certified
adversarial robustness via randomized smoothing").

The smoothed classifier predicts the class that a network predicts most often on an image with
Gaussian noise. If that class has a probability of at least p > 1/2, it stays the prediction on
every image at an l-2 distance below sigma x Phi^-1(p), the radius. `certify_images` bounds p from
below by a sample of the noise.

The noise `gaussian` clips the noisy image to [0, 1]. The certificate holds as it is: clipping is a
function of the noisy image, so it counts as the first layer of the network.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs.validators import and_, ge, gt, le, min_len
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike
from curricula.errors import UserError, shown
from curricula.evaluation.accuracy import checked_logits, fastest_batch
from curricula.evaluation.intervals import clopper_pearson_lower, in_percent, wilson_interval
from curricula.expressions.nodes import Leaf
from curricula.expressions.random_streams import Streams
from curricula.perturbations.intensity.noise import GaussianNoise
from curricula.runtime.precision import no_tf32
from curricula.runtime.processes import from_first, place, sum_over
from curricula.runtime.random_state import seeded
from curricula.runtime.records import fields_of, register_json
from curricula.runtime.tables import frame_of_rows, html_table
from curricula.runtime.values import check_number, check_whole
from curricula.victim.averaged import depends_on_batch, is_random
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.model_victim import ModelVictim

if TYPE_CHECKING:
    import pandas

MAX_DRAWS = 100_000_000  # draws of the noise for each image
MIN_ALPHA, MAX_ALPHA = 1e-12, 0.5
MIN_SIGMA = 1e-4  # in [0, 1] pixel units; float32 rounds smaller noise on a pixel coarsely
SHARE = 0.5  # step of the usual radii, as a share of sigma
SAME = 1e-4  # largest difference of equal logits, as a share of the largest; the rest is rounding
# Quarter turns between two elements, and whether the left-right reflection is one; as curricula-
# escnn names its groups.
GROUPS: Mapping[str, tuple[int, bool]] = {
    "c2": (2, False),
    "c4": (1, False),
    "d1": (4, True),
    "d2": (2, True),
    "d4": (1, True),
}


@attrs.frozen(kw_only=True)
class ImageCertificate:
    """The draws of the noise on one image.

    Attributes:
        label: the label.
        predicted: the class that was selected by the n0 draws.
        votes: how many of the draws that follow the network gave this class.
        nearest, farthest: smallest and largest l-2 distance between the image and another element
            of its orbit, which are its rotations and reflections by a group; 0 without a group.
    """

    label: int = attrs.field(validator=ge(0))
    predicted: int = attrs.field(validator=ge(0))
    votes: int = attrs.field(validator=and_(ge(0), le(MAX_DRAWS)))
    nearest: float = attrs.field(default=0.0, validator=ge(0))
    farthest: float = attrs.field(default=0.0, validator=ge(0))


@attrs.frozen(kw_only=True)
class FinishedImage:
    """An image that an unfinished measurement has certified.

    Attributes:
        index: its index in the split.
        image: its draws.
    """

    index: int = attrs.field(validator=ge(0))
    image: ImageCertificate


def _group(record: Any, field: "attrs.Attribute[Any]", group: str | None) -> None:
    if group is not None:
        check_group(group)


@attrs.frozen(kw_only=True, repr=False)
class Certificates:
    """The certified l-2 radius of each of some images, for a smoothed classifier.

    An image is certified at a radius if its certified radius is larger, and *certified correct* if
    its predicted class is also its label. Each certificate holds with a probability of 1 - alpha at
    least over the draws of the noise, so that at most a share of alpha is expected to be wrong.

    Attributes:
        model: name of the network, for captions.
        data: name of the data set.
        sigma: standard deviation of the noise, in [0, 1] pixel units.
        n0: draws by which a class is selected.
        draws: draws by which the probability of the selected class is bounded.
        alpha: largest probability that a certificate is wrong.
        seed: seed of the draws.
        group: group of rotations and reflections under which the network is invariant, or None.
        images: the draws of each image, in order.
    """

    model: str
    data: str
    sigma: float = attrs.field(validator=[gt(0.0), le(1e6)])
    n0: int = attrs.field(validator=and_(ge(1), le(MAX_DRAWS)))
    draws: int = attrs.field(validator=and_(ge(1), le(MAX_DRAWS)))
    alpha: float = attrs.field(validator=and_(ge(MIN_ALPHA), le(MAX_ALPHA)))
    seed: int
    group: str | None = attrs.field(default=None, validator=_group)
    images: tuple[ImageCertificate, ...] = attrs.field(validator=min_len(1))

    def __attrs_post_init__(self) -> None:
        _check_enough(self.draws, self.alpha)
        check_votes(self.images, self.draws)

    def radius_of(self, votes: int) -> float:
        """Return the certified l-2 radius of an image by the votes of its class, from 0 to
        ``draws``; 0 if the classifier abstains, because the probability of its class may be 1/2 or
        less.

        >>> one = ImageCertificate(label=0, predicted=0, votes=990)
        >>> found = Certificates(
        ...     model="", data="", sigma=0.5, n0=100, draws=1000, alpha=0.001, seed=0, images=(one,)
        ... )
        >>> [round(found.radius_of(votes), 3) for votes in (540, 990, 1000)]
        [0.0, 0.989, 1.232]
        """
        from scipy.special import ndtri

        bound = clopper_pearson_lower(votes, self.draws, self.alpha)
        return self.sigma * float(ndtri(bound)) if bound > 0.5 else 0.0

    @cached_property
    def radii(self) -> tuple[float, ...]:
        """Certified l-2 radius of each image; 0 where the classifier abstains."""
        return tuple(self.radius_of(image.votes) for image in self.images)

    @cached_property
    def correct_radii(self) -> tuple[float, ...]:
        """Largest l-2 radius at which each image is certified correct; 0 for none."""
        pairs = zip(self.images, self.radii, strict=True)
        return tuple(radius if image.predicted == image.label else 0.0 for image, radius in pairs)

    @property
    def abstained(self) -> int:
        """Number of images on which the classifier abstains."""
        return sum(radius == 0 for radius in self.radii)

    @property
    def max_radius(self) -> float:
        """The largest l-2 radius that an image can have: that of as many votes as draws."""
        return self.radius_of(self.draws)

    @property
    def usual_radii(self) -> tuple[float, ...]:
        """Multiples of sigma / 2 from 0 to below `max_radius`, in l-2."""
        step = SHARE * self.sigma
        count = int(self.max_radius / step) + 1
        return tuple(i * step for i in range(count) if i == 0 or i * step < self.max_radius)

    def certified(self, radius: float) -> int:
        """Return the number of images that are certified correct at an l-2 radius.

        Raises:
            UserError: the radius is below 0 or not finite.
        """
        check_number("radius", radius, 0)
        return sum(each > radius for each in self.correct_radii)

    def accuracy(self, radius: float) -> float:
        """Return the certified accuracy at an l-2 radius, in [0, 1]."""
        return self.certified(radius) / len(self.images)

    def interval(self, radius: float) -> tuple[float, float]:
        """Return the ends (low, high), in [0, 1], of Wilson's 95 % interval of the certified
        accuracy, over images."""
        return wilson_interval(self.certified(radius), len(self.images))

    def accuracy_on_orbits(self, radius: float, *, invariant: bool) -> float:
        """Return the share of images, in [0, 1], that are certified correct against every element
        of the group followed by every change of at most an l-2 radius.

        For an invariant network it is the certified accuracy: a changed rotation of the image is a
        rotation of a changed image (Schuchardt and Guennemann 2022, "Invariance-aware randomized
        smoothing certificates"). Without invariance only an image is certified whose ball contains
        the changes of its whole orbit.

        Args:
            radius: the l-2 radius.
            invariant: use the invariance.

        Raises:
            UserError: the radius is below 0 or not finite.
        """
        check_number("radius", radius, 0)
        if invariant:
            return self.accuracy(radius)
        pairs = zip(self.images, self.correct_radii, strict=True)
        held = sum(each > radius + image.farthest for image, each in pairs)
        return held / len(self.images)

    @property
    def disjoint(self) -> int:
        """Number of certified images whose balls around all elements of their orbits are disjoint,
        so that invariance multiplies the certified volume by the order of the group."""
        pairs = zip(self.images, self.radii, strict=True)
        return sum(0 < 2 * radius <= image.nearest for image, radius in pairs)

    @property
    def summary(self) -> str:
        """Sentences on the abstentions and the settings, and on what the group gains."""
        count, rate = len(self.images), 100 * self.abstained / len(self.images)
        text = (
            f"Abstained on {self.abstained:,} of {count:,} images ({rate:.1f} %). "
            f"{self.n0:,} and {self.draws:,} draws, alpha {self.alpha:g}, seed {self.seed}; with "
            f"{self.draws:,} draws no radius is larger than {self.max_radius:.3f}."
        )
        if self.group is None:
            return text
        order, certified = group_order(self.group), count - self.abstained
        return (
            f"{text} The network is invariant under {self.group}: each certificate also holds "
            f"around the {order - 1} other elements of the image's orbit. On {self.disjoint:,} "
            f"of {certified:,} certified images these balls are disjoint, {order} times the "
            "certified volume."
        )

    def rows(self, radii: "tuple[float, ...] | None" = None) -> list[dict[str, Any]]:
        """Return the certified accuracy at each of some l-2 radii, by default the usual ones, as
        rows of a table."""
        rows = []
        for radius in self.usual_radii if radii is None else radii:
            low, high = self.interval(radius)
            row = {"radius": radius, "accuracy": self.accuracy(radius), "low": low, "high": high}
            if self.group is not None:
                row["orbits"] = self.accuracy_on_orbits(radius, invariant=True)
                row["without invariance"] = self.accuracy_on_orbits(radius, invariant=False)
            rows.append(row)
        return rows

    def texts(self, radii: "tuple[float, ...] | None" = None) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows of a table of the certified accuracy in % at some l-2
        radii, by default the usual ones."""
        header = ["l-2 radius", "certified accuracy"]
        if self.group is not None:
            header += [f"after any of {self.group}", "without invariance"]
        lines = []
        for row in self.rows(radii):
            line = [f"{row['radius']:g}", in_percent(row["accuracy"], (row["low"], row["high"]))]
            if self.group is not None:
                line += [f"{100 * row[name]:.1f}" for name in ("orbits", "without invariance")]
            lines.append(line)
        return header, lines

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a data frame with a row per image: its label, predicted class, votes and certified
        l-2 radius.

        Raises:
            UserError: pandas is not installed.
        """
        pairs = zip(self.images, self.radii, strict=True)
        return frame_of_rows([{**fields_of(image), "radius": radius} for image, radius in pairs])

    def __repr__(self) -> str:
        return (
            f"Certificates(sigma {self.sigma:g}, {len(self.images):,} images: "
            f"{100 * self.accuracy(0):.1f} % certified at radius 0, "
            f"{100 * self.accuracy(self.sigma):.1f} % at {self.sigma:g})"
        )

    def _repr_html_(self) -> str:
        header, lines = self.texts()
        caption = f"Certified accuracy in %, sigma {self.sigma:g}, {len(self.images):,} images"
        return html_table(caption, header, lines, note=self.summary)


register_json(
    Certificates,
    lambda found: {**fields_of(found), "abstained": found.abstained, "certified": found.rows()},
)


def check_votes(images: Iterable[ImageCertificate], draws: int) -> None:
    """Check that no image has more votes than draws.

    Raises:
        ValueError: one has.
    """
    if max((image.votes for image in images), default=0) > draws:
        raise ValueError(f"an image has more votes than {draws:,} draws")


def check_draws(n0: Any, draws: Any, alpha: Any) -> None:
    """Check the numbers of draws and the probability of an error.

    Raises:
        UserError: one is not a number in its range, or so few draws certify nothing.
    """
    check_whole("n0", n0, 1, MAX_DRAWS)
    check_whole("draws", draws, 1, MAX_DRAWS)
    check_number("alpha", alpha, MIN_ALPHA, MAX_ALPHA)
    _check_enough(draws, alpha)


def _check_enough(draws: int, alpha: float) -> None:
    """Check that as many votes as draws certify an image.

    Raises:
        UserError: they do not.
    """
    if alpha ** (1 / draws) <= 0.5:
        fewest = math.floor(math.log(alpha, 0.5)) + 1
        raise UserError(
            f"draws must be {fewest} or more for alpha {alpha:g}, not {draws}: fewer draws certify "
            "no image"
        )


def check_group(group: Any) -> None:
    """Check that a value names a group of rotations by quarter turns and reflections.

    Raises:
        UserError: it does not.
    """
    if not isinstance(group, str) or group not in GROUPS:
        raise UserError(
            f"group must be one of {', '.join(GROUPS)}, whose elements map pixels to pixels, not "
            f"{shown(group)}"
        )


def group_order(group: str) -> int:
    """Return the number of elements of a group.

    >>> group_order("c4"), group_order("d4")
    (4, 8)
    """
    turns, reflects = GROUPS[group]
    return 4 // turns * (1 + reflects)


def orbit(x_NCHW: Tensor, group: str) -> list[Tensor]:
    """Return the rotations and reflections of images by a group; the images themselves come
    first."""
    turns, reflects = GROUPS[group]
    rotated = [x_NCHW.rot90(quarter, (2, 3)) for quarter in range(0, 4, turns)]
    return rotated + ([each.flip(3) for each in rotated] if reflects else [])


def gaussian_threat(noise: str) -> tuple[Threat, float]:
    """Return the threat and the standard deviation of Gaussian noise, ``gaussian:0.25``.

    Raises:
        UserError: other noise, for which the radius does not hold; a standard deviation below 1e-4.
    """
    threat = Threat.parse(noise)
    leaf = threat.tree
    if not isinstance(leaf, Leaf) or not isinstance(leaf.perturbation, GaussianNoise):
        raise UserError(
            f"noise must be gaussian:SIGMA, such as gaussian:0.25, not {shown(noise)}: the radius "
            "of a certificate holds for Gaussian noise alone"
        )
    if leaf.perturbation.budget < MIN_SIGMA:
        raise UserError(
            f"the standard deviation of the noise must be {MIN_SIGMA:g} or more, not {noise}; "
            "write gaussian:0.25"
        )
    return threat, leaf.perturbation.budget


def certify_images(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    *,
    noise: str = "gaussian:0.25",
    n0: int = 100,
    draws: int = 100_000,
    alpha: float = 0.001,
    group: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    name: str = "",
    done: Mapping[int, ImageCertificate] | None = None,
    keep: Callable[[int, ImageCertificate], None] = lambda index, image: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Certificates:
    """Return the certificates of images, for the smoothed classifier of a network, computed in
    float32: CERTIFY of Cohen et al. (2019), page 5.

    The noise of a draw depends on the seed, the index of the image and the number of the draw, not
    on the batch, the other images, or on where an interrupted measurement continues.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: the data set of the images.
        split: the images.
        noise: the noise, ``gaussian:SIGMA``.
        n0: draws by which the class is selected.
        draws: further draws by which its probability is bounded.
        alpha: largest probability that a certificate is wrong, from 1e-12 to 0.5.
        group: group of rotations and reflections under which the network is invariant (`GROUPS`).
        seed: seed of the draws.
        batch_size: draws at once; by default 250 on a CPU, and elsewhere the fastest.
        name: name of the network, for captions.
        done: images that are certified already, by index.
        keep: called with each image that is finished, in the first process.
        progress: called with the share of the images that are done, in [0, 1].

    Raises:
        UserError: noise that is not Gaussian; a network that draws random numbers, whose logits
            depend on the batch or are not finite, or that is not invariant under the group.
    """
    threat, sigma = gaussian_threat(noise)
    found = dict(done or {})
    with no_tf32(), torch.no_grad():
        victim = ModelVictim(model, early_stop=True, check_finite=False)
        certifier = _Certifier(victim, data, split, threat, seed)
        certifier.check(group)
        if batch_size is None:
            batch_size = from_first(lambda: fastest_batch(victim, data, split))
        missing = [index for index in range(len(split)) if index not in found]
        for first in range(0, len(missing), place().count):
            together = missing[first : first + place().count]  # one image for each process
            rows = torch.zeros(len(together), 5, dtype=torch.float64)
            if place().rank < len(together):
                index = together[place().rank]
                one = certifier.certify(index, n0, draws, group, batch_size)
                rows[place().rank] = torch.tensor(attrs.astuple(one), dtype=torch.float64)
            for index, row in zip(together, sum_over(rows).tolist(), strict=True):
                label, predicted, votes = map(int, row[:3])
                found[index] = ImageCertificate(
                    label=label,
                    predicted=predicted,
                    votes=votes,
                    nearest=row[3],
                    farthest=row[4],
                )
                if place().is_first:
                    keep(index, found[index])
            progress(1 - (len(missing) - first - len(together)) / len(split))
    return Certificates(
        model=name,
        data=data.name,
        sigma=sigma,
        n0=n0,
        draws=draws,
        alpha=alpha,
        seed=seed,
        group=group,
        images=tuple(found[index] for index in range(len(split))),
    )


@attrs.frozen
class _Certifier:
    """A network with images, and the noise that is drawn on them."""

    victim: ModelVictim
    data: DataSet
    split: SplitLike
    threat: Threat
    seed: int

    def check(self, group: str | None) -> None:
        """Check that the network draws no random numbers, gives an image the same logits in any
        batch, and is invariant under a group, if any, up to rounding, on a few noisy images.

        Raises:
            UserError: it is not.
        """
        batch = self.split[slice(MAX_IMAGES)].load()
        clean = self.data.images(batch.pixels)
        with seeded(0, clean.device):
            random = is_random(self.victim.logits, clean)
        if random:
            raise UserError(
                "the network draws random numbers in its forward pass, and a certificate adds its "
                "own noise: certify the network behind it, such as --model resnet18 in place of "
                "smoothed(resnet18)"
            )
        indices = torch.arange(len(batch), device=clean.device)
        noisy = self._noisy(clean, batch.labels, Streams.of(self.seed, indices))
        if depends_on_batch(self.victim.logits, torch.cat([clean[:1], noisy])):
            raise UserError(
                "the network's logits for an image depend on the other images of its batch, and a "
                "certificate holds for a function of one image: use the running statistics of "
                "batch norms in eval mode"
            )
        if group is None:
            return
        height, width = clean.shape[2:]
        if height != width and GROUPS[group][0] % 2:
            raise UserError(
                f"{group} has rotations by 90 degrees, which images of {height}x{width} do not "
                "allow; leave the group out, or name c2, d1 or d2"
            )
        for x in (clean, noisy):
            expected, *others = map(self.victim.logits, orbit(x, group))
            for other in others:
                difference = float((other - expected).abs().max() / expected.abs().max())
                if difference > SAME:
                    raise UserError(
                        f"the network is not invariant under {group}: a rotation or reflection "
                        f"changes its logits by {difference:.2g} times the largest; leave the "
                        "group out, or train an invariant network, such as p4cnn of curricula-escnn"
                    )

    def certify(
        self, index: int, n0: int, draws: int, group: str | None, batch_size: int
    ) -> ImageCertificate:
        """Return the certificate of an image."""
        image = self.split[slice(index, index + 1)].load()
        clean = self.data.images(image.pixels)
        selected = self._votes(clean, image.labels, index, range(n0), batch_size)
        counts = self._votes(clean, image.labels, index, range(n0, n0 + draws), batch_size)
        predicted = int(selected.argmax())
        nearest = farthest = 0.0
        if group is not None:
            _, *others = orbit(clean, group)
            distances = [float((other - clean).double().norm()) for other in others]
            nearest, farthest = min(distances), max(distances)
        return ImageCertificate(
            label=int(image.labels[0]),
            predicted=predicted,
            votes=int(counts[predicted]),
            nearest=nearest,
            farthest=farthest,
        )

    def _votes(
        self, clean_1CHW: Tensor, label_1: Tensor, index: int, numbers: range, batch_size: int
    ) -> Tensor:
        """Return how many of an image's draws the network gives each class, int64 (K,)."""
        streams = Streams.of(self.seed, torch.tensor([index], device=clean_1CHW.device))
        votes_K = torch.zeros(self.data.num_classes, dtype=torch.int64, device=clean_1CHW.device)
        for start in range(numbers.start, numbers.stop, batch_size):
            stop = min(start + batch_size, numbers.stop)
            number_M = torch.arange(start, stop, device=clean_1CHW.device)
            x = self._noisy(
                clean_1CHW.expand(len(number_M), -1, -1, -1),
                label_1.expand(len(number_M)),
                streams.fold_in(torch.zeros_like(number_M), number_M),
            )
            logits = checked_logits(self.victim, x, clean_1CHW, self.threat, self.data)
            votes_K += torch.bincount(logits.argmax(1), minlength=len(votes_K))
        return votes_K

    def _noisy(self, clean_NCHW: Tensor, labels_N: Tensor, streams: Streams) -> Tensor:
        generator = torch.Generator(clean_NCHW.device)
        return self.threat(
            clean_NCHW, labels_N, victim=self.victim, generator=generator, streams=streams
        )
