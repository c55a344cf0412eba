"""Picture files: read into tensors, found in folders, paired by name. The only place that knows Pillow."""

from __future__ import annotations

import functools
import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# Pillow's names of 16-bit colour, each with the one that takes the bytes of a sample the other way round.
_OTHER_ORDER = {f"{mode};16{order}": f"{mode};16{_SWAPPED[order]}" for mode in ("RGB", "RGBA") for order in _SWAPPED}

_Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class ImageError(ValueError):
    """A picture cannot be read, found or paired; the text says what was expected, what came and the mend."""


def read_image(file: str | os.PathLike[str] | bytes) -> Tensor:
    """A picture file, given by its path or as the bytes in it, as floats (1, 3, H, W) in [0, 1], float32 on the CPU.

    Samples are divided by their full scale, 255 or 65535, and never resized. Beyond that:

    * EXIF rotation is applied; of several frames the first is read.
    * Transparency (an alpha channel, a palette's, a transparent colour) is blended over white; opaque pixels keep their
      values.
    * Grey, 1-bit, palette, CMYK and Lab pictures become RGB by Pillow's plain formulas. ICC profiles are ignored.
    * 16 bits are kept in grey and in RGB(A) PNG and TIFF. Pillow reduces to 8 what else has more: 16-bit grey with
      alpha, PPM, JPEG 2000 and CMYK in colour, 10-bit AVIF (which it reads from 11.3 on).

    Raises:
        ImageError: no such file, a folder, empty, damaged, cut short, of no kind in `SUFFIXES`, of more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or of samples without a known full scale (floats, 32-bit integers, 12 bits).
    """
    name: Path | str = "What was given as bytes" if isinstance(file, bytes) else Path(file)
    data = file if isinstance(file, bytes) else _read_bytes(Path(file))
    if not data:
        raise ImageError(f"{name} is empty (0 bytes), expected a picture: copy or save it again.")
    try:
        with Image.open(BytesIO(data), formats=_formats()) as picture:
            _check_size(name, picture.size)
            _check_scale(name, picture)
            colour, alpha = _colour_and_alpha(data, picture)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name} has too many pixels to be opened safely. {_first_line(error)} {_BOMB_MEND}"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is no picture: its bytes are none of {', '.join(_formats())}, or damaged from the start. "
            "Look at what the file holds."
        ) from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ImageError(f"{name} is damaged or cut short: {_first_line(error)} Copy or save it again.") from error
    if alpha is not None:
        colour = colour * alpha + (1 - alpha)
    return colour[None].contiguous()


def through_jpeg(picture: Tensor, quality: int) -> Tensor:
    """A picture (3, H, W) in [0, 1] as a JPEG file of that quality, 1 to 95, keeps it."""
    file = BytesIO()
    samples = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(file, "JPEG", quality=quality)
    return read_image(file.getvalue())[0]


def list_images(paths: _Paths) -> list[Path]:
    """The picture files that folders, glob patterns and file names stand for, each once.

    Folders and patterns give what ends in one of `SUFFIXES`, hidden files left out, in natural order (2 before 10);
    folders are not searched in depth, the pattern "folder/**" is. A file name is taken as it is, whatever its suffix;
    whether it exists, reading it will tell.

    Raises:
        ImageError: a folder or a pattern without a picture.
    """
    found: dict[str, Path] = {}
    for name in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(name)
        if path.is_dir():
            some = _pictures(path.iterdir())
        elif glob.has_magic(str(name)) and not path.exists():
            some = _pictures(map(Path, glob.iglob(str(name), recursive=True)))
        else:
            some = [path]
        if not some:
            kind = "The folder" if path.is_dir() else "The pattern"
            raise ImageError(f"{kind} {name} holds no picture: expected files that end in {', '.join(SUFFIXES)}.")
        for one in some:
            found.setdefault(os.path.abspath(one), one)
    return list(found.values())


def pair_by_stem(images: Sequence[Path], references: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each image with the reference of its name; suffixes may differ ("bird.jpg" with "bird.png").

    Raises:
        ImageError: an image without a reference, a reference without an image, or a name that occurs twice; all
            three are listed.
    """
    by_stem = {reference.stem: reference for reference in references}
    stems = {image.stem for image in images}
    complaints = [
        ("Images without a reference", [image for image in images if image.stem not in by_stem]),
        ("References without an image", [reference for reference in references if reference.stem not in stems]),
        ("Images whose name occurs twice", _repeated(images)),
        ("References whose name occurs twice", _repeated(references)),
    ]
    if found := [f"{what}: {_few(files)} ({len(files)})" for what, files in complaints if files]:
        raise ImageError(f"Images and references pair by file name without suffix. {'. '.join(found)}.")
    return [(image, by_stem[image.stem]) for image in images]


_BOMB_MEND = "Score a crop of it or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."


@functools.cache
def _formats() -> list[str]:
    """Pillow's names of what `SUFFIXES` stand for: programs are not run for PostScript, nor guesses made for TGA."""
    known = Image.registered_extensions()
    return sorted({known[suffix] for suffix in SUFFIXES if suffix in known})


def _read_bytes(path: Path) -> bytes:
    # Pillow gets bytes, not a path, because it maps files into memory and then misreads rotated TIFFs (Pillow 13).
    if path.is_dir():
        raise ImageError(f"{path} is a folder, expected a picture file: list_images finds those in it.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"There is no picture {path}: check the path.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error


def _check_size(name: Path | str, size: tuple[int, int]) -> None:
    width, height = size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than the {limit} that are opened safely. {_BOMB_MEND}"
        )


def _check_scale(name: Path | str, picture: Any) -> None:
    """Refuses samples whose white is not known."""
    if picture.mode == "F":
        found = "floats"
    elif picture.mode == "I" and picture.format == "TIFF":
        found = "32-bit or signed integers"
    elif picture.mode.startswith("I;16") and picture.format == "TIFF":
        bits, meaning = picture.tag_v2.get(258), picture.tag_v2.get(262)
        if bits == (16,) and meaning == 1:
            return
        found = f"{bits[0]}-bit grey" if bits != (16,) else "16-bit grey with white as 0"
    else:
        return
    raise ImageError(
        f"{name} holds {found}, expected samples of 8 or 16 bits from black at 0 to white: save it as such, or scale "
        "it to [0, 1] and pass the tensor."
    )


def _colour_and_alpha(data: bytes, picture: ImageFile.ImageFile) -> tuple[Tensor, Tensor | None]:
    """Colour (3, H, W) and, where there is transparency, opacity (1, H, W), both float32 in [0, 1]."""
    deep = picture.format in ("PNG", "TIFF") and all(_layout(tile)[0] in _OTHER_ORDER for tile in picture.tile)
    ImageOps.exif_transpose(picture, in_place=True)
    transparent = picture.info.get("transparency")
    if deep:
        samples, white = _floats(picture) * 256 + _floats(_lower_bytes(data)), 65535
    elif picture.mode.startswith("I"):
        samples, white = _floats(picture)[None], 65535
    else:
        samples, white = _floats(picture.convert("RGBA" if picture.has_transparency_data else "RGB")), 255
        transparent = None  # it is in the alpha channel now
    alpha = None
    if transparent is not None:
        alpha = (samples != torch.tensor(transparent).reshape(-1, 1, 1)).any(0, keepdim=True).float()
    samples /= white
    return samples[:3].expand(3, -1, -1), samples[3:] if len(samples) == 4 else alpha


def _lower_bytes(data: bytes) -> Image.Image:
    """The lower bytes of a picture of 16-bit RGB(A) samples.

    Pillow decodes the upper byte of each alone. Told that they lie the other way round, it decodes the lower one.
    """
    with Image.open(BytesIO(data), formats=_formats()) as picture:
        for index, tile in enumerate(picture.tile):
            order, *rest = _layout(tile)
            other: Any = (_OTHER_ORDER[order], *rest) if rest else _OTHER_ORDER[order]
            remake: Any = getattr(type(tile), "_make", tuple)  # before Pillow 11.1 these are plain tuples
            picture.tile[index] = remake((*tile[:3], other))
        ImageOps.exif_transpose(picture, in_place=True)
        return picture


def _layout(tile: Any) -> tuple[Any, ...]:
    """How the samples of a tile lie in the file: Pillow's raw mode, and whatever else its decoder is told."""
    return (tile[3],) if isinstance(tile[3], str) else tuple(tile[3])


def _floats(picture: Image.Image) -> Tensor:
    """The samples of a picture as float32, (C, H, W), or (H, W) where it has one channel."""
    samples = np.array(picture)
    if samples.dtype != np.uint8:
        return torch.from_numpy(samples.astype(np.float32))  # of any byte order
    return torch.from_numpy(samples).permute(2, 0, 1).contiguous().float()


def _pictures(paths: Iterable[Path]) -> list[Path]:
    chosen = [path for path in paths if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]
    return sorted(chosen, key=_natural)


def _natural(path: Path) -> tuple[list[list[str | int]], Path]:
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return [[int(piece) if piece.isdecimal() else piece for piece in part] for part in parts], path


def _repeated(paths: Sequence[Path]) -> list[Path]:
    counts = Counter(path.stem for path in paths)
    return [path for path in paths if counts[path.stem] > 1]


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (", ..." if len(paths) > 5 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
