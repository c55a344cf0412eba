"""Deformable convolution by plain operations, which autograd can differentiate any number of times."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def deformable_conv(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution whose taps look elsewhere at each place (Dai et al., ICCV 2017), with stride and padding 1.

    Values between pixels are interpolated bilinearly, and outside of the map lie zeros, as in torchvision's
    `deform_conv2d`. That one has no second derivatives, and keeps a copy of the map a tap; this one keeps none if the
    weight is frozen.

    Args:
        x: (N, C, H, W).
        offsets: (N, 18, H, W): down and to the right for each of the taps, row by row, in pixels.
        weight: (D, C, 3, 3).
        bias: (D,).

    Returns:
        (N, D, H, W).

    Example:
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> middle = torch.zeros(1, 1, 3, 3)
        >>> middle[..., 1, 1] = 1
        >>> deformable_conv(x, torch.full((1, 18, 4, 4), 0.5), middle, torch.zeros(1))[0, 0, 0]
        tensor([2.5000, 3.5000, 4.5000, 2.5000])
    """
    count, _, height, width = x.shape
    # A row of channels for each pixel, and one of zeros for all that lie outside.
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows = torch.cat([rows, torch.zeros_like(rows[:1])])
    total = bias.expand(count * height * width, -1)
    for tap in range(9):
        down, right = offsets[:, 2 * tap] + (tap // 3 - 1), offsets[:, 2 * tap + 1] + (tap % 3 - 1)
        sampled = _sample(rows, down, right)
        total = total + sampled @ weight[:, :, tap // 3, tap % 3].T
    return total.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)


def _sample(rows: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Rows (N * H * W + 1, C), the last of zeros, so far (N, H, W) from each pixel: (N * H * W, C)."""
    count, height, width = down.shape
    images, lines, columns = (torch.arange(size, device=rows.device) for size in (count, height, width))
    y, x = down + lines.view(-1, 1), right + columns
    top, left = y.detach().floor(), x.detach().floor()
    total = torch.zeros_like(rows[:-1])
    for below in (0, 1):
        for beside in (0, 1):
            line, column = top + below, left + beside
            inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
            places = (images.view(-1, 1, 1) * height + line.long()) * width + column.long()
            places = torch.where(inside, places, len(rows) - 1)
            share = (1 - (y - line).abs()) * (1 - (x - column).abs())
            total = total + share.reshape(-1, 1) * rows.index_select(0, places.flatten())
    return total
