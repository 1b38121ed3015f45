"""Build a model from an expression, such as ``wrn(depth=28)``, for the images of a data set."""

from collections.abc import Mapping
from typing import Any

import attrs
from torch import nn

from curricula.data.dataset import DataSet, as_dataset
from curricula.data.spec import ImageSpec
from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.checks import check_call
from curricula.expressions.syntax import Call
from curricula.models.normalisation import OWN, parse_normalisation
from curricula.models.normalise import with_normalisation
from curricula.runtime.values import known_keywords
from curricula.victim.copies import uncompiled


@known_keywords()
def build_model(text: str, data: DataSet | ImageSpec | str, *, normalise: str = OWN) -> nn.Module:
    """Return a new network from an expression such as ``wrn(depth=28)``, with initial weights from
    torch's global random state.

    >>> import torch
    >>> build_model("smallcnn", "digits")(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])

    Args:
        text: the expression, such as ``wrn(depth=16, width=4)``.
        data: a data set, its expression, or its `curricula.data.ImageSpec`: it states the number of
            classes and channels and the image size.
        normalise: normalisation of the images, in place of the model's first one: ``cifar10``,
            ``cifar100``, ``imagenet``, ``mnist``, ``none``, ``MEAN/STD`` or ``own``, the model's.

    Raises:
        UserError: an unknown model, argument or normalisation, an image size that the model cannot
            take, or weights that do not fit into memory.
    """
    spec = data if isinstance(data, ImageSpec) else as_dataset(data)
    model: nn.Module = resolve_model(text, spec, normalise=normalise).value
    return model


def resolve_model(
    text: str, data: DataSet | ImageSpec, *, normalise: str = OWN, fetch: bool = True
) -> factories.Built:
    """Return a new network from an expression such as ``wrn(depth=28)``, with the expression in
    which every default is written out.

    Args:
        text: as for `build_model`.
        data: as for `build_model`.
        normalise: as for `build_model`.
        fetch: load the pretrained weights that the expression names; False where weights of a
            checkpoint follow, so that the pretrained ones need not be there.

    Raises:
        UserError: as `build_model` does.
    """
    parse_normalisation(normalise, data.in_channels)  # before the network is built
    supplied = {
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
    }
    call = check_call("model", text)
    if factories.requires("model", call.name, "fetch"):
        supplied["fetch"] = fetch
    built = _build(call, supplied)
    if not isinstance(built.value, nn.Module):
        return built  # its check reports it
    model = with_normalisation(uncompiled(built.value), normalise, data.in_channels)
    return attrs.evolve(built, value=model)


def _build(call: Call, supplied: Mapping[str, Any]) -> factories.Built:
    """Return the network of a call; a third-party factory may take square images only.

    Raises:
        UserError: as `build_model` does.
    """
    try:
        return factories.build("model", call, supplied=supplied)
    except UserError as error:
        size = supplied["image_size"]
        if isinstance(size, tuple) and isinstance(error.__cause__, TypeError):
            raise UserError(
                f"model {call.name} takes one number as image_size, so square images, not "
                f"{size[0]}x{size[1]}: choose another model, or make the images square"
            ) from error
        raise
