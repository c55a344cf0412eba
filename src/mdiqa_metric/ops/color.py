"""Conversions of color and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .autograd import is_recorded

# ITU-R BT.601 luma of R, G, B, to three decimals as the standard writes it.
BT601 = (0.299, 0.587, 0.114)
# MATLAB's rgb2ycbcr: the same luma squeezed into the studio range 16..235, of 255.
STUDIO = (65.481, 128.553, 24.966)
# MATLAB's rgb2gray: the first row of the inverse of its YIQ matrix, BT.601 with more digits.
RGB2GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)


def luma_full(image: Tensor) -> Tensor:
    """Full-range BT.601 luma (N, 1, H, W) in [0, 1] of RGB (N, 3, H, W) in [0, 1]."""
    red, green, blue = image.split(1, 1)
    return BT601[0] * red + BT601[1] * green + BT601[2] * blue


def luma_studio(image: Tensor) -> Tensor:
    """Studio-range luma (N, 1, H, W) in [16/255, 235/255] of RGB (N, 3, H, W) in [0, 1], as MATLAB's rgb2ycbcr."""
    red, green, blue = image.split(1, 1)
    return (STUDIO[0] * red + STUDIO[1] * green + STUDIO[2] * blue + 16.0) / 255


def gray_matlab(image: Tensor) -> Tensor:
    """MATLAB's rgb2gray of an 8-bit image: luma (N, 1, H, W) rounded to 8 bits, of RGB (N, 3, H, W) in [0, 1]."""
    red, green, blue = image.split(1, 1)
    return round_8bit(RGB2GRAY[0] * red + RGB2GRAY[1] * green + RGB2GRAY[2] * blue)


def clamp_to_range(image: Tensor) -> Tensor:
    """The image brought to [0, 1]. Black and white keep their gradient, which `torch.clamp` takes from them."""
    clamped = image.detach().clamp(0, 1)
    return torch.where((image < 0) | (image > 1), clamped, image) if is_recorded(image) else clamped


def round_8bit(image: Tensor) -> Tensor:
    """The image rounded to whole steps of 1/255; its gradient passes as if nothing were rounded (straight through)."""
    return image + ((image.detach() * 255).round() / 255 - image.detach())


class Channel(NamedTuple):
    """What a metric scores: in words, and the conversion from RGB (N, 3, H, W) in [0, 1]."""

    words: str
    convert: Callable[[Tensor], Tensor]


CHANNELS = {
    "rgb": Channel("RGB", lambda image: image),
    "y-full": Channel("Y BT.601 full range", luma_full),
    "y-studio": Channel("Y BT.601 studio range (MATLAB)", luma_studio),
    "gray": Channel("MATLAB rgb2gray, 8 bits", gray_matlab),
}

# What `gray_as_is` adds to those words.
GRAY_AS_IS = ", a gray pair by its one channel as it is"


def convert(image: Tensor, reference: Tensor, channel: str, gray_as_is: bool = False) -> tuple[Tensor, Tensor]:
    """Converts a pair of RGB images (N, 3, H, W) in [0, 1] to one of `CHANNELS`.

    With `gray_as_is`, a pair of images that both have three equal channels keeps one of them unchanged.
    """
    converted = CHANNELS[channel].convert(image), CHANNELS[channel].convert(reference)
    if not gray_as_is:
        return converted
    gray = _is_gray(image) & _is_gray(reference)
    pair = zip((image, reference), converted, strict=True)
    first, second = (torch.where(gray, plain[:, : y.shape[1]], y) for plain, y in pair)
    return first, second


def _is_gray(image: Tensor) -> Tensor:
    return (image == image[:, :1]).all(dim=1, keepdim=True).all(dim=2, keepdim=True).all(dim=3, keepdim=True)
