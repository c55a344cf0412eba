"""NIQE: natural image quality evaluator."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from ..layers.pristine_model import PristineModel
from ..metric import Metric
from ..ops.color import CHANNELS, round_8bit
from ..ops.natural_scene import NIQE_BLOCK, niqe_features


class NIQE(Metric):
    """Distance of an image's statistics from those of pristine photographs (Mittal, Soundararajan, Bovik, SPL 2013).

    Each block of 96x96 pixels gives 36 features, of how its normalized luminance and the products of neighbors are
    distributed at two scales. The score is `sqrt((m - n)' ((S + C) / 2)^-1 (m - n))`, where m and C are the blocks'
    mean and covariance, n and S those of the pristine photographs. 0 or more, about 2 to 20, lower is better. Rows and
    columns beyond the last whole block are left out, so scores jump where a side reaches another multiple of 96. An
    image without any structure has no score: it gives NaN.

    Args:
        channel: "gray", MATLAB's rgb2gray, as the authors' program has it; or "y-full", BT.601 luma, the convention of
            pyiqa and others. Both are rounded to 8 bits.

    Raises:
        ValueError: an unknown channel.

    Example:
        >>> import torch
        >>> from mdiqa_metric import create
        >>> create("niqe")(torch.rand(1, 3, 192, 192)).shape
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = True
    score_range = (0.0, math.inf)
    differentiable = False
    no_gradient = "it rounds to 8 bits and looks the shapes of distributions up in a table; use topiq-nr or mdiqa-lite."
    min_size = NIQE_BLOCK

    def __init__(self, channel: Literal["gray", "y-full"] = "y-full") -> None:
        super().__init__()
        if channel not in ("gray", "y-full"):
            raise ValueError(f"NIQE takes channel 'gray' or 'y-full', got {channel!r}.")
        self.channel = channel
        self.color = "MATLAB rgb2gray, 8 bits" if channel == "gray" else "Y BT.601 full range, rounded to 8 bits"
        self.pristine = PristineModel(36)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,) from 0 up."""
        return self.pristine(niqe_features(round_8bit(CHANNELS[self.channel].convert(image)) * 255))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, mean and covariance of the features of pristine photographs."""
        if "cov_prisparam" not in state:
            return dict(state)
        return {f"pristine.{key}": value for key, value in PristineModel.from_published(state).items()}

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"channel={self.channel}"
