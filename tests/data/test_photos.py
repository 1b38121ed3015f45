"""Photos of every format, orientation and depth have the right brightness, or are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from curricula.data.photos import LEFT_OUT, pixels_of, read_image
from curricula.errors import UserError

SIZE = 16
GREY = np.full((SIZE, SIZE), 128, np.uint8)
HALF = np.full((SIZE, SIZE), 0x8000, np.uint16)  # half of the brightest value


def mean(path, size=SIZE, ground="white"):
    """Return the mean of each channel of a file, rounded."""
    pixels = read_image(path, size, False, ground)
    return tuple(pixels.float().mean((1, 2)).round().int().tolist())


# Corners: red, green, blue, white, in an image of 32 x 48 pixels.
UPRIGHT = np.zeros((32, 48, 3), np.uint8)
UPRIGHT[:16, :24], UPRIGHT[:16, 24:] = (255, 0, 0), (0, 255, 0)
UPRIGHT[16:, :24], UPRIGHT[16:, 24:] = (0, 0, 255), (255, 255, 255)
STORED = {  # EXIF 2.3, "Orientation": where row 0 and column 0 of the file are seen
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
    9: UPRIGHT,  # no value of EXIF: as it is stored
}
LOSSLESS = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_photo_is_upright(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    stored.save(tmp_path / f"a.{ending}", exif=exif, **LOSSLESS.get(ending, {}))
    pixels = read_image(tmp_path / f"a.{ending}", (32, 48), False)
    assert pixels.shape == (3, 32, 48)
    difference = pixels.permute(1, 2, 0).numpy().astype(int) - UPRIGHT
    assert abs(difference).max() <= 2


def test_a_damaged_exif_block_is_passed_over(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x12")
    Image.fromarray(UPRIGHT).save(tmp_path / "b.jpg", exif=b"Exif\0\0rubbish")
    for name in ("a.jpg", "b.jpg"):
        assert read_image(tmp_path / name, (32, 48), False)[0, 4, 4] > 240


def saved(image, name, **options):
    return lambda folder: image.save(folder / name, **options)


def written(content, name):
    return lambda folder: (folder / name).write_bytes(content)


def png(colour_type, bits, row, *chunks):
    """Return a PNG file of 16 equal rows, of a colour type and depth that Pillow does not write."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", SIZE, SIZE, bits, colour_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress((b"\0" + row) * SIZE)) + chunk(b"IEND", b"")
    before = b"".join(chunk(kind, content) for kind, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data


def tiff(bits, photometric, sample_format, levels, order="<"):
    """Return a TIFF file of one channel: photometric 0 means that 0 is white."""
    data = levels if isinstance(levels, bytes) else levels.tobytes()
    tags = {
        256: SIZE, 257: SIZE, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: SIZE,
        279: len(data), 339: sample_format,
    }  # fmt: skip
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def levels(value, kind):
    return np.full(SIZE * SIZE, value, kind)


FIRST, SECOND = Image.fromarray(GREY), Image.fromarray(0 * GREY)
SGI = struct.pack(">HBBHHHHII", 474, 0, 2, 3, SIZE, SIZE, 3, 0, 2**16 - 1).ljust(512, b"\0")
BRIGHTNESS = {  # a way to write a file of one grey level, and that level
    "8 bits": (saved(Image.fromarray(GREY), "a.png"), 128),
    "PNG of 16 bits": (saved(Image.fromarray(HALF), "a.png"), 128),
    "PNG of 16 bits and alpha": (written(png(4, 16, b"\x80\xff\x80\0" * SIZE), "a"), 191),
    "PNG of 16 bits in colour": (written(png(2, 16, b"\x80\xff" * 3 * SIZE), "a"), 128),
    "PNG of 4 bits": (written(png(0, 4, b"\x88" * 8), "a"), 136),
    "PNG of 2 bits": (written(png(0, 2, b"\x55" * 4), "a"), 85),
    "PGM of 16 bits": (saved(Image.fromarray(HALF), "a.pgm"), 128),
    "PGM of maxval 1000": (written(b"P5 16 16 1000\n" + levels(500, ">u2").tobytes(), "a"), 128),
    "PGM of maxval 100": (written(b"P5 16 16 100\n" + levels(50, "u1").tobytes(), "a"), 128),
    "PGM as text": (written(b"P2 16 16 1000\n" + b"500 " * 256, "a"), 128),
    "PPM of maxval 1000": (written(b"P6 16 16 1000\n" + b"\x01\xf4" * 3 * 256, "a"), 128),
    "PFM": (saved(Image.fromarray(levels(0.5, "f4").reshape(SIZE, SIZE)), "a.pfm"), 128),
    "JPEG 2000 of 16 bits": (saved(Image.fromarray(HALF), "a.jp2"), 128),
    "TIFF of 16 bits": (written(tiff(16, 1, 1, levels(0x4000, "<u2")), "a"), 64),
    "TIFF of 16 bits, big-endian": (written(tiff(16, 1, 1, levels(0x4000, ">u2"), ">"), "a"), 64),
    "TIFF of 16 bits, 0 is white": (written(tiff(16, 0, 1, levels(0x4000, "<u2")), "a"), 191),
    "TIFF of 12 bits": (written(tiff(12, 1, 1, b"\x40\x04\x00" * 128), "a"), 64),
    "TIFF of 8 bits, 0 is white": (written(tiff(8, 0, 1, levels(64, "u1")), "a"), 191),
    "TIFF of 1 bit, 0 is white": (written(tiff(1, 0, 1, bytes(32)), "a"), 255),
    "TIFF of floats": (written(tiff(32, 1, 3, levels(0.25, "<f4")), "a"), 64),
    "TIFF of floats, 0 is white": (written(tiff(32, 0, 3, levels(0.25, "<f4")), "a"), 191),
    "SGI of 16 bits": (written(SGI + levels(0x8000, ">u2").tobytes() * 3, "a.sgi"), 128),
    "PNG of two frames": (saved(FIRST, "a.png", save_all=True, append_images=[SECOND]), 128),
    "1 bit": (saved(Image.fromarray(GREY > 0), "a.png"), 255),
    "palette of greys": (saved(Image.fromarray(GREY).convert("P"), "a.gif"), 128),
}  # fmt: skip


@pytest.mark.parametrize("name", BRIGHTNESS)
def test_the_brightness_is_right(tmp_path, name):
    write, expected = BRIGHTNESS[name]
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    assert mean(path) == (expected,) * 3
    assert read_image(path, 8, True).float().mean().round() == expected


UNKNOWN = {
    "TIFF of 32 bits": tiff(32, 1, 1, levels(2**31, "<u4")),
    "TIFF of 32 bits with a sign": tiff(32, 1, 2, levels(100, "<i4")),
    "TIFF of 16 bits with a sign": tiff(16, 1, 2, levels(100, "<i2")),
    "TIFF of 8 bits with a sign": tiff(8, 1, 2, levels(100, "i1")),
    "floats to 255": tiff(32, 1, 3, levels(128, "<f4")),
    "negative floats": tiff(32, 1, 3, levels(-0.5, "<f4")),
    "NaN": tiff(32, 1, 3, levels(np.nan, "<f4")),
    "infinite floats": tiff(32, 1, 3, levels(np.inf, "<f4")),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_brightness_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "a.tif").write_bytes(UNKNOWN[name])
    with pytest.raises(UserError, match=r"a.tif has .* not known which value is white: save it"):
        read_image(tmp_path / "a.tif", SIZE, False)


def test_planes_of_16_bits_are_refused(tmp_path):
    """Pillow would read the bytes of each plane as pixels."""
    noise = np.random.default_rng(0).integers(0, 2**16, (3, SIZE, SIZE), np.uint16)
    for planar, sample in ((1, noise.transpose(1, 2, 0)), (2, noise)):
        data = np.ascontiguousarray(sample).tobytes()
        strips = [8 + len(data) // 3 * plane for plane in range(3)] if planar == 2 else [8]
        sizes = [len(data) // len(strips)] * len(strips)
        values = {
            256: [SIZE], 257: [SIZE], 258: [16] * 3, 259: [1], 262: [2], 273: strips, 277: [3],
            278: [SIZE], 279: sizes, 284: [planar],
        }  # fmt: skip
        entries, more = b"", b""
        for tag, numbers in sorted(values.items()):
            content = struct.pack(f"<{len(numbers)}I", *numbers)
            if len(numbers) > 1:
                place = 8 + len(data) + len(more)
                more, content = more + content, struct.pack("<I", place)
            entries += struct.pack("<HHI", tag, 4, len(numbers)) + content
        start = b"II*\0" + struct.pack("<I", 8 + len(data) + len(more))
        count = struct.pack("<H", len(values))
        (tmp_path / "a.tif").write_bytes(start + data + more + count + entries + bytes(4))
        if planar == 1:
            found = read_image(tmp_path / "a.tif", SIZE, False)
            np.testing.assert_array_equal(found.numpy(), noise >> 8)
        else:
            with pytest.raises(UserError, match=r"a.tif has separate planes of 16 bits, which"):
                read_image(tmp_path / "a.tif", SIZE, False)


CLEAR = np.zeros((SIZE, SIZE, 4), np.uint8)  # the left half is transparent red, the right one red
CLEAR[..., 0], CLEAR[:, SIZE // 2 :, 3] = 200, 255
INDEXED = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(SIZE, SIZE) % 2).convert("P")
INDEXED.putpalette([0, 0, 0, 100, 100, 100])
TRNS = b"tRNS"
TRANSPARENT = {  # a way to write a file, and its mean on white, grey and black
    "RGBA": (saved(Image.fromarray(CLEAR), "a.png"), ((228, 128, 128), (164, 64, 64), (100, 0, 0))),
    "RGBA in WebP": (
        saved(Image.fromarray(CLEAR), "a.webp", lossless=True),
        ((228, 128, 128), (164, 64, 64), (100, 0, 0)),
    ),
    "LA": (
        saved(Image.fromarray(CLEAR).convert("LA"), "a.png"),
        ((158,) * 3, (94,) * 3, (30,) * 3),
    ),
    "GIF": (saved(INDEXED, "a.gif", transparency=0), ((178,) * 3, (114,) * 3, (50,) * 3)),
    "palette": (saved(INDEXED, "a.png", transparency=0), ((178,) * 3, (114,) * 3, (50,) * 3)),
    "palette with half transparency": (
        saved(INDEXED, "a.png", transparency=bytes([255, 102])),
        ((96,) * 3, (58,) * 3, (20,) * 3),
    ),
    "a colour": (
        saved(Image.new("RGB", (SIZE, SIZE), (1, 2, 3)), "a.png", transparency=(1, 2, 3)),
        ((255,) * 3, (128,) * 3, (0,) * 3),
    ),
    "a grey": (
        saved(Image.fromarray(GREY), "a.png", transparency=128),
        ((255,) * 3, (128,) * 3, (0,) * 3),
    ),
    "a grey of 16 bits": (
        saved(Image.fromarray(HALF), "a.png", transparency=0x8000),
        ((255,) * 3, (128,) * 3, (0,) * 3),
    ),
    "a grey of 2 bits": (
        written(png(0, 2, b"\x55" * 4, (TRNS, b"\0\1")), "a.png"),
        ((255,) * 3, (128,) * 3, (0,) * 3),
    ),
    "a colour of 16 bits": (
        written(png(2, 16, b"\x80\xff" * 3 * SIZE, (TRNS, b"\x80\xff" * 3)), "a.png"),
        ((255,) * 3, (128,) * 3, (0,) * 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_show_the_ground(tmp_path, name):
    write, expected = TRANSPARENT[name]
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    for ground, colour in zip(("white", "grey", "black"), expected, strict=True):
        found = mean(path, ground=ground)
        assert np.abs(np.subtract(found, colour)).max() <= 1, (ground, found)


ORANGE = (200, 100, 50)


def plain(mode, *colour):
    return Image.new(mode, (SIZE, SIZE), colour)


LAB = ImageCms.profileToProfile(
    plain("RGB", *ORANGE),
    ImageCms.createProfile("sRGB"),
    ImageCms.createProfile("LAB"),
    outputMode="LAB",
)
COLOURS = {
    "CMYK in JPEG": (saved(plain("CMYK", 255, 0, 0, 0), "a.jpg"), (0, 255, 255)),
    "CMYK in TIFF": (saved(plain("CMYK", 0, 0, 255, 51), "a.tif"), (204, 204, 0)),
    "YCbCr in TIFF": (saved(plain("YCbCr", 128, 90, 200), "a.tif"), (228, 89, 60)),
    "LAB": (saved(LAB, "a.tif"), ORANGE),
    "first frame of a GIF": (
        saved(
            plain("RGB", *ORANGE), "a.gif", save_all=True,
            append_images=[Image.new("RGB", (SIZE, SIZE), "blue")],
        ),
        ORANGE,
    ),
    "first page of a TIFF": (
        saved(
            plain("RGB", *ORANGE), "a.tif", save_all=True,
            append_images=[Image.new("RGB", (SIZE, SIZE), "blue")],
        ),
        ORANGE,
    ),
    "two images of a stereo camera": (
        saved(
            plain("RGB", *ORANGE), "a.mpo", save_all=True,
            append_images=[Image.new("RGB", (SIZE, SIZE), "blue")],
        ),
        ORANGE,
    ),
}  # fmt: skip
for _ending in (
    "bmp",
    "dib",
    "dds",
    "jfif",
    "JPG",
    "jp2",
    "pcx",
    "ppm",
    "qoi",
    "sgi",
    "tga",
    "webp",
):
    COLOURS[_ending] = (saved(plain("RGB", *ORANGE), f"a.{_ending}"), ORANGE)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_of_every_kind_become_red_green_and_blue(tmp_path, name):
    write, expected = COLOURS[name]
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    assert np.abs(np.subtract(mean(path), expected)).max() <= 2
    if name != "tga":  # whose content has no mark
        path = path.rename(tmp_path / "photo.txt")
        assert np.abs(np.subtract(mean(path), expected)).max() <= 2


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "QOI"])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(noise).save(path, kind)
    read_image(path, SIZE, False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"^{path} cannot be read as an image: [^\n]+$"):
        read_image(path, SIZE, False)


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xd7\xcd\xc6\x9a" + bytes(60)],
)
def test_a_format_that_runs_a_program_is_refused(tmp_path, content, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"in a format that is not read, .*to JPEG or PNG$"):
        read_image(tmp_path / "a.jpg", SIZE, False)


def test_every_format_of_pillow_is_read_or_left_out_for_a_reason():
    Image.init()
    assert {"EPS", "ICO", "WMF"} <= set(LEFT_OUT)
    known = {
        "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "IM", "JPEG",
        "JPEG2000", "MPO", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN",
        "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
    }  # fmt: skip
    assert set(Image.ID) <= known | set(LEFT_OUT)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_clear_images_of_pillow_have_the_ground_in_every_mode(mode):
    whole = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    image = Image.new(whole, (6, 4), 0).convert(mode)
    pixels = pixels_of(image, "it", ground="grey")
    assert pixels.shape == (1 if mode in ("LA", "La") else 3, 4, 6)
    assert (pixels == 128).all()
