"""CW-SSIM: complex wavelet structural similarity."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric, QualityMap
from ..ops.color import luma_full, luma_full_8bit
from ..ops.filters import gaussian_window
from ..ops.powers import power
from ..ops.precision import full_precision
from ..ops.steerable import complex_bands

LEVEL = 4
ORIENTATIONS = 8
WINDOW_SIZE = 7
# K of the paper, "a small positive constant", for luma in [0, 1]: the authors' experiments took 0, by which two flat
# images would have no score.
STABILIZER = 1e-9


class CWSSIM(Metric):
    """Complex wavelet SSIM (Sampat, Wang, Gupta, Bovik, Markey, IEEE TIP 2009): 1 for equal images.

    `2 |sum a conj(b)| / sum (|a|^2 + |b|^2)` in 7x7 windows, where a and b are the bands of image and reference in the
    complex steerable pyramid, 8 orientations of level 4, of luma. Small shifts and rotations turn the phases of a whole
    window alike and so hardly lower it. The mean over the orientations and windows, weighted by a Gaussian on the
    middle of the image, with sigma a quarter of the band's height. `explain` gives the map, (N, 8, h - 6, w - 6), where
    h = H / 8 and w = W / 8, rounded up at each halving.

    Only a band of 1/32 to 1/8 of the sampling rate is seen: two images that differ in fine noise alone score near 1.

    Args:
        convention: "paper", as above; or "pyiqa", for numbers to compare with that library's: it rounds luma to 8 bits
            (up to 1.2e-3 apart).

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 64, 64)
        >>> CWSSIM()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 1.0)
    # The smallest whose band holds no part of the mean; it leaves windows in an 8 x 8 band.
    min_size = 2 ** (LEVEL + 2)
    no_gradient = "it rounds to 8 bits; use cw-ssim."

    def __init__(self, convention: Literal["paper", "pyiqa"] = "paper") -> None:
        super().__init__()
        if convention not in ("paper", "pyiqa"):
            raise ValueError(f"CW-SSIM takes convention 'paper' or 'pyiqa', got {convention!r}.")
        self.convention = convention
        self.color = "Y BT.601 full range" + (", rounded to 8 bits" if convention == "pyiqa" else "")
        self.differentiable = self.facts(convention=convention)["differentiable"]

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {"differentiable": options.get("convention") != "pyiqa"}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return _pool(self.explanation(image, reference).map)

    def explanation(self, image: Tensor, reference: Tensor) -> QualityMap:
        """The map of the windows' similarity (N, 8, h - 6, w - 6)."""
        return QualityMap(_similarity(*(self._prepare(each) for each in (image, reference))))

    def _prepare(self, image: Tensor) -> Tensor:
        return luma_full_8bit(image) if self.convention == "pyiqa" else luma_full(image)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}"


@full_precision
def _similarity(luma: Tensor, other: Tensor) -> Tensor:
    a, b = (torch.view_as_real(complex_bands(each, LEVEL, ORIENTATIONS)) for each in (luma, other))
    (x, y), (u, v) = a.unbind(-1), b.unbind(-1)
    sums = torch.cat([x * u + y * v, y * u - x * v, x * x + y * y + u * u + v * v], 1)
    real, imaginary, energy = F.avg_pool2d(sums, WINDOW_SIZE, stride=1).chunk(3, 1)
    # The moduli of equal bands sum to half their energy, digit for digit, so that their similarity is exactly 1.
    return (2 * power(real.square() + imaginary.square(), 0.5) + STABILIZER) / (energy + STABILIZER)


@full_precision
def _pool(similarity: Tensor) -> Tensor:
    difference = 1 - similarity  # exactly 0 for equal images, whatever the weights sum to
    height, width = difference.shape[-2:]
    sigma = (height + WINDOW_SIZE - 1) / 4
    rows, columns = (gaussian_window(size, sigma, difference) for size in (height, width))
    return 1 - (difference.mean(1) @ columns) @ rows
