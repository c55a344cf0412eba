"""Antialiased resizing of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import clamp_to_range


def resize(image: Tensor, size: Sequence[int], mode: str, overshoot: bool = False) -> Tensor:
    """Resizes images (N, C, H, W) in [0, 1] to (N, C, *size), antialiased.

    Computed in at least float32, since a CPU has no such resize in half precision, and returned in the image's dtype.

    Args:
        image: (N, C, H, W).
        size: height and width of the result.
        mode: "bilinear" or "bicubic".
        overshoot: keeps values outside [0, 1], which bicubic interpolation makes at edges; else they are clamped.

    Example:
        >>> resize(torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4), (1, 2), "bilinear")
        tensor([[[[0.1429, 0.8571]]]])
    """
    single = image.to(torch.promote_types(image.dtype, torch.float32))
    resized = F.interpolate(single, list(size), mode=mode, antialias=True)
    return (resized if overshoot else clamp_to_range(resized)).to(image.dtype)


def resize_shorter_side(image: Tensor, side: int, mode: str, overshoot: bool = False) -> Tensor:
    """Resizes images (N, C, H, W) to a shorter side of `side` pixels and a longer one in proportion, rounded down.

    torchvision's `Resize` rounds down too. See `resize` for the other arguments.

    Example:
        >>> resize_shorter_side(torch.rand(1, 3, 48, 100), 32, "bicubic").shape
        torch.Size([1, 3, 32, 66])
    """
    shorter = min(image.shape[-2:])
    return resize(image, [side * length // shorter for length in image.shape[-2:]], mode, overshoot)
