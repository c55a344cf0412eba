"""VSI: visual saliency-induced index."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.gradients import gradient_magnitude
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.saliency import simple_priors
from ..ops.similarity import similarity_map

# Rows of the opponent colors L, M and N for R, G and B.
OPPONENT = ((0.06, 0.63, 0.27), (0.30, 0.04, -0.35), (0.34, -0.6, 0.17))
# The paper's constants: C1 of saliency, C2 and C3 of gradients and color for values in [0, 1]; alpha and beta.
C1, C2, C3, ALPHA, BETA = 1.27, 386 / 255**2, 130 / 255**2, 0.40, 0.020
# Added to the sum of the weights, so that images without any score 1.
EPSILON = 1e-7


class VSI(Metric):
    """Visual saliency-induced index (Zhang, Shen, Li, IEEE TIP 2014): 1 for equal images, higher is better.

    `sum w s g^0.4 c^0.02 / sum w`, where s, g and c are the similarities of saliency (by simple priors), Scharr
    gradient magnitude, and the product of those of two opponent colors, and w is the larger saliency. Where c is
    negative, the real part of its power is taken. Images are first averaged down by round(min(H, W) / 256), halves to
    even.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> VSI()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = 16
    color = "opponent colors LMN, and Lab for saliency"
    resize = "mean, by round(short side / 256)"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _score(image, reference)


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    ours, theirs = (_shrink(simple_priors(each)) for each in (image, reference))
    x, y = (_shrink(_opponent(each)) for each in (image, reference))
    gradients = similarity_map(gradient_magnitude(x[:, :1], "scharr"), gradient_magnitude(y[:, :1], "scharr"), C2)
    color = similarity_map(x[:, 1:], y[:, 1:], C3).prod(1, keepdim=True)
    # The principal power of a negative number lies at an angle of pi times the exponent.
    turn = 1 - (color < 0).to(color.dtype) * (1 - math.cos(math.pi * BETA))
    similarity = similarity_map(ours, theirs, C1) * power(gradients, ALPHA) * power(color.abs(), BETA) * turn
    weight = torch.maximum(ours, theirs)
    # One minus the weighted mean of what is missing: equal images give exactly 1.
    return 1 - (weight * (1 - similarity)).sum((1, 2, 3)) / (weight.sum((1, 2, 3)) + EPSILON)


def _opponent(image: Tensor) -> Tensor:
    red, green, blue = image.split(1, 1)
    return torch.cat([a * red + b * green + c * blue for a, b, c in OPPONENT], 1)


def _shrink(maps: Tensor) -> Tensor:
    """Means of f x f pixels, f = round(min(H, W) / 256), the border repeated where the first pixel is not whole."""
    factor = max(1, round(min(maps.shape[-2:]) / 256))
    before, after = factor // 2, (factor - 1) // 2
    return F.avg_pool2d(F.pad(maps, (before, after, before, after), mode="replicate"), factor)
