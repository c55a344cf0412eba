"""PIQE: perception-based image quality evaluator."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import gray_matlab, luma_full
from ..ops.filters import filter_separable, gaussian_window, pad_symmetric
from ..ops.precision import full_precision

# What each convention scores, in words.
CONVENTIONS = {"matlab": "MATLAB rgb2gray, 8 bits", "pyiqa": "Y BT.601 full range, stretched and rounded to 8 bits"}
# Sides of a block and of the window that normalizes, and the length of an edge's segments.
BLOCK, WINDOW, SEGMENT = 16, 7, 6
# Variance from which a block is active, and deviation below which a segment of its edges is flat.
ACTIVE, FLAT = 0.1, 0.1
# The columns of a block's middle, and those that count as around it.
MIDDLE = [7, 8]
AROUND = [column for column in range(BLOCK) if column not in (7, 9)]
# The least maximum that is stretched.
LEAST = 1 / 255


class BlockMasks(NamedTuple):
    """What `explain` returns: for each block of 16x16 pixels, (N, 1, ceil(H / 16), ceil(W / 16)) each, 0 or 1.

    Attributes:
        active: whether its variance counts.
        artifacts: whether it is active and an edge of it is flat, as where it was coded apart from its neighbors.
        noise: whether it is active and varies in its middle as around it.
        variance: that of its normalized values, from 0 up.
    """

    active: Tensor
    artifacts: Tensor
    noise: Tensor
    variance: Tensor


class PIQE(Metric):
    """Perception-based image quality evaluator (Venkatanath et al., NCC 2015): 0 is best, 100 worst.

    `100 (1 + sum of (artifacts (1 - v) + noise v)) / (1 + number of active blocks)` over blocks of 16x16 pixels of gray
    in 0..255, normalized as `(x - mean) / (deviation + 1)` in windows of 7x7; v is a block's variance. A block is
    active if v > 0.1. It has artifacts if on one of its edges 6 pixels in a row deviate by less than 0.1, and noise if
    its deviation is more than twice `|d - c| / max(d, c)`, where d is its deviation and c that of its two middle
    columns over that of the others, less one (see below). Right and bottom blocks are filled up by a mirror image.
    `explain` gives the masks.

    The authors' program means to take two middle columns out, the 8th and the 9th, but takes the 10th for the 9th, as
    the first is gone by then.

    Counting has no gradient, so `Loss` refuses it. No parameters were learned.

    Args:
        convention: "matlab", as above on MATLAB's rgb2gray rounded to 8 bits: the digits of MATLAB's `piqe`; or
            "pyiqa", for numbers to compare with that library's: it stretches BT.601 luma to a maximum of 255 (up to 2
            apart). Equal where the sides are multiples of 16; elsewhere its last blocks differ.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> import torch
        >>> PIQE()(torch.full((1, 3, 32, 32), 0.5))
        tensor([100.])
    """

    full_reference = False
    lower_is_better = True
    score_range = (0.0, 100.0)
    min_size = BLOCK
    differentiable = False
    no_gradient = "it counts blocks by thresholds; use topiq-nr or mdiqa-lite."

    def __init__(self, convention: Literal["matlab", "pyiqa"] = "matlab") -> None:
        super().__init__()
        if convention not in CONVENTIONS:
            raise ValueError(f"PIQE takes convention 'matlab' or 'pyiqa', got {convention!r}.")
        self.convention = convention
        self.color = CONVENTIONS[convention]

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,) in [0, 100]."""
        active, artifacts, noise, variance = self.explanation(image, reference)
        distortion = (artifacts * (1 - variance) + noise * variance).sum((1, 2, 3))
        return 100 * (1 + distortion) / (1 + active.sum((1, 2, 3)))

    def explanation(self, image: Tensor, reference: None) -> BlockMasks:
        """Which blocks are active, have artifacts or noise, and their variance."""
        return _masks(self._prepare(image))

    def _prepare(self, image: Tensor) -> Tensor:
        """Gray in 0..255, of whole blocks."""
        below, beside = (-size % BLOCK for size in image.shape[-2:])
        if self.convention == "matlab":
            return pad_symmetric(pad_symmetric(255 * gray_matlab(image), -2, 0, below), -1, 0, beside)
        gray = luma_full(image)
        gray = (255 * gray / gray.amax((1, 2, 3), keepdim=True).clamp(min=LEAST)).round()
        return F.pad(gray, (0, beside, 0, below), mode="reflect")

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}"


@full_precision
def _masks(gray: Tensor) -> BlockMasks:
    gray = gray - gray.mean((2, 3), keepdim=True)  # variances lose digits far from 0
    framed = F.pad(gray, (WINDOW // 2,) * 4, mode="replicate")
    taps = gaussian_window(WINDOW, WINDOW / 6, gray)
    mean, square = filter_separable(torch.cat([framed, framed.square()], 1), taps).chunk(2, 1)
    normal = (gray - mean) / ((square - mean.square()).abs().sqrt() + 1)
    # (N, h, w, 16, 16)
    blocks = normal.squeeze(1).unflatten(-1, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3)
    variance = blocks.flatten(-2).var(-1)
    active = variance > ACTIVE
    edges = torch.stack([blocks[..., 0, :], blocks[..., -1, :], blocks[..., 0], blocks[..., -1]], -2)
    artifacts = active & (edges.unfold(-1, SEGMENT, 1).std(-1) < FLAT).flatten(-2).any(-1)
    deviation, ratio = (
        variance.sqrt(),
        blocks[..., MIDDLE].flatten(-2).std(-1) / blocks[..., AROUND].flatten(-2).std(-1),
    )
    noise = active & (deviation > 2 * (deviation - ratio).abs() / torch.maximum(deviation, ratio))
    return BlockMasks(*(mask.to(gray).unsqueeze(1) for mask in (active, artifacts, noise, variance)))
