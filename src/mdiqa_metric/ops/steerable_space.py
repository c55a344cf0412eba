"""Horizontal and vertical details of a steerable pyramid whose filters are small tables of pixels.

Simoncelli and Freeman's (ICIP 1995) `sp5Filters` of matlabPyrTools; `steerable_pyramid` has its spectrum's ideal form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision

# The upper left quarter, middle included, of tables that are alike under reflections.
LOW_PASS_FIRST = (
    (0.00341614, -0.01551246, -0.03848215),
    (-0.01551246, 0.05586982, 0.15925570),
    (-0.03848215, 0.15925570, 0.40304148),
)
LOW_PASS = (
    (0.00170808, -0.00489834, -0.00775624, -0.01888864, -0.01924108),
    (-0.00489834, -0.01046562, -0.01322234, 0.00821200, 0.02005976),
    (-0.00775624, -0.01322234, 0.02793492, 0.06554076, 0.07962786),
    (-0.01888864, 0.00821200, 0.06554076, 0.12852666, 0.16339236),
    (-0.01924108, 0.02005976, 0.07962786, 0.16339236, 0.20193080),
)
# Odd from top to bottom.
HORIZONTAL = (
    (0.00277643, 0.00496194, 0.01026699, 0.01455399),
    (-0.00986904, -0.00893064, 0.01189859, 0.02755155),
    (-0.01021852, -0.03075356, -0.08226445, -0.11732297),
    (0.0, 0.0, 0.0, 0.0),
)


@full_precision
def axis_bands(maps: Tensor, scales: int) -> list[Tensor]:
    """Horizontal and vertical details of maps (N, 1, H, W), from fine to coarse: (N, 2, h, w) each.

    The first have the size of the maps, each other half of the one before, rounded up. Borders are mirrored, edge
    pixels not repeated. Two of the pyramid's six orientations; flat maps have exactly none.

    Args:
        maps: with sides of at least 2^(scales + 1).
        scales: 1 or more.

    Example:
        >>> [band.shape for band in axis_bands(torch.zeros(1, 1, 33, 40), 2)]
        [torch.Size([1, 2, 33, 40]), torch.Size([1, 2, 17, 20])]
    """
    first, low, horizontal = (_whole(table, maps) for table in (LOW_PASS_FIRST, LOW_PASS, HORIZONTAL))
    horizontal[len(horizontal) // 2 + 1 :] *= -1
    both = torch.stack([horizontal, horizontal.T]).unsqueeze(1)
    # Details do not change with the origin, but lose digits far from it.
    maps = _filter(maps - maps.detach().mean((-2, -1), keepdim=True), first[None, None])
    bands = []
    for scale in range(scales):
        if scale:
            maps = _filter(maps, low[None, None], stride=2)
        bands.append(_filter(maps, both))
    return bands


def _whole(quarter: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The table of which that is the quarter: (K, K), with the device and dtype of `like`."""
    table = torch.tensor(quarter, dtype=like.dtype, device=like.device)
    for dim in (0, 1):
        table = torch.cat([table, table.narrow(dim, 0, len(quarter) - 1).flip(dim)], dim)
    return table


def _filter(maps: Tensor, tables: Tensor, stride: int = 1) -> Tensor:
    reach = tables.shape[-1] // 2
    return F.conv2d(F.pad(maps, (reach,) * 4, mode="reflect"), tables, stride=stride)
