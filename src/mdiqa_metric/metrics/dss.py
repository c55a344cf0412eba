"""DSS: DCT subband similarity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.dct import block_dct, blocks_of
from ..ops.filters import filter_separable, gaussian_window
from ..ops.powers import power
from ..ops.precision import full_precision

# The paper's constants, for values in [0, 1]: of the mean's subband and of the others.
C_MEAN, C_OTHERS = 1000 / 255**2, 300 / 255**2
# The weights of subbands fall off as a Gaussian of this deviation; those below `LEAST` are left out.
SPREAD, LEAST = 1.55, 1e-2
# The share of a subband's lowest similarities that is averaged.
WORST = 0.05


class DSS(Metric):
    """DCT subband similarity (Balanov, Schwartz, Moshe, Peleg, ICIP 2015): 1 for equal images, higher is better.

    Each coefficient of the 8x8 DCT of luma, taken from every block, makes a small map. The similarity of both images'
    maps, `(2 sqrt(v w) + c) / (v + w + c)` of local variances v and w, is averaged over its lowest twentieth and
    weighted by frequency; that of the blocks' means is multiplied by the same of `(cov + c) / (sqrt(v w) + c)`. Rows
    and columns beyond the last whole block are left out. The gradient is that of the values that are averaged.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> DSS()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-1.0, 1.0)
    min_size = 24
    color = "Y BT.601 full range"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,), at most 1."""
        return _score(luma_full(image), luma_full(reference))


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    weights = _weights()
    x, y = (block_dct(blocks_of(each), [*weights]) for each in (image, reference))

    window = gaussian_window(3, 1.5, x)
    mean_x, mean_y, square_x, square_y, product = filter_separable(
        torch.cat([x, y, x.square(), y.square(), x * y], 1), window, padding=1
    ).chunk(5, 1)
    variance_x, variance_y = (square_x - mean_x.square()).relu(), (square_y - mean_y.square()).relu()
    root_x, root_y = power(variance_x, 0.5), power(variance_y, 0.5)
    stabilizers = torch.full((len(weights), 1, 1), C_OTHERS, dtype=x.dtype, device=x.device)
    stabilizers[0] = C_MEAN
    similarity = _mean_of_worst(1 - (root_x - root_y).square() / (variance_x + variance_y + stabilizers))
    covariance = (product - mean_x * mean_y)[:, :1]
    geometric = power(variance_x[:, :1] * variance_y[:, :1], 0.5)  # of equal maps exactly the covariance
    structure = _mean_of_worst((covariance + C_MEAN) / (geometric + C_MEAN))
    share = torch.tensor([*weights.values()], dtype=x.dtype, device=x.device)
    return 1 - ((1 - torch.cat([similarity[:, :1] * structure, similarity[:, 1:]], 1)) * share).sum(1)


def _mean_of_worst(maps: Tensor) -> Tensor:
    """The mean of the lowest values of each map: (N, C, h, w) -> (N, C)."""
    flat = maps.flatten(2)
    return flat.topk(max(1, round(WORST * flat.shape[2])), largest=False).values.mean(2)


def _weights() -> dict[tuple[int, int], float]:
    """The weight of each subband by its two frequencies, the mean's first; they sum to 1."""
    raw = {(m, n): math.exp(-((m + 0.5) ** 2 + (n + 0.5) ** 2) / (2 * SPREAD**2)) for m in range(8) for n in range(8)}
    kept = {key: weight for key, weight in raw.items() if weight >= LEAST}
    return {key: weight / sum(kept.values()) for key, weight in kept.items()}
