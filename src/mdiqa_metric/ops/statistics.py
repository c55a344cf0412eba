"""Local statistics of maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision


@full_precision
def local_statistics(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of a map (N, C, H, W) in each cell of a coarser grid, and deviation in 3 x 3 cells: (N, 2C, *size).

    The root in the deviation is smoothed near 0, where its gradient would be infinite.
    """
    mean, square = F.adaptive_avg_pool2d(x, size), F.adaptive_avg_pool2d(x.square(), size)
    near, near_square = (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) for y in (mean, square))
    return torch.cat([mean, ((near_square - near.square()).clamp_min(0) + 1e-4).sqrt()], 1)
