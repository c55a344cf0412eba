"""NIQE: natural image quality evaluator."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..metric import Metric
from ..ops.color import CHANNELS, round_8bit
from ..ops.natural_scene import normalized_features, pristine_distance
from ..ops.precision import full_precision
from ..ops.resize import shrink_matlab
from ..ops.statistics import local_normalization

# Side of a block, and features of a block at both scales.
BLOCK, FEATURES = 96, 36


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
        >>> from mdiqa_metric import create
        >>> create("niqe")(torch.rand(1, 3, 192, 192)).shape
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = True
    score_range = (0.0, math.inf)
    differentiable = False
    no_gradient = "it rounds to 8 bits and looks the shapes of distributions up in a table; use topiq-nr or mdiqa-lite."
    min_size = BLOCK

    def __init__(self, channel: Literal["gray", "y-full"] = "y-full") -> None:
        super().__init__()
        if channel not in ("gray", "y-full"):
            raise ValueError(f"NIQE takes channel 'gray' or 'y-full', got {channel!r}.")
        self.channel = channel
        self.color = "MATLAB rgb2gray, 8 bits" if channel == "gray" else "Y BT.601 full range, rounded to 8 bits"
        self.mean = nn.Parameter(torch.zeros(FEATURES))
        # Features less their mean, times `whitening`: coordinates in which the pristine model is N(0, 1).
        self.whitening = nn.Parameter(torch.eye(FEATURES))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,) from 0 up."""
        return _distance(self._features(image), self.mean, self.whitening)

    def _features(self, image: Tensor) -> Tensor:
        """The features of each block (N, B, 36)."""
        luma = round_8bit(CHANNELS[self.channel].convert(image)) * 255
        rows, columns = (side // BLOCK for side in luma.shape[-2:])
        luma = luma[..., : rows * BLOCK, : columns * BLOCK]
        scales = []
        for scale in (1, 2):
            side = BLOCK // scale
            normal = local_normalization(luma, 7, 7 / 6).squeeze(1)
            tiles = normal.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3).flatten(1, 2)
            scales.append(normalized_features(tiles))
            luma = shrink_matlab(luma, 2)
        return torch.cat(scales, 2)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, mean and covariance of the features of pristine photographs."""
        if "cov_prisparam" not in state:
            return dict(state)
        root = torch.linalg.cholesky(state["cov_prisparam"].double())
        whitening = torch.linalg.solve_triangular(root, torch.eye(FEATURES, dtype=torch.float64), upper=False).T
        return {"mean": state["mu_prisparam"].flatten(), "whitening": whitening.contiguous()}

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"channel={self.channel}"


@full_precision
def _distance(features: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """The distance (N,) of blocks' features (N, B, 36) from the pristine model, blocks without structure left out."""
    mean, whitening = mean.to(features.dtype), whitening.to(features.dtype)
    structured = features.isfinite().all(2, keepdim=True)
    middle = features.nanmean(1, keepdim=True)
    point, blocks = ((each - mean) @ whitening for each in (middle, torch.where(structured, features, middle)))
    center = torch.where(structured, blocks, 0.0).sum(1, keepdim=True) / structured.sum(1, keepdim=True)
    return pristine_distance(point, torch.where(structured, blocks, center), center).squeeze(1)
