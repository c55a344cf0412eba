"""SSIM: structural similarity."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric, QualityMap
from ..ops.color import CHANNELS, GRAY_AS_IS, convert, round_8bit
from ..ops.filters import downsample_mean
from ..ops.ssim import WINDOW_SIZE, ssim_maps


class SSIM(Metric):
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004): 1 for equal images.

    The mean over all 11x11 windows (Gaussian, sigma 1.5) inside the image, with K1 = 0.01 and K2 = 0.03, and over the
    channels if there are three; `explain` gives their map.

    Args:
        channel: "y-full", BT.601 luma in [0, 1]; "rgb"; "y-studio", MATLAB's rgb2ycbcr luma in 16..235, which
            super-resolution papers score; or "gray", MATLAB's rgb2gray rounded to 8 bits, which reproduces the digits
            that the authors' program prints on TID2013 (unrounded luma is off by up to 1.3e-3).
        border: pixels cut from each side first; super-resolution papers cut as many as the scale factor.
        downsample: first averages the image down by max(1, round(min(H, W) / 256)), as the authors advise and their
            ssim.m does: mirrored at the borders, halves rounded up.
        convention: "paper", the published formula; or "pyiqa", for numbers to compare with that library's: it rounds
            the channel to 8 bits, replaces negative contrast-structure by 0 (up to 8e-4 more on the same images), and
            drops the rows and columns that the downsampling factor leaves over.
        gray_as_is: compares a pair of gray images by their one channel, as scripts of super-resolution papers do for
            files with one channel, instead of its studio-range luma.

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown channel or convention, or a negative border.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> SSIM(channel="rgb")(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-1.0, 1.0)
    min_size = WINDOW_SIZE
    no_gradient = "it rounds to 8 bits; use ssim-y-full or ssim-rgb."

    def __init__(
        self,
        channel: Literal["y-full", "rgb", "y-studio", "gray"] = "y-full",
        border: int = 0,
        downsample: bool = False,
        convention: Literal["paper", "pyiqa"] = "paper",
        gray_as_is: bool = False,
    ) -> None:
        super().__init__()
        if channel not in CHANNELS:
            raise ValueError(f"SSIM takes channel {', '.join(map(repr, CHANNELS))}, got {channel!r}.")
        if convention not in ("paper", "pyiqa"):
            raise ValueError(f"SSIM takes convention 'paper' or 'pyiqa', got {convention!r}.")
        self.channel, self.downsample, self.convention, self.gray_as_is = channel, downsample, convention, gray_as_is
        self.color = CHANNELS[channel].words + (", rounded to 8 bits" if convention == "pyiqa" else "")
        self.color += GRAY_AS_IS if gray_as_is else ""
        self.resize = "mean, by round(short side / 256)" if downsample else "none"
        self.differentiable = self.facts(channel=channel, convention=convention)["differentiable"]
        self.cut_border(border)

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        rounds = options.get("channel") == "gray" or options.get("convention") == "pyiqa"
        return super().facts() | {"differentiable": not rounds}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [-1, 1]."""
        return self.explanation(image, reference).map.mean((1, 2, 3))

    def explanation(self, image: Tensor, reference: Tensor) -> QualityMap:
        """The map of the windows' SSIM (N, C, H - 10, W - 10), or smaller after downsampling."""
        pair = convert(image, reference, self.channel, self.gray_as_is)
        luminance, contrast_structure = ssim_maps(*map(self._prepare, pair))
        if self.convention == "pyiqa":
            contrast_structure = contrast_structure.relu()
        return QualityMap(luminance * contrast_structure)

    def _prepare(self, image: Tensor) -> Tensor:
        if self.convention == "pyiqa":
            image = round_8bit(image)
        short = min(image.shape[-2:])
        if self.downsample and self.convention == "pyiqa":
            return F.avg_pool2d(image, max(1, round(short / 256)))
        if self.downsample:
            return downsample_mean(image, max(1, (short + 128) // 256))
        return image

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        options = f"channel={self.channel}, border={self.border}, downsample={self.downsample}"
        return f"{options}, convention={self.convention}" + (", gray_as_is=True" if self.gray_as_is else "")
