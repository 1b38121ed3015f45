"""Train models in the setting, on new samples at every update, so that nothing can overfit.

Legend of shapes: N samples, D features.
"""

import math

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curricula.interfaces import Progress, Schedule
from curricula.schedules.curves import constant, linear
from curricula.training.learning_rate import cosine
from curricula_theory.classifiers import Linear, pgd, random_start, worst_corner
from curricula_theory.setting import Setting, shift

BATCH_SIZE = 128  # samples per update
ATTACK_STEPS, ATTACK_REL_STEP = 5, 2.5 / 5  # steps, share of eps per step (the library's default)
NUM_FINAL_SAMPLES = 10_000  # samples of the final loss


@attrs.frozen(kw_only=True)
class Method:
    """The perturbations that a model is trained with: shifts, attacks or both, with or without a
    curriculum.

    Attributes:
        name: name of the method, without its curriculum.
        shifts: shift samples, by 0 to D - 1 places at full strength.
        attacks: attack samples, within eps at full strength.
        apart: give each sample one of the two at random; otherwise shift it, then attack it.
        curriculum: raise the strengths by the library's schedule ``linear``, over the first 40 % of
            training; otherwise they are always full.
    """

    name: str
    shifts: bool = False
    attacks: bool = False
    apart: bool = False
    curriculum: bool = False

    @property
    def schedule(self) -> Schedule:
        """Schedule of the strength, which shifts and attacks share."""
        return linear() if self.curriculum else constant()


METHODS = (
    Method(name="plain"),
    Method(name="augmented", shifts=True),
    Method(name="adversarial", attacks=True),
    Method(name="adversarial", attacks=True, curriculum=True),
    Method(name="both", shifts=True, attacks=True),
    Method(name="both", shifts=True, attacks=True, curriculum=True),
    Method(name="either", shifts=True, attacks=True, apart=True),
    Method(name="either", shifts=True, attacks=True, apart=True, curriculum=True),
)


def perturbed(
    model: nn.Module,
    x_ND: Tensor,
    y_N: Tensor,
    *,
    setting: Setting,
    method: Method,
    strength: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the samples x_ND, shifted and attacked by a method at a strength.

    Args:
        model: the model to attack: exactly if it is `Linear`, otherwise by PGD-5 from a random
            start.
        x_ND: samples.
        y_N: labels, -1 or 1.
        setting: states eps.
        method: the perturbations to apply.
        strength: share of eps and of the range of the shifts, in [0, 1].
        generator: source of all random numbers.
    """
    n, d = x_ND.shape
    shares = torch.rand((n, 1), generator=generator) < 0.5 if method.apart else None
    if method.shifts:
        farthest = round(strength * (d - 1))
        places_N = torch.randint(farthest + 1, (n,), generator=generator)
        if shares is not None:
            places_N *= shares.squeeze(1)
        x_ND = shift(x_ND, places_N)
    if not method.attacks:
        return x_ND
    eps = strength * setting.eps
    if isinstance(model, Linear):
        attacked_ND = worst_corner(model, x_ND, y_N, eps=eps)
    else:
        start_ND = random_start(x_ND, eps=eps, generator=generator)
        attacked_ND = pgd(
            model, x_ND, y_N, start_ND=start_ND, eps=eps, steps=ATTACK_STEPS,
            rel_step=ATTACK_REL_STEP,
        )  # fmt: skip
    return attacked_ND if shares is None else torch.where(shares, x_ND, attacked_ND)


def train(
    model: nn.Module,
    setting: Setting,
    method: Method,
    *,
    updates: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Train a model in place by Adam on the logistic loss, with a cosine learning rate.

    Args:
        model: maps (N, D) to logits (N,).
        setting: distribution of the samples.
        method: perturbations of the samples.
        updates: number of updates, 1 or more, on 128 new samples each.
        lr: highest learning rate, above 0.
        generator: source of all random numbers.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = cosine()
    for step in range(updates):
        progress = Progress(step=step, total_steps=updates, epoch=step, total_epochs=updates)
        for group in optimizer.param_groups:
            group["lr"] = lr * decay(progress)
        x_ND, y_N = setting.sample(BATCH_SIZE, generator=generator)
        x_ND = perturbed(
            model, x_ND, y_N, setting=setting, method=method,
            strength=float(method.schedule(progress, {})), generator=generator,
        )  # fmt: skip
        loss = F.softplus(-y_N * model(x_ND)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def final_loss(
    model: nn.Module, setting: Setting, method: Method, *, generator: torch.Generator
) -> float:
    """Return the mean logistic loss on new samples, perturbed by a method at full strength.

    A classifier whose logits are all 0 has the loss log 2; see `collapsed`.
    """
    x_ND, y_N = setting.sample(NUM_FINAL_SAMPLES, generator=generator)
    x_ND = perturbed(
        model, x_ND, y_N, setting=setting, method=method, strength=1.0, generator=generator
    )
    with torch.no_grad():
        return float(F.softplus(-y_N * model(x_ND)).mean())


def collapsed(loss: float) -> bool:
    """Return whether a model learned nothing: whether its final loss is above 0.99 log 2.

    >>> collapsed(0.69), collapsed(0.1)
    (True, False)
    """
    return loss > 0.99 * math.log(2)
