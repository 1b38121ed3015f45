"""Accuracy under threats, with its interval."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import nn

from curricula.curriculum import Threat
from curricula.data.dataset import AnySplit, DataSet, in_order
from curricula.interfaces import Victim
from curricula.victim import ModelVictim

BATCH_SIZE = 250  # images at once, unless the caller says otherwise


@attrs.frozen(kw_only=True)
class Measured:
    """Accuracy under one threat: ``correct`` of ``n`` images.

    Attributes:
        name: of the threat, for tables.
        threat: its expression, all defaults explicit.
        correct: how many images were classified right.
        n: of how many.
    """

    name: str
    threat: str
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson 1927)."""
        return wilson_interval(self.correct, self.n)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        low, high = self.interval
        return {
            "name": self.name,
            "threat": self.threat,
            "accuracy": self.accuracy,
            "interval_95": [low, high],
            "correct": self.correct,
            "n": self.n,
        }


def wilson_interval(correct: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927); by default at 95 %.

    Args:
        correct: successes, from 0 to n.
        n: trials, 1 or more.
        z: quantile of the normal distribution.
    """
    share = correct / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the interval touches 0 or 1 exactly; rounding must not say otherwise.
    low = 0.0 if correct == 0 else (middle - half) / scale
    high = 1.0 if correct == n else (middle + half) / scale
    return low, high


def measure(
    model: nn.Module,
    data: DataSet,
    split: AnySplit,
    threats: Mapping[str, Threat],
    *,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    after_batch: Callable[[], None] = lambda: None,
) -> list[Measured]:
    """Accuracy under each threat, in float32, on every image of a split.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: whose images they are.
        split: the images.
        threats: by name; each draws from a random stream of its own, so that its figure does not
            depend on the others.
        seed: of those streams.
        batch_size: images at once.
        after_batch: called after each batch of each threat, to show progress.
    """
    with _full_float32():
        return _measure(model, data, split, threats, seed, batch_size, after_batch)


def _full_float32() -> AbstractContextManager[None]:
    """Convolutions on a GPU in float32 proper, not TF32."""
    cudnn = torch.backends.cudnn
    context: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return context


def _measure(
    model: nn.Module,
    data: DataSet,
    split: AnySplit,
    threats: Mapping[str, Threat],
    seed: int,
    batch_size: int,
    after_batch: Callable[[], None],
) -> list[Measured]:
    victim: Victim = ModelVictim(model)
    results = []
    for name, threat in threats.items():
        generator = torch.Generator(split.labels.device).manual_seed(seed)
        correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
        for batch in in_order(split, batch_size):
            x = threat(data.images(batch.pixels), batch.labels, victim=victim, generator=generator)
            with torch.no_grad():
                correct += (victim.logits(x).argmax(1) == batch.labels).sum()
            after_batch()
        results.append(Measured(name=name, threat=str(threat), correct=int(correct), n=len(split)))
    return results
