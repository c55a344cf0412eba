"""Luma conversions."""

from __future__ import annotations

from torch import Tensor

# ITU-R BT.601 luma of R, G, B, to three decimals as the standard writes it.
BT601 = (0.299, 0.587, 0.114)
# MATLAB's rgb2ycbcr: the same luma squeezed into the studio range 16..235, of 255.
STUDIO = (65.481, 128.553, 24.966)


def luma_full(image: Tensor) -> Tensor:
    """Full-range BT.601 luma (N, 1, H, W) in [0, 1] of RGB (N, 3, H, W) in [0, 1]."""
    red, green, blue = image.unbind(1)
    return (BT601[0] * red + BT601[1] * green + BT601[2] * blue)[:, None]


def luma_studio(image: Tensor) -> Tensor:
    """Studio-range luma (N, 1, H, W) in [16/255, 235/255] of RGB (N, 3, H, W) in [0, 1], as MATLAB's rgb2ycbcr."""
    red, green, blue = image.unbind(1)
    return ((STUDIO[0] * red + STUDIO[1] * green + STUDIO[2] * blue + 16.0) / 255)[:, None]
