"""Conversions of colour and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

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
    """MATLAB's rgb2gray of an 8-bit picture: luma (N, 1, H, W) rounded to 8 bits, of RGB (N, 3, H, W) in [0, 1]."""
    red, green, blue = image.split(1, 1)
    return round_8bit(RGB2GRAY[0] * red + RGB2GRAY[1] * green + RGB2GRAY[2] * blue)


def round_8bit(image: Tensor) -> Tensor:
    """The image rounded to whole steps of 1/255; its gradient passes as if nothing were rounded (straight through)."""
    return image + ((image.detach() * 255).round() / 255 - image.detach())


class Channel(NamedTuple):
    """What a metric looks at: in words, and how it is had from RGB (N, 3, H, W) in [0, 1]."""

    words: str
    convert: Callable[[Tensor], Tensor]


CHANNELS = {
    "rgb": Channel("RGB", lambda image: image),
    "y-full": Channel("Y BT.601 full range", luma_full),
    "y-studio": Channel("Y BT.601 studio range (MATLAB)", luma_studio),
    "gray": Channel("MATLAB rgb2gray, 8 bits", gray_matlab),
}
