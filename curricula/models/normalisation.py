"""The normalisation of a network's images, by name or as numbers, as text. Needs no torch."""

import math
from collections.abc import Mapping
from typing import Any

import attrs

from curricula.errors import UserError, did_you_mean, shown

OWN = "own"  # text that keeps the normalisation that a model has, or has not, inside
NONE = "none"  # text for no normalisation
MAX_VALUE = 255  # largest pixel of images that are not scaled to [0, 1]
SMALLEST_STD = 1e-6  # pixel units; a smaller one is a mistake


@attrs.frozen
class Normalisation:
    """Means and standard deviations in [0, 1] pixel units: one each for all channels, or one for
    each channel.

    Attributes:
        mean: values to subtract.
        std: values to divide by.
        name: name under which they are known; empty for numbers.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = ""


KNOWN: Mapping[str, Normalisation] = {
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "cifar10"),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "cifar100"),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "imagenet"),
    "mnist": Normalisation((0.1307,), (0.3081,), "mnist"),
}
"""Means and standard deviations of the training images, as their users write them."""

CHOICES = f"{', '.join(KNOWN)}, {NONE}, {OWN} or MEAN/STD, such as 0.5/0.25"
"""List of the texts for help and messages; docs/own-model.md has the numbers."""

_FIX = f"write {CHOICES} or 0.4914,0.4822,0.4465/0.247,0.2435,0.2616"


def parse_normalisation(text: Any, in_channels: int | None = None) -> Normalisation | None:
    """Return the normalisation that a text describes; None for ``none`` and ``own``.

    Args:
        text: a name, or ``MEAN/STD``.
        in_channels: number of channels of the images, which it has to suit; None if not known yet.

    >>> parse_normalisation("0.5/0.25")
    Normalisation(mean=(0.5,), std=(0.25,), name='')
    >>> parse_normalisation("imagnet")
    Traceback (most recent call last):
    curricula.errors.UserError: normalise (--normalise) 'imagnet' is unknown: did you mean imagenet?

    Raises:
        UserError: an unknown name, numbers that are not means and standard deviations, or a
            different number of channels.
    """
    if not isinstance(text, str):
        raise UserError(f"normalise (--normalise) must be text, not {shown(text)}: {_FIX}")
    if text in (NONE, OWN):
        return None
    found = KNOWN[text] if text in KNOWN else _of_numbers(text)
    channels = max(len(found.mean), len(found.std))
    if in_channels not in (None, channels) and (channels > 1 or found.name):
        raise UserError(
            f"normalise (--normalise) {text} has {channels} for the channels of an image, and "
            f"these images have {in_channels}: give one mean and standard deviation, such as "
            "0.5/0.25, or one for each channel"
        )
    return found


def _of_numbers(text: str) -> Normalisation:
    """Return the normalisation of a text ``MEAN/STD``.

    Raises:
        UserError: it is not of this form, or its numbers are none of images in [0, 1].
    """
    mean, slash, std = text.partition("/")
    if not slash:
        fix = did_you_mean(text.lower(), [*KNOWN, NONE, OWN], otherwise=_FIX)
        raise UserError(f"normalise (--normalise) {shown(text)} is unknown: {fix}")
    means, stds = _numbers(text, mean), _numbers(text, std)
    if len(means) != len(stds) and 1 not in (len(means), len(stds)):
        raise UserError(
            f"normalise (--normalise) {shown(text)} has {len(means)} means and {len(stds)} "
            "standard deviations: give as many, one for each channel"
        )
    if min(stds) < SMALLEST_STD:
        raise UserError(
            f"normalise (--normalise) {shown(text)}: a standard deviation must be above 0, not "
            f"{min(stds):g}"
        )
    if max(*means, *stds) > 1 or min(means) < 0:
        fix = ""
        if min(stds) > 1 and all(value == 0 or 1 < value <= MAX_VALUE for value in (*means, *stds)):
            scaled = (
                ",".join(f"{each / MAX_VALUE:.6g}" for each in part) for part in (means, stds)
            )
            fix = f"; of images in [0, {MAX_VALUE}] they are {'/'.join(scaled)} here: write that"
        raise UserError(
            f"normalise (--normalise) {shown(text)}: means and standard deviations are those of "
            f"images in [0, 1], so they lie from 0 to 1{fix}"
        )
    return Normalisation(means, stds)


def _numbers(text: str, part: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, part.split(",")))
    except ValueError as error:
        raise UserError(
            f"normalise (--normalise) {shown(text)}: {shown(part)} is not a list of numbers; {_FIX}"
        ) from error
    if not all(map(math.isfinite, numbers)):
        raise UserError(
            f"normalise (--normalise) {shown(text)}: {shown(part)} is not finite; {_FIX}"
        )
    return numbers
