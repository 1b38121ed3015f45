"""All classifiers of torchvision, by torchvision's names."""

import re
from bisect import bisect_left
from collections import OrderedDict
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from curricula.data.spec import ImageSize, height_width
from curricula.errors import UserError, did_you_mean, message_of
from curricula.models.checks import check_weights
from curricula.models.normalise import Normalise
from curricula.models.pretrained import (
    adapted_filters,
    damaged,
    fetched_file,
    normalise_by,
    say_new_channels,
    say_new_head,
)

IMAGENET_SIZE = 224  # pixels; every network takes images of this size or more
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # names in its weights


def classifier(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    fetch: bool,
    name: str,
    weights: str = "none",
) -> nn.Module:
    """Build a classifier of torchvision, for example ``convnext_tiny``, with random or pretrained
    weights.

    Auxiliary heads (googlenet, inception_v3) are left out. If the images do not have three
    channels, a convolution of the same geometry replaces the first one: a new one with torch's
    default initial weights, or the pretrained filters, averaged over the channels.

    Pretrained weights are in torch's cache, the folder ``hub/checkpoints`` of ``TORCH_HOME``, or
    are fetched into it. Images are then normalised as these weights need it, otherwise from [0, 1]
    to [-1, 1]. A different number of classes gets a new last layer. ``vit_*`` interpolate their
    position embedding to the size of the images.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels. ``vit_*`` take squares of a multiple of their patch
            size, ``maxvit_t`` multiples of 224, the others any size that leaves pixels in every
            layer.
        fetch: load the pretrained weights.
        name: torchvision's name of the classifier.
        weights: ``none`` for random weights; ``default``, torchvision's best; or torchvision's name
            of them, such as ``IMAGENET1K_V1``.

    Raises:
        UserError: an unknown name, a size that the network does not take, weights that do not fit
            into memory, cannot be fetched or are damaged.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UserError(f"unknown torchvision model {name!r}: {did_you_mean(name, names)}")
    what = f"torchvision({name})"
    pretrained = _weights(name, weights)
    shape = height_width(image_size)

    def build() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=num_classes, **_keywords(name, shape)
        )
        return network

    with torch.random.fork_rng(devices=[]), _WithoutMemory():
        count = sum(weight.numel() for weight in build().parameters())
    check_weights(what, count, fix="choose a smaller network, or fewer classes")
    network = build()
    if min(shape) < IMAGENET_SIZE and not _takes(network, shape):
        smallest = _smallest(network, shape)
        raise UserError(
            f"{what} takes images of {smallest}x{smallest} or more, not {shape[0]}x{shape[1]}"
        )
    if pretrained is not None and fetch:
        _load(network, pretrained, num_classes, f"torchvision({name}, weights={pretrained.name})")
    if in_channels != 3:
        _replace_stem(network, in_channels, keep=pretrained is not None)
        if pretrained is not None and fetch:
            say_new_channels(what, in_channels)
    return nn.Sequential(_normalisation(network, pretrained, in_channels), network)


def _weights(name: str, weights: str) -> Any:
    """Return torchvision's description of pretrained weights; None for ``none``."""
    if weights.lower() == "none":
        return None
    known = torchvision.models.get_model_weights(name)
    if weights.lower() == "default":
        return known.DEFAULT
    if weights not in known.__members__:
        fix = did_you_mean(weights, ["none", "default", *(each.name for each in known)])
        raise UserError(f"unknown weights {weights!r} of torchvision({name}): {fix}")
    return known[weights]


def _normalisation(network: nn.Module, pretrained: Any, in_channels: int) -> Normalise:
    """Return the layer that normalises images as a network needs it."""
    # The pretrained Inception networks were trained on [-1, 1].
    inception = isinstance(network, torchvision.models.Inception3 | torchvision.models.GoogLeNet)
    if pretrained is None or inception:
        return Normalise()
    transforms = pretrained.transforms()
    return normalise_by(transforms.mean, transforms.std, in_channels)


def _load(network: nn.Module, pretrained: Any, num_classes: int, what: str) -> None:
    """Load pretrained weights into a network for three channels, except for the last layer if the
    classes differ."""
    own = network.state_dict()
    path = fetched_file(pretrained.url, what)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, OrderedDict):
            raise ValueError("it holds no weights by name")
    except Exception as error:  # a damaged file may raise anything
        raise damaged(what, path, error) from error
    metadata = getattr(state, "_metadata", None)  # versions of the layers, which some ask for
    state = OrderedDict(
        (_OLD_DENSENET.sub(r"\1\2", key), tensor)
        for key, tensor in state.items()
        if not re.match(r"(AuxLogits|aux[12])\.", key)
    )
    if isinstance(network, VisionTransformer):
        state = interpolate_embeddings(network.image_size, network.patch_size, state)
    classes = len(pretrained.meta["categories"])
    if num_classes != classes:
        for key, tensor in own.items():
            found = state.get(key)
            if found is not None and found.shape == (classes, *tensor.shape[1:]):
                state[key] = tensor
        say_new_head(what, classes, num_classes)
    if metadata is not None:
        state._metadata = metadata
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{what}: not weights of this network ({message_of(error)})") from error


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


def _keywords(name: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Return the additional arguments that torchvision's builder needs for a network of this name,
    by parameter."""
    family, _, rest = name.partition("_")
    if family in ("googlenet", "inception"):
        return {"aux_logits": False, "init_weights": True}
    if family == "vit":
        if shape[0] != shape[1]:
            raise UserError(f"torchvision({name}) takes square images, not {shape[0]}x{shape[1]}")
        _check_multiple(name, shape, int(rest.rpartition("_")[2]))
        return {"image_size": shape[0]}
    if family == "maxvit":
        _check_multiple(name, shape, 224)  # 5 halvings, then windows of 7x7
        return {"input_size": shape}
    return {}


def _check_multiple(name: str, shape: tuple[int, int], of: int) -> None:
    if any(side % of for side in shape):
        raise UserError(
            f"torchvision({name}) takes images whose size is a multiple of {of}, "
            f"not {shape[0]}x{shape[1]}"
        )


def _replace_stem(network: nn.Module, in_channels: int, *, keep: bool) -> None:
    """Replace a network's first convolution by a new one with ``in_channels`` input channels.

    Args:
        network: the network, changed in place.
        in_channels: number of channels of the images.
        keep: keep its filters, averaged over the channels.
    """
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
    if keep:
        with torch.no_grad():
            new.weight.copy_(adapted_filters(old.weight, in_channels))
            if old.bias is not None and new.bias is not None:
                new.bias.copy_(old.bias)
    network.set_submodule(name, new)


def _takes(network: nn.Module, shape: tuple[int, int]) -> bool:
    """Return whether a network can process colour images of a size, found by a forward pass on the
    meta device."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    x_NCHW = torch.empty((2, 3, *shape), device="meta")
    network.eval()
    try:
        with torch.no_grad():
            functional_call(network, shapes, (x_NCHW,))
    except RuntimeError:
        return False
    finally:
        network.train()
    return True


def _smallest(network: nn.Module, shape: tuple[int, int]) -> int:
    """Return the smallest side, in pixels, to which both sides of images must be raised so that a
    network can process them."""

    def takes(side: int) -> bool:
        return _takes(network, (max(shape[0], side), max(shape[1], side)))

    sides = range(min(shape), IMAGENET_SIZE)
    return min(shape) + bisect_left(sides, True, key=takes)
