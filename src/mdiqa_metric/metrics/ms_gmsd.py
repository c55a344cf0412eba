"""MS-GMSD: multi-scale gradient magnitude similarity deviation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.gradients import gradient_magnitude
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.statistics import standard_deviation

# The paper's constants: c for values in [0, 1], the masking parameter, and the weights of the scales, finest first.
STABILIZER = 170 / 255**2
ALPHA = 0.5
WEIGHTS = (0.096, 0.596, 0.289, 0.019)


class MSGMSD(Metric):
    """Multi-scale GMSD (Zhang, Sun, Sun, Liu, ICASSP 2017): 0 for equal images, lower is better.

    `sqrt(sum_k w_k d_k^2)` over four scales, the first at full resolution: d is the standard deviation of
    `((2 - a) g h + c) / (g^2 + h^2 - a g h + c)`, a = 0.5, c = 170, where g and h are the Prewitt gradient magnitudes
    of image and reference, luma in 0..255. Scales are halved by 2x2 means; if a side is odd, a row and a column of
    zeros are appended first. The luma-only form of the paper.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> MSGMSD()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 1.0)
    min_size = 2 ** len(WEIGHTS)
    color = "Y BT.601 full range"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        pair = torch.cat([luma_full(image), luma_full(reference)], 1)
        total = torch.zeros_like(pair[:, 0, 0, 0])
        for scale, weight in enumerate(WEIGHTS):
            pair = _halve(pair) if scale else pair
            similarity = _masked_similarity(*gradient_magnitude(pair, "prewitt").chunk(2, 1))
            total = total + weight * standard_deviation(similarity, unbiased=False).squeeze(1).square()
        return power(total, 0.5)


def _halve(maps: Tensor) -> Tensor:
    odd = max(size % 2 for size in maps.shape[-2:])
    return F.avg_pool2d(F.pad(maps, (0, odd, 0, odd)), 2)


@full_precision
def _masked_similarity(x: Tensor, y: Tensor) -> Tensor:
    """`((2 - a) x y + c) / (x^2 + y^2 - a x y + c)`, as one minus what vanishes where x and y are equal."""
    return 1 - (x - y).square() / (x.square() + y.square() - ALPHA * x * y + STABILIZER)
