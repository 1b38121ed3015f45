"""Clean, spatial and adversarial accuracy of any classifier of the setting, by sampling.

Legend of shapes: N samples, D features, K samples that are still classified correctly.
"""

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn

from curricula.evaluation.results import ThreatResult
from curricula_theory.classifiers import Linear, pgd, random_start, worst_corner
from curricula_theory.setting import Setting, shift

# The library's standard attack, PGD-40 with steps of eps / 10, from several starts.
ATTACK_STEPS, ATTACK_REL_STEP, NUM_STARTS = 40, 1 / 10, 5
MAX_VALUES = 2**21  # float32 values per chunk: 8 MiB, small enough for most caches


@attrs.frozen(kw_only=True)
class Accuracies:
    """Clean, spatial and adversarial accuracy of one classifier by sampling, each with its 95 %
    interval."""

    clean: ThreatResult
    spatial: ThreatResult
    adversarial: ThreatResult


def simulate(
    setting: Setting,
    models: Sequence[nn.Module],
    *,
    n: int,
    attacked: int | None = None,
    generator: torch.Generator,
) -> list[Accuracies]:
    """Return each model's accuracies on N new samples: clean, under a uniform cyclic shift, and
    under attack.

    All models see the same samples and shifts. The attack is exact for a `Linear` model. For any
    other model it is PGD-40 from five starts, which may miss a worse input, so that accuracy is an
    upper bound of the true one.

    Args:
        setting: the distribution and the adversary.
        models: each maps (N, D) to logits (N,).
        n: number of samples, 1 or more.
        attacked: number of samples to attack, the first ones, from 1 to n; by default all.
        generator: source of all random numbers.
    """
    attacked = n if attacked is None else attacked
    counts = torch.zeros((len(models), 3, 2), dtype=torch.int64)  # correct, fooled
    chunk = max(1, MAX_VALUES // setting.d)
    for begin in range(0, n, chunk):
        size = min(chunk, n - begin)
        x_ND, y_N = setting.sample(size, generator=generator)
        shifted_ND = shift(x_ND, torch.randint(setting.d, (size,), generator=generator))
        first = slice(max(0, attacked - begin))
        for row, model in zip(counts, models, strict=True):
            right_N = _right(model, x_ND, y_N)
            robust_N = withstands(
                model, x_ND[first], y_N[first], eps=setting.eps, generator=generator
            )
            for count, found_N in zip(
                row, (right_N, _right(model, shifted_ND, y_N), robust_N), strict=True
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
    """Return a mask (N,) of the samples that stay correctly classified under an l-inf attack of
    radius eps.

    The first start of PGD is the corner against the label, the worst input for every linear
    classifier of positive weights; the others are random. Each later start attacks only the
    samples that are still classified correctly.

    Args:
        model: maps (N, D) to logits (N,).
        x_ND: samples.
        y_N: labels, -1 or 1.
        eps: radius, 0 or more.
        generator: source of the random starts.
    """
    if isinstance(model, Linear):
        return _right(model, worst_corner(model, x_ND, y_N, eps=eps), y_N)
    robust_N = _right(model, x_ND, y_N)
    for number in range(NUM_STARTS):
        places_K = robust_N.nonzero().squeeze(1)
        if len(places_K) == 0:
            break
        x_KD, y_K = x_ND[places_K], y_N[places_K]
        start_KD = (
            random_start(x_KD, eps=eps, generator=generator)
            if number
            else x_KD - eps * y_K[:, None]
        )
        found_KD = pgd(
            model,
            x_KD,
            y_K,
            start_ND=start_KD,
            eps=eps,
            steps=ATTACK_STEPS,
            rel_step=ATTACK_REL_STEP,
        )
        robust_N[places_K] = _right(model, found_KD, y_K)
    return robust_N


def _right(model: nn.Module, x_ND: Tensor, y_N: Tensor) -> Tensor:
    """Return a mask (N,) of the samples that are classified correctly."""
    with torch.no_grad():
        right_N: Tensor = y_N * model(x_ND) > 0
    return right_N


def _adversary(model: nn.Module, setting: Setting) -> str:
    how = "exact" if isinstance(model, Linear) else f"PGD-{ATTACK_STEPS}, {NUM_STARTS} starts"
    return f"l-inf {setting.eps:g}, {how}"
