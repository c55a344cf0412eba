"""Local statistics of maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import gaussian_window
from .powers import power
from .precision import full_precision


@full_precision
def local_statistics(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Local mean and standard deviation of maps (N, C, H, W), on a grid of `size` cells: (N, 2C, *size).

    `m = E[x]` of each cell, then `sqrt(max(E[x^2] - E[x]^2, 0) + 1e-4)` over the 3 x 3 cells around it, fewer at the
    border. The 1e-4 keeps the root's gradient finite; so deviations are 0.01 and more. In at least float32.

    Example:
        >>> local_statistics(torch.full((1, 1, 4, 4), 0.5), (1, 2))
        tensor([[[[0.5000, 0.5000]],
        <BLANKLINE>
                 [[0.0100, 0.0100]]]])
    """
    mean, square = F.adaptive_avg_pool2d(x, size), F.adaptive_avg_pool2d(x.square(), size)
    near, near_square = (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) for y in (mean, square))
    return torch.cat([mean, ((near_square - near.square()).clamp_min(0) + 1e-4).sqrt()], 1)


@full_precision
def standard_deviation(maps: Tensor, unbiased: bool) -> Tensor:
    """The standard deviation of each map (N, C, H, W), divided by n - 1 if `unbiased` and else by n: (N, C).

    From 0 up; constant maps give 0 and no gradient. In at least float32.

    Example:
        >>> standard_deviation(torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2), unbiased=False)
        tensor([[0.5000]])
    """
    return power(maps.flatten(2).var(2, unbiased=unbiased), 0.5)


@full_precision
def local_normalization(maps: Tensor, size: int, sigma: float, border: str = "replicate") -> Tensor:
    """`(x - m) / (s + 1)` of maps (N, C, H, W) in 0..255, with the local mean m and standard deviation s.

    Both are weighted by a Gaussian window of `size` pixels (odd), the mean-subtracted contrast-normalized coefficients
    of BRISQUE and NIQE. Differences are squared, not squares subtracted, so float32 suffices, and flat regions give
    exactly 0. In at least float32.

    Args:
        maps: (N, C, H, W).
        size, sigma: of the window.
        border: "replicate", where the edge is repeated beyond the border, or "constant", where zeros follow.

    Example:
        >>> local_normalization(torch.full((1, 1, 8, 8), 200.0), 5, 5 / 6).any()
        tensor(False)
    """
    height, width = maps.shape[-2:]
    padded = F.pad(maps, [size // 2] * 4, mode=border)
    taps = gaussian_window(size, sigma, maps)
    shifts = [
        (taps[row] * taps[column], padded[..., row : row + height, column : column + width])
        for row in range(size)
        for column in range(size)
    ]
    excess, variance = torch.zeros_like(maps), torch.zeros_like(maps)  # of the mean over the pixel
    for weight, shifted in shifts:
        excess = excess + weight * (shifted - maps)
    mean = maps + excess
    for weight, shifted in shifts:
        variance = variance + weight * (shifted - mean).square()
    return -excess / (power(variance, 0.5) + 1)


def normalize_locally(maps: Tensor) -> Tensor:
    """`(x - m) / (s + 1)` with mean m and standard deviation s of the 3 x 3 values around each: (N, C, H, W), the same.

    At the border the outermost values repeat. The deviation is the mean of squared differences, not the difference of
    means, so that constant maps give 0, and a finite gradient. In at least float32.

    Example:
        >>> normalize_locally(torch.full((1, 1, 2, 2), 0.3)).abs().max()
        tensor(0.)
    """
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    # Differences to the center first, whose mean is exactly 0 where all are equal.
    near = [padded[..., i : i + height, j : j + width] - maps for i in range(3) for j in range(3)]
    mean = torch.stack(near).sum(0) / 9
    variance = torch.stack([(each - mean).square() for each in near]).sum(0) / 9
    return -mean / (power(variance, 0.5) + 1)
