"""GMSD: gradient magnitude similarity deviation."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric, QualityMap
from ..ops.color import gray_matlab, luma_full, round_8bit
from ..ops.gradients import gradient_magnitude
from ..ops.similarity import similarity_map
from ..ops.statistics import standard_deviation

# What each convention scores, in words.
CONVENTIONS = {
    "paper": "Y BT.601 full range",
    "matlab": "MATLAB rgb2gray, 8 bits",
    "pyiqa": "Y BT.601 full range, rounded to 8 bits",
}
# The paper's T, for values in [0, 1].
STABILIZER = 170 / 255**2


class GMSD(Metric):
    """Gradient magnitude similarity deviation (Xue, Zhang, Mou, Bovik, IEEE TIP 2014): 0 for equal images.

    The standard deviation over the image of `(2 g h + T) / (g^2 + h^2 + T)`, where g and h are the Prewitt gradient
    magnitudes of image and reference, halved luma in 0..255, and T = 170. `explain` gives the map, (N, 1, H // 2,
    W // 2), 1 where the gradients agree. Lower is better. An odd last row or column is left out.

    Args:
        convention: "paper", as above on BT.601 luma; "matlab", of MATLAB's rgb2gray rounded to 8 bits: the digits of
            the authors' program; or "pyiqa", for numbers to compare with that library's: BT.601 luma rounded to 8 bits.
            Rounding moves scores by up to 2e-3 of their value, and more where an image is almost its reference.

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> GMSD()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 1.0)
    min_size = 4
    no_gradient = "it rounds to 8 bits; use gmsd."

    def __init__(self, convention: Literal["paper", "matlab", "pyiqa"] = "paper") -> None:
        super().__init__()
        if convention not in CONVENTIONS:
            raise ValueError(f"GMSD takes convention 'paper', 'matlab' or 'pyiqa', got {convention!r}.")
        self.convention = convention
        self.color = CONVENTIONS[convention]
        self.differentiable = self.facts(convention=convention)["differentiable"]

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {"differentiable": options.get("convention", "paper") == "paper"}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        return standard_deviation(self.explanation(image, reference).map, unbiased=True).squeeze(1)

    def explanation(self, image: Tensor, reference: Tensor) -> QualityMap:
        """The map of the gradients' similarity (N, 1, H // 2, W // 2)."""
        x, y = (gradient_magnitude(self._prepare(each), "prewitt") for each in (image, reference))
        return QualityMap(similarity_map(x, y, STABILIZER))

    def _prepare(self, image: Tensor) -> Tensor:
        luma = gray_matlab(image) if self.convention == "matlab" else luma_full(image)
        return F.avg_pool2d(round_8bit(luma) if self.convention == "pyiqa" else luma, 2)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}"
