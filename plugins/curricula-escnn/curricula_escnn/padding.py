"""The first layers of a network whose poolings must all be of even maps."""

import torch
from torch import nn

from curricula.errors import UserError
from curricula.models.normalise import Normalise


def framed(name: str, image_size: int, *, smallest: int, multiple: int) -> list[nn.Module]:
    """Normalisation, and then a black frame of equal width on all sides, to the next multiple;
    where the size is one, a frame of width 0, so that checkpoints fit all sizes.

    Args:
        name: what messages call the network.
        image_size: height and width, even and ``smallest`` or more.
        smallest: the smallest size that the network takes.
        multiple: what the poolings together divide the size by, even.

    Raises:
        UserError: for another image size.
    """
    if image_size % 2 or image_size < smallest:
        raise UserError(
            f"{name} takes images of an even size of {smallest}x{smallest} or more, "
            f"not {image_size}x{image_size}"
        )
    normalise = Normalise()
    black = float(normalise(torch.zeros(())))
    return [normalise, nn.ConstantPad2d(-image_size % multiple // 2, black)]
