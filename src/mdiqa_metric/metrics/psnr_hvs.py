"""PSNR-HVS and PSNR-HVS-M: peak signal-to-noise ratio as seen through contrast sensitivity and masking."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.dct import block_dct
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
    ours, theirs, table = block_dct(x), block_dct(y), torch.tensor(JPEG, dtype=x.dtype, device=x.device)
    error = (ours - theirs).abs()
    if masking:
        hidden = torch.maximum(_mask(ours, x, table), _mask(theirs, y, table))[..., None, None]
        threshold = (hidden * (table / MASKING).square()).flatten(3)
        threshold = torch.cat([torch.zeros_like(threshold[..., :1]), threshold[..., 1:]], 3)  # the mean has no mask
        error = (error - threshold.view_as(error)).relu()
    return -10 * ((SENSITIVITY / table * error).square().mean((1, 2, 3, 4)) + EPSILON).log10()


def _mask(coefficients: Tensor, plane: Tensor, table: Tensor) -> Tensor:
    """How much each block (N, h, w) hides: its texture, less where an edge leaves its quarters flat."""
    texture = (coefficients * MASKING / table).square().flatten(3)[..., 1:].sum(3)
    rows, columns = coefficients.shape[1:3]
    blocks = plane[:, 0, : rows * 8, : columns * 8].unflatten(2, (columns, 2, 4)).unflatten(1, (rows, 2, 4))
    whole = _variation(blocks, (2, 3, 5, 6))
    quarters = _variation(blocks, (3, 6)).sum((2, 4))
    flat = whole == 0
    # 16 times the quarters' unbiased variances over 64 times the block's: 16 / 15 over 64 / 63 is 1.05.
    evenness = 1.05 * (quarters / whole.masked_fill(flat, 1.0)).masked_fill(flat, 0.0)
    return power(texture * evenness, 0.5) / 32


def _variation(blocks: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The summed squared deviation from the mean over these dimensions."""
    return (blocks - blocks.mean(dims, keepdim=True)).square().sum(dims)
