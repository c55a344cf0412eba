"""DISTS: deep image structure and texture similarity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import BINOMIAL, CHANNELS, IMAGENET_MEAN, IMAGENET_STD, L2Pool, published, torchvision_trunk
from ..metric import Encoded, Metric
from ..ops.compare import moments
from ..ops.resize import resized

# Channels of the maps; the picture itself is the first.
WIDTHS = (3, *CHANNELS["vgg16"])
# In the denominators of texture and of structure.
C1 = C2 = 1e-6
# The shorter side that `resize` brings larger pictures to.
SIDE = 256


class DISTS(Metric):
    """Weighted differences of VGG16's maps in mean (texture) and in covariation (structure), 0 where both are equal.

    From "Image quality assessment: unifying structure and texture similarity" (Ding et al., TPAMI 2020): one minus its
    similarity. Since the weights sum to one, that is the weighted sum of (mx - my)^2 / (mx^2 + my^2 + c1) and of
    var(x - y) / (var x + var y + c2), which cancels no digits and is never below 0.

    Args:
        resize: brings pictures with more than 256 pixels on the shorter side to 256 first, by antialiased bilinear
            interpolation, as the authors' program does. Scores with and without it do not compare.
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 2.0)  # above 1 only where maps are each other's negatives

    def __init__(self, resize: bool = False) -> None:
        super().__init__()
        self.resizes = resize
        self.resize = f"shorter side to {SIDE} where larger, antialiased bilinear" if resize else "none"
        self.trunk = torchvision_trunk("vgg16", pool=L2Pool)
        weight = torch.full((1, sum(WIDTHS), 1, 1), 0.5 / sum(WIDTHS))
        self.heads = nn.ParameterDict({"alpha": weight, "beta": weight.clone()})

    def score(self, image: Tensor, reference: Tensor | Encoded) -> Tensor:
        """Scores (N,)."""
        references = reference.features if isinstance(reference, Encoded) else self.features(reference)
        weights = torch.stack([self.heads["alpha"].flatten(), self.heads["beta"].flatten()])
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        maps = zip(self.features(image), references, (weights / weights.sum()).split(WIDTHS, 1), strict=True)
        return torch.stack([_difference(x, y, *weight) for x, y, weight in maps]).sum(0)

    def features(self, picture: Tensor) -> Iterator[Tensor]:
        """The picture (N, 3, H, W) in [0, 1] itself, resized where it is to be, and the trunk's maps of it."""
        shorter = min(picture.shape[-2:])
        if self.resizes and shorter > SIDE:
            size = [SIDE * side // shorter for side in picture.shape[-2:]]
            picture = resized(picture, size, "bilinear")
        yield picture
        yield from self.trunk.walk(picture)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for torchvision's file ("trunk"), the authors' weights ("heads") or their whole module ("")."""
        if part == "trunk":
            return {key: value for key, value in state.items() if not key.startswith("classifier.")}
        names = {} if part else {r"stage\d\.(.+)": r"trunk.features.\1", "(alpha|beta)": r"heads.\1"}
        return published(state, names, {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, r"stage\d\.\d+\.filter": BINOMIAL})

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"resize={self.resizes}"


def _difference(x: Tensor, y: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Dissimilarity (N,) of maps (N, C, H, W) with a weight (C,) each channel for texture and for structure."""
    mean_x, mean_y, spread, apart = moments(x, y)
    texture = (mean_x - mean_y).square() / (mean_x.square() + mean_y.square() + C1)
    return (alpha * texture + beta * (apart / (spread + C2))).sum(1)
