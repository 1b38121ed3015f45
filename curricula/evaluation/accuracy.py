"""Measure a model's accuracy and fooling rate under threats."""

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike
from curricula.errors import Notice, UserError
from curricula.evaluation.results import Evaluation, threat_result
from curricula.expressions.random_streams import Streams
from curricula.interfaces import Victim
from curricula.plugins.names import CLEAN
from curricula.runtime.precision import no_tf32
from curricula.runtime.processes import from_first, place, sum_over
from curricula.runtime.timing import seconds
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.model_victim import ModelVictim, NoGradientError

BATCH_SIZE = 250  # images at once on a CPU, where more are not faster; the minimum elsewhere
UNTOUCHED = "\n"  # name of the clean images beside the threats, whose names are printable
MIN_SPEED_UP = 1.1  # factor in images per second that makes a batch of twice the size worth it


def evaluate_threats(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    threats: Mapping[str, Threat],
    *,
    seed: int = 0,
    batch_size: int | None = None,
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
        began: called with each threat and its number of batches before it runs; ``clean`` always
            runs first.
        after_batch: called after each batch of each threat that runs.

    Raises:
        UserError: logits that are not finite, or not one for each class.
    """
    with_clean = {UNTOUCHED: Threat.parse(CLEAN), **threats}
    predicted = predictions(
        model,
        data,
        split,
        with_clean,
        seed=seed,
        batch_size=batch_size,
        began=began,
        after_batch=after_batch,
    )
    arrays = {name: predicted_N.numpy(force=True) for name, predicted_N in predicted.items()}
    clean_N, labels_N = arrays.pop(UNTOUCHED), split.labels.numpy(force=True).copy()
    return Evaluation(
        results=[
            threat_result(name, str(threats[name]), each_N, clean_N=clean_N, labels_N=labels_N)
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
    began: Callable[[Threat, int], None] = lambda threat, batches: None,
    after_batch: Callable[[], None] = lambda: None,
    check_gradient: bool = True,
) -> dict[str, Tensor]:
    """Return the class that the model predicts for each image under each threat: int64 tensors
    (N,), by the threat's name.

    Images are in the order of the split. Arguments are those of `evaluate_threats`, and:

    Args:
        check_gradient: warn if threats follow gradients and the model has none.
    """
    found: dict[tuple[str, float], Tensor] = {}
    with no_tf32():
        victim = ModelVictim(model, early_stop=True, check_finite=False)
        if batch_size is None:
            batch_size = from_first(lambda: fastest_batch(victim, data, split))
        order_M = _own_images(len(split), batch_size)
        passes = victim.gradient_passes
        for threat in threats.values():
            if _identity(threat) not in found:
                began(threat, math.ceil(len(order_M) / batch_size))
                found[_identity(threat)] = _predicted(
                    victim, data, split, threat, seed, order_M, batch_size, after_batch
                )
        if check_gradient and place().is_first and victim.gradient_passes > passes:
            _check_gradient(victim, data, split)
    return {name: found[_identity(threat)] for name, threat in threats.items()}


def _check_gradient(victim: ModelVictim, data: DataSet, split: SplitLike) -> None:
    """Warn if the network's gradient is exactly zero on the first images of a split."""
    for images in (MAX_IMAGES, BATCH_SIZE):  # almost always the first few have one
        if victim.has_gradient(data.images(split[slice(images)].load().pixels)):
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
    data: DataSet,
    split: SplitLike,
    threat: Threat,
    seed: int,
    order_M: Tensor,
    batch_size: int,
    after_batch: Callable[[], None],
) -> Tensor:
    """Return the class that the model predicts for each image under a threat, int64 (N,); this
    process classifies the images ``order_M``."""
    generator = torch.Generator(split.labels.device).manual_seed(seed)
    predicted_N = torch.zeros_like(split.labels)
    for indices_M, batch in split.batches(order_M, batch_size):
        clean = data.images(batch.pixels)
        x = threat(
            clean,
            batch.labels,
            victim=victim,
            generator=generator,
            streams=Streams.of(seed, indices_M),
        )
        with torch.no_grad():
            logits_NK = _checked_logits(victim, x, clean, threat, data)
        predicted_N[indices_M] = logits_NK.argmax(1)
        after_batch()
    return sum_over(predicted_N)


def _checked_logits(
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
    found = [seconds(lambda: victim.gradient(x_NCHW, y_N), x_NCHW.device) for _ in range(4)]
    return min(found[1:])
