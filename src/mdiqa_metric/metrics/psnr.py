"""PSNR: peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import CHANNELS, GRAY_AS_IS, convert

# Caps the score of identical images at 80 dB and keeps its gradient finite.
EPSILON = 1e-8


class PSNR(Metric):
    """Peak signal-to-noise ratio in dB, `10 log10(1 / (MSE + 1e-8))` per image; 80 dB for equal images.

    Args:
        channel: "rgb"; "y-full", BT.601 luma in [0, 1]; or "y-studio", MATLAB's rgb2ycbcr luma in 16..235, which
            super-resolution papers print. Studio range scores 1.32 dB more than full range on the same images.
        border: pixels cut from each side first; super-resolution papers cut as many as the scale factor.
        gray_as_is: compares a pair of gray images (three equal channels) by that one channel, as the scripts behind
            those papers do for files with one channel, instead of its studio-range luma, which scores 1.32 dB more.

    Raises:
        ValueError: an unknown channel or a negative border.

    Example:
        >>> import torch
        >>> PSNR()(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.6))
        tensor([20.0000])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 80.0)

    def __init__(
        self, channel: Literal["rgb", "y-full", "y-studio"] = "rgb", border: int = 0, gray_as_is: bool = False
    ) -> None:
        super().__init__()
        if channel not in ("rgb", "y-full", "y-studio"):
            raise ValueError(f'PSNR takes channel "rgb", "y-full" or "y-studio", got {channel!r}.')
        self.channel, self.gray_as_is = channel, gray_as_is
        self.color = CHANNELS[channel].words + (GRAY_AS_IS if gray_as_is else "")
        self.cut_border(border)

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in dB."""
        image, reference = convert(image, reference, self.channel, self.gray_as_is)
        # Its gradient is one map, where a subtraction, a power and a mean take four.
        errors = F.mse_loss(image, reference, reduction="none").sum((1, 2, 3)) / image[0].numel()
        return -10 * (errors + EPSILON).log10()

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"channel={self.channel}, border={self.border}" + (", gray_as_is=True" if self.gray_as_is else "")
