"""Measure a model's accuracy and fooling rate under threats."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike
from curricula.errors import Notice, UserError
from curricula.evaluation.results import Draws, Evaluation, threat_result
from curricula.evaluation.suites import position_of
from curricula.expressions.random_streams import Streams, split_mix
from curricula.interfaces import Victim
from curricula.plugins.names import CLEAN
from curricula.runtime.precision import no_tf32
from curricula.runtime.processes import from_first, place, sum_over
from curricula.runtime.random_state import seeded
from curricula.runtime.timing import seconds
from curricula.victim.averaged import (
    PROBED,
    depends_on_batch,
    differ,
    is_random,
    with_averaged_logits,
)
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.model_victim import ModelVictim, NoGradientError

BATCH_SIZE = 250  # images at once on a CPU, where more are not faster; the minimum elsewhere
UNTOUCHED = "\n"  # name of the clean images beside the threats, whose names are printable
RANKING_DRAWS = 10  # draws of a random network by which searches, unions and restarts choose
RANDOM = (
    "the network draws random numbers in its forward pass: each accuracy is that of one draw; "
    "evaluate with draws=10 (--draws 10) for the majority of ten, and give eot=10 to attacks, as "
    "in pgd(8/255, eot=10)"
)
UNSEEDED = (
    "the network draws random numbers that no seed determines, as from its own generator: "
    "another evaluation gives other figures; draw from the global random state of torch, NumPy or "
    "Python, as torch.randn_like(x) does"
)
MODAL = (_DropoutNd, _NormBase, nn.RReLU)  # layers that compute something else in training mode
BATCH = (
    "the network's logits for an image depend on the other images of its batch, so its accuracies "
    "depend on batch_size (--batch-size), and on which images an attack still works on"
)
MIN_SPEED_UP = 1.1  # factor in images per second that makes a batch of twice the size worth it


def evaluate_threats(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    threats: Mapping[str, Threat],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    draws: int | None = None,
    began: Callable[[Threat, int], None] = lambda threat, batches: None,
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return the numbers of correctly classified and of fooled images under each threat, over all
    images of a split, computed in float32, with the class predicted for each image.

    The clean images are classified once, before all threats.

    The random numbers of an image depend on the seed, its index in the split and the place in the
    expression. They do not depend on the other threats, on the batch, or on which images are
    fooled, except in random calls that `curricula.expressions.random_interception.intercept` leaves
    to the generator.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: the data set of the images.
        split: the images.
        threats: threats by name; equal expressions of equal strength run once.
        seed: seed of the random streams.
        batch_size: images at once; by default 250 on a CPU, and elsewhere what `fastest_batch`
            finds.
        draws: passes by which a random network is measured under each threat, 1 or more; the
            prediction of an image is then the majority of them. By default a network is measured by
            one pass, and one line is said if it is random.
        began: called with each threat and its number of batches before it runs; ``clean`` always
            runs first.
        after_batch: called after each batch of each threat that runs.

    Raises:
        UserError: logits that are not finite, or not one for each class.
    """
    with_clean = {UNTOUCHED: Threat.parse(CLEAN), **threats}
    predicted = all_predicted(
        model,
        data,
        split,
        with_clean,
        seed=seed,
        batch_size=batch_size,
        draws=draws,
        began=began,
        after_batch=after_batch,
    )
    arrays = {name: each.class_N.numpy(force=True) for name, each in predicted.items()}
    clean_N, labels_N = arrays.pop(UNTOUCHED), split.labels.numpy(force=True).copy()
    return Evaluation(
        results=[
            threat_result(
                name,
                str(threats[name]),
                each_N,
                clean_N=clean_N,
                labels_N=labels_N,
                draws=predicted[name].counts(split.labels),
                position=position_of(threats[name]),
            )
            for name, each_N in arrays.items()
        ],
        labels=labels_N,
        predictions=arrays,
        classes=data.classes,
    )


def predictions(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    threats: Mapping[str, Threat],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    draws: int | None = None,
    began: Callable[[Threat, int], None] = lambda threat, batches: None,
    after_batch: Callable[[], None] = lambda: None,
    notices: bool = True,
) -> dict[str, Tensor]:
    """Return the class that the model predicts for each image under each threat: int64 tensors
    (N,), by the threat's name.

    Images are in the order of the split. Arguments are those of `evaluate_threats`, and:

    Args:
        notices: warn if the model is random, or has no gradient where threats follow it.
    """
    found = all_predicted(
        model,
        data,
        split,
        threats,
        seed=seed,
        batch_size=batch_size,
        draws=draws,
        began=began,
        after_batch=after_batch,
        notices=notices,
    )
    return {name: each.class_N for name, each in found.items()}


@attrs.frozen(kw_only=True)
class Predicted:
    """Hold what a network predicts for N images under a threat, in one pass or in several draws.

    Attributes:
        class_N: the predicted class, int64; of several draws the majority, or among classes of
            equal votes that of the highest mean probability.
        mean_N: the class of the highest mean probability, int64.
        correct_N: number of draws that are correct, int64.
        draws: the number of draws; None if the evaluation stated none.
    """

    class_N: Tensor
    mean_N: Tensor
    correct_N: Tensor
    draws: int | None

    def share_correct(self, labels_N: Tensor) -> Tensor:
        """Return the share of an image's draws that are correct, (N,); without draws it is 0 or
        1."""
        if self.draws is None:
            return (self.class_N == labels_N).float()
        return self.correct_N / self.draws

    def counts(self, labels_N: Tensor) -> Draws | None:
        """Return the counts of the draws; None if the evaluation stated no draws."""
        if self.draws is None:
            return None
        return Draws(
            count=self.draws,
            correct=int(self.correct_N.sum()),
            squares=int(self.correct_N.square().sum()),
            mean=int((self.mean_N == labels_N).sum()),
            n=len(labels_N),
        )


def all_predicted(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    threats: Mapping[str, Threat],
    *,
    seed: int,
    batch_size: int | None,
    draws: int | None,
    began: Callable[[Threat, int], None],
    after_batch: Callable[[], None],
    notices: bool = True,
    attacked: Callable[[Victim], Victim] = lambda victim: victim,
) -> dict[str, Predicted]:
    """Return what the model predicts under each threat, by the threat's name; the arguments are
    those of `predictions`, and:

    Args:
        attacked: returns the victim that attacks see in place of the model, given the one that they
            would see; the model classifies what they find.
    """
    found: dict[tuple[str, float], Predicted] = {}
    with no_tf32():
        victim = ModelVictim(model, early_stop=True, check_finite=False)
        if batch_size is None:
            batch_size = from_first(lambda: fastest_batch(victim, data, split))
        seen_by_attacks: Victim = victim
        first_NCHW = data.images(split[slice(PROBED)].load().pixels)
        random = _is_random(victim, first_NCHW)
        if random:
            victim = victim.attacking_all()
            seen_by_attacks = with_averaged_logits(victim, RANKING_DRAWS)
        if notices and place().is_first:
            for notice in _notices(model, victim, first_NCHW, random=random, draws=draws):
                warnings.warn(Notice(notice), stacklevel=3)
        seen_by_attacks = attacked(seen_by_attacks)
        order_M = _own_images(len(split), batch_size)
        passes = victim.gradient_passes
        for threat in threats.values():
            if _identity(threat) not in found:
                began(threat, math.ceil(len(order_M) / batch_size))
                found[_identity(threat)] = _predicted(
                    victim,
                    seen_by_attacks,
                    data,
                    split,
                    threat,
                    seed,
                    order_M,
                    batch_size,
                    draws,
                    after_batch,
                )
        if notices and place().is_first and victim.gradient_passes > passes:
            _check_gradient(victim, data, split)
    return {name: found[_identity(threat)] for name, threat in threats.items()}


def _is_random(victim: Victim, x_NCHW: Tensor) -> bool:
    """Return whether the network draws random numbers in its forward pass."""
    with seeded(0, x_NCHW.device):
        return is_random(victim.logits, x_NCHW)


def _notices(
    model: nn.Module,
    victim: Victim,
    x_NCHW: Tensor,
    *,
    random: bool,
    draws: int | None,
) -> Iterator[str]:
    """Yield a line on each thing in which a network may not be measured as expected."""
    training = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and isinstance(module, MODAL)
    ]
    if training and not model.training:
        yield (
            f"the network is in eval mode, but its layer {training[0]} is in training mode; all "
            "layers are measured in eval mode: for dropout that stays on, call "
            "torch.nn.functional.dropout(x, p, training=True) in its forward"
        )
    if random:
        if draws is None:
            yield RANDOM
        passes = []
        for _ in range(2):
            with torch.no_grad(), seeded(0, x_NCHW.device):
                passes.append(victim.logits(x_NCHW))
        if differ(*passes):
            yield UNSEEDED
        return
    if draws is not None and draws > 1:
        yield (
            f"the network draws no random numbers: draws={draws} (--draws {draws}) repeats each "
            "pass; leave it out"
        )
    if depends_on_batch(victim.logits, x_NCHW):
        yield BATCH


def _check_gradient(victim: ModelVictim, data: DataSet, split: SplitLike) -> None:
    """Warn if the network's gradient is exactly zero on the first images of a split."""
    for images in (MAX_IMAGES, BATCH_SIZE):  # almost always the first few have one
        some_NCHW = data.images(split[slice(images)].load().pixels)
        with seeded(0, some_NCHW.device):  # the network may draw
            if victim.has_gradient(some_NCHW):
                return
    warnings.warn(
        Notice(
            "the network's gradient in its images is exactly zero, as behind rounding, sign, "
            "argmax or a saturated softmax: attacks that follow gradients find nothing, and the "
            "accuracy under them is no robustness; measure under square too, and audit the network"
        ),
        stacklevel=4,
    )


def _identity(threat: Threat) -> tuple[str, float]:
    """Return (expression, strength) of a threat; of threats for which both are equal, only one
    runs."""
    # Clean images are the same at every strength.
    return str(threat), 0.0 if str(threat) == CLEAN else threat.strength


def _own_images(images: int, batch_size: int) -> Tensor:
    """Return the indices of the images that this process classifies, int64 (M,): every P-th batch,
    where P is the number of processes. So an image has the same neighbours for any P, and its
    logits the same bits."""
    batches = torch.split(torch.arange(images), batch_size)
    return torch.cat([torch.arange(0), *batches[place().rank :: place().count]])


def _predicted(
    victim: Victim,
    seen_by_attacks: Victim,
    data: DataSet,
    split: SplitLike,
    threat: Threat,
    seed: int,
    order_M: Tensor,
    batch_size: int,
    draws: int | None,
    after_batch: Callable[[], None],
) -> Predicted:
    """Return what the model predicts for each image under a threat; this process classifies the
    images ``order_M``.

    The draws of a random network follow from the seed and the batch: its perturbed images are found
    with other draws than those that measure it.
    """
    generator = torch.Generator(split.labels.device).manual_seed(seed)
    class_N, mean_N, correct_N = (torch.zeros_like(split.labels) for _ in range(3))
    for indices_M, batch in split.batches(order_M, batch_size):
        clean = data.images(batch.pixels)
        with seeded(_batch_seed(seed, indices_M), clean.device):
            x = threat(
                clean,
                batch.labels,
                victim=seen_by_attacks,
                generator=generator,
                streams=Streams.of(seed, indices_M),
            )
            with torch.no_grad():
                logits_MK = checked_logits(victim, x, clean, threat, data)
                mean_MK, votes_MK = logits_MK.softmax(1), _votes(logits_MK)
                for _ in range((draws or 1) - 1):  # summed: draws may be many, and classes too
                    again_MK = checked_logits(victim, x, clean, threat, data)
                    mean_MK, votes_MK = mean_MK + again_MK.softmax(1), votes_MK + _votes(again_MK)
        if draws is None:
            class_N[indices_M] = logits_MK.argmax(1)
        else:
            mean_MK = mean_MK / draws
            mean_N[indices_M] = mean_MK.argmax(1)
            class_N[indices_M] = (votes_MK + mean_MK / 2).argmax(1)
            correct_N[indices_M] = votes_MK.gather(1, batch.labels[:, None])[:, 0]
        after_batch()
    return Predicted(
        class_N=sum_over(class_N),
        mean_N=sum_over(mean_N),
        correct_N=sum_over(correct_N),
        draws=draws,
    )


def _votes(logits_MK: Tensor) -> Tensor:
    """Return 1 for the predicted class of each image and 0 for the others, int64 (M, K)."""
    return one_hot(logits_MK.argmax(1), logits_MK.shape[1])


def _batch_seed(seed: int, indices_M: Tensor) -> int:
    """Return the seed of a network's own draws on a batch, from 0 below 2**62."""
    return int(split_mix(torch.tensor(seed), int(indices_M[0]))) & (2**62 - 1)


def checked_logits(
    victim: Victim, x_NCHW: Tensor, clean_NCHW: Tensor, threat: Threat, data: DataSet
) -> Tensor:
    """Return the logits (N, K) on perturbed images.

    Raises:
        UserError: K is not the data set's number of classes; a logit is not finite, so that argmax
            would return the first NaN or infinity.
    """
    logits_NK = victim.logits(x_NCHW)
    if logits_NK.shape[1] != data.num_classes:
        raise UserError(
            f"the network has {logits_NK.shape[1]} outputs for each image, and {data.name} has "
            f"{data.num_classes} classes; give its last layer an output for each class"
        )
    if logits_NK.isfinite().all():
        return logits_NK
    if x_NCHW.isnan().any() and victim.logits(clean_NCHW).isfinite().all():
        raise UserError(
            f"{threat} made an image with NaN, although the network's logits on the clean images "
            "are numbers; check its perturbations"
        )
    found = "NaN" if logits_NK.isnan().any() else "infinite"
    raise UserError(
        f"the network's logits under {threat} are {found}; look for overflow or a division by zero "
        "in its layers, or for NaN in its weights, as after a training with too large an lr (--lr)"
    )


def fastest_batch(victim: Victim, data: DataSet, split: SplitLike) -> int:
    """Return the number of images to attack at once, chosen by the speed of gradients on the
    device.

    It is 250 on a CPU, and where the network has no gradient. Elsewhere it is doubled as long as
    one gradient then gives a tenth more images per second. If memory runs out, it is half of what
    fitted, since an attack needs more memory than a gradient.
    """
    if split.labels.device.type == "cpu":
        return BATCH_SIZE
    best, rate, size = BATCH_SIZE, 0.0, BATCH_SIZE
    while size < 2 * len(split):
        batch = split[slice(size)].load()
        try:
            took = _gradient_seconds(victim, data.images(batch.pixels), batch.labels)
        except torch.OutOfMemoryError:
            return max(best // 2, 1)
        except NoGradientError:  # threats without gradients can still be measured
            return best
        if len(batch) / took < MIN_SPEED_UP * rate:
            break
        best, rate, size = size, len(batch) / took, 2 * size
    return best


def _gradient_seconds(victim: Victim, x_NCHW: Tensor, y_N: Tensor) -> float:
    """Return the seconds that one gradient of a batch takes: the shortest of three, after an
    untimed first one that allocates memory."""
    with seeded(0, x_NCHW.device):  # the network may draw
        found = [seconds(lambda: victim.gradient(x_NCHW, y_N), x_NCHW.device) for _ in range(4)]
    return min(found[1:])
