"""TOPIQ: image quality from the top down, from what an image shows to how it is distorted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet50
from ..checkpoints.remapping import PublishedState
from ..layers import topiq_checkpoint
from ..layers.convolution import FrozenConv2d
from ..layers.cross_scale import CrossScale
from ..layers.gated_pooling import Gate, GatedPyramid
from ..metric import EncodedReference, Metric
from ..ops.precision import full_precision
from ..ops.resize import resize_shorter_side

# Channels of the pooled maps, and what attention splits them into; the aesthetic model has twice as many.
WIDTH, PARTS = 256, 4


class TOPIQ(Metric):
    """No-reference quality, higher is better; the published checkpoints give about 0 to 1.

    ResNet-50's feature maps are gated and pooled to one size; the tokens of the smallest then attend to those of each
    larger one. From "TOPIQ: a top-down approach from semantics to distortions for image quality assessment" (Chen et
    al., TIP 2024). Memory grows with the fourth power of the image's side, since all 32 x 32 blocks attend to each
    other.

    Args:
        side: resizes the shorter side to this first (antialiased bilinear), as the FLIVE model needs; None keeps the
            image's size.

    Raises:
        ValueError: `side` is below 32.

    Example:
        >>> from mdiqa_metric import create
        >>> create("topiq-nr")(image).shape  # doctest: +SKIP
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 32

    def __init__(self, side: int | None = None) -> None:
        super().__init__()
        if side is not None and side < self.min_size:
            raise ValueError(f"TOPIQ takes a side from {self.min_size} pixels up or None, got {side}.")
        self.side = side
        self.resize = "none" if side is None else f"shorter side to {side}, antialiased bilinear"
        self.backbone = ResNet50()
        self.pyramid = GatedPyramid(self.backbone.channels, WIDTH)
        self.heads = CrossScale(1, WIDTH, PARTS)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        if self.side is not None:
            image = resize_shorter_side(image, self.side, "bilinear")
        values = self.heads(self.pyramid(self.backbone.iter_features(image), self.backbone.sizes(*image.shape[-2:])))
        return values[0, :, 0].to(image.dtype)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file."""
        return _from_published(state)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"side={self.side}"


class TOPIQIAA(Metric):
    """No-reference aesthetic quality: the mean of a predicted histogram of ratings from 1 to 10.

    The network of `TOPIQ`, twice as wide, trained on AVA; from the same paper.
    """

    full_reference = False
    lower_is_better = False
    score_range = (1.0, 10.0)
    min_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.pyramid = GatedPyramid(self.backbone.channels, 2 * WIDTH)
        self.heads = CrossScale(1, 2 * WIDTH, 2 * PARTS, outputs=10)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        values = self.heads(self.pyramid(self.backbone.iter_features(image), self.backbone.sizes(*image.shape[-2:])))
        shares = values[0].to(image.dtype).softmax(1)
        return (shares * torch.arange(1, 11, device=shares.device)).sum(1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file."""
        return _from_published(state)


class TOPIQFR(Metric):
    """Full-reference quality, higher is better; the published checkpoints give about 0 to 1.

    The feature maps of both images and their distance, gated by that distance, are processed as in `TOPIQ`; from the
    same paper.
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.gates = nn.ModuleList(Gate(count) for count in self.backbone.channels)
        self.reduce = nn.ModuleList(FrozenConv2d(3 * count, WIDTH, 1) for count in self.backbone.channels)
        self.heads = CrossScale(1, WIDTH, PARTS)

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        references = reference.features if isinstance(reference, EncodedReference) else self.features(reference)
        size, maps = self.backbone.sizes(*image.shape[-2:]), []
        for x, y, gate, reduce in zip(self.features(image), references, self.gates, self.reduce, strict=True):
            apart = _distance(x, y).to(reduce.get_parameter("weight").dtype)
            weight = gate(apart)
            pooled = [F.adaptive_avg_pool2d(weight * part, size) for part in (x, y, apart)]
            maps.append(F.gelu(reduce(torch.cat(pooled, 1))))
        values = self.heads(maps)
        return values[0, :, 0].to(image.dtype)

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The backbone's five maps of images (N, 3, H, W) in [0, 1]."""
        return self.backbone.iter_features(image)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file."""
        return _from_published(state)


@full_precision
def _distance(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|, smoothed at 0 so that its gradient there is 0."""
    return ((x - y).square() + 1e-12).sqrt()


def _from_published(state: Any) -> dict[str, Tensor]:
    if "heads.rows" in state:
        return dict(state)
    published = PublishedState(state.get("params", state))
    ours = {
        f"backbone.{key}": value
        for key, value in ResNet50.from_torchvision_layout(published.under("semantic_model.")).items()
    }
    ours |= {f"heads.{key}": value for key, value in topiq_checkpoint.cross_scale(published, [""]).items()}
    for level in range(5):
        if f"weight_pool.{level}.splitconv.weight" in published.state:
            pool = topiq_checkpoint.gated_pooling(published, level)
            ours |= {f"pyramid.{key}": value for key, value in pool.items()}
        else:
            ours |= topiq_checkpoint.gate(published, f"weight_pool.{level}", f"gates.{level}")
            ours |= published.conv(f"dim_reduce.{level}.0", f"reduce.{level}")
    return ours | published.state
