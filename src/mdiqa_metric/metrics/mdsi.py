"""MDSI: mean deviation similarity index."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric, QualityMap
from ..ops.gradients import gradient_magnitude
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.similarity import similarity_map

# Rows of luma and of the two chromaticity channels of the paper (equation 3 and its program), for R, G and B.
LUMA = (0.2989, 0.5870, 0.1140)
CHROMA = ((0.30, 0.04, -0.35), (0.34, -0.60, 0.17))
# C1, C2 and C3 of the paper for values in [0, 1], and its weight of the gradients.
C1, C2, C3 = 140 / 255**2, 55 / 255**2, 550 / 255**2
ALPHA = 0.6


class MDSI(Metric):
    """Mean deviation similarity index (Nafchi, Shahkolaei, Hedjam, Cheriet, IEEE Access 2016): 0 for equal images.

    `(mean |s^q - mean(s^q)|)^(1/4)` with q = 1/4, over a map s that sums 0.6 of the gradients' and 0.4 of the
    chromaticities' similarity: `explain` gives it, (N, 1, h, w), 1 where both agree. Where s is negative its
    power is complex, and the deviation is taken in the plane. The gradients are Prewitt's, of image, reference and
    their mean, so exchanging image and reference changes the score. Images are first averaged down by
    round(min(H, W) / 256), halves to even. Lower is better.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> MDSI()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 1.0)
    min_size = 4
    color = "luma 0.2989 R + 0.587 G + 0.114 B, and two chromaticity channels"
    resize = "mean, by round(short side / 256)"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        return _pool(self.explanation(image, reference).map)

    def explanation(self, image: Tensor, reference: Tensor) -> QualityMap:
        """The map of the combined similarity (N, 1, h, w)."""
        return QualityMap(_similarity(image, reference))


@full_precision
def _similarity(image: Tensor, reference: Tensor) -> Tensor:
    x, y = (_shrink(_opponent(each)) for each in (image, reference))
    luma, other = x[:, :1], y[:, :1]
    ours, theirs, fused = (gradient_magnitude(each, "prewitt") for each in (luma, other, (luma + other) / 2))
    gradients = similarity_map(ours, theirs, C1) + similarity_map(ours, fused, C2) - similarity_map(theirs, fused, C2)
    difference = (x[:, 1:] - y[:, 1:]).square().sum(1, keepdim=True)
    energy = (x[:, 1:].square() + y[:, 1:].square()).sum(1, keepdim=True)
    return ALPHA * gradients + (1 - ALPHA) * (1 - difference / (energy + C3))


@full_precision
def _pool(similarity: Tensor) -> Tensor:
    # The principal root of a negative number lies at 45 degrees: |s|^(1/4) (1 + i) / sqrt 2.
    root = power(similarity.abs(), 0.25)
    turned = torch.where(similarity < 0, root * 0.5**0.5, 0.0)
    parts = torch.cat([torch.where(similarity < 0, turned, root), turned], 1)
    deviation = power((parts - parts.mean((2, 3), keepdim=True)).square().sum(1), 0.5)
    return power(deviation.mean((1, 2)), 0.25)


def _opponent(image: Tensor) -> Tensor:
    """Luma and the two chromaticity channels (N, 3, H, W)."""
    rows = (LUMA, *CHROMA)
    red, green, blue = image.split(1, 1)
    return torch.cat([a * red + b * green + c * blue for a, b, c in rows], 1)


def _shrink(maps: Tensor) -> Tensor:
    """Means of f x f pixels, f = round(min(H, W) / 256), after (f - 1) // 2 rows and columns of zeros."""
    factor = max(1, round(min(maps.shape[-2:]) / 256))
    before, after = (factor - 1) // 2, factor // 2
    return F.avg_pool2d(F.pad(maps, (before, after, before, after)), factor)
