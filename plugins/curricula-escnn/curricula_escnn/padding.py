"""The first layers of networks in which every pooling needs a feature map of even size."""

from torch import nn

from curricula.models.checks import check_image_size
from curricula.models.normalise import Normalise


def pad_and_normalise(
    name: str, image_size: int, *, at_least: int, multiple: int
) -> list[nn.Module]:
    """Return two layers: one pads images with a black border to the next multiple of a size, and
    one normalises them.

    The border is equally wide on all sides. If the size is a multiple already, its width is 0, so
    that checkpoints fit all sizes. It comes first, so that it is black in any normalisation.

    Args:
        name: name of the network in messages.
        image_size: height and width in pixels, equal, even and ``at_least`` or more.
        at_least: smallest size in pixels that the network takes.
        multiple: factor by which all poolings together divide the size, even.

    Raises:
        UserError: a different image size.
    """
    check_image_size(name, image_size, at_least=at_least, even=True, square=True)
    return [nn.ZeroPad2d(-image_size % multiple // 2), Normalise()]
