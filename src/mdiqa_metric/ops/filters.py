"""Filtering and resampling that metrics share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """The `size` taps of a Gaussian, `exp(-k^2 / (2 sigma^2))` around the middle, scaled to sum to 1: (size,).

    They have the device and dtype of `like`. Computed on each use: a buffer would lose precision in `metric.half()` and
    tie the metric to one device.

    Example:
        >>> gaussian_window(3, 1.0, torch.ones(1))
        tensor([0.2741, 0.4519, 0.2741])
    """
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    taps = (-offsets.square() / (2 * sigma**2)).exp()
    return taps / taps.sum()


def filter_separable(maps: Tensor, taps: Tensor, padding: int = 0) -> Tensor:
    """Correlates each map (N, C, H, W) with the outer product of taps (K,) with themselves.

    The maps are first padded by `padding` zeros per side. With symmetric taps, a padding of K - 1 gives the adjoint
    of no padding.

    Returns:
        (N, C, H + 2 padding - K + 1, W + 2 padding - K + 1).

    Example:
        >>> filter_separable(torch.ones(1, 1, 3, 4), torch.tensor([0.5, 0.5]))
        tensor([[[[1., 1., 1.],
                  [1., 1., 1.]]]])
    """
    count, channels, height, width = maps.shape
    planes = count * channels  # as channels of one image, which CPU kernels vectorize
    rows = taps.view(1, 1, -1, 1).expand(planes, 1, -1, 1)
    maps = F.conv2d(maps.reshape(1, planes, height, width), rows, padding=(padding, 0), groups=planes)
    maps = F.conv2d(maps, rows.transpose(-1, -2), padding=(0, padding), groups=planes)
    return maps.view(count, channels, *maps.shape[-2:])


def filter_channels(maps: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Correlates each channel with its own separable kernel, `down` along its columns and `across` along its rows.

    Args:
        maps: (N, C, H, W), not padded.
        down, across: (C, K) taps, with K at most H and W.

    Returns:
        (N, C, H - K + 1, W - K + 1).

    Example:
        >>> down, across = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        >>> filter_channels(torch.arange(8.0).view(1, 2, 2, 2), down, across).flatten()
        tensor([6., 5.])
    """
    channels = maps.shape[1]
    maps = F.conv2d(maps, down[:, None, :, None], groups=channels)
    return F.conv2d(maps, across[:, None, None, :], groups=channels)


def gaussian_derivatives(maps: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical derivative of maps (N, C, H, W) by a Gaussian's, (N, C, H, W) each.

    The window is `-x exp(-(x^2 + y^2) / (2 sigma^2))`, 2 ceil(3 sigma) + 1 pixels wide and not scaled; zeros frame the
    maps. Pixels are subtracted first, so that flat regions give exactly 0.

    Example:
        >>> gaussian_derivatives(torch.arange(9.0).expand(1, 1, 9, 9), 0.5)[0][0, 0, 4, 3:6]
        tensor([0.3475, 0.3475, 0.3475])
    """
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    taps = (-offsets.square() / (2 * sigma**2)).exp()
    count, channels, height, width = maps.shape
    planes = maps.reshape(1, count * channels, height, width)
    across, down = F.pad(planes, (reach, reach)), F.pad(planes, (0, 0, reach, reach))
    horizontal, vertical = torch.zeros_like(planes), torch.zeros_like(planes)
    for step in range(1, reach + 1):
        weight = step * math.exp(-(step**2) / (2 * sigma**2))
        ahead, behind = reach + step, reach - step
        horizontal += weight * (across[..., ahead : ahead + width] - across[..., behind : behind + width])
        vertical += weight * (down[..., ahead : ahead + height, :] - down[..., behind : behind + height, :])
    window = taps.expand(count * channels, 1, 1, -1)
    horizontal = F.conv2d(horizontal, window.mT, padding=(reach, 0), groups=count * channels)
    vertical = F.conv2d(vertical, window, padding=(0, reach), groups=count * channels)
    return horizontal.view(maps.shape), vertical.view(maps.shape)


def downsample_mean(image: Tensor, factor: int) -> Tensor:
    """MATLAB's `imfilter(image, ones(factor) / factor^2, "symmetric")(1:factor:end, 1:factor:end)`.

    Args:
        image: (N, C, H, W), each side at least `factor`.
        factor: 1 or more.

    Returns:
        (N, C, ceil(H / factor), ceil(W / factor)), within the range of the image.

    Example:
        >>> downsample_mean(torch.tensor([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]).view(1, 1, 2, 3), 2)
        tensor([[[[1.5000, 3.0000]]]])
    """
    for dim in (-2, -1):
        size = image.shape[dim]
        before = (factor - 1) // 2
        after = max(0, -(-size // factor) * factor - size - before)
        image = pad_symmetric(image, dim, before, after)
    return F.avg_pool2d(image, factor)


def pad_symmetric(image: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The image, of any shape, extended along `dim` by its mirror image, edge pixels included; F.pad has no such mode.

    `before` and `after` count the values added at each end, at most as many as there are.

    Example:
        >>> pad_symmetric(torch.tensor([1.0, 2.0, 3.0]), 0, 2, 1)
        tensor([2., 1., 1., 2., 3., 3.])
    """
    parts = [image]
    if before:
        parts.insert(0, image.narrow(dim, 0, before).flip(dim))
    if after:
        parts.append(image.narrow(dim, image.shape[dim] - after, after).flip(dim))
    return torch.cat(parts, dim) if len(parts) > 1 else image
