"""VIF: visual information fidelity on a steerable pyramid."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import gray_matlab, luma_full
from ..ops.precision import full_precision
from ..ops.scale_mixture import BLOCK, LEAST, cosine_blocks, scale_mixture
from ..ops.steerable_space import axis_bands

SCALES = 4
# Variance of the eye's noise, for values in 0..255.
NOISE = 0.4
# Added to both sums of information, so that a reference without any scores 1.
EPSILON = 1e-8


class VIF(Metric):
    """Visual information fidelity (Sheikh, Bovik, IEEE TIP 2006): 1 for equal images.

    `sum log(1 + g^2 s l / (v + n)) / sum log(1 + s l / n)` over horizontal and vertical details of four scales, over
    blocks of 3x3 and over the eigenvalues l of the covariance of the reference's blocks. s is how far a block of the
    reference stands out in that covariance; g and v are gain and residual variance of the image's regression on the
    reference in a window around the block, of 17, 9, 5 and 3 pixels from fine to coarse; n = 0.4 is the eye's noise.
    Of luma in 0..255; the authors' `vifvec`. Where g is negative nothing is kept.

    From 0 up; an image with more contrast than its reference scores above 1, so as a loss it needs a pixel loss beside
    it. Exchanging image and reference changes the score. `vif-p` is the authors' short form on pixels.

    Args:
        convention: "paper", as above on BT.601 luma; or "matlab", of MATLAB's rgb2gray rounded to 8 bits: the digits of
            the authors' program. Rounding moves scores by up to 6e-3.

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 72, 72)
        >>> VIF()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, math.inf)
    # The smallest whose coarsest band, of 9 pixels, has a block apart from its border.
    min_size = 65
    no_gradient = "it rounds to 8 bits; use vif."

    def __init__(self, convention: Literal["paper", "matlab"] = "paper") -> None:
        super().__init__()
        if convention not in ("paper", "matlab"):
            raise ValueError(f"VIF takes convention 'paper' or 'matlab', got {convention!r}.")
        self.convention = convention
        self.color = "MATLAB rgb2gray, 8 bits" if convention == "matlab" else "Y BT.601 full range"
        self.differentiable = self.facts(convention=convention)["differentiable"]

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {"differentiable": options.get("convention") != "matlab"}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        gray = gray_matlab if self.convention == "matlab" else luma_full
        return _score(255 * gray(image), 255 * gray(reference))

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}"


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    kept = whole = torch.zeros_like(image[:, 0, 0, 0])
    for scale, (x, y) in enumerate(zip(axis_bands(image, SCALES), axis_bands(reference, SCALES), strict=True)):
        found, possible = _information(x, y, 2 ** (SCALES - scale) + 1)
        kept, whole = kept + found, whole + possible
    return (kept + EPSILON) / (whole + EPSILON)


def _information(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """What details x keep of the information of details y, and all of that: (N,) each."""
    height, width = (size // BLOCK * BLOCK for size in y.shape[-2:])
    x, y = (each[..., :height, :width] for each in (x, y))
    gain, residual = _regression(x, y, window)
    every = cosine_blocks(y)
    energy, values = scale_mixture(cosine_blocks(y, stride=BLOCK), every - every.mean(-1, keepdim=True))
    energy = energy.unflatten(-1, gain.shape[-2:])
    # Blocks whose window leaves the image are left out.
    inner = -(-(window // 2) // BLOCK)
    gain, residual, energy = (each[..., inner:-inner, inner:-inner] for each in (gain, residual, energy))
    source = energy.unsqueeze(2) * values[..., None, None]
    kept = (gain.square() / (residual + NOISE)).unsqueeze(2) * source
    return torch.log1p(kept).sum((1, 2, 3, 4)), torch.log1p(source / NOISE).sum((1, 2, 3, 4))


def _regression(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Gain and residual variance of x on y in the window around each block: (N, C, H / 3, W / 3) each."""
    moments = torch.cat([x, y, x.square(), y.square(), x * y], 1)
    # The window around the middle of each block.
    before, after = window // 2 - BLOCK // 2, window // 2 + BLOCK // 2 - (BLOCK - 1)
    padded = F.pad(moments, (before, after, before, after), mode="reflect")
    mean_x, mean_y, square_x, square_y, product = F.avg_pool2d(padded, window, BLOCK).chunk(5, 1)
    variance, source = (square_x - mean_x.square()).relu(), (square_y - mean_y.square()).relu()
    covariance = product - mean_x * mean_y
    seen = (source >= LEAST) & (variance >= LEAST) & (covariance > 0)  # elsewhere the image keeps nothing
    gain = torch.where(seen, covariance / source.clamp(min=LEAST), 0.0)
    return gain, torch.where(seen, (variance - gain * covariance).relu(), 0.0)
