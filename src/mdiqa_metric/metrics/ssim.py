"""SSIM: structural similarity."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import CHANNELS, round_8bit
from ..ops.filters import downsample_mean
from ..ops.structure import WINDOW_SIZE, structure


class SSIM(Metric):
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004): 1 where both pictures are equal.

    The mean over all windows of 11x11 pixels (Gaussian, sigma 1.5) that lie inside the picture, with K 0.01 and 0.03;
    over the channels too where there are three.

    Args:
        channel: "y-full", BT.601 luma in [0, 1]; "rgb"; "y-studio", MATLAB's rgb2ycbcr luma in 16..235 that
            super-resolution papers score; or "gray", MATLAB's rgb2gray rounded to 8 bits, which gives the digits that
            the authors' program prints on TID2013, where unrounded luma is off by up to 1.3e-3.
        border: pixels cut from each side first, in super-resolution papers the scale factor.
        downsample: whether the picture is first averaged down by max(1, round(min(H, W) / 256)), as the authors advise
            and their ssim.m does: mirrored at the borders, halves rounded up.
        convention: "paper", the formula as published; or "pyiqa", for numbers to set beside that library's: it rounds
            the channel to 8 bits, takes negative contrast-structure for 0 (up to 8e-4 more on the same pictures), and
            downsamples without the rest that the factor leaves at the right and the bottom.

    Rounding leaves no honest gradient: `Loss` refuses such a metric, though autograd passes straight through it.

    Raises:
        ValueError: an unknown channel or convention, or a negative border.
    """

    full_reference = True
    lower_is_better = False
    score_range = (-1.0, 1.0)

    def __init__(
        self,
        channel: Literal["y-full", "rgb", "y-studio", "gray"] = "y-full",
        border: int = 0,
        downsample: bool = False,
        convention: Literal["paper", "pyiqa"] = "paper",
    ) -> None:
        super().__init__()
        if channel not in CHANNELS:
            raise ValueError(f"SSIM takes channel {', '.join(map(repr, CHANNELS))}, got {channel!r}.")
        if convention not in ("paper", "pyiqa"):
            raise ValueError(f"SSIM takes convention 'paper' or 'pyiqa', got {convention!r}.")
        if border < 0:
            raise ValueError(f"SSIM takes a border of 0 pixels or more, got {border}.")
        self.channel, self.border, self.downsample, self.convention = channel, border, downsample, convention
        self.color = CHANNELS[channel].words + (", rounded to 8 bits" if convention == "pyiqa" else "")
        self.resize = "mean, by round(short side / 256)" if downsample else "none"
        self.crop = f"{border} px a side" if border else "none"
        self.min_size = 2 * border + WINDOW_SIZE
        if channel == "gray" or convention == "pyiqa":
            self.differentiable = False
            self.no_gradient = "it rounds to 8 bits; use ssim-y-full or ssim-rgb."

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [-1, 1]."""
        luminance, contrast_structure = structure(self._prepare(image), self._prepare(reference))
        if self.convention == "pyiqa":
            contrast_structure = contrast_structure.relu()
        return (luminance * contrast_structure).mean((1, 2, 3))

    def _prepare(self, picture: Tensor) -> Tensor:
        if self.border:
            picture = picture[..., self.border : -self.border, self.border : -self.border]
        picture = CHANNELS[self.channel].convert(picture)
        if self.convention == "pyiqa":
            picture = round_8bit(picture)
        short = min(picture.shape[-2:])
        if self.downsample and self.convention == "pyiqa":
            return F.avg_pool2d(picture, max(1, round(short / 256)))
        if self.downsample:
            return downsample_mean(picture, max(1, (short + 128) // 256))
        return picture

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return (
            f"channel={self.channel}, border={self.border}, downsample={self.downsample}, convention={self.convention}"
        )
