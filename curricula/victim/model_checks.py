"""Check that a model is a classifier of images in [0, 1] that can be trained and attacked."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from curricula.errors import UserError
from curricula.runtime.precision import weight_dtype
from curricula.victim.copies import copied, is_scripted, restored
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.forms import Form, choose_form, least_form
from curricula.victim.model_victim import ModelVictim
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
    problem = _problem(model, x_NCHW, num_classes)
    if problem:
        raise UserError(f"{name} {problem}")


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
    if problem := _shapeless_weight(model):
        raise UserError(f"the model {problem}; run it once on images")
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
    if int(y_N.max()) >= classes:
        raise UserError(
            f"the model has {classes} classes, and labels reach {int(y_N.max())}; give its "
            "last layer an output for each class"
        )
    return classes


def _shapeless_weight(model: nn.Module) -> str | None:
    """Return a message on a lazy layer's weight that has no shape yet; None if there is none."""
    for name, weight in model.named_parameters():
        if isinstance(weight, UninitializedParameter):
            return f"has a weight without a shape ({name})"
    return None


def _problem(model: nn.Module, x_NCHW: Tensor, num_classes: int) -> str | None:
    if not isinstance(model, nn.Module):
        return f"is a {type(model).__name__}; its factory must return a torch.nn.Module"
    if problem := _shapeless_weight(model):
        return f"{problem}; let its factory set all shapes, or run the model once"
    try:
        scratch = copied(model).to(x_NCHW.device)
    except Exception as error:
        return (
            f"cannot be copied, which training needs ({_one_line(error)}); keep only attributes "
            "that copy.deepcopy can copy"
        )
    # The network may write to its tensors and draw random numbers: it is a copy, and the random
    # states are restored. They are seeded, so that all processes and runs find the same.
    with torch.random.fork_rng([x_NCHW.device] if x_NCHW.is_cuda else []):
        torch.manual_seed(0)
        with restored(model):  # a copy of it may run its own modules
            problem = _mode_problem(scratch, x_NCHW, num_classes)
        if problem := problem or _form_problem(model, x_NCHW):
            return problem
        return _range_problem(scratch, x_NCHW) or _gradient_problem(scratch, x_NCHW)


def _mode_problem(scratch: nn.Module, x_NCHW: Tensor, num_classes: int) -> str | None:
    """Return a message if a model fails, or returns other than logits, in eval or training mode."""
    size = "x".join(map(str, x_NCHW.shape[1:]))
    for mode, training in (("in eval mode", False), ("in training mode", True)):
        images = _images_for(scratch, x_NCHW)
        shown = images.clone()
        try:
            scratch.train(training)
            with torch.no_grad():
                output = scratch(shown)
        except Exception as error:
            return (
                f"cannot take images of {size} {mode} ({_one_line(error)}); build it for the "
                "image_size and in_channels passed to its factory, or choose other images"
            )
        problem = shape_problem(output, len(x_NCHW), num_classes)
        if problem := problem or values_problem(logits_of(output)):
            return f"{mode} returns {problem}"
        if not torch.equal(shown, images):
            return "writes to its images, which are used again; let it work on a copy"
    return None


def _form_problem(model: nn.Module, x_NCHW: Tensor) -> str | None:
    """Return a message if a model runs modules or weights that do not belong to it."""
    x = _images_for(model, x_NCHW)[:MAX_IMAGES]
    x = x.to(next((weight.device for weight in model.parameters()), x.device))
    try:
        form = choose_form(model, x, least_form(model)).form
    except UserError as error:
        return str(error).removeprefix("the model ")
    scripted = is_scripted(model)
    if form is not Form.ITSELF or scripted:
        return None
    return (
        "runs modules or weights that do not belong to it, which checkpoints and averages would "
        "not have; assign them to attributes, and write its forward as a method of its class"
    )


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


def _range_problem(scratch: nn.Module, x_NCHW: Tensor) -> str | None:
    """Return a message if the model's outputs are probabilities; None if they are logits.

    Logits may all lie between 0 and 1 by chance or after a ReLU, but not once the last layer's
    weights are scaled up.
    """
    variants: tuple[Callable[[], nn.Module], ...] = (
        lambda: scratch,
        lambda: _larger_logits(scratch),
    )
    for variant in variants:
        output = _eval_logits(variant(), x_NCHW)
        if output.min() < 0 or output.max() > 1:
            return None
    return (
        "in eval mode returns probabilities (all from 0 to 1), not logits; leave out its last "
        "softmax or sigmoid"
    )


def _larger_logits(scratch: nn.Module) -> nn.Module:
    """Return a copy of a model with noise added to its weights, and its last layer scaled up."""
    larger = _perturbed_weights(scratch)
    with torch.no_grad():
        for weight in list(larger.parameters())[-2:]:
            weight.mul_(WEIGHT_SCALE)
    return larger


def _gradient_problem(scratch: nn.Module, x_NCHW: Tensor) -> str | None:
    """Return a message if no finite gradient reaches the images, whatever the weights; None if one
    does."""
    variants: tuple[Callable[[], nn.Module], ...] = (
        lambda: scratch,
        lambda: _perturbed_weights(scratch),
        lambda: _calibrated(scratch, x_NCHW),
    )
    for variant in variants:
        try:
            gradient, _, _ = ModelVictim(variant()).gradient(
                x_NCHW, torch.zeros(len(x_NCHW)), loss=_uneven_sum
            )
        except Exception as error:
            if "no gradient in its images" not in str(error):
                return (
                    f"cannot be differentiated in its images ({_one_line(error)}); use only "
                    "operations that torch differentiates"
                )
            gradient = torch.zeros(())
        if not gradient.isfinite().all():
            return (
                "has a gradient in its images that is not finite, so no attack can use it; "
                "look for a square root or a norm at zero in its layers"
            )
        if gradient.any():
            return None
    return (
        "has no gradient in its images, so no attack can work; leave out operations that round "
        "or detach them"
    )


def _uneven_sum(logits_NK: Tensor, y_N: Tensor, reference: object) -> Tensor:
    """Return a weighted sum of each image's logits (N,), a loss that never saturates and that a
    softmax or shift does not make constant."""
    weights_K = torch.linspace(-1, 1, logits_NK.shape[1], device=logits_NK.device)
    return (logits_NK * weights_K).sum(1)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
