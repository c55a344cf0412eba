"""The discrete cosine transform of blocks of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def block_dct(maps: Tensor, size: int = 8) -> Tensor:
    """The orthonormal DCT-II of blocks of `size` x `size` pixels that do not overlap: (N, h, w, size, size).

    Maps are (N, 1, H, W); the H % size last rows and W % size last columns, which fill no block, are left out, so h and
    w are H // size and W // size. Coefficient [0, 0] is the block's mean times `size`. In at least float32.

    Example:
        >>> block_dct(torch.ones(1, 1, 9, 16))[0, 0, :, 0, 0]
        tensor([8.0000, 8.0000])
    """
    rows, columns = maps.shape[-2] // size, maps.shape[-1] // size
    blocks = maps[:, 0, : rows * size, : columns * size].unflatten(1, (rows, size)).unflatten(3, (columns, size))
    basis = dct_basis(size, maps)
    return basis @ blocks.transpose(2, 3) @ basis.T


def dct_basis(size: int, like: Tensor) -> Tensor:
    """The matrix (size, size) whose rows are the cosines of the orthonormal DCT-II, in the dtype of `like`.

    Example:
        >>> dct_basis(2, torch.ones(1))
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]])
    """
    # In Python's double precision, so that float32 has all its digits and no float64 tensor is made.
    rows = [
        [math.sqrt((2 if k else 1) / size) * math.cos(math.pi * (2 * n + 1) * k / (2 * size)) for n in range(size)]
        for k in range(size)
    ]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
