"""Measure a model under threats: accuracy and fooling rate."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike, in_order
from curricula.errors import UserError
from curricula.evaluation.results import ThreatResult
from curricula.expressions.random_streams import Streams
from curricula.interfaces import Victim
from curricula.plugins.names import CLEAN
from curricula.runtime.precision import no_tf32
from curricula.runtime.timing import seconds
from curricula.victim.model_victim import ModelVictim

BATCH_SIZE = 250  # images at once on a CPU, where more do not pay, and the fewest elsewhere
PAYS = 1.1  # a batch twice as large must do so many times as many images a second


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
) -> list[ThreatResult]:
    """Accuracy and fooling rate under each threat, in float32, on every image of a split.

    The predictions on the clean images are made once, before all others.

    What is drawn for an image depends on the seed, its index in the split and the place in the
    expression: not on the other threats, nor on the batch, nor on who has fallen. Exempt is what
    `curricula.expressions.random_interception.intercept` leaves to the generator.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: whose images they are.
        split: the images.
        threats: by name; those of the same expression and strength are run once.
        seed: of the random streams.
        batch_size: images at once; by default 250 on a CPU, and elsewhere what `paying_batch`
            finds.
        began: called before each threat that is run, with its number of batches; ``clean`` is
            always run, and first.
        after_batch: called after each batch of each threat that is run, to show progress.

    Raises:
        UserError: logits that are not numbers.
    """
    asked = {"": Threat.parse(CLEAN), **threats}
    predicted = predictions(
        model,
        data,
        split,
        asked,
        seed=seed,
        batch_size=batch_size,
        began=began,
        after_batch=after_batch,
    )
    counts = {
        name: torch.stack([(found_N == split.labels).sum(), (found_N != predicted[""]).sum()])
        for name, found_N in predicted.items()
    }
    return [
        ThreatResult(
            name=name,
            threat=str(threat),
            correct=int(counts[name][0]),
            fooled=int(counts[name][1]),
            n=len(split),
        )
        for name, threat in threats.items()
    ]


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
) -> dict[str, Tensor]:
    """Return the predicted class of each image under each threat, int64 (N,) by name, in the
    split's order. Arguments as for `evaluate_threats`, which counts them."""
    found: dict[tuple[str, float], Tensor] = {}
    with no_tf32():
        victim = ModelVictim(model, early_stop=True)
        if batch_size is None:
            batch_size = paying_batch(victim, data, split)
        for threat in threats.values():
            if _identity(threat) not in found:
                began(threat, math.ceil(len(split) / batch_size))
                found[_identity(threat)] = _predicted(
                    victim, data, split, threat, seed, batch_size, after_batch
                )
    return {name: found[_identity(threat)] for name, threat in threats.items()}


def _identity(threat: Threat) -> tuple[str, float]:
    """What threats share that are run once; the clean images have no strength."""
    return str(threat), 0.0 if str(threat) == CLEAN else threat.strength


def _predicted(
    victim: Victim,
    data: DataSet,
    split: SplitLike,
    threat: Threat,
    seed: int,
    batch_size: int,
    after_batch: Callable[[], None],
) -> Tensor:
    """The class that the model gives each image under a threat, int64 (N,)."""
    device = split.labels.device
    generator = torch.Generator(device).manual_seed(seed)
    indices = torch.arange(len(split), device=device)
    predicted = []
    for number, batch in enumerate(in_order(split, batch_size)):
        x = threat(
            data.images(batch.pixels),
            batch.labels,
            victim=victim,
            generator=generator,
            streams=Streams.of(seed, indices[number * batch_size :][: len(batch)]),
        )
        with torch.no_grad():
            logits_NK = victim.logits(x)
            if logits_NK.isnan().any():  # whose largest would be the first class
                raise UserError(
                    f"the network's logits under {threat} are not numbers: its training has "
                    "diverged (lower --lr), or a perturbation gives images that are no numbers"
                )
            predicted.append(logits_NK.argmax(1))
        after_batch()
    return torch.cat(predicted)


def paying_batch(victim: Victim, data: DataSet, split: SplitLike) -> int:
    """How many images of a split to attack at once.

    On a CPU 250. Elsewhere doublings of it are tried, one gradient each, as long as they give a
    tenth more images a second; where memory ends that, half of what fitted, since an attack holds
    more than a gradient.
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
        if len(batch) / took < PAYS * rate:
            break
        best, rate, size = size, len(batch) / took, 2 * size
    return best


def _gradient_seconds(victim: Victim, x_NCHW: Tensor, y_N: Tensor) -> float:
    """The best of three, after one that allocates and picks algorithms."""
    found = [seconds(lambda: victim.gradient(x_NCHW, y_N), x_NCHW.device) for _ in range(4)]
    return min(found[1:])
