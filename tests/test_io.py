"""Pictures as cameras, editors and accidents leave them on a disk."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from mdiqa_metric.io import SUFFIXES, ImageError, list_images, pair_by_stem, read_image

COLOURS = np.array([[[0, 1, 255], [256, 32896, 65535]], [[1, 2, 3], [40000, 511, 65279]]], np.uint16)


def png(samples: np.ndarray, colour_type: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of 8- or 16-bit samples (H, W) or (H, W, C), written by hand since Pillow writes no 16-bit colour."""
    height, width = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    passes = [samples]
    if interlaced:  # Adam7
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [samples[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
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


def pixels(path: Path) -> np.ndarray:
    """What was read, as (H, W, 3), after the promises that hold for any picture."""
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
def test_eight_bit_colour_is_divided_by_255(tmp_path: Path, suffix: str) -> None:
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
    upright[:8, :8] = 255  # a white corner at the top left tells all eight orientations of a stored picture apart
    upright[8:, :8] = 128
    turns = {1: [], 2: ["F"], 3: ["R", "R"], 4: ["F", "R", "R"], 5: ["F", "R"], 6: ["R"], 7: ["F", "R", "R", "R"]}
    stored = upright
    for turn in turns.get(orientation, ["R", "R", "R"]):
        stored = stored[:, ::-1] if turn == "F" else np.rot90(stored)
    stored = np.ascontiguousarray(stored)
    picture = (
        Image.fromarray(stored.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"turned{suffix}", exif=exif)
    found = pixels(tmp_path / f"turned{suffix}")
    assert found.shape == (16, 24, 3)
    assert np.abs(found - upright[..., None] / 255).max() < 0.05


def test_grey_one_bit_and_palette_become_rgb(tmp_path: Path) -> None:
    grey = photo()[..., 0]
    picture = Image.fromarray(grey)
    picture.save(tmp_path / "grey.png")
    assert np.array_equal(pixels(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, -1).astype(np.float32) / 255)
    picture.point(lambda value: 255 * (value > 127)).convert("1").save(tmp_path / "bits.png")
    assert np.array_equal(pixels(tmp_path / "bits.png"), np.repeat(grey[..., None] > 127, 3, -1).astype(np.float32))
    paletted = Image.fromarray(photo()).quantize(48)  # as many colours as pixels
    paletted.save(tmp_path / "palette.png")
    assert np.array_equal(pixels(tmp_path / "palette.png"), np.asarray(paletted.convert("RGB"), np.float32) / 255)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"print{suffix}"
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(path)
    assert np.abs(pixels(path)[8, 8] - [0, 1, 1]).max() < 0.02


def test_sixteen_bit_grey_keeps_all_its_bits(tmp_path: Path) -> None:
    grey = COLOURS[..., 0]
    want = np.repeat((grey / np.float32(65535))[..., None], 3, -1)
    files = {
        "png": png(grey, 0),
        "little.tif": tiff(grey),
        "big.tif": tiff(grey, ">"),
        "pgm": b"P5 2 2 65535\n" + grey.astype(">u2").tobytes(),
    }
    for name, content in files.items():
        assert np.array_equal(pixels(save(tmp_path / f"grey.{name}", content)), want), name


def test_sixteen_bit_colour_keeps_all_its_bits(tmp_path: Path) -> None:
    want = COLOURS / np.float32(65535)
    many = np.tile(COLOURS, (5, 7, 1))
    lzw = tmp_path / "lzw.tif"
    files = {"rgb.png": (COLOURS, png(COLOURS, 2)), "little.tif": (COLOURS, tiff(COLOURS))}
    files |= {"big.tif": (COLOURS, tiff(COLOURS, ">")), "interlaced.png": (many, png(many, 2, interlaced=True))}
    for name, (samples, content) in files.items():
        found = pixels(save(tmp_path / name, content))
        assert np.array_equal(found, samples / np.float32(65535)), name
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(lzw, COLOURS, photometric="rgb", compression="zlib", rowsperstrip=1)
    assert np.array_equal(pixels(lzw), want)


def test_sixteen_bit_colour_is_rotated_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(save(tmp_path / "turned.png", png(COLOURS[:1], 2, chunk(b"eXIf", exif.tobytes()[6:]))))
    assert np.array_equal(found, COLOURS[:1].transpose(1, 0, 2) / np.float32(65535))


def test_sixteen_bit_grey_with_alpha_keeps_eight(tmp_path: Path) -> None:
    samples = np.array([[[0x80FF, 0xFFFF], [0x8000, 0]]], np.uint16)
    found = pixels(save(tmp_path / "la.png", png(samples, 4)))
    assert np.array_equal(found[0, :, 0], np.array([0x80 / 255, 1], np.float32))


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    opaque = np.concatenate([photo(), np.full((8, 6, 1), 255, np.uint8)], -1)
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert np.array_equal(pixels(tmp_path / "opaque.png"), photo().astype(np.float32) / 255)
    deep = np.concatenate([COLOURS, np.full((2, 2, 1), 65535, np.uint16)], -1)
    for name, content in {"deep.png": png(deep, 6), "deep.tif": tiff(deep)}.items():
        assert np.array_equal(pixels(save(tmp_path / name, content)), COLOURS / np.float32(65535)), name


def test_transparency_is_blended_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    want = np.array([[[1, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]], np.float32)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert pixels(tmp_path / "rgba.png") == pytest.approx(want)
    deep = save(tmp_path / "deep.png", png(rgba.astype(np.uint16) * 257, 6))
    assert pixels(deep) == pytest.approx(want)
    Image.fromarray(rgba[..., [1, 3]], "LA").save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png")[..., 0] == pytest.approx(np.array([[0, 1, 0.8]]))


def test_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    row = np.array([[[9, 9, 9], [0, 0, 0]]], np.uint8)
    want = np.array([[[1, 1, 1], [0, 0, 0]]], np.float32)
    picture = Image.fromarray(row)
    picture.save(tmp_path / "rgb.png", transparency=(9, 9, 9))
    picture.convert("L").save(tmp_path / "grey.png", transparency=9)
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([9, 9, 9, 0, 0, 0])
    indexed.putpixel((1, 0), 1)
    indexed.save(tmp_path / "palette.png", transparency=0)
    indexed.save(tmp_path / "palette.gif", transparency=0)
    save(tmp_path / "deep-grey.png", png(row[..., 0].astype(np.uint16), 0, chunk(b"tRNS", struct.pack(">H", 9))))
    save(tmp_path / "deep-rgb.png", png(row.astype(np.uint16), 2, chunk(b"tRNS", struct.pack(">HHH", 9, 9, 9))))
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(pixels(path), want), path.name


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
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
    with pytest.raises(ImageError, match=rf"{name} is (damaged or cut short: .*Copy or save it again|no picture)"):
        read_image(path)


def test_a_flipped_byte_is_an_error(tmp_path: Path) -> None:
    content = bytearray(png(photo(), 2))
    content[60] ^= 255
    with pytest.raises(ImageError, match="damaged"):
        read_image(save(tmp_path / "flipped.png", content))


def test_what_is_no_picture_is_an_error(tmp_path: Path) -> None:
    text = save(tmp_path / "text.png", b"%PDF or words of a kind")
    with pytest.raises(ImageError, match=r"text.png is no picture: its bytes are none of .*JPEG.*PNG"):
        read_image(text)
    postscript = save(tmp_path / "drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ImageError, match="is no picture"):
        read_image(postscript)
    with pytest.raises(ImageError, match=r"empty.png is empty \(0 bytes\)"):
        read_image(save(tmp_path / "empty.png", b""))
    with pytest.raises(ImageError, match="is a folder, expected a picture file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"There is no picture .*none\.png: check the path"):
        read_image(tmp_path / "none.png")


def test_the_bytes_of_a_file_are_read_as_the_file(tmp_path: Path) -> None:
    for content in (png(COLOURS, 2), tiff(COLOURS[..., 0])):
        assert torch.equal(read_image(content), read_image(save(tmp_path / "picture", content)))
    with pytest.raises(ImageError, match=r"What was given as bytes is empty \(0 bytes\)"):
        read_image(b"")
    with pytest.raises(ImageError, match="What was given as bytes is no picture"):
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
    found = {"float": "floats", "int32": "32-bit", "twelve": "12-bit grey", "negative": "white as 0"}
    for name, what in found.items():
        with pytest.raises(ImageError, match=f"holds .*{what}.*expected samples of 8 or 16 bits.*pass the tensor"):
            read_image(tmp_path / f"{name}.tif")


def test_reading_leaves_pillow_and_warnings_alone(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    read_image(save(tmp_path / "deep.png", png(COLOURS, 2)))
    with pytest.raises(ImageError):
        read_image(save(tmp_path / "empty.png", b""))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_pictures_in_natural_order(tmp_path: Path) -> None:
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


def test_an_empty_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"The pattern .*\*\.jpg holds no picture"):
        list_images(str(tmp_path / "*.jpg"))
    touch(tmp_path, "notes.txt")
    with pytest.raises(ImageError, match=rf"The folder {tmp_path} holds no picture.*\.png"):
        list_images([tmp_path])


def test_every_listed_suffix_can_be_read() -> None:
    known = Image.registered_extensions()
    assert all(known[suffix] in Image.OPEN for suffix in SUFFIXES if suffix != ".avif")


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
