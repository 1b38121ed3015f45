"""Training losses on the clean, transformed and perturbed images of a batch."""

import math
from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
import torch.nn.functional as F
from attrs.validators import and_, ge, le
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from curricula.interfaces import AttackLoss, TrainingLoss, Views
from curricula.losses import kl_divergence, nuclear_norm_parts

MAX_WEIGHT = 1e6  # weight of a term of a loss
valid_weight = and_(ge(0.0), le(MAX_WEIGHT))


@attrs.frozen(kw_only=True)
class AdversarialTraining:
    """`at`: cross-entropy at the perturbed view (Madry et al. 2018, equation 2.1).

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = AdversarialTraining()(model, views, y)
        >>> bool(loss.value == F.cross_entropy(model(x), y))
        True
    """

    attack_loss: ClassVar[str] = "ce"

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        logits = model(views.perturbed)
        return TrainingLoss(value=F.cross_entropy(logits, y_N), logits=logits.detach())


@attrs.frozen(kw_only=True)
class Trades:
    """`trades`: cross-entropy at the transformed view, plus ``beta`` times the KL divergence
    from it to the perturbed view (Zhang et al. 2019, equation 5). The inner attack ascends this KL
    divergence.

    The authors' code starts the attack close to the image instead of uniformly in the ball, and
    passes the unperturbed images through the network twice; docs/expressions.md says what that
    changes.

    Args:
        beta: weight of the divergence, from 0 to 1e6; the authors use 6, CuSP uses 5.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = Trades(beta=5.0)(model, views, y)  # no perturbation, so no divergence
        >>> torch.allclose(loss.value, F.cross_entropy(model(x), y))
        True
    """

    attack_loss: ClassVar[str] = "kl"

    beta: float = attrs.field(default=6.0, validator=valid_weight)

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        return loss_with_distance(model, views, y_N, self.beta, kl_divergence)


def loss_with_distance(
    model: nn.Module, views: Views, y_N: Tensor, weight: float, distance: AttackLoss
) -> TrainingLoss:
    """Return the cross-entropy at the transformed view plus ``weight`` times the mean distance from
    its logits to those of the perturbed view.

    Args:
        model: the network.
        views: the views of a batch.
        y_N: labels.
        weight: weight of the distance.
        distance: per-example loss at the perturbed view, with the transformed view's logits as
            reference.
    """
    transformed, perturbed = model(views.transformed), model(views.perturbed)
    distance_N = distance(perturbed, y_N, lambda: transformed)
    value = F.cross_entropy(transformed, y_N) + weight * distance_N.mean()
    return TrainingLoss(value=value, logits=perturbed.detach())


@attrs.frozen(kw_only=True)
class Mart:
    """`mart`: boosted cross-entropy at the perturbed view, plus ``beta`` times the KL divergence
    from the transformed view to the perturbed one, where each image has the weight 1 - p, with p
    the probability of its label at the transformed view (Wang et al. 2020, equations 8 to 11).

    The authors' code bounds the boosted term at 9.2 by 1.0001 in place of 1; docs/expressions.md
    says what that changes.

    Args:
        beta: weight of the divergence, from 0 to 1e6; the authors use 5 for a ResNet-18.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = Mart()(model, views, y)
        >>> torch.allclose(loss.value, boosted_cross_entropy(model(x), y).mean())
        True
    """

    attack_loss: ClassVar[str] = "ce"

    beta: float = attrs.field(default=5.0, validator=valid_weight)

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        transformed, perturbed = model(views.transformed), model(views.perturbed)
        divergence_N = kl_divergence(perturbed, y_N, lambda: transformed)
        uncertainty_N = 1 - transformed.softmax(1).gather(1, y_N[:, None]).squeeze(1)
        loss_N = boosted_cross_entropy(perturbed, y_N) + self.beta * divergence_N * uncertainty_N
        return TrainingLoss(value=loss_N.mean(), logits=perturbed.detach())


def boosted_cross_entropy(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Return -log p(y) - log(1 - p(k)) of each image, (N,), with k its most probable class other
    than y.

    Example:
        >>> boosted_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))  # 2 log 2
        tensor([1.3863])
    """
    log_p_NK = logits_NK.log_softmax(1)
    label_NK = F.one_hot(y_N, logits_NK.shape[1]).bool()
    rival_N1 = log_p_NK.masked_fill(label_NK, -math.inf).argmax(1, keepdim=True)
    # 1 - p(k) as the sum of all other probabilities, so that it never rounds to 0.
    not_rival_N = log_p_NK.scatter(1, rival_N1, -math.inf).logsumexp(1)
    return -log_p_NK[label_NK] - not_rival_N


@attrs.frozen(kw_only=True)
class GuidedLoss:
    """Cross-entropy at the transformed view, plus a distance between the logits of the transformed
    and the perturbed view. The attack ascends cross-entropy plus the same distance.

    Attributes:
        weight: weight of the distance, from 0 to 1e6.
        distance: per-example loss at the perturbed view, with the transformed view's logits as
            reference.
    """

    weight: float = attrs.field(validator=valid_weight)
    distance: AttackLoss

    def attack_loss(
        self, logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]
    ) -> Tensor:
        """Return each image's cross-entropy plus ``weight`` times its distance, (N,)."""
        entropy_N = F.cross_entropy(logits_NK, y_N, reduction="none")
        return entropy_N + self.weight * self.distance(logits_NK, y_N, reference)

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        return loss_with_distance(model, views, y_N, self.weight, self.distance)


def gat(weight: float = 10.0) -> GuidedLoss:
    """`gat`, guided adversarial training: cross-entropy at the transformed view, plus ``weight``
    times the squared distance between the probabilities of the two views, summed over the classes
    (Sriramanan et al. 2020, "Guided adversarial attack for evaluating and enhancing adversarial
    defenses").

    The attack ascends cross-entropy at the perturbed view plus the same term. The paper's attack is
    ``rfgsm(rel_step=1, bernoulli=0.5)``, or with ``bernoulli=1`` on MNIST. The authors' code raises
    the weight late in training and leaves the term out of every other attack; this does neither:
    docs/expressions.md says more.

    Args:
        weight: weight of the distance, from 0 to 1e6; the authors' code begins with 10 on CIFAR-10
            and with 15 on MNIST.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = gat(weight=2.0)(model, views, y)
        >>> change = model(0.5 * x).softmax(1) - model(x).softmax(1)
        >>> expected = F.cross_entropy(model(x), y) + 2.0 * change.square().sum(1).mean()
        >>> torch.allclose(loss.value, expected)
        True
    """
    return GuidedLoss(weight=weight, distance=squared_change_of_probabilities)


def squared_change_of_probabilities(
    logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]
) -> Tensor:
    """Return the squared distance between each image's probabilities and those of its reference,
    (N,)."""
    return (logits_NK.softmax(1) - reference().softmax(1)).square().sum(1)


def nuat(weight: float = 4.5) -> GuidedLoss:
    """`nuat`, nuclear-norm adversarial training: cross-entropy at the transformed view, plus
    ``weight`` / N times the nuclear norm (the sum of the singular values) of the matrix (N, K) of
    differences between the logits of the two views (Sriramanan et al. 2021, "Towards efficient and
    effective adversarial training").

    The attack ascends cross-entropy at the perturbed view plus the same norm. The paper's attack is
    ``rfgsm(rel_step=1, bernoulli=0.5)``.

    The paper's formula divides by no N; the authors' code does. The code also raises the weight
    from 0 in a straight line, and leaves the norm out of every other attack; this does neither:
    docs/expressions.md says more.

    Args:
        weight: weight of the norm, from 0 to 1e6; the authors' code ends at 4.5 for a ResNet-18 and
            batches of 64.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = nuat(weight=4.0)(model, views, y)
        >>> norm = torch.linalg.matrix_norm(model(0.5 * x) - model(x), ord="nuc")
        >>> torch.allclose(loss.value, F.cross_entropy(model(x), y) + norm)
        True
    """
    return GuidedLoss(weight=weight, distance=nuclear_norm_of_change)


def nuclear_norm_of_change(
    logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]
) -> Tensor:
    """Return each image's part of the nuclear norm of the logits minus their reference, (N,)."""
    return nuclear_norm_parts(logits_NK - reference())


@attrs.frozen(kw_only=True)
class GradAlign:
    """`gradalign`: cross-entropy at the perturbed view, plus ``weight`` times 1 - cos, with cos the
    cosine between the gradients of the cross-entropy at the transformed view x and at x + eta
    (Andriushchenko and Flammarion 2020, "Understanding and improving fast adversarial training").
    It keeps the gradients that an attack of one step follows, such as ``fgsm``, from being masked.

    eta is uniform in [-eps, eps] and is not clipped to [0, 1]; eps is the largest change of the
    image by its attack, which for ``fgsm`` is the current radius. Images whose gradient is zero do
    not count. The authors' code takes the gradient at x as a constant; docs/expressions.md says
    what the loss costs.

    Args:
        weight: weight of 1 - cos, from 0 to 1e6; the authors use 0.2 for eps 8/255 on CIFAR-10,
            and 2 for 16/255.

    Raises:
        ValueError: a value out of range.

    Example:
        The gradients of a linear network with two classes all point the same way.

        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> loss = GradAlign()(model, views, y)
        >>> torch.allclose(loss.value, F.cross_entropy(model(0.5 * x), y))
        True
    """

    attack_loss: ClassVar[str] = "ce"

    weight: float = attrs.field(default=0.2, validator=valid_weight)

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        x = views.transformed
        eps_N111 = (views.perturbed - x).abs().amax(dim=(1, 2, 3), keepdim=True)
        both = torch.cat([x, x + eps_N111 * (2 * torch.rand_like(x) - 1)]).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            entropy = F.cross_entropy(model(both.clone()), y_N.repeat(2), reduction="sum")
        (gradients,) = torch.autograd.grad(entropy, both, create_graph=True)
        at_x_ND, nearby_ND = _directions(gradients).chunk(2)
        counts_N = at_x_ND.any(1) & nearby_ND.any(1)
        misaligned_N = torch.where(counts_N, 1 - (at_x_ND * nearby_ND).sum(1), 0)
        logits = model(views.perturbed)
        value = F.cross_entropy(logits, y_N)
        value = value + self.weight * misaligned_N.sum() / counts_N.sum().clamp_min(1)
        return TrainingLoss(value=value, logits=logits.detach())


def _directions(gradient_NCHW: Tensor) -> Tensor:
    """Return each image's gradient divided by its length, (N, D); zero where it is zero."""
    largest = gradient_NCHW.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient_NCHW / torch.where(largest > 0, largest, 1)  # so that no square underflows
    return F.normalize(scaled.flatten(1))


@attrs.frozen(kw_only=True)
class PairedLoss:
    """Cross-entropy at the clean and at the perturbed view, plus a distance between their logits.

    Both views pass through the model as one batch, also for batch norm.

    Attributes:
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed view has the
            weight 1 - clean.
        weight: weight of the distance, from 0 to 1e6.
        distance: per-example loss at the perturbed view, with the clean view's logits as reference.
    """

    attack_loss: ClassVar[str] = "ce"

    clean: float = attrs.field(validator=and_(ge(0), le(1)))
    weight: float = attrs.field(default=0.0, validator=valid_weight)
    distance: AttackLoss

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        clean, perturbed = model(torch.cat([views.clean, views.perturbed])).chunk(2)
        entropies = F.cross_entropy(perturbed, y_N), F.cross_entropy(clean, y_N)
        value = torch.lerp(*entropies, self.clean)
        if self.weight:
            value = value + self.weight * self.distance(perturbed, y_N, lambda: clean).mean()
        return TrainingLoss(value=value, logits=perturbed.detach())


def mix(clean: float = 0.5) -> PairedLoss:
    """`mix`: cross-entropy at the clean and at the perturbed view (Kurakin et al. 2017, eq. 1).

    Args:
        clean: weight of the clean view, in [0, 1]; the perturbed view has the weight 1 - clean.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = mix(clean=1.0)(model, views, y)  # only the clean view
        >>> torch.allclose(loss.value, F.cross_entropy(model(x), y))
        True
    """
    return PairedLoss(clean=clean, distance=squared_difference)


def alp(weight: float = 0.5, clean: float = 0.5) -> PairedLoss:
    """`alp`, adversarial logit pairing: `mix`, plus ``weight`` times the mean squared difference
    between the logits of the two views (Kannan et al. 2018, section 3.1; also a regulariser of Yang
    et al. 2019).

    Args:
        weight: weight of the difference, from 0 to 1e6; the authors use 0.5 for ImageNet.
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed view has the
            weight 1 - clean.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> bool(alp()(model, views, y).value > mix()(model, views, y).value)
        True
    """
    return PairedLoss(clean=clean, weight=weight, distance=squared_difference)


def consistency(weight: float = 1.0, clean: float = 0.5) -> PairedLoss:
    """`consistency`: `mix`, plus ``weight`` times the KL divergence from the clean view to the
    perturbed one, the invariance regulariser of Yang et al. (2019) for spatial transformations.

    Args:
        weight: weight of the divergence, from 0 to 1e6.
        clean: weight of the clean view's cross-entropy, in [0, 1]; the perturbed view has the
            weight 1 - clean.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> views = Views(clean=x, transformed=x, perturbed=0.5 * x)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> bool(consistency()(model, views, y).value > mix()(model, views, y).value)
        True
    """
    return PairedLoss(clean=clean, weight=weight, distance=kl_divergence)


def squared_difference(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """Return the mean squared difference over classes between each image's logits and its reference
    logits, (N,)."""
    return (logits_NK - reference()).square().mean(1)
