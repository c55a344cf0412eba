"""VIF-P: visual information fidelity in the pixel domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.filters import filter_separable, gaussian_window
from ..ops.precision import full_precision

# Variance of the eye's noise, for values in [0, 1], and a variance below which nothing is seen.
NOISE, LEAST = 2 / 255**2, 1e-8 / 255**2
# Width of the Gaussian window at each scale; its deviation is a fifth of that.
WINDOWS = (17, 9, 5, 3)
# Added to both sums of information, so that a reference without any scores 1.
EPSILON = 1e-8


class VIFP(Metric):
    """Visual information fidelity by local variances of pixels (Sheikh, Bovik, IEEE TIP 2006): 1 for equal images.

    `sum log(1 + g^2 v / (s + n)) / sum log(1 + v / n)` over four scales, where in each window v is the variance of the
    reference's luma, g and s are gain and residual variance of the image's regression on it, and n = 2 (for 0..255) is
    the eye's noise. The authors' `vifp_mscale`; `vif` is their full form on wavelets. From 0 up; an image with more
    contrast than its reference scores above 1, so as a loss it needs a pixel loss beside it. Exchanging image and
    reference changes the score.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 48, 48)
        >>> VIFP()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, math.inf)
    min_size = 41
    color = "Y BT.601 full range"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        return _score(luma_full(image), luma_full(reference))


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    # Variances do not change with the origin, but lose digits far from it.
    origin = reference.mean((2, 3), keepdim=True)
    x, y = image - origin, reference - origin
    kept = whole = torch.zeros_like(x[:, 0, 0, 0])
    for index, size in enumerate(WINDOWS):
        taps = gaussian_window(size, size / 5, x)
        if index:
            x, y = (filter_separable(each, taps)[..., ::2, ::2] for each in (x, y))
        found, possible = _information(x, y, taps)
        kept, whole = kept + found, whole + possible
    return (kept + EPSILON) / (whole + EPSILON)


def _information(x: Tensor, y: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """What x keeps of y's information, and all of that, in decimal digits: (N,) each."""
    moments = filter_separable(torch.cat([x, y, x.square(), y.square(), x * y], 1), taps)
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5, 1)
    variance, source = (square_x - mean_x.square()).relu(), (square_y - mean_y.square()).relu()
    covariance = product - mean_x * mean_y
    seen = (source >= LEAST) & (variance >= LEAST) & (covariance > 0)  # elsewhere the image keeps nothing
    gain = torch.where(seen, covariance / (source + LEAST), 0.0)
    residual = torch.where(seen, (variance - gain * covariance).clamp(min=LEAST), 1.0)
    source = torch.where(source >= LEAST, source, 0.0)
    kept = (1 + gain.square() * source / (residual + NOISE)).log10().sum((1, 2, 3))
    return kept, (1 + source / NOISE).log10().sum((1, 2, 3))
