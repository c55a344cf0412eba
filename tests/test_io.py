"""Images as cameras, editors and accidents leave them on a disk."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from mdiqa_metric.data.images import read_image
from mdiqa_metric.data.pairing import SUFFIXES, ImageError, left_out, list_images, pair_by_stem, pair_files

COLORS = np.array([[[0, 1, 255], [256, 32896, 65535]], [[1, 2, 3], [40000, 511, 65279]]], np.uint16)


def png(samples: np.ndarray, color_type: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of 8- or 16-bit samples (H, W) or (H, W, C), written by hand since Pillow writes no 16-bit color."""
    height, width = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    passes = [samples]
    if interlaced:  # Adam7
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [samples[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(samples: np.ndarray, order: str = "<", bits: int = 16, photometric: int | None = None) -> bytes:
    """An uncompressed TIFF of one strip."""
    height, width = samples.shape[:2]
    channels = samples[0, 0].size
    photometric = photometric if photometric is not None else (2 if channels >= 3 else 1)
    data = samples.astype(order + "u2").tobytes()
    tags = {256: width, 257: height, 258: None, 259: 1, 262: photometric, 273: 8, 277: channels, 278: height}
    tags[279] = len(data)
    if channels == 4:
        tags[338] = 2
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels)
    body, entries = data + depths, b""
    for tag, value in sorted(tags.items()):
        if value is None:
            packed = depths.ljust(4, b"\0") if len(depths) <= 4 else struct.pack(order + "I", 8 + len(data))
            entries += struct.pack(order + "HHI", tag, 3, channels) + packed
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    end = struct.pack(order + "I", 0)
    return mark + struct.pack(order + "I", 8 + len(body)) + body + struct.pack(order + "H", len(tags)) + entries + end


def planar(samples: np.ndarray, order: str = "<", strip: int | None = None, packed: bool = False, **more: int) -> bytes:
    """A TIFF of samples (H, W, C) that keeps its channels apart, in strips of that many rows, deflated if `packed`.

    `more` are tags by their numbers: t338 is what comes after the colors.
    """
    height, width, channels = samples.shape
    strip = strip or height
    data, places, lengths = b"", [], []
    for plane in samples.transpose(2, 0, 1):
        for top in range(0, height, strip):
            rows = plane[top : top + strip].astype(f"{order}u{samples.itemsize}").tobytes()
            places.append(8 + len(data))
            data += zlib.compress(rows) if packed else rows
            lengths.append(8 + len(data) - places[-1])
    tags = {256: [width], 257: [height], 258: [samples.itemsize * 8] * channels, 259: [8 if packed else 1]}
    tags |= {262: [2 if channels > 2 else 1], 273: places, 277: [channels], 278: [strip], 279: lengths, 284: [2]}
    tags |= {int(tag[1:]): [value] for tag, value in more.items()}
    entries, beyond, after = b"", b"", 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        entry = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            entry, beyond = struct.pack(order + "I", after + len(beyond)), beyond + entry
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + entry
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return header + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + beyond


def pixels(path: Path) -> np.ndarray:
    """What was read, as (H, W, 3), after the promises that hold for any image."""
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.ndim == 4
    assert image.shape[:2] == (1, 3)
    assert image.is_contiguous()
    assert image.min() >= 0
    assert image.max() <= 1
    return image[0].permute(1, 2, 0).numpy()


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def photo(height: int = 8, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp"])
def test_eight_bit_color_is_divided_by_255(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(photo()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(pixels(path), photo().astype(np.float32) / 255)


@pytest.mark.parametrize("suffix", [".jpg", ".jp2", ".avif", ".gif"])
def test_lossy_formats_are_read(tmp_path: Path, suffix: str) -> None:
    if suffix not in Image.registered_extensions():
        pytest.skip("Pillow reads AVIF from 11.3 on")
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (64, 64, 3))
    Image.fromarray(np.ascontiguousarray(smooth)).save(tmp_path / f"photo{suffix}")
    assert np.abs(pixels(tmp_path / f"photo{suffix}") - smooth / 255).max() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".png", "L"), (".png", "RGB"), (".png", "I;16"), (".tif", "L"), (".tif", "I;16"), (".jpg", "RGB")],
)
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str, mode: str, orientation: int) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # a white corner at the top left tells all eight orientations of a stored image apart
    upright[8:, :8] = 128
    turns = {1: [], 2: ["F"], 3: ["R", "R"], 4: ["F", "R", "R"], 5: ["F", "R"], 6: ["R"], 7: ["F", "R", "R", "R"]}
    stored = upright
    for turn in turns.get(orientation, ["R", "R", "R"]):
        stored = stored[:, ::-1] if turn == "F" else np.rot90(stored)
    stored = np.ascontiguousarray(stored)
    image = Image.fromarray(stored.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"turned{suffix}", exif=exif)
    found = pixels(tmp_path / f"turned{suffix}")
    assert found.shape == (16, 24, 3)
    assert np.abs(found - upright[..., None] / 255).max() < 0.05


def test_gray_one_bit_and_palette_become_rgb(tmp_path: Path) -> None:
    gray = photo()[..., 0]
    image = Image.fromarray(gray)
    image.save(tmp_path / "gray.png")
    assert np.array_equal(pixels(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, -1).astype(np.float32) / 255)
    image.point(lambda value: 255 * (value > 127)).convert("1").save(tmp_path / "bits.png")
    assert np.array_equal(pixels(tmp_path / "bits.png"), np.repeat(gray[..., None] > 127, 3, -1).astype(np.float32))
    paletted = Image.fromarray(photo()).quantize(48)  # as many colors as pixels
    paletted.save(tmp_path / "palette.png")
    assert np.array_equal(pixels(tmp_path / "palette.png"), np.asarray(paletted.convert("RGB"), np.float32) / 255)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"print{suffix}"
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(path)
    assert np.abs(pixels(path)[8, 8] - [0, 1, 1]).max() < 0.02


def test_sixteen_bit_gray_keeps_all_its_bits(tmp_path: Path) -> None:
    gray = COLORS[..., 0]
    want = np.repeat((gray / np.float32(65535))[..., None], 3, -1)
    files = {
        "png": png(gray, 0),
        "little.tif": tiff(gray),
        "big.tif": tiff(gray, ">"),
        "pgm": b"P5 2 2 65535\n" + gray.astype(">u2").tobytes(),
    }
    for name, content in files.items():
        assert np.array_equal(pixels(save(tmp_path / f"gray.{name}", content)), want), name


def test_sixteen_bit_color_keeps_all_its_bits(tmp_path: Path) -> None:
    want = COLORS / np.float32(65535)
    many = np.tile(COLORS, (5, 7, 1))
    lzw = tmp_path / "lzw.tif"
    files = {"rgb.png": (COLORS, png(COLORS, 2)), "little.tif": (COLORS, tiff(COLORS))}
    files |= {"big.tif": (COLORS, tiff(COLORS, ">")), "interlaced.png": (many, png(many, 2, interlaced=True))}
    for name, (samples, content) in files.items():
        found = pixels(save(tmp_path / name, content))
        assert np.array_equal(found, samples / np.float32(65535)), name
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(lzw, COLORS, photometric="rgb", compression="zlib", rowsperstrip=1)
    assert np.array_equal(pixels(lzw), want)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"strip": 5}, {"packed": True}, {"packed": True, "strip": 3}])
def test_channels_that_lie_apart_in_a_tiff_are_exact(
    kind: type, channels: int, order: str, layout: dict[str, Any]
) -> None:
    white = np.iinfo(kind).max
    samples = np.random.default_rng(0).integers(0, white + 1, (17, 11, channels)).astype(kind)
    samples[..., 3:] = white  # opaque
    for_two = np.repeat(samples[..., :1], 3, -1)
    found = read_image(planar(samples, order, **layout, **({"t338": 2} if channels == 4 else {"t338": 0})))
    want = (for_two if channels == 2 else samples[..., :3]) / np.float32(white)
    assert np.array_equal(found[0].permute(1, 2, 0), want)


def test_channels_that_lie_apart_may_be_transparent_and_rotated() -> None:
    alpha = np.array([[65535, 0], [0, 65535]], np.uint16)
    samples = np.concatenate([COLORS, alpha[..., None]], -1)
    want = np.where(alpha[..., None] > 0, COLORS / np.float32(65535), 1)
    assert np.array_equal(read_image(planar(samples, t338=2))[0].permute(1, 2, 0), want)
    samples[..., :3] *= alpha[..., None] > 0  # as alpha that is multiplied in has it
    assert np.array_equal(read_image(planar(samples, t338=1))[0].permute(1, 2, 0), want)
    turned = read_image(planar(COLORS, t274=6))[0].permute(1, 2, 0)
    assert np.array_equal(turned, np.rot90(COLORS, -1) / np.float32(65535))


def test_alpha_that_is_multiplied_into_a_tiff_is_not_divided_out() -> None:
    samples = np.array([[[30000, 20001, 7, 40000], [0, 0, 0, 0]]], np.uint16)
    data = tiff(samples).replace(struct.pack("<HHII", 338, 4, 1, 2), struct.pack("<HHII", 338, 4, 1, 1))
    scaled = samples / np.float32(65535)
    found = read_image(data)[0].permute(1, 2, 0)
    assert np.allclose(found, scaled[..., :3] + 1 - scaled[..., 3:], rtol=0, atol=1e-7)


def test_a_fourth_channel_without_meaning_is_ignored() -> None:
    samples = np.concatenate([COLORS, COLORS[..., :1]], -1)
    data = tiff(samples).replace(struct.pack("<HHII", 338, 4, 1, 2), struct.pack("<HHII", 338, 4, 1, 0))
    assert np.array_equal(read_image(data)[0].permute(1, 2, 0), COLORS / np.float32(65535))


def test_sixteen_bit_color_is_rotated_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(save(tmp_path / "turned.png", png(COLORS[:1], 2, chunk(b"eXIf", exif.tobytes()[6:]))))
    assert np.array_equal(found, COLORS[:1].transpose(1, 0, 2) / np.float32(65535))


def test_sixteen_bit_gray_with_alpha_keeps_eight(tmp_path: Path) -> None:
    samples = np.array([[[0x80FF, 0xFFFF], [0x8000, 0]]], np.uint16)
    found = pixels(save(tmp_path / "la.png", png(samples, 4)))
    assert np.array_equal(found[0, :, 0], np.array([0x80 / 255, 1], np.float32))


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    opaque = np.concatenate([photo(), np.full((8, 6, 1), 255, np.uint8)], -1)
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert np.array_equal(pixels(tmp_path / "opaque.png"), photo().astype(np.float32) / 255)
    deep = np.concatenate([COLORS, np.full((2, 2, 1), 65535, np.uint16)], -1)
    for name, content in {"deep.png": png(deep, 6), "deep.tif": tiff(deep)}.items():
        assert np.array_equal(pixels(save(tmp_path / name, content)), COLORS / np.float32(65535)), name


def test_transparency_is_blended_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    want = np.array([[[1, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]], np.float32)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert pixels(tmp_path / "rgba.png") == pytest.approx(want)
    deep = save(tmp_path / "deep.png", png(rgba.astype(np.uint16) * 257, 6))
    assert pixels(deep) == pytest.approx(want)
    Image.fromarray(rgba[..., [1, 3]], "LA").save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png")[..., 0] == pytest.approx(np.array([[0, 1, 0.8]]))


def test_a_transparent_color_becomes_white(tmp_path: Path) -> None:
    row = np.array([[[9, 9, 9], [0, 0, 0]]], np.uint8)
    want = np.array([[[1, 1, 1], [0, 0, 0]]], np.float32)
    image = Image.fromarray(row)
    image.save(tmp_path / "rgb.png", transparency=(9, 9, 9))
    image.convert("L").save(tmp_path / "gray.png", transparency=9)
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([9, 9, 9, 0, 0, 0])
    indexed.putpixel((1, 0), 1)
    indexed.save(tmp_path / "palette.png", transparency=0)
    indexed.save(tmp_path / "palette.gif", transparency=0)
    save(tmp_path / "deep-gray.png", png(row[..., 0].astype(np.uint16), 0, chunk(b"tRNS", struct.pack(">H", 9))))
    save(tmp_path / "deep-rgb.png", png(row.astype(np.uint16), 2, chunk(b"tRNS", struct.pack(">HHH", 9, 9, 9))))
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(pixels(path), want), path.name


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime")]
    for suffix in (".gif", ".png", ".tif"):
        frames[0].save(tmp_path / f"film{suffix}", save_all=True, append_images=frames[1:])
        assert pixels(tmp_path / f"film{suffix}")[0, 0].tolist() == [1, 0, 0], suffix


def test_a_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(photo()).save(tmp_path / "profile.png", icc_profile=profile)
    assert np.array_equal(pixels(tmp_path / "profile.png"), photo().astype(np.float32) / 255)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.bmp", "photo.gif", "photo.webp", "photo.tif"])
@pytest.mark.parametrize("part", [0.01, 0.5])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    Image.fromarray(photo(64, 64)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(10, int(len(content) * part))])
    with pytest.raises(ImageError, match=rf"{name} is (damaged or cut short: .*Copy or save it again|no image)"):
        read_image(path)


def test_a_flipped_byte_is_an_error(tmp_path: Path) -> None:
    content = bytearray(png(photo(), 2))
    content[60] ^= 255
    with pytest.raises(ImageError, match="damaged"):
        read_image(save(tmp_path / "flipped.png", content))


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    text = save(tmp_path / "text.png", b"%PDF or words of a kind")
    with pytest.raises(ImageError, match=r"text.png is no image: its bytes are none of .*JPEG.*PNG"):
        read_image(text)
    postscript = save(tmp_path / "drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ImageError, match="is no image"):
        read_image(postscript)
    with pytest.raises(ImageError, match=r"empty.png is empty \(0 bytes\)"):
        read_image(save(tmp_path / "empty.png", b""))
    with pytest.raises(ImageError, match="is a folder, expected an image file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"There is no image .*none\.png: check the path"):
        read_image(tmp_path / "none.png")


def test_the_bytes_of_a_file_are_read_as_the_file(tmp_path: Path) -> None:
    for content in (png(COLORS, 2), tiff(COLORS[..., 0])):
        assert torch.equal(read_image(content), read_image(save(tmp_path / "image", content)))
    with pytest.raises(ImageError, match=r"What was given as bytes is empty \(0 bytes\)"):
        read_image(b"")
    with pytest.raises(ImageError, match="What was given as bytes is no image"):
        read_image(b"words of a kind")
    with pytest.raises(ImageError, match="What was given as bytes is damaged or cut short"):
        read_image(png(photo(), 2)[:60])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.png", b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match=r"mine\.png cannot be read: Permission denied"):
        read_image(path)


@pytest.mark.parametrize("side", [12_000, 60_000])  # Pillow itself warns of the first and refuses the second
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND")
    path = save(tmp_path / "bomb.png", bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match=rf"({side}x{side}|{side * side}) pixels.*MAX_IMAGE_PIXELS"):
            read_image(path)
    with pytest.raises(ImageError, match=rf"{side * side} pixels.*MAX_IMAGE_PIXELS"):  # with warnings as errors
        read_image(path)


def test_samples_of_unknown_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.ones((2, 2), np.int32)).save(tmp_path / "int32.tif")
    save(tmp_path / "twelve.tif", tiff(np.zeros((2, 2), np.uint16), bits=12))
    save(tmp_path / "negative.tif", tiff(np.zeros((2, 2), np.uint16), photometric=0))
    found = {"float": "floats", "int32": "32-bit", "twelve": "12-bit gray", "negative": "white as 0"}
    for name, what in found.items():
        with pytest.raises(ImageError, match=f"holds .*{what}.*expected samples of 8 or 16 bits.*pass the tensor"):
            read_image(tmp_path / f"{name}.tif")


def test_what_a_tiff_cannot_be_read_for_is_said() -> None:
    rgb = np.zeros((2, 2, 3), np.uint16)
    found = {
        "16-bit floats": planar(rgb, t339=3),
        "16-bit signed": planar(rgb, t339=2),
        "12-bit samples": tiff(rgb, bits=12),
        "2 x 16 bits of photometric 1": tiff(rgb[..., :2]),
        "neither gray nor RGB": planar(np.zeros((2, 2, 4), np.uint8), t262=5),
        "3 channels of gray": tiff(rgb, photometric=1),
        "compression 34712": planar(rgb, t259=34712),
    }
    for what, data in found.items():
        with pytest.raises(ImageError, match=f"holds .*{what}.*expected .* 8 or 16 bits.*pass the tensor"):
            read_image(data)
    with pytest.raises(ImageError, match=r"big-endian BigTIFF.*save it as a little-endian one"):
        read_image(b"MM\0+" + bytes(100))


def test_bytes_and_files_of_all_kinds_are_read(tmp_path: Path) -> None:
    data = png(COLORS, 2)
    want = read_image(data)
    path = save(tmp_path / "image.png", data)
    after = io.BytesIO(b"words" + data)
    after.seek(5)
    for given in (bytearray(data), memoryview(data), io.BytesIO(data), after, str(path)):
        assert torch.equal(read_image(given), want)
    with path.open("rb") as file:
        assert torch.equal(read_image(file), want)
        with pytest.raises(ImageError, match=r"is empty \(0 bytes\).*seek\(0\)"):
            read_image(file)
    with pytest.raises(ImageError, match=r"closed file\. Open it again"):
        read_image(file)
    with path.open() as text, pytest.raises(TypeError, match='open as text: open it with "rb"'):
        read_image(text)


def test_a_pil_image_is_read_as_its_file_and_left_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = Image.fromarray(random.integers(0, 256, (8, 6, 4), dtype=np.uint8))
    gray = Image.fromarray(random.integers(0, 65536, (8, 6)).astype(np.uint16))
    for index, image in enumerate((rgba, rgba.convert("RGB"), rgba.convert("LA"), rgba.convert("1"), gray)):
        path = tmp_path / f"{index}.png"
        image.save(path)
        assert torch.equal(read_image(image), read_image(path))
    rgba.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        for _ in range(2):
            assert torch.equal(read_image(turned), read_image(tmp_path / "turned.png"))
        assert turned.size == (6, 8)
    with Image.open(io.BytesIO(planar(COLORS))) as apart, pytest.raises(ImageError, match="pass the file's path"):
        read_image(apart)
    for mode, what in {"F": "floats", "I": "32-bit integers"}.items():
        with pytest.raises(ImageError, match=f"The PIL image holds {what}"):
            read_image(Image.new(mode, (2, 2)))
    with pytest.raises(ImageError, match="0x0 pixels"):
        read_image(Image.new("RGB", (0, 0)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((2, 2, 3), np.uint8), r"got ndarray: metrics take it as a tensor .*permute\(2, 0, 1\)"),
        (torch.zeros(1, 3, 2, 2), "got Tensor: metrics take it as a tensor"),
        (None, "got NoneType: pass the path"),
        (["a.png"], "got list: pass the path"),
    ],
)
def test_what_is_neither_file_nor_image_is_refused(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"takes a path, bytes, a binary file or a PIL image, {words}"):
        read_image(given)


def test_reading_leaves_pillow_and_warnings_alone(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    read_image(save(tmp_path / "deep.png", png(COLORS, 2)))
    with pytest.raises(ImageError):
        read_image(save(tmp_path / "empty.png", b""))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_images_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "img10.png", "img2.JPG", "img1.tiff", "notes.txt", ".hidden.png", "deeper/img3.png", "film.png/x")
    assert [path.name for path in list_images(tmp_path)] == ["img1.tiff", "img2.JPG", "img10.png"]


def test_patterns_and_files_are_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/2.png", "a/10.png", "a/b/1.png", "a/notes.txt", "odd[1].png", "raw")
    monkeypatch.chdir(tmp_path)
    assert list_images("a/*") == [Path("a/2.png"), Path("a/10.png")]
    assert list_images("a/**") == [Path("a/2.png"), Path("a/10.png"), Path("a/b/1.png")]
    assert list_images(["a/10.png", "a", tmp_path / "a/2.png", "./a/b/../10.png"]) == [
        Path("a/10.png"),
        Path("a/2.png"),
    ]
    assert list_images(["odd[1].png", "raw", "gone.png"]) == [Path("odd[1].png"), Path("raw"), Path("gone.png")]


def test_a_folder_is_searched_in_depth_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/2.png", "a/10/1.png", "a/b/c/1.png", "a/.hidden/1.png")
    monkeypatch.chdir(tmp_path)
    assert list_images("a", recursive=True) == list_images("a/**")
    assert list_images("a", recursive=True) == [Path("a/2.png"), Path("a/10/1.png"), Path("a/b/c/1.png")]
    with pytest.raises(ImageError, match="a/b holds no image itself, but its sub-folders do: pass --recursive"):
        list_images("a/b")
    with pytest.raises(ImageError, match=r"pattern a/b\* holds no image.*the pattern a/b\*/\*\* finds"):
        list_images("a/b*")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_but_never_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "beside/no.png", "top/self/1.png", "top/self/sub/2.png", "other/3.png", "other/deep/4.png")
    monkeypatch.chdir(tmp_path / "top")
    links = {"self/latest": ".", "self/again": ".", "self/up": "../..", "self/sub/back": "..", "self/a-sub": "sub"}
    links |= {"self/linked": "../../other", "../other/deep/top": "../..", "self/link.png": "../../other/3.png"}
    for link, target in links.items():
        Path(link).symlink_to(target)
    want = ["1.png", "link.png", "linked/deep/4.png", "sub/2.png"]  # linked/3.png is link.png
    for found in (list_images("self/**"), list_images("self/**/*.png"), list_images("self", recursive=True)):
        assert [str(path.relative_to("self")) for path in found] == want
    assert list_images(["self/link.png", "self/linked"]) == [Path("self/link.png")]


def test_brackets_of_a_name_stand_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "br[x4]/1.png", "br[x4]/i[1].png", "brx/2.png", "br4/3.png", "plain/i1.png", "plain/i2.png")
    monkeypatch.chdir(tmp_path)
    assert list_images("br[x4]/*.png") == [Path("br[x4]/1.png"), Path("br[x4]/i[1].png")]
    assert list_images("*/i[1].png") == [Path("br[x4]/i[1].png"), Path("plain/i1.png")]
    assert list_images("*/*[1].png") == [Path("br[x4]/i[1].png"), Path("plain/i1.png")]
    assert list_images("plain/i[12].png") == [Path("plain/i1.png"), Path("plain/i2.png")]
    assert list_images("br[4]/*") == [Path("br4/3.png")]


def test_every_suffix_of_a_format_is_taken_and_others_are_named(tmp_path: Path) -> None:
    names = ["a.jfif", "b.JPE", "c.j2k", "d.jpx", "e.apng", "f.pnm"]
    touch(tmp_path, *names, "notes.txt", "photo.heic", ".DS_Store", "deeper/x.gz")
    assert [path.name for path in list_images(tmp_path)] == names
    assert [path.name for path in left_out(tmp_path)] == ["notes.txt", "photo.heic"]
    assert [path.name for path in left_out([tmp_path], recursive=True)] == ["x.gz", "notes.txt", "photo.heic"]
    assert left_out(tmp_path / "notes.txt") == []


def test_an_empty_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"The pattern .*\*\.jpg holds no image"):
        list_images(str(tmp_path / "*.jpg"))
    touch(tmp_path, "notes.txt")
    with pytest.raises(ImageError, match=rf"The folder {tmp_path} holds no image.*\.png"):
        list_images([tmp_path])


def test_every_listed_suffix_can_be_read() -> None:
    known = Image.registered_extensions()
    assert all(known[suffix] in Image.OPEN for suffix in SUFFIXES if not suffix.startswith(".avif"))


def test_pairs_are_made_by_stem() -> None:
    images, references = [Path("x/b.jpg"), Path("x/a.png")], [Path("y/a.bmp"), Path("y/b.png")]
    assert pair_by_stem(images, references) == [(images[0], references[1]), (images[1], references[0])]


def test_what_does_not_pair_is_listed() -> None:
    images = [Path(f"x/{stem}.png") for stem in "abcdefgh"]
    references = [Path(f"y/{name}") for name in ("a.png", "z.png", "a.jpg")]
    with pytest.raises(ImageError) as caught:
        pair_by_stem([*images, Path("w/a.png")], references)
    text = str(caught.value)
    assert "Images without a reference: x/b.png, x/c.png, x/d.png, x/e.png, x/f.png, ... (7)." in text
    assert "References without an image: y/z.png (1)." in text
    assert "Images whose name occurs twice: x/a.png, w/a.png (2)." in text
    assert "References whose name occurs twice: y/a.png, y/a.jpg (2)." in text


def test_a_suffix_of_the_images_is_cut_off() -> None:
    images, references = [Path("x/a_x4.png"), Path("x/b_x4.jpg")], [Path("y/a.png"), Path("y/b.png")]
    want = [*zip(images, references, strict=True)]
    assert pair_by_stem(images, references, suffix="_x4") == want
    both = [Path("x/sr_a_x4.png"), Path("x/sr_b_x4.png")]
    assert pair_by_stem(both, references, suffix="sr_{stem}_x4") == [*zip(both, references, strict=True)]
    with pytest.raises(ImageError, match=r"without _x4\. Images without a reference: x/b\.png \(1\)"):
        pair_by_stem([images[0], Path("x/b.png")], references, suffix="_x4")


@pytest.mark.parametrize(
    ("images", "references", "hint"),
    [
        (["baby_x4", "img_1_x4", "img_10_x4"], ["baby", "img_1", "img_10"], "plus _x4: pass --suffix _x4"),
        (["baby_SwinIR_Set5"], ["baby", "bird"], "pass --suffix _SwinIR_Set5"),
        (["sr_baby_x4", "sr_bird_x4"], ["baby", "bird"], "pass --suffix 'sr_{stem}_x4'"),
        (["baby", "bird"], ["baby_HR", "bird_HR"], "Every reference's name is its image's plus _HR: rename"),
        (["IMG", "b"], ["img", "b"], "differ only in case"),
        (["e\u0301"], ["\u00e9"], "how their accents are coded"),
        (["0/1", "1/1"], ["0/1", "1/1"], "--recursive"),
    ],
)
def test_names_that_do_not_pair_give_a_hint(images: list[str], references: list[str], hint: str) -> None:
    with pytest.raises(ImageError) as caught:
        pair_by_stem([Path(f"x/{name}.png") for name in images], [Path(f"y/{name}.png") for name in references])
    assert hint in str(caught.value)


def test_no_hint_is_given_where_none_is_seen() -> None:
    with pytest.raises(ImageError, match=r"\(2\)\.$"):
        pair_by_stem([Path("a_17.png"), Path("b_4.png")], [Path("a.png"), Path("b.png")])


def test_clips_pair_by_their_paths(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{folder}/{clip}/{n}.png" for folder in ("out", "in") for clip in ("000", "001") for n in (1, 2))
    )
    touch(tmp_path, "x4/000/1_x4.png", "x4/001/2_x4.jpg", "two/000/1.png", "two/001/2.png")
    pairs = pair_files(tmp_path / "out", tmp_path / "in", recursive=True)
    assert [tuple(path.relative_to(tmp_path).as_posix() for path in pair) for pair in pairs] == [
        (f"out/{clip}/{n}.png", f"in/{clip}/{n}.png") for clip in ("000", "001") for n in (1, 2)
    ]
    pairs = pair_files(tmp_path / "x4", tmp_path / "two", recursive=True, suffix="_x4")
    assert [reference.relative_to(tmp_path / "two").as_posix() for _, reference in pairs] == ["000/1.png", "001/2.png"]
    with pytest.raises(ImageError, match=r"path below the folders.*plus _x4: pass --suffix _x4"):
        pair_files(tmp_path / "x4", tmp_path / "two", recursive=True)
