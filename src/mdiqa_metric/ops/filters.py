"""Filtering and resampling that metrics share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """The Gaussian's `size` taps (size,), summing to 1, on the device and in the dtype of `like`.

    Computed on each use: a buffer would lose precision in `metric.half()` and tie the metric to one device.
    """
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    taps = (-offsets.square() / (2 * sigma**2)).exp()
    return taps / taps.sum()


def filter_separable(maps: Tensor, taps: Tensor, padding: int = 0) -> Tensor:
    """Maps (N, C, H, W), framed by `padding` zeros, filtered by the outer product of taps (K,) with itself.

    With symmetric taps, a padding of K - 1 is the adjoint of no padding.

    Returns:
        (N, C, H + 2 padding - K + 1, W + 2 padding - K + 1).
    """
    count, channels, height, width = maps.shape
    planes = count * channels  # as channels of one image, which CPU kernels take by the vector
    rows = taps.view(1, 1, -1, 1).expand(planes, 1, -1, 1)
    maps = F.conv2d(maps.reshape(1, planes, height, width), rows, padding=(padding, 0), groups=planes)
    maps = F.conv2d(maps, rows.transpose(-1, -2), padding=(0, padding), groups=planes)
    return maps.view(count, channels, *maps.shape[-2:])


def downsample_mean(image: Tensor, factor: int) -> Tensor:
    """MATLAB's `imfilter(image, ones(factor) / factor^2, "symmetric")(1:factor:end, 1:factor:end)`.

    Args:
        image: (N, C, H, W), each side at least `factor`.
        factor: 1 or more.

    Returns:
        (N, C, ceil(H / factor), ceil(W / factor)).
    """
    for dim in (-2, -1):
        size = image.shape[dim]
        before = (factor - 1) // 2
        after = max(0, -(-size // factor) * factor - size - before)
        image = _pad_symmetric(image, dim, before, after)
    return F.avg_pool2d(image, factor)


def _pad_symmetric(image: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The image extended along `dim` by its mirror image, edge pixels included, a mode that F.pad lacks."""
    parts = [image]
    if before:
        parts.insert(0, image.narrow(dim, 0, before).flip(dim))
    if after:
        parts.append(image.narrow(dim, image.shape[dim] - after, after).flip(dim))
    return torch.cat(parts, dim) if len(parts) > 1 else image
