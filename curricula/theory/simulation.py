"""The three accuracies of any classifier of the setting, by sampling.

Legend of shapes: N samples, D features, K samples that still stand.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from curricula.evaluation.results import ThreatResult
from curricula.theory.classifiers import Linear, pgd, random_start, worst_corner
from curricula.theory.setting import Setting, shift

# The library's own standard attack, PGD-40 with steps of eps / 10, from several starts.
STEPS, REL_STEP, STARTS = 40, 1 / 10, 5
VALUES_AT_ONCE = 2**21  # of a chunk's samples: 8 MiB, which stay in a processor's cache or near it


@attrs.frozen(kw_only=True)
class Accuracies:
    """What was measured of one classifier: each with its 95 % interval."""

    clean: ThreatResult
    spatial: ThreatResult
    adversarial: ThreatResult

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return {name: getattr(self, name).as_json() for name in attrs.fields_dict(Accuracies)}


def simulate(
    setting: Setting,
    models: Sequence[nn.Module],
    *,
    n: int,
    attacked: int | None = None,
    generator: torch.Generator,
) -> list[Accuracies]:
    """Accuracy on fresh samples: as they are, under a uniform cyclic shift, under the adversary.

    All models meet the same samples and shifts. The adversary is exact for a `Linear` model. For
    any other it is PGD-40 from five starts, which may miss a worse input: that accuracy is an
    upper bound of the true one.

    Args:
        setting: the distribution and the adversary.
        models: each from (N, D) to logits (N,).
        n: how many samples, 1 or more.
        attacked: how many of them meet the adversary, the first ones, 1 to n; by default all.
        generator: of all that is drawn.
    """
    attacked = n if attacked is None else attacked
    counts = torch.zeros((len(models), 3, 2), dtype=torch.int64)  # correct, fooled
    chunk = max(1, VALUES_AT_ONCE // setting.d)
    for begin in range(0, n, chunk):
        size = min(chunk, n - begin)
        x_ND, y_N = setting.sample(size, generator=generator)
        shifted_ND = shift(x_ND, torch.randint(setting.d, (size,), generator=generator))
        first = slice(max(0, attacked - begin))
        for row, model in zip(counts, models, strict=True):
            right_N = _right(model, x_ND, y_N)
            stands_N = withstands(
                model, x_ND[first], y_N[first], eps=setting.eps, generator=generator
            )
            for count, found_N in zip(
                row, (right_N, _right(model, shifted_ND, y_N), stands_N), strict=True
            ):
                count[0] += found_N.sum()
                count[1] += (found_N != right_N[: len(found_N)]).sum()  # of two classes
    return [
        Accuracies(
            **{
                name: ThreatResult(name=name, threat=threat, correct=correct, fooled=fooled, n=of)
                for (name, threat, of), (correct, fooled) in zip(
                    (
                        ("clean", "none", n),
                        ("spatial", "a uniform cyclic shift", n),
                        ("adversarial", _adversary(model, setting), attacked),
                    ),
                    found,
                    strict=True,
                )
            }
        )
        for model, found in zip(models, counts.tolist(), strict=True)
    ]


def withstands(
    model: nn.Module, x_ND: Tensor, y_N: Tensor, *, eps: float, generator: torch.Generator
) -> Tensor:
    """Whether the classifier is right on each sample, and on all that the adversary tries: (N,).

    The first start of PGD is the corner against the label, which is the worst for every linear
    classifier of positive weights; the others are random. A later start meets only what still
    stands.

    Args:
        model: from (N, D) to logits (N,).
        x_ND: samples.
        y_N: labels, -1 or 1.
        eps: radius, 0 or more.
        generator: of the random starts.
    """
    if isinstance(model, Linear):
        return _right(model, worst_corner(model, x_ND, y_N, eps=eps), y_N)
    standing_N = _right(model, x_ND, y_N)
    for number in range(STARTS):
        places_K = standing_N.nonzero().squeeze(1)
        if len(places_K) == 0:
            break
        x_KD, y_K = x_ND[places_K], y_N[places_K]
        start_KD = (
            random_start(x_KD, eps=eps, generator=generator)
            if number
            else x_KD - eps * y_K[:, None]
        )
        found_KD = pgd(model, x_KD, y_K, start_ND=start_KD, eps=eps, steps=STEPS, rel_step=REL_STEP)
        standing_N[places_K] = _right(model, found_KD, y_K)
    return standing_N


def _right(model: nn.Module, x_ND: Tensor, y_N: Tensor) -> Tensor:
    with torch.no_grad():
        right_N: Tensor = y_N * model(x_ND) > 0
    return right_N


def _adversary(model: nn.Module, setting: Setting) -> str:
    how = "exact" if isinstance(model, Linear) else f"PGD-{STEPS}, {STARTS} starts"
    return f"l-inf {setting.eps:g}, {how}"
