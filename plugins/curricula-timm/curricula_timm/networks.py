"""Build a classifier of timm for the images of a data set."""

from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from curricula.data.spec import ImageSize, height_width
from curricula.errors import UserError, did_you_mean, message_of
from curricula.models.checks import check_dropout, check_weights
from curricula.models.normalise import Normalise
from curricula.models.pretrained import damaged, normalise_by, say_new_channels, say_new_head
from curricula_timm.hub import weights_file

MULTIPLES = (8, 14, 16, 28, 32, 64, 128, 224)  # pixels; sizes to suggest


def classifier(
    num_classes: int,
    in_channels: int,
    image_size: ImageSize,
    fetch: bool,
    name: str,
    pretrained: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    """Build a classifier of timm, for example ``resnet18``, with random or pretrained weights.

    Pretrained weights are in the cache of the Hugging Face hub, the folder ``hub`` of ``HF_HOME``,
    or are fetched into it. Images are then normalised as these weights need it, otherwise from
    [0, 1] to [-1, 1]. A different number of classes gets a new last layer; for a different number
    of channels than three, the first filters are adapted.

    Args:
        num_classes: number of logits.
        in_channels: number of image channels.
        image_size: height and width in pixels.
        fetch: load the pretrained weights.
        name: timm's name of the network, ``resnet18``, or of its weights,
            ``"resnet18.a1_in1k"``, in quotes because of the dot.
        pretrained: start from pretrained weights: those of the name, or timm's default ones.
        dropout: probability of dropout before the last layer, from 0 to below 1.
        drop_path: probability of dropping a residual branch, from 0 to below 1; the last one's,
            where it grows with the depth.

    Raises:
        UserError: an unknown name, a network that does not classify or does not take the images'
            size or a dropout, no pretrained weights of this name, weights that do not fit into
            memory, cannot be fetched or are damaged.
    """
    what = f"timm({name})"
    known = sorted({*timm.list_models(), *timm.list_models(include_tags=True)})
    if name not in known:
        raise UserError(f"unknown timm model {name!r}: {did_you_mean(name, known, otherwise=LIST)}")
    check_dropout(dropout)
    check_dropout(drop_path)
    config: PretrainedCfg = get_pretrained_cfg(name) or PretrainedCfg()
    if pretrained and not config.has_weights:
        raise UserError(f"{what} has no pretrained weights in timm; write pretrained=false")
    shape = height_width(image_size)
    keywords: dict[str, Any] = {"in_chans": in_channels}
    # Most networks lack one of them, and 0 is the default of all.
    keywords |= {"drop_rate": dropout} if dropout else {}
    keywords |= {"drop_path_rate": drop_path} if drop_path else {}

    def build(size: tuple[int, int], **more: Any) -> nn.Module:
        sized = {"img_size": size} if config.fixed_input_size else {}
        network: nn.Module = timm.create_model(name, **{**keywords, **sized, **more})
        return network

    _check(what, build, num_classes, in_channels, shape, config)
    if not (pretrained and fetch):
        network = build(shape, num_classes=num_classes)
    else:
        path = weights_file(config, what)
        try:
            network = build(
                shape,
                num_classes=config.num_classes,
                pretrained=True,
                pretrained_cfg_overlay={"file": path},
            )
        except Exception as error:  # a damaged file may raise anything
            raise damaged(what, path, error) from error
        if num_classes != config.num_classes:
            network.reset_classifier(num_classes)
            say_new_head(what, config.num_classes, num_classes)
        if in_channels != 3:
            say_new_channels(what, in_channels)
    return nn.Sequential(_normalisation(config, pretrained, in_channels), network)


LIST = "https://huggingface.co/timm lists them"


def _normalisation(config: PretrainedCfg, pretrained: bool, in_channels: int) -> Normalise:
    """Return the layer that normalises images as a network needs it."""
    return normalise_by(config.mean, config.std, in_channels) if pretrained else Normalise()


def _check(
    what: str,
    build: Any,
    num_classes: int,
    in_channels: int,
    shape: tuple[int, int],
    config: PretrainedCfg,
) -> None:
    """Check that a network fits into memory and classifies images of a size, on the meta device,
    where nothing is computed.

    Raises:
        UserError: it does not.
    """

    def outline(size: tuple[int, int]) -> tuple[nn.Module, tuple[int, ...]]:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            network = build(size, num_classes=num_classes).eval()
            found = network(torch.empty(2, in_channels, *size))
        return network, tuple(getattr(found, "shape", ()))

    try:
        network, found = outline(shape)
    except TypeError as error:  # a keyword that this network does not have
        raise UserError(f"{what}: {message_of(error)}; leave out dropout and drop_path") from error
    except Exception as error:  # timm raises errors of any type for a size
        for size in _sizes(shape, config):
            try:
                outline(size)
            except Exception:
                continue
            raise UserError(
                f"{what} does not take images of {shape[0]}x{shape[1]}; it takes "
                f"{size[0]}x{size[1]}, for example"
            ) from error
        raise UserError(f"{what}: {message_of(error)}") from error
    if found != (2, num_classes):
        raise UserError(f"{what} is no classifier: its outputs are of shape {found}")
    count = sum(weight.numel() for weight in network.parameters())
    check_weights(what, count, fix="choose a smaller network, or fewer classes")


def _sizes(shape: tuple[int, int], config: PretrainedCfg) -> Iterator[tuple[int, int]]:
    """Yield sizes from a given one upwards, then the one that a network was made for."""
    up = {tuple(-(-side // multiple) * multiple for side in shape) for multiple in MULTIPLES}
    for height, width in sorted(up):
        yield height, width
    _, height, width = config.input_size
    yield height, width
