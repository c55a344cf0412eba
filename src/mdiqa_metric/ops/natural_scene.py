"""Statistics of normalized luminance, by which NIQE and its relatives tell a natural image from a damaged one."""

from __future__ import annotations

import torch
from torch import Tensor

from .distributions import fit_asymmetric_gaussian
from .precision import full_precision
from .resize import shrink_matlab
from .statistics import local_normalization

# Neighbors whose products are described: to the right, below, and below on both sides.
NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Side of NIQE's blocks.
NIQE_BLOCK = 96


@full_precision
def normalized_features(tiles: Tensor) -> Tensor:
    """The 18 features of normalized luminance in each tile (..., h, w): (..., 18).

    Shape and mean scale of the asymmetric generalized Gaussian that the values follow; then shape, mean, left and right
    scale for their products with each of four neighbors, beyond the tile's border those at the other side. Shapes are
    found in a table and have no gradient. NaN where a tile is flat. In at least float32.

    Example:
        >>> normalized_features(torch.randn(2, 5, 48, 48)).shape
        torch.Size([2, 5, 18])
    """
    shape, left, right = fit_asymmetric_gaussian(tiles.flatten(-2))
    features = [shape, (left + right) / 2]
    for shift in NEIGHBORS:
        shape, left, right = fit_asymmetric_gaussian((tiles * tiles.roll(shift, (-2, -1))).flatten(-2))
        features += [shape, (right - left) * mean_factor(shape), left, right]
    return torch.stack(features, -1)


@full_precision
def niqe_features(luma: Tensor) -> Tensor:
    """NIQE's 36 features of each block of luma (N, 1, H, W) in 0..255, sides from 96 up: (N, B, 36).

    `normalized_features` of 96x96 pixels, and of the block at half the size. Rows and columns beyond the last whole
    block are left out. In at least float32.

    Example:
        >>> niqe_features(255 * torch.rand(1, 1, 96, 200)).shape
        torch.Size([1, 2, 36])
    """
    rows, columns = (side // NIQE_BLOCK for side in luma.shape[-2:])
    luma = luma[..., : rows * NIQE_BLOCK, : columns * NIQE_BLOCK]
    scales = []
    for side in (NIQE_BLOCK, NIQE_BLOCK // 2):
        normal = local_normalization(luma, 7, 7 / 6).squeeze(1)
        tiles = normal.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3).flatten(1, 2)
        scales.append(normalized_features(tiles))
        luma = shrink_matlab(luma, 2)
    return torch.cat(scales, 2)


def mean_factor(shape: Tensor) -> Tensor:
    """`gamma(2 / a) / gamma(1 / a)`: the mean of an asymmetric generalized Gaussian by the difference of its scales.

    Example:
        >>> mean_factor(torch.tensor([1.0, 2.0]))
        tensor([1.0000, 0.5642])
    """
    return (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()


@full_precision
def pristine_distance(points: Tensor, blocks: Tensor, middle: Tensor) -> Tensor:
    """Mahalanobis distance (N, P) of points (N, P, F) from 0, under the mean of a unit covariance and that of blocks.

    `sqrt(2 p' (1 + C)^-1 p)`, for coordinates in which the pristine model is N(0, 1). With the centered blocks'
    `Z / sqrt(B - 1) = U diag(s) V'`, the inverse is 1 outside V's span and `1 / (1 + s^2)` along it, so nothing large
    is squared or inverted, and float32 suffices.

    Args:
        points: the coordinates to measure.
        blocks: (N, B, F), whose covariance C is taken; those equal to `middle` count for nothing.
        middle: their mean (N, 1, F).

    Example:
        >>> pristine_distance(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 5, 2), torch.zeros(1, 1, 2))
        tensor([[7.0711]])
    """
    centered = blocks - middle
    count = centered.any(2, keepdim=True).sum(1, keepdim=True).to(centered.dtype)
    _, spread, axes = torch.linalg.svd(centered / (count - 1).clamp(min=1).sqrt(), full_matrices=False)
    along = points @ axes.mT
    outside = points - along @ axes
    energy = outside.square().sum(2) + (along.square() / (1 + spread.square()).unsqueeze(1)).sum(2)
    return (2 * energy).sqrt()
