"""What every model must be: a classifier of images in [0, 1] that can be trained and attacked."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from curricula.errors import UserError
from curricula.victim.model_victim import ModelVictim

LARGER = 1000.0  # far beyond 1, unless a softmax or sigmoid follows
STIR = 0.02  # of the weights: enough to wake a last layer that starts at zero


def check_classifier(
    model: nn.Module, x_NCHW: Tensor, num_classes: int, *, name: str = "the model"
) -> None:
    """Refuse a model that is not a classifier of such images, before anything costly is done.

    The model is only looked at: its weights, gradients, buffers and flags and the global random
    state stay as they are.

    Args:
        model: with any weights.
        x_NCHW: float32 images in [0, 1], two or more (batch norm cannot train on one), on the
            device to try it on.
        num_classes: how many logits an image must have.
        name: what the message calls it.

    Raises:
        UserError: it cannot take the images, or gives no finite floating logits (N, num_classes),
            at rest or in training, or gives probabilities, or no gradient reaches the images.
    """
    problem = _problem(model, x_NCHW, num_classes)
    if problem:
        raise UserError(f"{name} {problem}")


def _problem(model: nn.Module, x_NCHW: Tensor, num_classes: int) -> str | None:
    if not isinstance(model, nn.Module):
        return f"is a {type(model).__name__}; its factory must return a torch.nn.Module"
    for weight_name, weight in model.named_parameters():
        if isinstance(weight, UninitializedParameter):
            return (
                f"has a weight without a shape ({weight_name}); let its factory give the shapes, "
                "or run it once"
            )
    try:
        scratch = copy.deepcopy(model).to(x_NCHW.device)
    except Exception as error:
        return (
            f"cannot be copied, which attacks need ({_one_line(error)}); keep in its attributes "
            "only what copy.deepcopy takes"
        )
    size = "x".join(map(str, x_NCHW.shape[1:]))
    # Written to and drawn from as the network likes: a copy, and random states that are put back.
    with torch.random.fork_rng([x_NCHW.device] if x_NCHW.is_cuda else []):
        for mode, training in (("at rest", False), ("in training mode", True)):
            shown = x_NCHW.clone()
            try:
                with torch.no_grad():
                    output = scratch.train(training)(shown)
            except Exception as error:
                return (
                    f"cannot take images of {size} {mode} ({_one_line(error)}); make it for the "
                    "image_size and in_channels that its factory is given, or choose other images"
                )
            problem = _problem_of_logits(output, len(x_NCHW), num_classes)
            if problem:
                return f"gives {mode} {problem}"
            if not torch.equal(shown, x_NCHW):
                return "writes to its images, which others still need; let it work on a copy"
        return _problem_of_range(scratch, x_NCHW) or _problem_of_gradient(scratch, x_NCHW)


def _problem_of_logits(output: object, n: int, num_classes: int) -> str | None:
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}, not a tensor; let it return the logits alone"
    if output.shape != (n, num_classes):
        return (
            f"an output of shape {tuple(output.shape)} for {n} images of {num_classes} classes; "
            f"it must be ({n}, {num_classes}): its last layer has num_classes outputs"
        )
    if not output.is_floating_point():
        return f"values of type {output.dtype}, not floating logits; let it return the scores"
    if not output.isfinite().all():
        return "logits that are not finite; look for overflow or a division by zero in its layers"
    return None


def _stirred(scratch: nn.Module) -> nn.Module:
    """A copy with a little noise in its weights: what a last layer that starts at zero hides."""
    stirred = copy.deepcopy(scratch)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in stirred.parameters():
            noise = torch.randn(weight.shape, generator=generator) * STIR
            weight.add_(noise.to(weight.device, weight.dtype))
    return stirred


def _settled(scratch: nn.Module, x_NCHW: Tensor) -> nn.Module:
    """A copy whose batch norms have the images' statistics: fresh ones may leave no ReLU awake in
    a narrow network."""
    settled = copy.deepcopy(scratch)
    for part in settled.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
            part.reset_running_stats()
            part.momentum = None  # the average of what it has seen: of one batch, exactly that
    with torch.no_grad():
        settled.train()(x_NCHW.clone())
    return settled.eval()


def _problem_of_range(scratch: nn.Module, x_NCHW: Tensor) -> str | None:
    """Two looks: logits may all lie from 0 to 1 by chance or behind a ReLU, but not when the last
    layer is much larger."""
    larger = _stirred(scratch)
    with torch.no_grad():
        for weight in list(larger.parameters())[-2:]:
            weight.mul_(LARGER)
    for network in (scratch, larger):
        with torch.no_grad():
            output = network.eval()(x_NCHW.clone())
        if output.min() < 0 or output.max() > 1:
            return None
    return (
        "gives at rest probabilities (all from 0 to 1), not logits; leave out its last softmax or "
        "sigmoid"
    )


def _problem_of_gradient(scratch: nn.Module, x_NCHW: Tensor) -> str | None:
    variants: tuple[Callable[[], nn.Module], ...] = (
        lambda: scratch,
        lambda: _stirred(scratch),
        lambda: _settled(scratch, x_NCHW),
    )
    for variant in variants:
        try:
            gradient, _, _ = ModelVictim(variant()).gradient(
                x_NCHW, torch.zeros(len(x_NCHW)), loss=_uneven_sum
            )
        except Exception as error:
            if "does not require grad" not in str(error) and "not have been used" not in str(error):
                return (
                    f"cannot be differentiated in its images ({_one_line(error)}); keep to what "
                    "torch differentiates"
                )
            gradient = torch.zeros(())
        if not gradient.isfinite().all():
            return (
                "has a gradient in its images that is not finite, so that no attack can follow it; "
                "look for a root or a norm at zero in its layers"
            )
        if gradient.any():
            return None
    return (
        "has no gradient in its images, so that no attack can work; leave out what rounds or "
        "detaches them"
    )


def _uneven_sum(logits_NK: Tensor, y_N: Tensor, reference: object) -> Tensor:
    """A loss that never saturates, and that a softmax or a shift does not make constant."""
    weights_K = torch.linspace(-1, 1, logits_NK.shape[1], device=logits_NK.device)
    return (logits_NK * weights_K).sum(1)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
