"""The logits in what a model returns, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from curricula.errors import UserError

LOGITS = "logits"  # key or attribute of the logits in an output that is not a tensor


def logits_of(output: Any) -> Any:
    """Return the logits in a model's output: of a mapping with the key ``logits``, or an object
    with that attribute, as Hugging Face's models return, that tensor; anything else unchanged.

    Example:
        >>> logits_of({"logits": torch.zeros(2, 3), "loss": None}).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    found = output.get(LOGITS) if isinstance(output, Mapping) else getattr(output, LOGITS, None)
    return output if found is None else found


def shape_problem(output: Any, n: int, num_classes: int | None = None) -> str | None:
    """Return what is wrong with the type or the shape of a model's output for ``n`` images, to
    follow "the model returns"; None if it holds floating logits (n, K).

    Args:
        output: what the model returned.
        n: number of images.
        num_classes: K; by default any number from 2.

    Example:
        >>> shape_problem(torch.zeros(2, 3, 1, 1), 2, 3)
        'an output of shape (2, 3, 1, 1) for 2 images of 3 classes; it must be (2, 3); flatten it'
    """
    logits = logits_of(output)
    if not isinstance(logits, Tensor):
        return f"a {type(output).__name__}, not a tensor; let it return only the logits"
    shape = tuple(logits.shape)
    of_images = len(shape) == 2 and shape[0] == n
    if not of_images or (shape[1] != num_classes if num_classes else shape[1] < 2):
        if shape[2:] and set(shape[2:]) == {1}:
            fix = "flatten it"
        elif of_images and not num_classes:
            fix = "give its last layer an output for each class, two for two classes"
        else:
            fix = "give its last layer num_classes outputs"
        of_classes = f" of {num_classes} classes" if num_classes else ""
        return (
            f"an output of shape {shape} for {n} images{of_classes}; it must be "
            f"({n}, {num_classes or 'K'}); {fix}"
        )
    if not logits.is_floating_point():
        return f"values of type {logits.dtype}, not floating logits; let it return the logits"
    return None


def values_problem(logits_NK: Tensor) -> str | None:
    """Return what is wrong with the values of logits, to follow "the model returns"; None if all
    are finite."""
    if logits_NK.isfinite().all():
        return None
    return "logits that are not finite; look for overflow or a division by zero in its layers"


def checked_logits(output: Any, n: int) -> Tensor:
    """Return the logits (n, K) in a model's output for ``n`` images.

    Raises:
        UserError: the output does not hold floating logits (n, K).
    """
    if problem := shape_problem(output, n):
        raise UserError(f"the model returns {problem}")
    logits: Tensor = logits_of(output)
    return logits


def check_finite(logits_NK: Tensor) -> None:
    """Check that logits are finite.

    Raises:
        UserError: one is NaN or infinite.
    """
    if problem := values_problem(logits_NK):
        raise UserError(f"the model returns {problem}")
