"""Training losses on the views of a batch."""

from typing import ClassVar

import attrs
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.interfaces import TrainingLoss, Views
from curricula.losses import kl_divergence


@attrs.frozen(kw_only=True)
class AdversarialTraining:
    """`at`: cross-entropy at the perturbed view (Madry et al. 2018, equation 2.1)."""

    attack_loss: ClassVar[str] = "ce"

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        logits = model(views.perturbed)
        return TrainingLoss(value=F.cross_entropy(logits, y_N), logits=logits.detach())


@attrs.frozen(kw_only=True)
class Trades:
    """`trades`: cross-entropy at the natural view, plus ``beta`` times the KL divergence from it
    to the perturbed view (Zhang et al. 2019, equation 5). Its inner attack ascends that KL.

    Args:
        beta: weight of the divergence, 0 or more; 6 is the authors' choice, CuSP takes 5.
    """

    attack_loss: ClassVar[str] = "kl"

    beta: float = attrs.field(default=6.0, validator=attrs.validators.ge(0))

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        natural, perturbed = model(views.natural), model(views.perturbed)
        divergence_N = kl_divergence(perturbed, y_N, lambda: natural)
        value = F.cross_entropy(natural, y_N) + self.beta * divergence_N.mean()
        return TrainingLoss(value=value, logits=perturbed.detach())
