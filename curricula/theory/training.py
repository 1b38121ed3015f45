"""Training in the setting, on fresh samples at every update: there is nothing to overfit.

Legend of shapes: N samples, D features.
"""

import math

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curricula.interfaces import Progress, Schedule
from curricula.schedules.curves import constant, linear
from curricula.theory.classifiers import Linear, pgd, random_start, worst_corner
from curricula.theory.setting import Setting, shift
from curricula.training.learning_rate import cosine

BATCH_SIZE = 128
ATTACK_STEPS, ATTACK_REL_STEP = 5, 2.5 / 5  # the library's default length, 2.5 / steps
JUDGED_ON = 10_000  # samples that tell a collapsed model


@attrs.frozen(kw_only=True)
class Method:
    """What a model is trained on.

    Attributes:
        name: of the method, without its curriculum.
        shifts: samples are shifted by 0 to D - 1 places at full strength.
        attacks: samples are attacked within eps at full strength.
        apart: of the two each sample meets one, at random; else it is attacked once shifted.
        curriculum: strengths rise in a straight line over the first 40 % of training, the library's
            schedule ``linear``; else they are full throughout.
    """

    name: str
    shifts: bool = False
    attacks: bool = False
    apart: bool = False
    curriculum: bool = False

    @property
    def schedule(self) -> Schedule:
        """Of both strengths."""
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
    """The samples as a method shows them to the model, x_ND.

    Args:
        model: whom the attack is aimed at: exactly if it is `Linear`, else by PGD-5 from a random
            start.
        x_ND: samples.
        y_N: labels, -1 or 1.
        setting: for the size of the adversary.
        method: what is done.
        strength: in [0, 1]: the share of eps, and of the range of the shifts.
        generator: of all that is drawn.
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
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    """Train a model in place, by Adam on the logistic loss; the learning rate falls along a cosine.

    Args:
        model: from (N, D) to logits (N,).
        setting: where samples come from.
        method: what is done to them.
        updates: 1 or more, each on 128 fresh samples.
        learning_rate: the highest, above 0.
        generator: of all that is drawn.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    falls = cosine()
    for step in range(updates):
        progress = Progress(step=step, total_steps=updates, epoch=step, total_epochs=updates)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * falls(progress)
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
    """The mean logistic loss under what the model was trained for, at full strength.

    It is taken on fresh samples. A classifier that knows nothing, of logit 0, has log 2:
    see `collapsed`.
    """
    x_ND, y_N = setting.sample(JUDGED_ON, generator=generator)
    x_ND = perturbed(
        model, x_ND, y_N, setting=setting, method=method, strength=1.0, generator=generator
    )
    with torch.no_grad():
        return float(F.softplus(-y_N * model(x_ND)).mean())


def collapsed(loss: float) -> bool:
    """Whether a model of this `final_loss` has learned nothing: it is within 1 % of log 2, or
    above."""
    return loss > 0.99 * math.log(2)
