"""HaarPSI: Haar wavelet-based perceptual similarity index."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import yiq
from ..ops.precision import full_precision
from ..ops.similarity import similarity_map

# The paper's constants: c, for values in [0, 1], and the steepness of its logistic function.
STABILIZER, ALPHA = 30 / 255**2, 4.2
# sigmoid(a), which equal values have.
BEST = 1 / (1 + math.exp(-ALPHA))
# Added to the sum of the weights, so that images without any score 1.
EPSILON = 1e-7


class HaarPSI(Metric):
    """Haar wavelet perceptual similarity (Reisenhofer, Bosse, Kutyniok, Wiegand, SPIC 2018): 1 for equal images.

    `(logit(sum w sigmoid(a s) / sum w) / a)^2`, a = 4.2, over pixels and three kinds of maps, of images halved by 2x2
    means: the similarity s of luma's horizontal and of its vertical Haar responses (2 and 4 pixels wide), weighted by
    the larger response at 8 pixels, and that of the chrominances I and Q, weighted by the mean of both. In [0, 1],
    higher is better. If a side is odd, a row and a column of zeros are appended first.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> HaarPSI()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = 16
    color = "YIQ"
    resize = "mean, by 2"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _score(_halve(yiq(image)), _halve(yiq(reference)))


@full_precision
def _score(x: Tensor, y: Tensor) -> Tensor:
    luma = torch.cat([x[:, :1], y[:, :1]], 1)
    rows, columns = _responses(luma), [each.mT for each in _responses(luma.mT)]
    *pairs, strong = (torch.stack(both, 2) for both in zip(rows, columns, strict=True))  # (N, 2, 2, H, W)
    weights = strong.amax(1)
    similarities = torch.stack([similarity_map(pair[:, 0], pair[:, 1], STABILIZER) for pair in pairs])
    colors = [F.avg_pool2d(F.pad(each[:, 1:], (0, 1, 0, 1)), 2, 1).abs() for each in (x, y)]
    color = similarity_map(colors[0], colors[1], STABILIZER).mean(1, keepdim=True)
    similarity = torch.cat([similarities.mean(0), color], 1)
    weights = torch.cat([weights, weights.mean(1, keepdim=True)], 1)
    # What is missing in the mean of sigmoid(a s): equal images miss nothing and give exactly 1.
    missing = BEST - (ALPHA * similarity).sigmoid()
    missing = (missing * weights).sum((1, 2, 3)) / (weights.sum((1, 2, 3)) + EPSILON)
    # logit(best - missing) - logit(best)
    change = torch.log1p(-missing / BEST) - torch.log1p(missing / (1 - BEST))
    return (1 + change / ALPHA).square()


def _halve(maps: Tensor) -> Tensor:
    odd = max(size % 2 for size in maps.shape[-2:])
    return F.avg_pool2d(F.pad(maps, (0, odd, 0, odd)), 2)


def _responses(maps: Tensor) -> list[Tensor]:
    """Absolute responses of maps (N, C, H, W) to Haar wavelets of sides 2, 4 and 8 across rows, by sums of sums."""
    height, width = maps.shape[-2:]
    box, found = F.pad(maps, (3, 4, 3, 4)), []
    for half in (1, 2, 4):
        box = _add(box, half, -1)  # `2 half` pixels along the row
        part, step = box, 1
        while step < half:
            part, step = _add(part, step, -2), 2 * step
        start = 4 - half
        part = part[..., start : start + width]
        difference = part[..., start : start + height, :] - part[..., start + half : start + half + height, :]
        found.append(difference.abs() / (2 * half))
    return found


def _add(maps: Tensor, reach: int, dim: int) -> Tensor:
    """Each value plus the one `reach` further along `dim`."""
    size = maps.shape[dim] - reach
    return maps.narrow(dim, 0, size) + maps.narrow(dim, reach, size)
