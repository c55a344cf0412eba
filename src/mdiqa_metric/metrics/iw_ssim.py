"""IW-SSIM: multi-scale SSIM weighted by information content."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.precision import full_precision
from ..ops.pyramid import double, halve
from ..ops.scale_mixture import BLOCK, LEAST, cosine_blocks, scale_mixture
from ..ops.ssim import WINDOW_SIZE, product_of_scales, ssim_maps

# Exponents of the five scales, finest first: MS-SSIM's, divided by their sum.
WEIGHTS = tuple(weight / 1.0001 for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333))
# The pyramid's binomial taps, which double the scale of a band from one level to the next.
TAPS = tuple(math.sqrt(2) * count / 16 for count in (1, 4, 6, 4, 1))
# Variance of the eye's noise, for values in 0..255.
NOISE = 0.4
# Added to the sum of weights, so that flat images have a mean.
EPSILON = 1e-8


class IWSSIM(Metric):
    """Information content weighted SSIM (Wang and Li, IEEE TIP 2011): 1 for equal images.

    MS-SSIM of the bands of a Laplacian pyramid of luma in 0..255, five scales, where each window counts by the
    information that can be had from it: `sum_k log((1 + v / n) + (v + (1 + g^2) n) s l_k / n^2)`. s is the energy of a
    3x3 block of the reference, with the pixel of the next coarser band above it, relative to their covariance over the
    image, l its eigenvalues, g and v are gain and residual variance of the image's regression on the reference in the
    block, and n = 0.4 is the eye's noise. The coarsest scale is an ordinary mean of SSIM.

    Where a scale's mean is negative, as of an inverted image, the score is 0: the authors' program takes its absolute
    value. Exchanging image and reference changes the score slightly.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 176, 176)
        >>> IWSSIM()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1) + 1
    color = "Y BT.601 full range"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _score(luma_full(image), luma_full(reference))


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    bands = _bands(torch.cat([image, reference], 1))
    means = []
    for scale, band in enumerate(bands):
        luminance, similarity = ssim_maps(*band.chunk(2, 1))
        if scale == len(bands) - 1:
            means.append((luminance * similarity).mean((-2, -1)))
            continue
        x, y = (255 * band).chunk(2, 1)
        weights = _information(x, y, 255 * bands[scale + 1][:, 1:] if scale < len(bands) - 2 else None)
        edge = (WINDOW_SIZE - BLOCK) // 2
        weights = weights[..., edge:-edge, edge:-edge]
        # One minus the weighted mean of what is missing: equal images give exactly 1.
        means.append(1 - (weights * (1 - similarity)).sum((-2, -1)) / (weights.sum((-2, -1)) + EPSILON))
    return product_of_scales(means, WEIGHTS).squeeze(1)


def _bands(maps: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of maps: a band for each scale, the coarsest with its mean."""
    bands = []
    for _ in WEIGHTS[:-1]:
        smaller = halve(F.pad(maps, (2, 2, 2, 2), mode="reflect"), TAPS)
        framed = F.pad(F.pad(smaller, (1, 0, 1, 0), mode="reflect"), (0, 1, 0, 1), mode="replicate")
        bands.append(maps - double(framed, [tap / 2 for tap in TAPS], maps.shape[-2:]))
        maps = smaller
    return [*bands, maps]


def _information(x: Tensor, y: Tensor, parent: Tensor | None) -> Tensor:
    """The information in each 3x3 block of bands x and y, (N, 1, H, W) each, in nats: (N, 1, H - 2, W - 2)."""
    moments = torch.cat([x, y, x.square(), y.square(), x * y], 1)
    mean_x, mean_y, square_x, square_y, product = F.avg_pool2d(moments, BLOCK, 1).chunk(5, 1)
    variance, source = (square_x - mean_x.square()).relu(), (square_y - mean_y.square()).relu()
    covariance = product - mean_x * mean_y
    seen = (source >= LEAST) & (variance >= LEAST)
    gain = torch.where(seen, covariance / source.clamp(min=LEAST), 0.0)
    residual = (variance - gain * covariance).relu()
    vectors = cosine_blocks(y)
    if parent is not None:
        above = _enlarge(parent)[..., 1 : y.shape[-2] - 1, 1 : y.shape[-1] - 1]
        vectors = torch.cat([vectors, above.flatten(2).unsqueeze(1)], 2)
    energy, values = scale_mixture(vectors, vectors)
    energy = energy.unflatten(-1, gain.shape[-2:])
    # For each eigenvalue (1 + v / n) (1 + s l / n) + g^2 s l / n.
    certain, whole = (1 + residual / NOISE).unsqueeze(2), (energy / NOISE).unsqueeze(2) * values[..., None, None]
    return torch.log(certain * (1 + whole) + gain.square().unsqueeze(2) * whole).sum(2)


def _enlarge(maps: Tensor) -> Tensor:
    """Maps (N, 1, H, W) at twice their size: every second value of a bilinear enlargement to 4 H - 3 and 4 W - 3."""
    height, width = (4 * size - 3 for size in maps.shape[-2:])
    maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    for dim in (-1, -2):  # a frame that goes on in a straight line
        first, last = (2 * maps.narrow(dim, a, 1) - maps.narrow(dim, b, 1) for a, b in ((0, 1), (-1, -2)))
        maps = torch.cat([first, maps, last], dim)
    return maps[..., ::2, ::2]
