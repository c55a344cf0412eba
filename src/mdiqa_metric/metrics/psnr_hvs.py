"""PSNR-HVS and PSNR-HVS-M: peak signal-to-noise ratio as seen through contrast sensitivity and masking."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.dct import block_dct, blocks_of
from ..ops.powers import power
from ..ops.precision import full_precision

# JPEG's quantization table for luma, from which both of the authors' tables are made.
JPEG = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
# Contrast sensitivity is the first over the table, the strength of masking the square of the second over it.
SENSITIVITY, MASKING = 25.735088, 10.0
# The mean of a block's quarter less that of the block, as weights of its pixels: a row for each quarter.
QUARTERS = [
    [(1 / 16 if (i // 4, j // 4) == quarter else 0) - 1 / 64 for i in range(8) for j in range(8)]
    for quarter in ((0, 0), (0, 1), (1, 0), (1, 1))
]
# Added to the mean squared error: equal images have 100 dB.
EPSILON = 1e-10


class PSNRHVS(Metric):
    """PSNR of DCT coefficients weighted by contrast sensitivity, in dB, 100 for equal images; higher is better.

    `-10 log10(mean(c^2 e^2) + 1e-10)` over the coefficients of all 8x8 blocks of luma in [0, 1], which do not overlap;
    e is the coefficients' difference and c the sensitivity of the eye to them. From Egiazarian et al. (VPQM 2006) and,
    with masking, Ponomarenko et al. (VPQM 2007), whose program the scores follow. Rows and columns beyond the last
    whole block are left out. libvmaf's `psnr_hvs` is another metric, of overlapping blocks.

    Args:
        masking: lowers each difference but that of the block's mean by what the stronger of both blocks' textures hides
            (PSNR-HVS-M).

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> PSNRHVS()(image, image)
        tensor([100.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-10.0, 100.0)
    min_size = 8
    color = "Y BT.601 full range"

    def __init__(self, masking: bool = True) -> None:
        super().__init__()
        self.masking = masking

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,), in dB."""
        return _score(luma_full(image), luma_full(reference), masking=self.masking)

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"masking={self.masking}"


@full_precision
def _score(x: Tensor, y: Tensor, masking: bool) -> Tensor:
    x, y = blocks_of(x), blocks_of(y)
    ours, theirs = block_dct(x), block_dct(y)
    table = torch.tensor(JPEG, dtype=x.dtype, device=x.device).view(-1, 1, 1)
    error = (ours - theirs).abs()
    if masking:
        hidden = torch.maximum(_mask(ours, x, table), _mask(theirs, y, table))
        masked = error[:, 1:] - hidden * (table[1:] / MASKING).square()  # the mean is not masked
        error = torch.cat([error[:, :1], masked.relu()], 1)
    mean = (SENSITIVITY / table.flatten()).square() @ error.square().flatten(2) / error[0].numel()
    return -10 * (mean.sum(1) + EPSILON).log10()


def _mask(coefficients: Tensor, blocks: Tensor, table: Tensor) -> Tensor:
    """How much each block (N, 1, h, w) hides: its texture, less where an edge leaves its quarters flat."""
    squares = coefficients[:, 1:].square()
    whole = squares.sum(1, keepdim=True)  # the squared deviation of the block's pixels, since the DCT is orthonormal
    texture = _weighted((MASKING / table[1:]).square().view(1, -1), squares)
    # The means of the quarters less that of the block; what they do not explain is the deviation within quarters.
    means = _weighted(torch.tensor(QUARTERS, dtype=blocks.dtype, device=blocks.device), blocks)
    within = (whole - 16 * means.square().sum(1, keepdim=True)).relu()
    flat = whole == 0
    # 16 times the quarters' unbiased variances over 64 times the block's: 16 / 15 over 64 / 63 is 1.05.
    evenness = 1.05 * (within / whole.masked_fill(flat, 1.0)).masked_fill(flat, 0.0)
    return power(texture * evenness, 0.5) / 32


def _weighted(weights: Tensor, maps: Tensor) -> Tensor:
    """Weighted sums of channels, by a row of weights (K, C) each: (N, C, h, w) -> (N, K, h, w)."""
    return (weights @ maps.flatten(2)).unflatten(2, maps.shape[-2:])
