"""Training losses on the views of a batch."""

import math
from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
import torch.nn.functional as F
from attrs.validators import and_, ge, le
from torch import Tensor, nn

from curricula.interfaces import AttackLoss, TrainingLoss, Views
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
    """`trades`: cross-entropy at the transformed view, plus ``beta`` times the KL divergence
    from it to the perturbed view (Zhang et al. 2019, equation 5). Its inner attack ascends that KL.

    Args:
        beta: weight of the divergence, 0 or more; 6 is the authors' choice, CuSP takes 5.

    Raises:
        ValueError: a value out of range.
    """

    attack_loss: ClassVar[str] = "kl"

    beta: float = attrs.field(default=6.0, validator=ge(0))

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        transformed, perturbed = model(views.transformed), model(views.perturbed)
        divergence_N = kl_divergence(perturbed, y_N, lambda: transformed)
        value = F.cross_entropy(transformed, y_N) + self.beta * divergence_N.mean()
        return TrainingLoss(value=value, logits=perturbed.detach())


@attrs.frozen(kw_only=True)
class Mart:
    """`mart`: boosted cross-entropy at the perturbed view, plus ``beta`` times the KL divergence
    from the transformed view to it, each image weighted by how unsure the model is of the label
    at the transformed view (Wang et al. 2020, equations 8 to 11).

    Args:
        beta: weight of the divergence, 0 or more; 5 is the authors' choice for a ResNet-18.

    Raises:
        ValueError: a value out of range.
    """

    attack_loss: ClassVar[str] = "ce"

    beta: float = attrs.field(default=5.0, validator=ge(0))

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        transformed, perturbed = model(views.transformed), model(views.perturbed)
        divergence_N = kl_divergence(perturbed, y_N, lambda: transformed)
        unsure_N = 1 - transformed.softmax(1).gather(1, y_N[:, None]).squeeze(1)
        value = (boosted_cross_entropy(perturbed, y_N) + self.beta * divergence_N * unsure_N).mean()
        return TrainingLoss(value=value, logits=perturbed.detach())


def boosted_cross_entropy(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """-log p(y) - log(1 - p(k)), with k the likeliest of the other classes, (N,)."""
    log_p_NK = logits_NK.log_softmax(1)
    label_NK = F.one_hot(y_N, logits_NK.shape[1]).bool()
    rival_N1 = log_p_NK.masked_fill(label_NK, -math.inf).argmax(1, keepdim=True)
    # 1 - p(k) is the sum of all others: so it never rounds to 0.
    not_rival_N = log_p_NK.scatter(1, rival_N1, -math.inf).logsumexp(1)
    return -log_p_NK[label_NK] - not_rival_N


@attrs.frozen(kw_only=True)
class PairedLoss:
    """Cross-entropy at the clean and at the perturbed view, and a distance between the two.

    Both views go through the model in one pass, so batch norm sees them as one batch.

    Attributes:
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed one has the rest.
        weight: of the distance, 0 or more.
        distance: from the clean view's logits, which are its reference.
    """

    attack_loss: ClassVar[str] = "ce"

    clean: float = attrs.field(validator=and_(ge(0), le(1)))
    weight: float = attrs.field(default=0.0, validator=ge(0))
    distance: AttackLoss

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        clean, perturbed = model(torch.cat([views.clean, views.perturbed])).chunk(2)
        entropies = F.cross_entropy(perturbed, y_N), F.cross_entropy(clean, y_N)
        value = torch.lerp(*entropies, self.clean)
        if self.weight:
            value = value + self.weight * self.distance(perturbed, y_N, lambda: clean).mean()
        return TrainingLoss(value=value, logits=perturbed.detach())


def mix(clean: float = 0.5) -> PairedLoss:
    """Cross-entropy at the clean and at the perturbed view (Kurakin et al. 2017, equation 1).

    Args:
        clean: weight of the clean view, in [0, 1]; the perturbed one has the rest.

    Raises:
        ValueError: a value out of range.
    """
    return PairedLoss(clean=clean, distance=squared_difference)


def alp(weight: float = 0.5, clean: float = 0.5) -> PairedLoss:
    """Adversarial logit pairing: `mix`, plus ``weight`` times the mean squared difference of the
    logits of the two views (Kannan et al. 2018, section 3.1; a regulariser of Yang et al. 2019).

    Args:
        weight: of the difference, 0 or more; 0.5 is the authors' choice for ImageNet.
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed one has the rest.

    Raises:
        ValueError: a value out of range.
    """
    return PairedLoss(clean=clean, weight=weight, distance=squared_difference)


def consistency(weight: float = 1.0, clean: float = 0.5) -> PairedLoss:
    """`mix`, plus ``weight`` times the KL divergence from the clean view to the perturbed one: the
    invariance that Yang et al. 2019 ask of a model under transformations.

    Args:
        weight: of the divergence, 0 or more.
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed one has the rest.

    Raises:
        ValueError: a value out of range.
    """
    return PairedLoss(clean=clean, weight=weight, distance=kl_divergence)


def squared_difference(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """Of an image's logits from those of its reference, its mean over the classes, (N,)."""
    return (logits_NK - reference()).square().mean(1)
