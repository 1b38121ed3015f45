"""Return the pixels of 8 bits of a photo: a file in any format, or an image of Pillow."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from curricula.errors import UserError, message_of
from curricula.runtime.files import read_file

Ground = Literal["white", "grey", "black"]

MAX_PIXELS = 100_000_000  # pixels of an image file
PIXELS_OF_ANY, PIXELS_PER_BYTE = 20_000_000, 200  # pixels that a file of few bytes may have

LEFT_OUT = {
    "EPS": "Pillow runs Ghostscript, a program, on it",
    "ICO": "icons, which Pillow decodes before their size can be checked",
    "ICNS": "icons, which Pillow decodes before their size can be checked",
    "FITS": "a telescope's data, which Pillow decompresses without a bound",
    "MCIDAS": "a satellite's data, whose brightest value is not known",
    "SPIDER": "a microscope's data, which nothing in a file tells from other files",
    "IMT": "a scanner's data, which nothing in a file tells from other files",
    "IPTC": "a container, in which Pillow opens a file of any format",
    "FPX": "a container of several images",
    "MIC": "a container of several images",
    "BUFR": "weather data, which Pillow cannot decode",
    "GRIB": "weather data, which Pillow cannot decode",
    "HDF5": "data, which Pillow cannot decode",
    "MPEG": "a film, which Pillow cannot decode",
    "WMF": "a drawing, which Pillow cannot decode",
}
"""Formats of Pillow that are not read, and why."""

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
"""Modes of Pillow that have grey levels, except those of 16 bits, ``I;16`` and the like."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transformations that show an image upright, by the value of EXIF's tag Orientation."""

_UNKNOWN_WHITE = (
    "it is not known which value is white: save it with 8 or 16 bits, or from 0 to 1 as floating "
    "point"
)

_PNG_BITS = 24  # position in a PNG file of the number of bits per channel

# Tags of TIFF 6.0, the first of which EXIF has too.
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 274, 258, 262, 284, 339
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2  # values of the last three


def read_image(
    path: str | Path, size: int | tuple[int, int], grey: bool, ground: Ground = "white"
) -> torch.Tensor:
    """Return the image in a file, upright, as pixels_CHW (uint8) of the given size.

    The format is recognised by the content, whatever the name. EXIF's orientation is applied, and
    the first frame of several is read. Grey levels of 16 bits are scaled to 8, and levels of
    floating point from 0 to 1 to 255. Colours are read as sRGB, without their ICC profile.

    Args:
        path: the file.
        size: height and width in pixels: the image is resized to it with antialiasing, without
            keeping its proportions.
        grey: one channel instead of three.
        ground: colour that is put behind transparent pixels: white, grey (128) or black.

    Raises:
        UserError: the file is missing, damaged, in another format (see `LEFT_OUT`) or too large, or
            the brightest value of its pixels cannot be known.
    """
    path = Path(path)
    with _one_line(str(path)), _open(path) as file:
        file.load()
        image = _upright(file, ground)
    return _pixels(image, size, grey)


def pixels_of(
    image: Image.Image,
    what: str,
    *,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    ground: Ground = "white",
) -> torch.Tensor:
    """Return an image of Pillow as pixels_CHW (uint8), by the rules of `read_image`.

    Args:
        image: the image, which is not changed.
        what: names the image in messages.
        size: as for `read_image`; None keeps the size.
        grey: as for `read_image`; None means one channel for the modes of grey, else three.
        ground: as for `read_image`.

    Raises:
        UserError: as `read_image` does; or one colour of the image is transparent, of which Pillow
            does not tell whether it was scaled to 8 bits like the pixels.
    """
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        raise UserError(
            f"{what} has a transparent colour, whose scale may differ from that of its pixels; "
            'leave the colour out: image.info.pop("transparency")'
        )
    if not image.width or not image.height:
        raise UserError(f"{what} has no pixels; leave it out")
    with _one_line(what):
        upright = _upright(image, ground)
    is_grey = image.mode in GREY_MODES or image.mode.startswith("I;16")
    return _pixels(upright, size, is_grey if grey is None else grey)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn errors of reading an image into a UserError that begins with its name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about details that do not matter here
            yield
    except UserError as error:
        raise UserError(f"{what} {error}") from error
    except Exception as error:  # decoders raise many types on damaged bytes
        raise UserError(f"{what} cannot be read as an image: {_reason(error)}") from error


def _pixels(image: Image.Image, size: int | tuple[int, int] | None, grey: bool) -> torch.Tensor:
    """Return an image of mode RGB as pixels_CHW of the given size and number of channels."""
    if grey:
        image = image.convert("L")  # torchvision's function makes a grey of 128 one of 127
    levels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)
    pixels = levels.permute(2, 0, 1).contiguous()
    if size is None:
        return pixels

    from torchvision.transforms.v2 import functional as transforms  # here: slow to import

    shape = [size, size] if isinstance(size, int) else list(size)
    resized: torch.Tensor = transforms.resize(pixels, shape, antialias=True)
    return resized


def endings() -> frozenset[str]:
    """Return the lower-case endings of the names of files in the formats that are read, such as
    ``.jpg``."""
    Image.init()
    return frozenset(
        ending
        for ending, name in Image.EXTENSION.items()
        if name in Image.OPEN and name not in LEFT_OUT
    )


def is_image(path: str | Path) -> bool:
    """Return whether a file's content begins like an image in a format that is read; the rest may
    be damaged.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats(path)):
                return True
    except Image.DecompressionBombError:  # `read_image` refuses it
        return True
    except Exception as error:  # decoders raise many types on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return False


def _formats(path: Path) -> list[str]:
    """Return the names of Pillow's formats that a file may be in: all that are read, except that
    those whose content has no mark, such as TGA, need the ending of the file's name."""
    Image.init()
    named = Image.EXTENSION.get(path.suffix.lower())
    return [
        name
        for name in Image.ID
        if name not in LEFT_OUT and (Image.OPEN[name][1] is not None or name == named)
    ]


def _open(path: Path) -> Image.Image:
    """Return the image in a file, not decoded yet, after checking its number of pixels.

    Raises:
        UserError: it has too many pixels: a small file may decode to gigabytes.
    """
    content = read_file(path)
    image = Image.open(io.BytesIO(content), formats=_formats(path))
    most = min(MAX_PIXELS, PIXELS_OF_ANY + PIXELS_PER_BYTE * len(content))
    if image.width * image.height > most:
        raise UserError(
            f"has {image.width} x {image.height} pixels, more than {most:,} in "
            f"{len(content):,} bytes; make it smaller"
        )
    if image.format == "PNG" and "transparency" in image.info:
        _scale_transparent(image, bits=content[_PNG_BITS])
    return image


def _scale_transparent(image: Image.Image, bits: int) -> None:
    """Scale the transparent colour of a PNG file like its pixels, which Pillow scales to 8 bits."""
    colour = image.info["transparency"]
    if image.mode == "RGB" and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif image.mode == "L" and bits < 8:
        image.info["transparency"] = colour * 255 // (2**bits - 1)


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, as text for a message."""
    if isinstance(error, UnidentifiedImageError):  # its text is an address in memory
        return (
            "its content is damaged, or in a format that is not read, such as HEIC; convert it to "
            "JPEG or PNG"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return message_of(error) or "its content is damaged"


def _upright(file: Image.Image, ground: str) -> Image.Image:
    """Return a decoded image in mode RGB, as EXIF's orientation says that it is to be seen.

    Raises:
        UserError: as `_in_colour` does.
    """
    try:
        orientation = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block, which viewers pass over too
        orientation = 1
    image = _in_colour(file, ground)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _in_colour(image: Image.Image, ground: str) -> Image.Image:
    """Return an image in mode RGB, with a ground behind its transparent pixels.

    Raises:
        UserError: it is not known which value of its pixels is white.
    """
    transparent = image.info.get("transparency")
    tags = _tags(image)
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise UserError(f"has pixels with a sign; {_UNKNOWN_WHITE}")
    bits = tags.get(_BITS_PER_SAMPLE, ())
    if tags.get(_PLANES) == _SEPARATE and len(bits) > 1 and max(bits) > 8:
        raise UserError(
            "has separate planes of 16 bits, which Pillow reads as if they had 8; save it with "
            "interleaved channels, or with 8 bits"
        )
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        levels = np.asarray(image)
        image = Image.fromarray(_eight_bits(image, levels))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype("uint8")))
    elif transparent is None and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return image.convert("RGB")
    coloured = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), coloured).convert("RGB")


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF file by number, or none for a file of a different format."""
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _eight_bits(image: Image.Image, levels: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the levels of a grey image of 16 or 32 bits as uint8, on which the largest value that
    the file can hold is 255. Pillow would clip them at 255.

    Raises:
        UserError: that value is not known.
    """
    tags = _tags(image)
    if image.mode == "F":
        low, high = float(levels.min()), float(levels.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise UserError(f"has floating-point pixels from {low:g} to {high:g}; {_UNKNOWN_WHITE}")
        scaled = np.rint(levels * 255)
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # of which 65,535 is white
        raise UserError(f"has pixels of 32 bits; {_UNKNOWN_WHITE}")
    else:
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        scaled = levels >> (bits - 8)
    grey: np.ndarray[Any, Any] = scaled.astype(np.uint8)
    # Pillow inverts the other modes itself.
    return 255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey
