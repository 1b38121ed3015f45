"""Check that a model is a classifier of images in [0, 1] that can be trained and attacked."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from curricula.errors import UserError
from curricula.losses import uneven_sum
from curricula.runtime.precision import weight_dtype
from curricula.runtime.random_state import seed_torch
from curricula.victim.copies import copied, is_scripted, restored
from curricula.victim.forms import MAX_TRIED, Form, choose_form, least_form
from curricula.victim.frozen import FrozenModel
from curricula.victim.model_victim import ModelVictim, NoGradientError
from curricula.victim.outputs import checked_logits, logits_of, shape_problem, values_problem

WEIGHT_SCALE = 1000.0  # factor; takes logits far above 1, unless a softmax or sigmoid follows
WEIGHT_NOISE = 0.02  # standard deviation; gives a last layer that starts at zero a gradient


def check_classifier(
    model: nn.Module, x_NCHW: Tensor, num_classes: int, *, name: str = "the model"
) -> None:
    """Check that a model maps the images to logits (N, num_classes) and can be trained and
    attacked.

    The check changes neither the model's weights, gradients, buffers or flags nor the global random
    state.

    Args:
        model: the model, with any weights.
        x_NCHW: float32 images in [0, 1], two or more (batch norm cannot train on one), on the
            device to run the model on.
        num_classes: number of logits for each image.
        name: name of the model in messages.

    Raises:
        UserError: the model fails on the images; in eval or training mode its output is not finite
            floating logits (N, num_classes); its output is probabilities; or no gradient reaches
            the images.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> check_classifier(model, torch.rand(2, 1, 2, 2), num_classes=3)
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise UserError(f"{name} is a {kind}; its factory must return a torch.nn.Module")
    try:
        _check_classifier(model, x_NCHW, num_classes)
    except _ProblemError as problem:
        raise UserError(f"{name} {problem}") from problem.__cause__


class _ProblemError(Exception):
    """A model is no trainable classifier; the message follows its name."""


def check_measurable(
    model: nn.Module, x_NCHW: Tensor, y_N: Tensor, num_classes: int | None = None
) -> int:
    """Check that a model maps the images to finite logits (N, K), and has a class for every label;
    return K.

    Unlike `check_classifier` it says nothing on what the logits are worth: an audit finds that.

    Args:
        model: the model, on the images' device. It is not changed.
        x_NCHW: some of the images.
        y_N: all labels.
        num_classes: K, where it is known.

    Raises:
        UserError: the model fails on the images, or cannot be run in eval mode without changing
            it; its output is not finite floating logits (N, K); a label is K or more.
    """
    if problem := weight_problem(model):
        raise UserError(f"the model {problem}")
    with torch.random.fork_rng([x_NCHW.device] if x_NCHW.is_cuda else []), torch.no_grad():
        try:
            classes = ModelVictim(model).logits(x_NCHW).shape[1]
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the model cannot take images of {'x'.join(map(str, x_NCHW.shape[1:]))} "
                f"({_one_line(error)}); build it for them, or choose other images"
            ) from error
    if num_classes not in (None, classes):
        raise UserError(
            f"the model has {classes} outputs for each image, and the data have {num_classes} "
            "classes; give its last layer an output for each class"
        )
    low, high = map(int, y_N.aminmax())
    if high >= classes:
        from_1 = (low, high) == (1, classes)
        fix = "number them from 0: labels - 1" if from_1 else "give its last layer one for each"
        raise UserError(f"the model has {classes} outputs, and the labels reach {high}; {fix}")
    return classes


def weight_problem(model: nn.Module) -> str | None:
    """Return a message on a weight that has no shape yet, as of a lazy layer, or no values, to
    follow the model's name; None if there is none."""
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(weight, (UninitializedParameter, UninitializedBuffer)):
            return f"has a weight without a shape ({name}); run it once on images"
        if weight.is_meta:
            return (
                f"has a weight without values ({name}, on the device meta); make it on the CPU, or "
                "load its weights"
            )
    return None


def _check_classifier(model: nn.Module, x_NCHW: Tensor, num_classes: int) -> None:
    if problem := weight_problem(model):
        raise _ProblemError(problem)
    try:
        scratch = copied(model).to(x_NCHW.device)
    except Exception as error:
        raise _ProblemError(
            f"cannot be copied, which training needs ({_one_line(error)}); keep only attributes "
            "that copy.deepcopy can copy"
        ) from error
    # The network may write to its tensors and draw random numbers: it is a copy, and the random
    # states are restored. They are seeded, so that all processes and runs find the same.
    with torch.random.fork_rng([x_NCHW.device] if x_NCHW.is_cuda else []):
        seed_torch(0)
        with restored(model):  # a copy of it may run its own modules
            logits_NK = _checked_pass(scratch, x_NCHW, num_classes, training=False)
            _checked_pass(scratch, x_NCHW, num_classes, training=True)
        form = _checked_form(model, x_NCHW)
        _check_range(scratch, x_NCHW, logits_NK)
        _check_gradient(scratch, x_NCHW, form)


def _checked_pass(
    scratch: nn.Module, x_NCHW: Tensor, num_classes: int, *, training: bool
) -> Tensor:
    """Return the logits of a model in eval or training mode, which it is left in, after checking
    that they are logits and that the images are unchanged."""
    mode = "in training mode" if training else "in eval mode"
    images = _images_for(scratch, x_NCHW)
    shown = images.clone()
    try:
        scratch.train(training)
        with torch.no_grad():
            output = scratch(shown)
    except Exception as error:
        size = "x".join(map(str, x_NCHW.shape[1:]))
        raise _ProblemError(
            f"cannot take images of {size} {mode} ({_one_line(error)}); build it for the "
            "image_size and in_channels passed to its factory, or choose other images"
        ) from error
    problem = shape_problem(output, len(x_NCHW), num_classes)
    if problem := problem or values_problem(logits_of(output)):
        raise _ProblemError(f"{mode} returns {problem}")
    if not torch.equal(shown, images):
        raise _ProblemError("writes to its images, which are used again; let it work on a copy")
    logits_NK: Tensor = logits_of(output)
    return logits_NK


def _checked_form(model: nn.Module, x_NCHW: Tensor) -> Form:
    """Return the form in which a frozen copy runs a model, after checking that the model runs no
    modules or weights that do not belong to it."""
    x = _images_for(model, x_NCHW[:MAX_TRIED])
    x = x.to(next((weight.device for weight in model.parameters()), x.device))
    try:
        form = choose_form(model, x, least_form(model)).form
    except UserError as error:
        raise _ProblemError(str(error).removeprefix("the model ")) from error
    if form is Form.ITSELF and not is_scripted(model):
        raise _ProblemError(
            "runs modules or weights that do not belong to it, which checkpoints and averages "
            "would not have; assign them to attributes, and write its forward as a method of its "
            "class"
        )
    return form


def _images_for(network: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Return a copy of images in the dtype of a network's weights."""
    return x_NCHW.detach().to(weight_dtype(network) or x_NCHW.dtype, copy=True)


def _eval_logits(network: nn.Module, x_NCHW: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        return checked_logits(network(_images_for(network, x_NCHW)), len(x_NCHW))


def _perturbed_weights(scratch: nn.Module) -> nn.Module:
    """Return a copy of a model with noise added to its weights, since a last layer may start at
    zero."""
    perturbed = copied(scratch)
    perturbed.train()  # some networks have other weights in eval mode
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in perturbed.parameters():
            noise = torch.randn(weight.shape, generator=generator) * WEIGHT_NOISE
            weight.add_(noise.to(weight.device, weight.dtype))
    return perturbed


def _calibrated(scratch: nn.Module, x_NCHW: Tensor) -> nn.Module:
    """Return a copy of a model in eval mode whose batch norms have the images' statistics.

    With the initial statistics, every ReLU of a narrow network may be inactive on all images.
    """
    calibrated = copied(scratch)
    for layer in calibrated.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average: after one batch, that batch's statistics
    with torch.no_grad():
        calibrated.train()
        calibrated(_images_for(calibrated, x_NCHW))
    return calibrated


def _check_range(scratch: nn.Module, x_NCHW: Tensor, logits_NK: Tensor) -> None:
    """Check that a model's outputs are logits, not probabilities.

    Logits may all lie between 0 and 1 by chance or after a ReLU, but not once the last layer's
    weights are scaled up.
    """
    if _are_shares(logits_NK) and _are_shares(_eval_logits(_larger_logits(scratch), x_NCHW)):
        raise _ProblemError(
            "in eval mode returns probabilities (all from 0 to 1), not logits; leave out its last "
            "softmax or sigmoid"
        )


def _are_shares(logits_NK: Tensor) -> bool:
    """Return whether all values lie from 0 to 1."""
    return bool(logits_NK.min() >= 0 and logits_NK.max() <= 1)


def _larger_logits(scratch: nn.Module) -> nn.Module:
    """Return a copy of a model with noise added to its weights, and its last layer scaled up."""
    larger = _perturbed_weights(scratch)
    with torch.no_grad():
        for weight in list(larger.parameters())[-2:]:
            weight.mul_(WEIGHT_SCALE)
    return larger


def _check_gradient(scratch: nn.Module, x_NCHW: Tensor, form: Form) -> None:
    """Check that a finite gradient reaches the images, for some weights of a model.

    Args:
        scratch: the model.
        x_NCHW: the images.
        form: the form in which a frozen copy runs it.
    """
    variants: tuple[Callable[[], nn.Module], ...] = (
        lambda: scratch,
        lambda: _perturbed_weights(scratch),
        lambda: _calibrated(scratch, x_NCHW),
    )
    for variant in variants:
        try:
            gradient = _gradient(variant(), x_NCHW, form)
        except NoGradientError:
            continue
        except Exception as error:
            raise _ProblemError(
                f"cannot be differentiated in its images ({_one_line(error)}); use only "
                "operations that torch differentiates"
            ) from error
        if not gradient.isfinite().all():
            raise _ProblemError(
                "has a gradient in its images that is not finite, so no attack can use it; "
                "look for a square root or a norm at zero in its layers"
            )
        if gradient.any():
            return
    raise _ProblemError(
        "has no gradient in its images, so no attack can work; leave out operations that round "
        "or detach them"
    )


def _gradient(network: nn.Module, x_NCHW: Tensor, form: Form) -> Tensor:
    """Return the gradient of a network in its images, run by a frozen copy in a known form."""
    victim = ModelVictim(network, fast=False)
    frozen = victim.as_module()
    assert isinstance(frozen, FrozenModel)
    frozen.use_form((False, False, form is Form.SHARED))
    gradient, _, _ = victim.gradient(x_NCHW, torch.zeros(len(x_NCHW)), loss=uneven_sum)
    return gradient


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
