"""ARNIQA: a linear regression on features that tell distortions apart."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones.resnet import ResNet50
from ..checkpoints.remapping import PublishedState
from ..layers.score_head import ScoreHead
from ..metric import Metric
from ..ops.precision import full_precision
from ..ops.resize import resize

# The lowest and the highest opinion of the data sets that regressors were trained on.
RANGES = {"koniq": (1.0, 100.0), "kadid": (1.0, 5.0)}


class ARNIQA(Metric):
    """No-reference quality, higher is better, about 0 to 1.

    The last feature maps of ResNet-50, of images (N, 3, H, W) and of those at half the size, are averaged and scaled to
    length 1; a linear regression predicts the mean opinion, of which `low` is taken to 0 and `high` to 1. From "ARNIQA:
    learning distortion manifold for image quality assessment" (Agnolucci et al., WACV 2024), whose backbone learned to
    bring differing images of the same distortion together. The whole image is scored, as in the authors' example.

    Args:
        dataset: what the regression was trained on, for the range of its opinions: "koniq" (1 to 100) or "kadid" (1 to
            5).
        convention: how images are halved. "authors" resizes as the authors and torchmetrics do (bilinear, antialiased),
            without rounding to 8 bits; "pyiqa" takes the means of 2 x 2 pixels.

    Raises:
        ValueError: an unknown data set or convention.

    Example:
        >>> ARNIQA().accept_untrained()(torch.rand(2, 3, 40, 50)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 2

    def __init__(
        self, dataset: Literal["koniq", "kadid"] = "koniq", convention: Literal["authors", "pyiqa"] = "authors"
    ) -> None:
        super().__init__()
        if dataset not in RANGES:
            raise ValueError(f"ARNIQA takes dataset 'koniq' or 'kadid', got {dataset!r}.")
        if convention not in ("authors", "pyiqa"):
            raise ValueError(f"ARNIQA takes convention 'authors' or 'pyiqa', got {convention!r}.")
        self.dataset, self.convention = dataset, convention
        how = "bilinear, antialiased" if convention == "authors" else "means of 2 x 2"
        self.resize = f"none and half, {how}"
        self.backbone = ResNet50()
        self.regressor = ScoreHead(2 * self.backbone.channels[-1], 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        features = [_unit_mean(self.backbone.last_features(x)) for x in (image, self._half(image))]
        low, high = RANGES[self.dataset]
        opinion = self.regressor(torch.cat(features, 1)).squeeze(1)
        return (opinion.to(torch.promote_types(image.dtype, torch.float32)) - low) / (high - low)

    def _half(self, image: Tensor) -> Tensor:
        if self.convention == "authors":
            # Bilinear resizing keeps the range; a Loss may go beyond it.
            return resize(image, [side // 2 for side in image.shape[-2:]], "bilinear", overshoot=True)
        return F.avg_pool2d(image, 2)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' files, backbone and regressor, and for both in one as pyiqa names them."""
        published = PublishedState(state)
        published.drop("projector.")  # only training needed it
        if "biases" in published.state:
            bias = published.take("biases").reshape(1)
            return {"0.weight": published.take("weights").reshape(1, -1), "0.bias": bias} | published.state
        if not part and "regressor.weight" in published.state:
            backbone = ResNet50.from_children_layout(published.under("encoder."))
            ours = {f"backbone.{key}": value for key, value in backbone.items()}
            return ours | published.conv("regressor", "regressor.0") | published.state
        if "model.0.weight" in published.state:
            return ResNet50.from_children_layout(published.under("model.")) | published.state
        return published.state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"dataset={self.dataset}, convention={self.convention}"


@full_precision
def _unit_mean(x: Tensor) -> Tensor:
    """The mean over the pixels of maps (N, C, H, W), scaled to length 1: (N, C)."""
    return F.normalize(x.mean((2, 3)))
