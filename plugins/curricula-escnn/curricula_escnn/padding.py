"""The first layers of networks in which every pooling needs a feature map of even size."""

import torch
from torch import nn

from curricula.models.checks import check_image_size
from curricula.models.normalise import Normalise


def normalise_and_pad(
    name: str, image_size: int, *, at_least: int, multiple: int
) -> list[nn.Module]:
    """Return two layers: one normalises images, and one pads them with a black border to the next
    multiple of a size.

    The border is equally wide on all sides. If the size is a multiple already, its width is 0, so
    that checkpoints fit all sizes.

    Args:
        name: name of the network in messages.
        image_size: height and width in pixels, equal, even and ``at_least`` or more.
        at_least: smallest size in pixels that the network takes.
        multiple: factor by which all poolings together divide the size, even.

    Raises:
        UserError: a different image size.
    """
    check_image_size(name, image_size, at_least=at_least, even=True, square=True)
    normalise = Normalise()
    black = float(normalise(torch.zeros(())))
    return [normalise, nn.ConstantPad2d(-image_size % multiple // 2, black)]
