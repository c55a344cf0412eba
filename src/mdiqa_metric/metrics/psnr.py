"""PSNR: peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import CHANNELS

# Caps the score of identical pictures at 80 dB and keeps its gradient finite.
EPSILON = 1e-8


class PSNR(Metric):
    """Peak signal-to-noise ratio in dB, `10 log10(1 / (MSE + 1e-8))`, a picture at a time; 80 dB where both are equal.

    Args:
        channel: "rgb"; "y-full", BT.601 luma in [0, 1]; or "y-studio", MATLAB's rgb2ycbcr luma in 16..235 that
            super-resolution papers print. Studio range scores 1.32 dB more than full range on the same pictures.
        border: pixels cut from each side first, in those papers the scale factor.

    Raises:
        ValueError: an unknown channel or a negative border.
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, 80.0)

    def __init__(self, channel: Literal["rgb", "y-full", "y-studio"] = "rgb", border: int = 0) -> None:
        super().__init__()
        if channel not in ("rgb", "y-full", "y-studio"):
            raise ValueError(f'PSNR takes channel "rgb", "y-full" or "y-studio", got {channel!r}.')
        if border < 0:
            raise ValueError(f"PSNR takes a border of 0 pixels or more, got {border}.")
        self.channel, self.border = channel, border
        self.color = CHANNELS[channel].words
        self.crop = f"{border} px a side" if border else "none"
        self.min_size = 2 * border + 1

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in dB."""
        rows, columns = (slice(self.border, size - self.border) for size in image.shape[-2:])
        convert = CHANNELS[self.channel].convert
        image, reference = (convert(picture[..., rows, columns]) for picture in (image, reference))
        # Its gradient is one map, where a subtraction, a power and a mean take four.
        errors = F.mse_loss(image, reference, reduction="none").sum((1, 2, 3)) / image[0].numel()
        return -10 * (errors + EPSILON).log10()

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"channel={self.channel}, border={self.border}"
