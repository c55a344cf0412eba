"""DISTS: deep image structure and texture similarity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.base import IMAGENET_MEAN, IMAGENET_STD
from ..backbones.torchvision import BINOMIAL, CHANNELS, L2Pool, torchvision_backbone
from ..checkpoints.remapping import PublishedState
from ..metric import EncodedReference, Metric
from ..ops.feature_distance import moments
from ..ops.resize import resize_shorter_side

# Channels of the maps; the image itself is the first.
WIDTHS = (3, *CHANNELS["vgg16"])
# In the denominators of texture and of structure.
C1 = C2 = 1e-6
# The shorter side that `resize` brings larger images to.
SIDE = 256


class DISTS(Metric):
    """Weighted differences of VGG16's feature maps in mean (texture) and covariance (structure), 0 for equal images.

    From "Image quality assessment: unifying structure and texture similarity" (Ding et al., TPAMI 2020): one minus its
    similarity. The weights sum to one, so that equals the weighted sum of (mx - my)^2 / (mx^2 + my^2 + c1) and
    var(x - y) / (var x + var y + c2), which loses no digits to cancellation and is never negative.

    Args:
        resize: first resizes images whose shorter side is longer than 256 pixels to 256 (antialiased bilinear), as the
            authors' program does. Scores with and without it cannot be compared.

    Example:
        >>> from mdiqa_metric import create
        >>> create("dists")(image, reference).shape  # doctest: +SKIP
        torch.Size([1])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 2.0)  # above 1 only where maps are each other's negatives

    def __init__(self, resize: bool = False) -> None:
        super().__init__()
        self.resizes = resize
        self.resize = f"shorter side to {SIDE} where larger, antialiased bilinear" if resize else "none"
        self.backbone = torchvision_backbone("vgg16", pool=L2Pool)
        weight = torch.full((1, sum(WIDTHS), 1, 1), 0.5 / sum(WIDTHS))
        self.heads = nn.ParameterDict({"alpha": weight, "beta": weight.clone()})

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        references = reference.features if isinstance(reference, EncodedReference) else self.features(reference)
        weights = torch.stack([self.heads["alpha"].flatten(), self.heads["beta"].flatten()])
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        maps = zip(self.features(image), references, (weights / weights.sum()).split(WIDTHS, 1), strict=True)
        return torch.stack([_difference(x, y, *weight) for x, y, weight in maps]).sum(0)

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The image (N, 3, H, W) in [0, 1] itself, resized where it is to be, and the backbone's maps of it."""
        if self.resizes and min(image.shape[-2:]) > SIDE:
            image = resize_shorter_side(image, SIDE, "bilinear")
        yield image
        yield from self.backbone.iter_features(image)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for torchvision's file ("backbone"), the authors' weights ("heads") or their whole module ("")."""
        if part == "backbone":
            return {key: value for key, value in state.items() if not key.startswith("classifier.")}
        names = {} if part else {r"stage\d\.(.+)": r"backbone.features.\1", "(alpha|beta)": r"heads.\1"}
        return (
            PublishedState(state)
            .drop_constants({"mean": IMAGENET_MEAN, "std": IMAGENET_STD, r"stage\d\.\d+\.filter": BINOMIAL})
            .rename(names)
            .state
        )

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"resize={self.resizes}"


def _difference(x: Tensor, y: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Dissimilarity (N,) of maps (N, C, H, W) with a weight (C,) each channel for texture and for structure."""
    mean_x, mean_y, spread, apart = moments(x, y)
    texture = (mean_x - mean_y).square() / (mean_x.square() + mean_y.square() + C1)
    return (alpha * texture + beta * (apart / (spread + C2))).sum(1)
