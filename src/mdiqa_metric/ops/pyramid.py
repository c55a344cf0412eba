"""The two steps of a Laplacian pyramid (Burt and Adelson, 1983); borders are the caller's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def halve(padded: Tensor, taps: Sequence[float]) -> Tensor:
    """Smooths maps by 5 taps each way and keeps every second row and column.

    Args:
        padded: (N, C, H + 4, W + 4), with two rows and columns of border on every side.
        taps: 5, symmetric.

    Returns:
        (N, C, ceil(H / 2), ceil(W / 2)).

    Example:
        >>> halve(torch.arange(8.0).expand(1, 1, 5, 8), (0.05, 0.25, 0.4, 0.25, 0.05))
        tensor([[[[2., 4.]]]])
    """
    for dim in (-2, -1):  # sums of slices: strided convolutions of single channels are slow on a CPU
        length = (padded.shape[dim] - 3) // 2
        outer, inner, middle, inner_after, outer_after = (
            _every_second(padded, dim, start, length) for start in range(5)
        )
        padded = taps[0] * (outer + outer_after) + taps[1] * (inner + inner_after) + taps[2] * middle
    return padded


def double(padded: Tensor, taps: Sequence[float], size: Sequence[int]) -> Tensor:
    """Puts zeros between rows and columns and smooths by twice the 5 taps, each way.

    Args:
        padded: (N, C, h + 2, w + 2), with one row and column of border on every side.
        taps: 5, symmetric.
        size: height 2h or 2h - 1 and width 2w or 2w - 1 of the result.

    Returns:
        (N, C, *size); the first row and column lie on those inside the border.

    Example:
        >>> double(torch.arange(4.0).expand(1, 1, 3, 4), (0.05, 0.25, 0.4, 0.25, 0.05), (1, 4))
        tensor([[[[1.0000, 1.5000, 2.0000, 2.5000]]]])
    """
    for dim, length in zip((-2, -1), size, strict=True):
        count = padded.shape[dim] - 2
        before, here, after = (padded.narrow(dim, start, count) for start in range(3))
        on = 2 * taps[0] * (before + after) + 2 * taps[2] * here
        between = 2 * taps[1] * (here + after)
        # Behind each row its successor between rows: an axis of two, flattened.
        padded = torch.stack([on, between], dim if dim == -1 else -2).flatten(dim - 1, dim).narrow(dim, 0, length)
    return padded


def _every_second(maps: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` rows (`dim` -2) or columns (-1), two apart, from `start`."""
    picked = slice(start, start + 2 * length - 1, 2)
    return maps[..., picked, :] if dim == -2 else maps[..., picked]
