"""SR-SIM: spectral residual similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.gradients import gradient_magnitude
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.saliency import spectral_residual
from ..ops.similarity import similarity_map

# The paper's constants: of the saliency, and of gradients of values in [0, 1]; and the power of the latter.
C1, C2, ALPHA = 0.40, 225 / 255**2, 0.5
# Added to the sum of the weights, so that images without any score 1.
EPSILON = 1e-6


class SRSIM(Metric):
    """Spectral residual similarity (Zhang and Li, ICIP 2012): 1 for equal images, higher is better.

    `sum w s g^0.5 / sum w`, where s and g are the similarities of both images' saliency (spectral residual) and
    gradients (Scharr) of luma, and w is the larger saliency. Images are first averaged down by round(min(H, W) / 256),
    halves to even. Saliency is normalized for each image, where piq takes the extremes of a whole batch.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 64, 64)
        >>> SRSIM()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = 40
    color = "Y BT.601 full range"
    resize = "mean, by round(short side / 256)"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _score(_shrink(luma_full(image)), _shrink(luma_full(reference)))


@full_precision
def _score(x: Tensor, y: Tensor) -> Tensor:
    saliency, other = spectral_residual(x), spectral_residual(y)
    gradients = similarity_map(gradient_magnitude(x, "scharr"), gradient_magnitude(y, "scharr"), C2)
    similarity = similarity_map(saliency, other, C1) * power(gradients, ALPHA)
    weight = torch.maximum(saliency, other)
    # One minus the weighted mean of what is missing: equal images give exactly 1.
    return 1 - (weight * (1 - similarity)).sum((1, 2, 3)) / (weight.sum((1, 2, 3)) + EPSILON)


def _shrink(luma: Tensor) -> Tensor:
    """Means of f x f pixels, f = round(min(H, W) / 256), after (f - 1) // 2 rows and columns of zeros."""
    factor = max(1, round(min(luma.shape[-2:]) / 256))
    before, after = (factor - 1) // 2, factor // 2
    return F.avg_pool2d(F.pad(luma, (before, after, before, after)), factor)
