"""Resizing of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import clamp_to_range


def resize(image: Tensor, size: Sequence[int], mode: str, overshoot: bool = False) -> Tensor:
    """Images (N, C, H, W) at another height and width, by antialiased "bilinear" or "bicubic" interpolation.

    They stay in [0, 1], beyond which bicubic interpolation overshoots at edges, unless `overshoot` keeps that. It
    computes in float32 or better, since a CPU has no such resize in half precision.
    """
    single = image.to(torch.promote_types(image.dtype, torch.float32))
    resized = F.interpolate(single, list(size), mode=mode, antialias=True)
    return (resized if overshoot else clamp_to_range(resized)).to(image.dtype)


def resize_shorter_side(image: Tensor, side: int, mode: str, overshoot: bool = False) -> Tensor:
    """Images (N, C, H, W) with a shorter side of `side` pixels and the longer one in proportion, rounded down.

    See `resize` for the rest. Rounding down is what torchvision's `Resize` does.
    """
    shorter = min(image.shape[-2:])
    return resize(image, [side * length // shorter for length in image.shape[-2:]], mode, overshoot)
