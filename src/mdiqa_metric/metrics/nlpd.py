"""NLPD: normalized Laplacian pyramid distance."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full
from ..ops.filters import pad_symmetric
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.pyramid import double, halve

# The pyramid's taps, and for each band, finest first, the constant of the normalization and the weights of the
# neighbors below, to the right, to the left and above: fitted by the authors to photographs.
TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
BANDS = (
    (0.0248, (0.1011, 0.1493, 0.1460, 0.1015)),
    (0.0185, (0.0757, 0.1986, 0.1846, 0.0837)),
    (0.0179, (0.0477, 0.2138, 0.2243, 0.0467)),
    (0.0191, (0.0, 0.2503, 0.2616, 0.0)),
    (0.0220, (0.0, 0.2598, 0.2552, 0.0)),
    (0.2782, (0.0, 0.2215, 0.0717, 0.0)),
)


class BandDistances(NamedTuple):
    """What `explain` returns: the distance in each of the six bands, finest first, (N, 6); their mean is the score."""

    distances: Tensor


class NLPD(Metric):
    """Normalized Laplacian pyramid distance (Laparra, Balle, Berardino, Simoncelli, HVEI 2016): 0 for equal images.

    The mean over the six bands z of a Laplacian pyramid of luma of the root mean square difference between image and
    reference, each band divided by its local amplitude: `z / (s + sum_k w_k |z_k|)` over neighbors k. `explain` gives
    `BandDistances`. The weights are those of the authors' program, but for one beyond the 3 x 3 neighborhood, 0.0072,
    that other implementations leave out as well. From 0 up; lower is better.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> NLPD()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, math.inf)
    min_size = 17
    color = "Y BT.601 full range"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        return self.explanation(image, reference).distances.mean(1)

    def explanation(self, image: Tensor, reference: Tensor) -> BandDistances:
        """The distance in each band (N, 6)."""
        return BandDistances(_distances(image, reference))


@full_precision
def _distances(image: Tensor, reference: Tensor) -> Tensor:
    # Bands are linear, so the difference of two is that of the images: exact where they are equal or nearly so.
    pair = torch.cat([luma_full(reference), luma_full(image - reference)], 1)
    distances = []
    for level, (constant, weights) in enumerate(BANDS):
        smaller = None
        if level < len(BANDS) - 1:
            smaller = halve(pad_symmetric(pad_symmetric(pair, -2, 2, 2), -1, 2, 2), TAPS)
            pair = pair - double(F.pad(smaller, (1, 1, 1, 1), mode="replicate"), TAPS, pair.shape[-2:])
        band, difference = pair.chunk(2, 1)
        distances.append(_band_distance(band, difference, constant, weights))
        pair = pair if smaller is None else smaller
    return torch.cat(distances, 1)


def _band_distance(band: Tensor, difference: Tensor, constant: float, weights: tuple[float, ...]) -> Tensor:
    """The root mean square of `a / (s + A) - b / (s + B)`, a = b + difference and A, B their local amplitudes: (N, 1).

    Written as `(difference - b / (s + B) (A - B)) / (s + A)`.
    """
    size = band.abs()
    change = _of_neighbors((band + difference).abs() - size, weights)
    amplitude = constant + _of_neighbors(size, weights)
    apart = (difference - band / amplitude * change) / (amplitude + change)
    return power(apart.square().mean((2, 3)), 0.5)


def _of_neighbors(maps: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The weighted sum of the neighbors below, to the right, to the left and above each pixel, zeros outside."""
    below, right, left, above = weights
    framed = F.pad(maps, (1, 1))
    total = right * framed[..., 2:] + left * framed[..., :-2]
    if below or above:
        framed = F.pad(maps, (0, 0, 1, 1))
        total = total + below * framed[..., 2:, :] + above * framed[..., :-2, :]
    return total
