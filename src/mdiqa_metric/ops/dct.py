"""The discrete cosine transform of blocks of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision

# Side of a block.
SIDE = 8
# The orthonormal DCT-II of a row: a frequency in each line.
COSINES = [
    [math.sqrt((2 if k else 1) / SIDE) * math.cos(math.pi * (2 * place + 1) * k / (2 * SIDE)) for place in range(SIDE)]
    for k in range(SIDE)
]
# All coefficients of a block by their two frequencies, down and across.
ALL = tuple((m, n) for m in range(SIDE) for n in range(SIDE))


def blocks_of(maps: Tensor) -> Tensor:
    """Blocks of 8 x 8 pixels of maps (N, 1, H, W), a channel for each pixel: (N, 64, H // 8, W // 8).

    Blocks do not overlap; the H % 8 last rows and W % 8 last columns, which fill none, are left out.

    Example:
        >>> blocks_of(torch.rand(1, 1, 9, 16)).shape
        torch.Size([1, 64, 1, 2])
    """
    height, width = (size // SIDE * SIDE for size in maps.shape[-2:])
    return F.pixel_unshuffle(maps[..., :height, :width], SIDE)


@full_precision
def block_dct(blocks: Tensor, coefficients: Sequence[tuple[int, int]] = ALL) -> Tensor:
    """Coefficients of the orthonormal DCT-II of blocks (N, 64, h, w), as `blocks_of` gives: (N, K, h, w).

    The first, (0, 0), is the block's mean times 8. In at least float32.

    Args:
        blocks: pixels row by row.
        coefficients: the K wanted ones, by their frequencies down and across.

    Example:
        >>> block_dct(blocks_of(torch.ones(1, 1, 8, 16)), [(0, 0), (1, 0)]).round(decimals=4)[0, :, 0].abs()
        tensor([[8., 8.],
                [0., 0.]])
    """
    cosines = torch.tensor(COSINES, dtype=blocks.dtype, device=blocks.device)
    down, across = (cosines[[pair[axis] for pair in coefficients]] for axis in (0, 1))
    basis = (down[:, :, None] * across[:, None]).flatten(1)
    return (basis @ blocks.flatten(2)).unflatten(2, blocks.shape[-2:])
