"""PI: the perceptual index of super-resolution challenges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from ..layers.pristine_model import PristineModel
from ..layers.regression_forest import QualityForests
from ..metric import Metric
from ..ops.color import luma_studio
from ..ops.natural_scene import niqe_features
from ..ops.upscaling_statistics import upscaling_features


class Explanation(NamedTuple):
    """What `PI.explain` finds in N images.

    Attributes:
        nrqm: the opinion (N,) that the forests of NRQM expect, higher is better.
        niqe: the distance (N,) from pristine photographs, lower is better.
    """

    nrqm: Tensor
    niqe: Tensor


class PI(Metric):
    """The perceptual index `(10 - NRQM + NIQE) / 2` of the PIRM 2018 challenge (Blau et al., ECCVW 2018).

    Both parts see MATLAB's studio-range luma, rounded to 8 bits, without 4 pixels at each border: that is other than
    what `nrqm` and `niqe` score. `explain` gives the parts. Lower is better, about 2 for photographs. NaN for an image
    that is flat in every block of 96 pixels.

    The weights of NRQM come by hand: `create("pi", weights={"forests": "NRQM_model.mat"})`.

    Args:
        chunk: how many blocks are transformed at a time, which bounds memory.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> import torch
        >>> from mdiqa_metric import create
        >>> create("pi", weights=None).explain(torch.rand(2, 3, 104, 120)).niqe.shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = True
    score_range = (-math.inf, math.inf)
    differentiable = False
    no_gradient = (
        "its forests are steps and it looks shapes of distributions up in a table; use topiq-nr or mdiqa-lite."
    )
    border = 4
    min_size = 104
    color = "Y BT.601 studio range (MATLAB), rounded to 8 bits"
    crop = "4 px a side"

    def __init__(self, chunk: int = 65536) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"PI transforms 1 block or more at a time, got a chunk of {chunk}: use a larger one.")
        self.chunk = chunk
        self.forests = QualityForests(3)
        self.pristine = PristineModel(36)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        found = self.explanation(image, reference)
        return (10 - found.nrqm + found.niqe) / 2

    def explanation(self, image: Tensor, reference: None) -> Explanation:
        """The two parts; see `Explanation`."""
        luma = (255 * luma_studio(image)).round()
        return Explanation(self.forests(upscaling_features(luma, self.chunk)), self.pristine(niqe_features(luma)))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the struct of NRQM's authors, and for the pristine model of NIQE's."""
        mapping = {"forests": QualityForests.from_published, "pristine": PristineModel.from_published}
        return mapping[part](state) if part in mapping else dict(state)

    def settings(self) -> str:
        """Nothing: `chunk` moves no score."""
        return ""
