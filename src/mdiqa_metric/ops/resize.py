"""Resizing of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import clamp_to_range


def resized(image: Tensor, size: Sequence[int], mode: str, overshoot: bool = False) -> Tensor:
    """Pictures (N, C, H, W) at another height and width, by antialiased "bilinear" or "bicubic" interpolation.

    They stay in [0, 1], beyond which bicubic interpolation overshoots at edges, unless `overshoot` keeps that. It
    computes in float32 or better, for a CPU has no such resize in half precision.
    """
    single = image.to(torch.promote_types(image.dtype, torch.float32))
    other = F.interpolate(single, list(size), mode=mode, antialias=True)
    return (other if overshoot else clamp_to_range(other)).to(image.dtype)
