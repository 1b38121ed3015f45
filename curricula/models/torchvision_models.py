"""All classifiers of torchvision, by torchvision's names."""

from bisect import bisect_left
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from curricula.errors import UserError, did_you_mean
from curricula.models.checks import check_weights, image_size_error
from curricula.models.normalise import Normalise

IMAGENET_SIZE = 224  # pixels; every network takes images of this size or more


def classifier(num_classes: int, in_channels: int, image_size: int, name: str) -> nn.Module:
    """Build a classifier of torchvision, for example ``convnext_tiny``, with random weights.

    Nothing is downloaded. Auxiliary heads (googlenet, inception_v3) are left out. If the images do
    not have three channels, a new convolution of the same geometry, with torch's default initial
    weights, replaces the first one.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels. ``vit_*`` take multiples of their patch size,
            ``maxvit_t`` multiples of 224, the others any size that leaves pixels in every layer.
        name: torchvision's name of the classifier.

    Raises:
        UserError: an unknown name, a size that the network does not take, or weights that do not
            fit into memory.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UserError(f"unknown torchvision model {name!r}: {did_you_mean(name, names)}")

    def build() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=num_classes, **_keywords(name, image_size)
        )
        if in_channels != 3:
            _replace_stem(network, in_channels)
        return network

    with torch.random.fork_rng(devices=[]), _WithoutMemory():
        count = sum(weight.numel() for weight in build().parameters())
    check_weights(f"torchvision({name})", count, fix="choose a smaller network, or fewer classes")
    network = build()
    if image_size < IMAGENET_SIZE and not _takes(network, in_channels, image_size):
        sizes = range(image_size, IMAGENET_SIZE)
        index = bisect_left(sizes, True, key=lambda side: _takes(network, in_channels, side))
        smallest = image_size + index
        raise image_size_error(f"torchvision({name})", image_size, at_least=smallest)
    return nn.Sequential(Normalise(), network)


class _WithoutMemory(TorchFunctionMode):
    """Makes `torch.empty`, with which layers allocate their weights, allocate nothing.

    `torch.device("meta")` would do so for all new tensors, but the RegNets compute their widths
    with some.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def _keywords(name: str, image_size: int) -> dict[str, Any]:
    """Return the additional arguments that torchvision's builder needs for a network of this name,
    by parameter."""
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
    """Replace a network's first convolution by a new one with ``in_channels`` input channels."""
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
    """Return whether a network can process images of a size, found by a forward pass on the meta
    device."""
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
