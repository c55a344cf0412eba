"""Antialiased resizing of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import clamp_to_range
from .precision import full_precision


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


@full_precision
def resize_matlab(maps: Tensor, size: Sequence[int]) -> Tensor:
    """MATLAB's bicubic `imresize`, antialiased where it shrinks: maps (..., H, W) -> (..., *size).

    Beyond the border the image is mirrored, where `resize` leaves the outside out, so the two differ near it. Values
    overshoot at edges. In at least float32.

    Example:
        >>> resize_matlab(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (1, 2))
        tensor([[0.0547, 0.9453]])
    """
    down, across = (_cubic_matrix(old, new, maps) for old, new in zip(maps.shape[-2:], size, strict=True))
    return down @ maps @ across.mT


def _cubic_matrix(old: int, new: int, like: Tensor) -> Tensor:
    """The weights (new, old) of a bicubic resize of one side, mirrored beyond the border."""
    stretch = min(new / old, 1.0)
    reach = math.ceil(2 / stretch) + 1
    # Positions in exact multiples of 1 / (2 new), which float32 alone would round.
    doubled = (2 * torch.arange(new, device=like.device) + 1) * old - new
    first = doubled.div(2 * new, rounding_mode="floor")
    offset = (doubled - first * 2 * new).to(like.dtype) / (2 * new)
    taps = torch.arange(-reach, reach + 1, device=like.device)
    weights = _cubic(stretch * (offset[:, None] - taps))
    weights = weights / weights.sum(1, keepdim=True)
    index = (first[:, None] + taps) % (2 * old)
    index = torch.minimum(index, 2 * old - 1 - index)
    return weights.new_zeros(new, old).scatter_add_(1, index, weights)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic kernel, a = -1/2."""
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x.square() + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
