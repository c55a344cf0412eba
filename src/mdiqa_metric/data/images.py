"""Reading of image files into tensors. No other module imports Pillow; `pairing` finds the files."""

from __future__ import annotations

import functools
import io
import os
import struct
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from .pairing import SUFFIXES as SUFFIXES
from .pairing import ImageError as ImageError
from .pairing import list_images as list_images
from .pairing import pair_by_stem as pair_by_stem

_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# Pillow's raw modes of 16-bit color, each with the mode of the opposite byte order.
_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{_SWAPPED[order]}" for mode in ("RGB", "RGBA", "RGBX") for order in _SWAPPED
}

# The numbers of TIFF tags.
_BITS, _COMPRESSION, _COLORS, _CHANNELS, _PLANAR, _EXTRA = 258, 259, 262, 277, 284, 338
_SAMPLE_FORMAT, _SUBSAMPLING = 339, 530
_PLACES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_SHARED = (256, 257, 259, 266, 274, 278, 317, 322, 323, 347)  # the same for all channels: size, rotation, compression

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image


def read_image(file: Source) -> Tensor:
    """Reads an image as RGB (1, 3, H, W) in [0, 1], float32 on the CPU.

    Samples are divided by their full scale, 255 or 65535. The image is not resized.

    * EXIF rotation is applied. Only the first frame is read.
    * Transparency (an alpha channel, a transparent palette entry or color) is blended over white; opaque pixels keep
      their values.
    * Gray, 1-bit, palette, CMYK and Lab images are converted to RGB by Pillow. ICC profiles are ignored.
    * 16 bits are kept in gray images and in RGB(A) PNG and TIFF. Pillow reduces other deep images to 8 bits: PNG of
      16-bit gray with alpha, PPM, JPEG 2000 and CMYK in color, 10-bit AVIF (which needs Pillow 11.3).

    Args:
        file: a path; the bytes of a file (bytes, bytearray, memoryview); a binary file object, read from its current
            position to the end; or a PIL image, of which the current frame is used at its own bit depth.

    Raises:
        ImageError: the file is missing, a folder, empty, damaged, truncated, in no format of `SUFFIXES`, has more
            pixels than `PIL.Image.MAX_IMAGE_PIXELS`, or has samples without a known full scale (floats, 32-bit
            integers, 12 bits).
        TypeError: anything else, such as an array or a tensor.

    Example:
        >>> import io
        >>> file = io.BytesIO(b"P6 1 1 255 " + bytes([255, 0, 51]))
        >>> read_image(file).flatten().tolist()
        [1.0, 0.0, 0.20000000298023224]
    """
    name, source = _open(file)
    try:
        color = _decode(name, source) if isinstance(source, bytes) else _convert(name, source)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} has too many pixels to be opened safely. {_first_line(error)} {_BOMB_MEND}"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is no image: its bytes are none of {', '.join(_formats())}, or damaged from the start. "
            "Check what the file contains."
        ) from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ImageError(f"{name} is damaged or cut short: {_first_line(error)} Copy or save it again.") from error
    return color[None].contiguous()


def through_jpeg(image: Tensor, quality: int) -> Tensor:
    """Compresses an image (3, H, W) in [0, 1] as JPEG of quality 1 to 95 and decodes it again; no gradient.

    Example:
        >>> through_jpeg(torch.full((3, 8, 8), 0.2), quality=90).shape
        torch.Size([3, 8, 8])
    """
    file = BytesIO()
    samples = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(file, "JPEG", quality=quality)
    return read_image(file.getvalue())[0]


_BOMB_MEND = "Score a crop of it or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."


@functools.cache
def _formats() -> list[str]:
    """Pillow's formats of `SUFFIXES`. Leaves out PostScript, which runs a program, and TGA, which has no signature."""
    known = Image.registered_extensions()
    return sorted({known[suffix] for suffix in SUFFIXES if suffix in known})


def _open(file: Any) -> tuple[str, bytes | Image.Image]:
    """The name for messages, and the file's bytes: given a path, Pillow maps the file and misreads rotated TIFFs."""
    if isinstance(file, Image.Image):
        return "The PIL image", file
    if isinstance(file, bytes | bytearray | memoryview):
        name, data = "What was given as bytes", bytes(file)
        mend = "copy or save it again"
    elif isinstance(file, str | os.PathLike):
        name, data = str(file), _read_path(Path(file))
        mend = "copy or save it again"
    elif callable(getattr(file, "read", None)):
        name, data = "What was given as a file", _read_stream(file)
        mend = "if it was read before, call seek(0)"
    else:
        if isinstance(file, np.ndarray | Tensor):
            mend = (
                "metrics take it as a tensor (N, 3, H, W) in [0, 1]: from uint8 (H, W, 3), "
                "torch.from_numpy(array).permute(2, 0, 1)[None] / 255 makes one."
            )
        else:
            mend = "pass the path of an image."
        raise TypeError(
            f"read_image takes a path, bytes, a binary file or a PIL image, got {type(file).__name__}: {mend}"
        )
    if not data:
        raise ImageError(f"{name} is empty (0 bytes), expected an image: {mend}.")
    return name, data


def _read_path(path: Path) -> bytes:
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder, expected an image file: list_images finds those in it.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"There is no image {path}: check the path.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _read_stream(file: Any) -> bytes:
    """Reads the rest of a file object."""
    if isinstance(file, io.TextIOBase):
        raise TypeError('read_image takes a binary file, got one that is open as text: open it with "rb".')
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise ImageError(f"The file cannot be read: {_first_line(error)} Open it again for reading.") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"read_image takes a file whose read() returns bytes, got {type(data).__name__} from it.")
    return bytes(data)


def _decode(name: str, data: bytes) -> Tensor:
    """The color (3, H, W) of a file, blended over white."""
    tags = _tiff_tags(name, data)
    if tags and (found := _unknown_samples(tags)):
        raise _refusal(name, found)
    if tags and _has_planes(tags):
        return _join_planes(name, data, tags)
    try:
        with Image.open(BytesIO(data), formats=_formats()) as image:
            _check_size(name, image.size)
            if image.mode == "F":
                raise _refusal(name, "floats")
            return _file_color(data, image)
    except UnidentifiedImageError as error:
        if not tags:
            raise
        bits, channels = tags.get(_BITS, (1,)), tags.get(_CHANNELS, 1)
        found = f"{channels} x {bits[0]} bits of photometric {tags.get(_COLORS)}, which Pillow does not read"
        raise _refusal(name, found, "gray, RGB or RGBA of 8 or 16 bits") from error


def _convert(name: str, image: Image.Image) -> Tensor:
    """The color (3, H, W) of a PIL image, blended over white; the PIL image is not changed."""
    _check_size(name, image.size)
    tags = getattr(image, "tag_v2", None)
    if tags and (found := _unknown_samples(tags)):
        raise _refusal(name, found)
    if tags and _has_planes(tags) and tags.get(_BITS, (1,))[0] > 8:
        raise ImageError(f"{name} has 16-bit channels that lie apart, which Pillow misreads: pass the file's path.")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise _refusal(name, "floats" if image.mode == "F" else "32-bit integers")
    return _color(ImageOps.exif_transpose(image))


def _refusal(name: str, found: str, expected: str = "samples of 8 or 16 bits from black at 0 to white") -> ImageError:
    mend = "save it as such, or scale it to [0, 1] and pass the tensor"
    return ImageError(f"{name} holds {found}, expected {expected}: {mend}.")


def _check_size(name: str, size: tuple[int, int]) -> None:
    width, height = size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(f"{name} has {width}x{height} pixels, more than the safe limit of {limit}. {_BOMB_MEND}")
    if not width * height:
        raise ImageError(f"{name} has {width}x{height} pixels, expected at least one.")


def _tiff_tags(name: str, data: bytes) -> Any:
    """The tags of a TIFF's first frame; None if the file is not a TIFF."""
    if not data.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return None
    if data.startswith(b"MM\0+"):
        raise ImageError(f"{name} is a big-endian BigTIFF, which Pillow misreads: save it as a little-endian one.")
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
    file = BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _unknown_samples(tags: Mapping[int, Any]) -> str:
    """Describes a TIFF's samples if their full scale is unknown or Pillow misreads them; otherwise ""."""
    bits, colors, compression = tags.get(_BITS, (1,)), tags.get(_COLORS, 0), tags.get(_COMPRESSION, 1)
    kinds = {2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
    if kind := kinds.get(max(tags.get(_SAMPLE_FORMAT, (1,)))):
        return f"{bits[0]}-bit {kind}"
    if len(set(bits)) > 1:
        return f"channels of {', '.join(map(str, bits))} bits"
    if bits[0] not in (1, 2, 4, 8, 16):
        return f"{bits[0]}-bit {'gray' if colors in (0, 1) else 'samples'}"
    if bits[0] == 16 and colors == 0:
        return "16-bit gray with white as 0"
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"samples of compression {compression}, which Pillow does not read"
    if colors == 6 and compression == 1 and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return "YCbCr whose colors are subsampled without compression, which Pillow misreads"
    if colors in (0, 1) and tags.get(_CHANNELS, 1) > 2:
        return f"{tags[_CHANNELS]} channels of gray"
    if _has_planes(tags) and colors not in (1, 2):
        return "channels that lie apart and are neither gray nor RGB"
    return ""


def _has_planes(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF stores each channel separately (PlanarConfiguration 2), as (C, H, W) does."""
    return tags.get(_PLANAR) == 2 and tags.get(_CHANNELS, 1) > 1


def _join_planes(name: str, data: bytes, tags: Mapping[int, Any]) -> Tensor:
    """The color of a planar TIFF. Each channel is read as gray: Pillow misreads 16-bit and gray planar TIFFs."""
    count, colors = tags[_CHANNELS], 3 if tags[_COLORS] == 2 else 1
    planes = torch.cat([_decode(name, _plane(data, tags, index))[:1] for index in range(count)])
    meaning = tags.get(_EXTRA, (2,))[0]  # of the channels after the colors: 2 is alpha, 1 is premultiplied alpha
    alpha = planes[colors : colors + 1] if count > colors and meaning in (1, 2) else None
    return _over_white(planes[:colors], alpha, meaning == 1)


def _plane(data: bytes, tags: Mapping[int, Any], index: int) -> bytes:
    """One channel of a planar TIFF as a gray TIFF: the same bytes, with a new directory appended."""
    own = {tag: tags[tag] for tag in _SHARED if tag in tags}
    own |= {_BITS: tags.get(_BITS, (1,))[0], _COLORS: 1, _CHANNELS: 1}
    for tag in _PLACES:
        if tag in tags:
            share = len(tags[tag]) // tags[_CHANNELS]
            own[tag] = tags[tag][share * index : share * (index + 1)]
    order = "<" if data[:1] == b"I" else ">"
    after = len(data) + 2 + 12 * len(own) + 4
    entries, beyond = b"", b""
    for tag, value in sorted(own.items()):
        values = (value,) if isinstance(value, int) else value
        kind, packed = (7, values) if isinstance(values, bytes) else (4, struct.pack(f"{order}{len(values)}I", *values))
        if len(packed) > 4:
            packed, beyond = struct.pack(f"{order}I", after + len(beyond)), beyond + packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    header = data[:2] + struct.pack(f"{order}HI", 42, len(data))
    return header + data[8:] + struct.pack(f"{order}H", len(own)) + entries + bytes(4) + beyond


def _file_color(data: bytes, image: ImageFile.ImageFile) -> Tensor:
    """The color (3, H, W) of a file that Pillow has opened, blended over white."""
    orders = [_layout(tile)[0] for tile in image.tile] if image.format in ("PNG", "TIFF") else []
    multiplied = any(order.startswith("RGBa") for order in orders)
    if multiplied:  # premultiplied alpha; Pillow would divide by it and round
        _relabel(image, _straight_alpha)
    deep = bool(orders) and all(_straight_alpha(order) in _OTHER_ORDER for order in orders)
    ImageOps.exif_transpose(image, in_place=True)
    return _color(image, _lower_bytes(data) if deep else None, multiplied)


def _color(image: Image.Image, lower: Image.Image | None = None, multiplied: bool = False) -> Tensor:
    """The color (3, H, W) of an upright image over white, float32 in [0, 1].

    `lower` holds the lower bytes of 16-bit color; `multiplied` means that alpha is premultiplied.
    """
    if image.mode in ("La", "RGBa"):
        image, multiplied = Image.merge(image.mode.upper(), image.split()), True
    transparent = image.info.get("transparency")
    if lower:
        samples, white = _floats(image) * 256 + _floats(lower), 65535
    elif image.mode.startswith("I"):
        samples, white = _floats(image)[None], 65535
    else:
        samples, white = _floats(image.convert("RGBA" if image.has_transparency_data else "RGB")), 255
        transparent = None  # now in the alpha channel
    alpha = None
    if transparent is not None:
        alpha = (samples != torch.tensor(transparent).reshape(-1, 1, 1)).any(0, keepdim=True).float()
    samples /= white
    return _over_white(samples[:3], samples[3:] if len(samples) == 4 else alpha, multiplied)


def _over_white(color: Tensor, alpha: Tensor | None, multiplied: bool) -> Tensor:
    """Blends a color over white, (3, H, W); `multiplied` means that alpha is premultiplied."""
    if alpha is not None:
        color = ((color if multiplied else color * alpha) + (1 - alpha)).clamp(max=1)
    return color.expand(3, -1, -1)


def _lower_bytes(data: bytes) -> Image.Image:
    """The lower bytes of an image of 16-bit RGB(A) samples.

    Pillow decodes only the upper byte of each sample. With the opposite byte order it decodes the lower one.
    """
    with Image.open(BytesIO(data), formats=_formats()) as image:
        _relabel(image, lambda order: _OTHER_ORDER[_straight_alpha(order)])
        ImageOps.exif_transpose(image, in_place=True)
        return image


def _relabel(image: ImageFile.ImageFile, rename: Callable[[str], str]) -> None:
    """Renames the raw mode by which Pillow decodes the samples of each tile."""
    for index, tile in enumerate(image.tile):
        order, *rest = _layout(tile)
        other: Any = (rename(order), *rest) if rest else rename(order)
        remake: Any = getattr(type(tile), "_make", tuple)  # before Pillow 11.1 these are plain tuples
        image.tile[index] = remake((*tile[:3], other))


def _straight_alpha(order: str) -> str:
    """The raw mode that keeps premultiplied colors, for one that divides them by alpha."""
    return order.replace("RGBa", "RGBA")


def _layout(tile: Any) -> tuple[Any, ...]:
    """The arguments of a tile's decoder: Pillow's raw mode, then any others."""
    return (tile[3],) if isinstance(tile[3], str) else tuple(tile[3])


def _floats(image: Image.Image) -> Tensor:
    """The samples of an image as float32, (C, H, W), or (H, W) for one channel."""
    samples = np.array(image)
    if samples.dtype != np.uint8:
        return torch.from_numpy(samples.astype(np.float32))  # astype also fixes the byte order
    return torch.from_numpy(samples).permute(2, 0, 1).contiguous().float()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
