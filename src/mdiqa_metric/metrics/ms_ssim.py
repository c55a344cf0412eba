"""MS-SSIM: multi-scale structural similarity."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.autograd import is_recording_graph
from ..ops.color import CHANNELS, round_8bit
from ..ops.ssim import WINDOW_SIZE, product_of_scales, ssim_maps

# Exponents of the five scales, finest first; they sum to 1.0001 in the paper.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


class MSSSIM(Metric):
    """Multi-scale structural similarity (Wang, Simoncelli, Bovik, Asilomar 2003): 1 for equal images.

    The product of the mean contrast-structure of the four finer scales and the mean SSIM of the coarsest, each raised
    to the scale's weight; images are halved between scales. If the mean of a scale is not positive the score is 0.
    Three channels are scored separately and averaged. Below a mean of 0.01 the gradient is that of a linear
    continuation of the power, so that every scale keeps a gradient there.

    Args:
        channel: "y-full", BT.601 luma in [0, 1]; "rgb"; "y-studio", MATLAB's rgb2ycbcr luma in 16..235; or "gray",
            MATLAB's rgb2gray rounded to 8 bits.
        convention: "paper", as above, halving as the authors' program does, with a mirror at an odd edge;
            "weighted-sum", the authors' other method, which sums the scales with weights that sum to 1 and on "gray"
            reproduces the digits printed for TID2013 (up to 5e-3 above the product); or "pyiqa", for numbers to compare
            with that library's: it rounds the channel to 8 bits, replaces negative contrast-structure by 0, and pads
            odd sizes with zeros before halving.

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown channel or convention.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 176, 176)
        >>> MSSSIM(channel="rgb")(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-1.0, 1.0)  # below 0 only as a weighted sum
    min_size = (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1) + 1
    no_gradient = "it rounds to 8 bits; use ms-ssim-y-full or ms-ssim-rgb."

    def __init__(
        self,
        channel: Literal["y-full", "rgb", "y-studio", "gray"] = "y-full",
        convention: Literal["paper", "weighted-sum", "pyiqa"] = "paper",
    ) -> None:
        super().__init__()
        if channel not in CHANNELS:
            raise ValueError(f"MSSSIM takes channel {', '.join(map(repr, CHANNELS))}, got {channel!r}.")
        if convention not in ("paper", "weighted-sum", "pyiqa"):
            raise ValueError(f"MSSSIM takes convention 'paper', 'weighted-sum' or 'pyiqa', got {convention!r}.")
        self.channel, self.convention = channel, convention
        self.color = CHANNELS[channel].words + (", rounded to 8 bits" if convention == "pyiqa" else "")
        self.differentiable = self.facts(channel=channel, convention=convention)["differentiable"]

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        rounds = options.get("channel") == "gray" or options.get("convention") == "pyiqa"
        return super().facts() | {"differentiable": not rounds}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,), at most 1."""
        image, reference = self._prepare(image), self._prepare(reference)
        means = []
        for scale in range(len(WEIGHTS)):
            if scale:
                image, reference = self._halve(image), self._halve(reference)
            luminance, similarity = ssim_maps(image, reference)
            if self.convention == "pyiqa":
                similarity = similarity.relu()
            if scale == len(WEIGHTS) - 1:
                similarity = luminance * similarity
            means.append(similarity.mean((-2, -1)))
        if self.convention == "weighted-sum":
            weighted = [weight * mean / sum(WEIGHTS) for weight, mean in zip(WEIGHTS, means, strict=True)]
            return functools.reduce(torch.add, weighted).mean(1)
        return product_of_scales(means, WEIGHTS).mean(1)

    def _prepare(self, image: Tensor) -> Tensor:
        image = CHANNELS[self.channel].convert(image)
        return round_8bit(image) if self.convention == "pyiqa" else image

    def _halve(self, image: Tensor) -> Tensor:
        if self.convention == "pyiqa":
            return F.avg_pool2d(image, 2, padding=(image.shape[-2] % 2, image.shape[-1] % 2))
        odd = [size % 2 for size in image.shape[-2:]]
        if is_recording_graph() or any(
            odd
        ):  # an odd edge is averaged with its mirror; a graph is for sizes of both kinds
            image = F.pad(image, (0, odd[1], 0, odd[0]), mode="replicate")
        return F.avg_pool2d(image, 2)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"channel={self.channel}, convention={self.convention}"
