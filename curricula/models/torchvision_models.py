"""Torchvision's classifiers, any of them, by torchvision's own names."""

from bisect import bisect_left
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call

from curricula.errors import UserError, did_you_mean
from curricula.models.normalise import Normalise

CUSTOMARY = 224  # of ImageNet's images; every network takes it


def classifier(num_classes: int, in_channels: int, image_size: int, name: str) -> nn.Module:
    """A classifier of torchvision, for example ``convnext_tiny``, with fresh weights; nothing is
    downloaded. Auxiliary heads (googlenet, inception_v3) are left out. Where the images have not
    three channels, the first convolution gives way to a new one of the same geometry, with torch's
    default initial weights.

    Args:
        num_classes: how many logits.
        in_channels: of the image.
        image_size: height and width. ``vit_*`` take multiples of their patch size, ``maxvit_t``
            multiples of 224; of the others, the smallest that leaves no layer without pixels.
        name: torchvision's.

    Raises:
        UserError: an unknown name, or a size that the network cannot take.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UserError(f"unknown torchvision model {name!r}: {did_you_mean(name, names)}")
    network = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **_keywords(name, image_size)
    )
    if in_channels != 3:
        _replace_stem(network, in_channels)
    if not _takes(network, in_channels, image_size):
        sizes = range(image_size, CUSTOMARY)
        known = bisect_left(sizes, True, key=lambda side: _takes(network, in_channels, side))
        smallest = image_size + known
        raise UserError(
            f"torchvision({name}) takes images of {smallest}x{smallest} or more, "
            f"not {image_size}x{image_size}"
        )
    return nn.Sequential(Normalise(), network)


def _keywords(name: str, image_size: int) -> dict[str, Any]:
    """What some families must be told beside the number of classes."""
    family, _, rest = name.partition("_")
    if family in ("googlenet", "inception"):
        return {"aux_logits": False, "init_weights": True}
    if family == "vit":
        _check_multiple(name, image_size, int(rest.rpartition("_")[2]))
        return {"image_size": image_size}
    if family == "maxvit":
        _check_multiple(name, image_size, 224)  # 5 halvings, then windows of 7x7
        return {"input_size": (image_size, image_size)}
    return {}


def _check_multiple(name: str, image_size: int, of: int) -> None:
    if image_size % of:
        raise UserError(
            f"torchvision({name}) takes images whose size is a multiple of {of}, "
            f"not {image_size}x{image_size}"
        )


def _replace_stem(network: nn.Module, in_channels: int) -> None:
    """A new first convolution, for another number of channels."""
    name, old = next(
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    )
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)


def _takes(network: nn.Module, in_channels: int, image_size: int) -> bool:
    """Whether images of a size go through: shapes are followed, nothing is computed."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    x_NCHW = torch.empty((2, in_channels, image_size, image_size), device="meta")
    network.eval()
    try:
        with torch.no_grad():
            functional_call(network, shapes, (x_NCHW,))
    except RuntimeError:
        return False
    finally:
        network.train()
    return True
