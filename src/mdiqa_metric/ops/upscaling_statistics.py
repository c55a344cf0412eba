"""What tells super-resolved images: statistics of block frequencies, of oriented bands and of patches.

The features of Ma, Yang, Yang, Yang, "Learning a no-reference quality metric for single-image super-resolution"
(CVIU 2017), which NRQM and the perceptual index share.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributions import generalized_gaussian_shape
from .filters import filter_separable, gaussian_window
from .precision import full_precision
from .resize import resize_matlab
from .ssim import WINDOW_SIGMA, WINDOW_SIZE
from .steerable_pyramid import steerable_pyramid

# Blocks of the cosine transform and the pixels between them; patches of the singular values.
BLOCK, STRIDE, PATCH = 7, 3, 5
SCALES, ORIENTATIONS = 2, 6
# Pixels left out at each border of a band of the first scale.
GUARD = 16
# The contrast-structure constant of SSIM for values in 0..255.
C2 = (0.03 * 255) ** 2
# Directions of the neighborhood that hold less than this share of its largest deviation are taken for empty.
RANK_TOLERANCE = 2e-6


@full_precision
def upscaling_features(luma: Tensor, chunk: int = 65536) -> tuple[Tensor, Tensor, Tensor]:
    """The three groups of features, (N, 18), (N, 45) and (N, 75), of luma (N, 1, H, W) in 0..255, sides from 84 up.

    * `frequency_features` and `singular_values` of the image and two halvings of it, by a 3x3 Gaussian.
    * `band_features` of the image.

    `chunk` is how many blocks are transformed at a time, which bounds memory.

    Example:
        >>> [features.shape[1] for features in upscaling_features(255 * torch.rand(1, 1, 84, 90))]
        [18, 45, 75]
    """
    taps = gaussian_window(3, 0.5, luma)
    levels = [luma / 255]
    for _ in range(2):
        levels.append(filter_separable(levels[-1], taps, padding=1)[..., 1::2, 1::2])
    frequencies = torch.cat([frequency_features(level, chunk) for level in levels], 1)
    return frequencies, band_features(luma), torch.cat([singular_values(level) for level in levels], 1)


@full_precision
def frequency_features(maps: Tensor, chunk: int = 65536) -> Tensor:
    """Statistics of the cosine transform of 7x7 blocks, 3 pixels apart, of maps (N, 1, H, W) in 0..1: (N, 6).

    The mean over the extreme tenth of the blocks, and over all, of: the shape of the coefficients' distribution
    (lowest tenth), their coefficient of variation, and the variance of that between three orientations (highest tenth).
    Zeros frame the maps so that blocks reach over every border alike.

    Example:
        >>> frequency_features(torch.zeros(1, 1, 30, 30))
        tensor([[10., 10.,  0.,  0.,  0.,  0.]])
    """
    margins = []
    for size in maps.shape[:-3:-1]:
        missing = (math.ceil(size / STRIDE) - 1) * STRIDE + BLOCK - size
        margins += [missing // 2, missing - missing // 2]
    blocks = F.pad(maps, margins).squeeze(1).unfold(1, BLOCK, STRIDE).unfold(2, BLOCK, STRIDE)
    rows = max(1, chunk // (blocks.shape[0] * blocks.shape[2]))
    found = torch.cat([_block_statistics(some.flatten(1, 2)) for some in blocks.split(rows, 1)], 1)
    shape, variation, contrast = found.sort(1).values.unbind(2)
    tenth = math.ceil(found.shape[1] / 10)
    means = [shape[:, : tenth + 1].mean(1), shape.mean(1)]  # one more, as the golden implementation takes
    for values in (variation, contrast):
        means += [values[:, -tenth:].mean(1), values.mean(1)]
    return torch.stack(means, 1)


@full_precision
def singular_values(maps: Tensor) -> Tensor:
    """The singular values of the matrix of 5x5 patches, side by side, of maps (N, 1, H, W): (N, 25), falling.

    Zeros complete the last row and column of patches, of which there must be 25 or more.

    Example:
        >>> singular_values(torch.ones(1, 1, 25, 25))[0, 0].round()  # 25 equal patches of norm 5
        tensor(25.)
    """
    height, width = maps.shape[-2:]
    whole = F.pad(maps, (0, -width % PATCH, 0, -height % PATCH)).squeeze(1)
    patches = whole.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(1, 2).flatten(2)
    return torch.linalg.svdvals(torch.linalg.qr(patches, mode="r").R)


@full_precision
def band_features(luma: Tensor) -> Tensor:
    """Statistics of the steerable pyramid's bands of luma (N, 1, H, W) in 0..255: (N, 45).

    The shapes of the distributions of 12 normalized bands (see `normalized_band`) and of 6 over both scales, and the
    contrast-structure similarity of 12 bands with the high-pass residual and between 6 normalized bands.

    Example:
        >>> band_features(255 * torch.rand(2, 1, 64, 70)).shape
        torch.Size([2, 45])
    """
    high, bands = steerable_pyramid(luma, SCALES, ORIENTATIONS)
    enlarged = resize_matlab(bands[1], bands[0].shape[-2:])
    fine = [normalized_band(bands[0], index, enlarged, GUARD) for index in range(ORIENTATIONS)]
    coarse = [normalized_band(bands[1], index, None, GUARD // 2) for index in range(ORIENTATIONS)]
    shapes = [generalized_gaussian_shape(band.flatten(1)) for band in (*fine, *coarse)]
    pairs = zip(fine, coarse, strict=True)
    shapes += [generalized_gaussian_shape(torch.cat([x.flatten(1), y.flatten(1)], 1)) for x, y in pairs]
    residual = _local_moments(high)
    across_scales = [
        _contrast_structure(_local_moments(band), residual)
        for maps in (bands[0], enlarged)
        for band in maps.split(1, 1)
    ]
    moments = [_local_moments(band) for band in fine]
    across_orientations = [_contrast_structure(x, y) for x, y in itertools.combinations(moments, 2)]
    return torch.stack([*shapes, *across_scales, *across_orientations], 1)


def normalized_band(bands: Tensor, index: int, parents: Tensor | None, guard: int) -> Tensor:
    """One of oriented bands (N, K, h, w), divided by the energy of its neighborhood and without its mean.

    The divisor is `sqrt(y' C^-1 y / n)`, y being the 3x3 coefficients around, the parent's and those of the other
    bands, C the matrix of their mean products, and n = 9, or 10 with a parent (Wainwright and Simoncelli 2000).

    Args:
        bands: (N, K, h, w), of one scale.
        index: which of them.
        parents: the bands of the next scale at the size of this one, or None.
        guard: how many more coefficients than one are left out at each border.

    Returns:
        (N, 1, h - 2 - 2 guard, w - 2 - 2 guard).
    """
    height, width = (size - 2 for size in bands.shape[-2:])
    own = bands[:, index]
    around = [own[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    count = len(around)
    if parents is not None:
        around.append(parents[:, index, 1:-1, 1:-1])
        count += 1
    around += [bands[:, other, 1:-1, 1:-1] for other in range(bands.shape[1]) if other != index]
    columns = torch.stack(around, 1).flatten(2)
    # C is R'R / (h w) of the QR decomposition: the root of its inverse, without squaring the coefficients.
    _, deviations, axes = torch.linalg.svd(torch.linalg.qr(columns.mT, mode="r").R)
    kept = deviations > RANK_TOLERANCE * deviations[:, :1]
    inverse = torch.where(kept, 1 / deviations, 0.0).unsqueeze(-1) * axes
    energy = (inverse @ columns).square().sum(1).unflatten(1, (height, width)) * (height * width / count)
    center = own[:, 1:-1, 1:-1]
    center = center - center.mean((1, 2), keepdim=True)
    ratio = torch.where(energy > 0, center / energy.sqrt(), 0.0)[:, guard : height - guard, guard : width - guard]
    return (ratio - ratio.mean((1, 2), keepdim=True)).unsqueeze(1)


def _block_statistics(blocks: Tensor) -> Tensor:
    """Shape, coefficient of variation and its contrast between orientations of blocks (N, B, 7, 7): (N, B, 3)."""
    # Differences first: those of equal pixels are 0, so that what is flat along one direction has exactly no
    # coefficients there. A sum of weighted pixels leaves noise, whose variation would count like any other.
    down, across = blocks - blocks[..., :1, :], blocks - blocks[..., :1]
    both = down - down[..., :1]
    basis = _cosines(blocks)
    edge = BLOCK**-0.5
    coefficients = basis @ both @ basis.mT
    coefficients[..., 0, :] = edge * (across.sum(2) @ basis.mT)
    coefficients[..., :, 0] = edge * (down.sum(3) @ basis.mT)
    absolute = coefficients.abs()
    flat = coefficients.flatten(2)[..., 1:]
    groups = [_variation(absolute[..., rows, columns], 1e-8) for rows, columns in _ORIENTED]
    return torch.stack(
        [generalized_gaussian_shape(flat), _variation(flat.abs(), 1e-7), torch.stack(groups, -1).var(-1)], -1
    )


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform (7, 7)."""
    steps = torch.arange(BLOCK, dtype=like.dtype, device=like.device)
    basis = (math.pi / (2 * BLOCK) * (2 * steps + 1) * steps[:, None]).cos() * (2 / BLOCK) ** 0.5
    return torch.cat([basis[:1] / 2**0.5, basis[1:]])


def _variation(values: Tensor, stabilizer: float) -> Tensor:
    return values.std(-1) / (values.mean(-1) + stabilizer)


def _oriented() -> list[tuple[list[int], list[int]]]:
    """Rows and columns of the coefficients that lie along the top, the diagonal and the left of a block."""
    top = [(0, 1), (1, 2), (2, 4), (3, 5)]  # row, first column
    middle = [(1, 1, 2), (2, 2, 4), (3, 2, 5), (4, 3, 7), (5, 4, 7), (6, 4, 7)]  # row, first column, end
    upper = [(row, column) for row, start in top for column in range(start, BLOCK)]
    diagonal = [(row, column) for row, start, end in middle for column in range(start, end)]
    lower = [(column, row) for row, column in upper]
    return [([row for row, _ in group], [column for _, column in group]) for group in (upper, diagonal, lower)]


_ORIENTED = _oriented()


def _local_moments(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N, 1, H, W) with their local means and variances in SSIM's window."""
    mean = _blur(maps)
    return maps, mean, _blur(maps.square()) - mean.square()


def _contrast_structure(first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The mean contrast-structure similarity (N,) of two maps, given as `_local_moments`."""
    (x, mean_x, variance_x), (y, mean_y, variance_y) = first, second
    covariance = _blur(x * y) - mean_x * mean_y
    return ((2 * covariance + C2) / (variance_x + variance_y + C2)).mean((1, 2, 3))


def _blur(maps: Tensor) -> Tensor:
    """SSIM's window over maps (N, 1, H, W). A CPU adds shifted maps of one channel faster than it convolves them."""
    taps = gaussian_window(WINDOW_SIZE, WINDOW_SIGMA, maps)
    for dim in (2, 3):
        size = maps.shape[dim] - WINDOW_SIZE + 1
        total = taps[0] * maps.narrow(dim, 0, size)
        for start in range(1, WINDOW_SIZE):
            total.addcmul_(taps[start], maps.narrow(dim, start, size))
        maps = total
    return maps
