"""NRQM: a no-reference metric learned for super-resolution."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from ..layers.regression_forest import QualityForests
from ..metric import Metric
from ..ops.color import luma_full
from ..ops.upscaling_statistics import upscaling_features


class Explanation(NamedTuple):
    """What `NRQM.explain` finds in N images.

    Attributes:
        frequency: statistics of block frequencies (N, 18), of six kinds at three sizes.
        bands: statistics of oriented bands (N, 45).
        patches: singular values of patches (N, 75), of three sizes.
        predictions: the quality that a forest expects of each group (N, 3).
    """

    frequency: Tensor
    bands: Tensor
    patches: Tensor
    predictions: Tensor


class NRQM(Metric):
    """Opinion of a super-resolved image, in 0..10, by regression forests (Ma, Yang, Yang, Yang, CVIU 2017).

    `w0 + w1 q1 + w2 q2 + w3 q3`, where a forest each predicts q from statistics of the luma's block frequencies, of its
    oriented bands, and of the principal components of its patches. Luma is rounded to 8 bits. Higher is better.
    `explain` gives statistics and predictions. Scores jump where a statistic crosses a threshold.

    Also known as Ma's metric. The weights come by hand: `create("nrqm", weights="NRQM_model.mat")`.

    Args:
        chunk: how many blocks are transformed at a time, which bounds memory.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> import torch
        >>> from mdiqa_metric import create
        >>> create("nrqm", weights=None).explain(torch.rand(1, 3, 96, 96)).bands.shape
        torch.Size([1, 45])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    differentiable = False
    no_gradient = "its forests are steps, flat between thresholds; use topiq-nr or mdiqa-lite."
    min_size = 84
    color = "Y BT.601 full range, rounded to 8 bits"

    def __init__(self, chunk: int = 65536) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"NRQM transforms 1 block or more at a time, got a chunk of {chunk}: use a larger one.")
        self.chunk = chunk
        self.forests = QualityForests(3)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.forests(self._features(image))

    def explanation(self, image: Tensor, reference: None) -> Explanation:
        """Statistics and predictions; see `Explanation`."""
        features = self._features(image)
        return Explanation(*features, self.forests.predictions(features))

    def _features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return upscaling_features((255 * luma_full(image)).round(), self.chunk)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' struct."""
        ours = QualityForests.from_published(state)
        prefix = "" if part or "model" not in state else "forests."
        return {prefix + key: value for key, value in ours.items()}

    def settings(self) -> str:
        """Nothing: `chunk` moves no score."""
        return ""
