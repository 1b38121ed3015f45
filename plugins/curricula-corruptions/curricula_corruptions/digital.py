"""Digital corruptions: `elastic-transform`, `pixelate` and `jpeg`."""

import functools
from io import BytesIO
from typing import ClassVar

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from curricula.geometry import warp_displaced
from curricula.interfaces import PerturbationKind
from curricula_corruptions import filters
from curricula_corruptions.corruption import (
    Corruption,
    Fields,
    Stepped,
    constant,
    severity_budget,
    uniform,
)


@attrs.frozen(kw_only=True)
class ElasticTransform(Corruption):
    """Displace every pixel by a smooth random field (Simard et al. 2003).

    The field is uniform within 0.5 % of the height, filtered by a Gaussian of 1 % of height and
    width, times 12.5, 16.25, 21.25, 25 and 30 at severities 1 to 5, linear between. The edge is
    mirrored.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 32, 32), 0.5), torch.Generator().manual_seed(0)
        >>> changed = ElasticTransform()(x, None, strength=1.0, victim=None, generator=generator)
        >>> f"{(changed - x).abs().max():.3f}"
        '0.000'
    """

    kind: ClassVar[PerturbationKind] = "spatial"

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers (N, 2, H, W) for the displacements right and down."""
        n, _, height, width = x_NCHW.shape
        return (uniform((n, 2, height, width), generator),)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return displaced images."""
        height, width = x_NCHW.shape[2:]
        rows, columns = (
            filters.gaussian_matrix(
                size,
                x_NCHW.new_tensor([0.01 * size]),
                widest=0.01 * size,
                truncate=3.0,
                border="symmetric",
            )
            for size in (height, width)
        )
        smooth = filters.resampled((2 * fields[0] - 1) * (0.005 * height), rows, columns)
        alpha = constant(severity_N, (0, 12.5, 16.25, 21.25, 25, 30))
        return warp_displaced(x_NCHW, (smooth * alpha).permute(0, 2, 3, 1), padding="reflection")


@functools.lru_cache(maxsize=32)
def shrinking(size: int, share: float) -> tuple[Tensor, Tensor]:
    """Return the matrix (small, size) by which Pillow shrinks an axis to a share with its filter
    BOX, and the index (size,) by which its NEAREST enlarges it again.

    Pillow itself resizes unit vectors and numbers: its rounding decides where the middle of a pixel
    is on an edge.
    """
    small = max(int(size * share), 1)
    units = Image.fromarray(np.eye(size, dtype=np.float32))
    numbers = Image.fromarray(np.arange(small, dtype=np.float32)[None])
    matrix = np.asarray(units.resize((small, size), Image.Resampling.BOX)).T
    index = np.asarray(numbers.resize((size, 1), Image.Resampling.NEAREST))[0]
    return torch.from_numpy(matrix.copy()), torch.from_numpy(index.astype(int))


@attrs.frozen(kw_only=True)
class Pixelate(Stepped):
    """Shrink the image by averaging, and enlarge it by repeating pixels.

    It shrinks to 0.6, 0.5, 0.4, 0.3 and 0.25 of the side at severities 1 to 5; between them the
    images are mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.tensor([0.0, 0.2, 0.4, 1.0]).expand(1, 1, 4, 4)
        >>> Pixelate()(x, None, strength=0.4, victim=None, generator=None)[0, 0, 0]
        tensor([0.1000, 0.1000, 0.7000, 0.7000])
    """

    budget: float = severity_budget()

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images of fewer pixels."""
        share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
        (rows, row_H), (columns, column_W) = (shrinking(size, share) for size in x_NCHW.shape[2:])
        small = filters.resampled(x_NCHW, rows, columns)
        return small[:, :, row_H.to(small.device)][..., column_W.to(small.device)]


def compressed(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return an image (H, W) or (H, W, 3) after JPEG at a quality from 1 to 100."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@attrs.frozen(kw_only=True)
class Jpeg(Stepped):
    """Compress the image as JPEG and read it again.

    The quality is 25, 18, 15, 10 and 7 at severities 1 to 5; between them the images are mixed.
    Images are rounded to 8 bits first. Pillow compresses one image after the other, on the CPU.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.linspace(0, 1, 64).expand(1, 1, 8, 64)
        >>> changed = Jpeg()(x, None, strength=1.0, victim=None, generator=None)
        >>> bool(((changed - x).abs() > 0.02).any())
        True
    """

    budget: float = severity_budget()

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images after JPEG."""
        quality = (25, 18, 15, 10, 7)[severity - 1]
        # Channels last; grey images without that axis, as Pillow has them.
        pixels_NHWC = (x_NCHW * 255).round().byte().movedim(1, -1).contiguous().cpu().numpy()
        images = pixels_NHWC[..., 0] if x_NCHW.shape[1] == 1 else pixels_NHWC
        decoded = np.stack([compressed(image, quality) for image in images])
        out_NHWC = torch.from_numpy(decoded.reshape(pixels_NHWC.shape)).to(x_NCHW.device)
        return out_NHWC.movedim(-1, 1).contiguous().to(x_NCHW.dtype) / 255
