"""Fetch a file of pretrained weights into torch's cache, and say what is new in a network that
takes them."""

import hashlib
import sys
import warnings
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch

from curricula.errors import Notice, UserError, message_of
from curricula.models.normalise import Normalise


def normalise_by(mean: Sequence[float], std: Sequence[float], in_channels: int) -> Normalise:
    """Return the layer that normalises images as pretrained weights need it: by the averages of
    mean and std where the number of channels differs."""
    if len(mean) != in_channels:
        return Normalise(sum(mean) / len(mean), sum(std) / len(std))
    return Normalise(mean, std)


def fetched_file(url: str, what: str) -> Path:
    """Return the path of a file of the web in torch's cache, into which it is fetched if it is not
    there.

    If its name ends in the first digits of its SHA-256, as in ``resnet18-f37072fd.pth``, its
    content has to agree, also in the cache.

    Args:
        url: address of the file.
        what: the weights, in messages.

    Raises:
        UserError: the file is not in the cache and cannot be fetched, or is damaged.
    """
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    match = torch.hub.HASH_REGEX.search(name)
    digits = match[1] if match else ""
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            print(f"fetching {url} into {path.parent}", file=sys.stderr)
            torch.hub.download_url_to_file(url, str(path), digits or None)  # checks the digits
            return path
        except (OSError, HTTPException, RuntimeError) as error:  # the last one of a wrong digest
            raise UserError(
                f"{what}: {name} is not in the cache, {path.parent} (set by TORCH_HOME), and "
                f"cannot be fetched ({message_of(error)}); put the file of {url} there"
            ) from error
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not digest.startswith(digits):
            raise ValueError("its content is not that of the name")
    except (OSError, ValueError) as error:
        raise damaged(what, path, error) from error
    return path


def damaged(what: str, path: str | Path, error: Exception) -> UserError:
    """Return the user error for a file of a cache that cannot be read as weights.

    Args:
        what: the weights.
        path: the file.
        error: why it cannot be read.
    """
    return UserError(
        f"{what}: {path} is damaged ({message_of(error)}); delete it, and it is fetched again"
    )


def say_new_head(what: str, pretrained: int, num_classes: int) -> None:
    """Say that the last layer of a pretrained network is new, because the classes differ.

    Args:
        what: the network.
        pretrained: number of its classes; 0 if it has no last layer.
        num_classes: number of classes of the new layer.
    """
    made_for = f"was made for {pretrained:,} classes" if pretrained else "has no last layer"
    warnings.warn(
        f"{what} {made_for}: its last layer, for {num_classes:,}, is new and not trained yet",
        Notice,
        stacklevel=3,
    )


def say_new_channels(what: str, in_channels: int) -> None:
    """Say that the first filters of a pretrained network were made for three channels."""
    warnings.warn(
        f"{what} was made for 3 channels: for {in_channels}, its first filters are adapted",
        Notice,
        stacklevel=3,
    )


def adapted_filters(weight_OIHW: torch.Tensor, in_channels: int) -> torch.Tensor:
    """Return filters for images of any number of channels that respond to grey as the given ones
    do: their mean over the channels, in each channel, with the same sum.

    Example:
        >>> adapted_filters(torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1), 1).item()
        9.0
    """
    channels = weight_OIHW.shape[1]
    mean_O1HW = weight_OIHW.mean(1, keepdim=True) * (channels / in_channels)
    return mean_O1HW.repeat(1, in_channels, 1, 1)
