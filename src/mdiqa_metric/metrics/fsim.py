"""FSIM: feature similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import yiq
from ..ops.gradients import gradient_magnitude
from ..ops.phase_congruency import congruency_filters, phase_congruency
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.similarity import similarity_map

# The paper's constants: T1 of phase congruency; T2 to T4 of gradients and chrominance, for values in [0, 1]; lambda.
T1, T2, T3, T4, CHROMA_EXPONENT = 0.85, 160 / 255**2, 200 / 255**2, 200 / 255**2, 0.03


class FSIM(Metric):
    """Feature similarity (Zhang, Zhang, Mou, Zhang, IEEE TIP 2011): 1 for equal images, higher is better.

    `sum p s g (i q)^0.03 / sum p`, where s, g, i and q are the similarities of phase congruency, Scharr gradient
    magnitude, and the chrominances I and Q, and p is the larger phase congruency. Images are first averaged down by
    round(min(H, W) / 256), halves to even.

    Args:
        chromatic: False leaves the chrominances out: the paper's FSIM instead of its FSIMc.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> FSIM()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = 16
    color = "YIQ"
    resize = "mean, by round(short side / 256)"

    def __init__(self, chromatic: bool = True) -> None:
        super().__init__()
        self.chromatic = chromatic

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _score(_shrink(yiq(image)), _shrink(yiq(reference)), chromatic=self.chromatic)

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"chromatic={self.chromatic}"


@full_precision
def _score(x: Tensor, y: Tensor, chromatic: bool) -> Tensor:
    filters = congruency_filters(x)
    ours, theirs = (phase_congruency(each[:, :1], filters) for each in (x, y))
    gradients = [gradient_magnitude(each[:, :1], "scharr") for each in (x, y)]
    similarity = similarity_map(ours, theirs, T1) * similarity_map(gradients[0], gradients[1], T2)
    if chromatic:
        i, q = similarity_map(x[:, 1:2], y[:, 1:2], T3), similarity_map(x[:, 2:], y[:, 2:], T4)
        similarity = similarity * power((i * q).abs(), CHROMA_EXPONENT)
    weight = torch.maximum(ours, theirs)
    # One minus the weighted mean of what is missing: equal images give exactly 1.
    return 1 - (weight * (1 - similarity)).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def _shrink(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, max(1, round(min(maps.shape[-2:]) / 256)))
