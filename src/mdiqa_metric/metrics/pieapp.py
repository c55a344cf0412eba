"""PieAPP: perceptual error of patches, learned from preferences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2dReLU
from ..layers.crops import PatchScores, check_chunk, crop, map_chunks, tile_places
from ..layers.score_head import ScoreHead
from ..metric import EncodedReference, Metric
from ..ops.pooling import max_pool

# Side of the patches; channels of the convolutions, and after which of them, counted from 1, the maps are halved.
SIDE = 64
WIDTHS = (64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512)
POOLED = (2, 4, 6, 8, 10)
# The convolutions whose maps are compared, and how many values they have in a patch.
TAPS = (3, 5, 7, 9, 11)
SIZES = (64 * 32**2, 128 * 16**2, 256 * 8**2, 256 * 4**2, 512 * 2**2)
# Of the score of a patch, and added to its weight.
SCALE, LEAST_WEIGHT = 0.01, 1e-6


class PieAPP(Metric):
    """Full-reference perceptual error, about 0 for equal images and up to about 5, lower is better; may be negative.

    `sum(w s) / sum(w)` over patches of 64 x 64 pixels: the maps of eleven convolutions of the image's patch are taken
    from those of the reference's, one small network turns the differences of five of the maps into the patch's score s,
    and another those of the last map into its weight w. From "PieAPP: perceptual image-error assessment through
    pairwise preference" (Prashnani et al., CVPR 2018). Images (N, 3, H, W) are brought to the BGR in 0..255 that the
    network was trained on, by its first convolution. `explain` gives the score and the weight of each patch, as
    `PatchScores`; `encode` keeps 0.5 MB for each patch of a reference.

    Args:
        stride: pixels between patches: 27 is the authors' "sparse" and 6 their "dense" sampling.
        reach_end: adds patches at the last row and column if the stride does not reach them, as the authors do;
            without, up to `stride - 1` pixels there have no influence, as in pyiqa.
        chunk: how many patches are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: `stride` or `chunk` is below 1.

    Example:
        >>> import torch
        >>> metric = PieAPP().accept_untrained()
        >>> image, reference = torch.rand(2, 1, 3, 64, 91)
        >>> metric(image, reference).shape, metric.explain(image, reference).map.shape
        (torch.Size([1]), torch.Size([1, 1, 1, 2]))
    """

    full_reference = True
    lower_is_better = True
    score_range = (-math.inf, math.inf)
    min_size = SIDE
    color = "BGR in 0..255"

    def __init__(self, stride: int = 27, reach_end: bool = False, chunk: int = 512) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"PieAPP takes patches every 1 pixel or more, got a stride of {stride}.")
        self.stride, self.reach_end, self.chunk = stride, reach_end, check_chunk(chunk)
        pairs = itertools.pairwise((3, *WIDTHS))
        self.backbone = nn.ModuleList(FrozenConv2dReLU(inputs, width, 3, padding=1) for inputs, width in pairs)
        self.backbone.to(memory_format=torch.channels_last)
        self.quality, self.weight = ScoreHead(sum(SIZES), 512, 1), ScoreHead(SIZES[-1], 512, 1)
        self.calibration = ScoreHead(1, 1)

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean()

    def explanation(self, image: Tensor, reference: Tensor | EncodedReference) -> PatchScores:
        """The patches' scores and weights; see `PatchScores`."""
        if isinstance(reference, EncodedReference):
            references = reference.features[0].flatten(0, 1)
        else:
            references = self._patches(reference)
        values = map_chunks(self._compare, [self._patches(image), references], self.chunk).to(image.dtype)
        rows = len(tile_places(image.shape[-2], SIDE, SIDE, self.stride, self.reach_end))
        quality, weight = values.view(len(image), 1, rows, -1, 2).unbind(-1)
        return PatchScores(quality, weight + LEAST_WEIGHT)

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The values of the patches (N, K, 120832) of images (N, 3, H, W) in [0, 1]."""
        yield map_chunks(self._values, [self._patches(image)], self.chunk).unflatten(0, (len(image), -1))

    def _patches(self, image: Tensor) -> Tensor:
        """The patches (N * K, 3, 64, 64) of images (N, 3, H, W)."""
        height, width = image.shape[-2:]
        places = tile_places(height, width, SIDE, self.stride, self.reach_end)
        return crop(image, places, SIDE).flatten(0, 1)

    def _values(self, patches: Tensor) -> Tensor:
        """The values (M, 120832) of the five maps of patches (M, 3, 64, 64)."""
        values, x = [], patches
        for index, layer in enumerate(self.backbone, 1):
            x = layer(x)
            if index in TAPS:
                values.append(x.flatten(1))
            if index in POOLED:
                x = max_pool(x, 2, 2)
        return torch.cat(values, 1)

    def _compare(self, patches: Tensor, reference: Tensor) -> Tensor:
        """Score and weight (M, 2) of patches (M, 3, 64, 64), given the reference's patches or their values."""
        apart = (self._values(reference) if reference.ndim == 4 else reference) - self._values(patches)
        quality = self.calibration(SCALE * self.quality(apart))
        return torch.cat([quality, self.weight(apart[:, -SIZES[-1] :])], 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file; the first convolution takes RGB in [0, 1] from then on."""
        names = {rf"conv{i + 1}\.(.+)": rf"backbone.{i}.\1" for i in range(len(WIDTHS))}
        for theirs, ours in (("score", "quality"), ("weight", "weight")):
            names |= {rf"fc{i + 1}_{theirs}\.(.+)": rf"{ours}.{2 * i}.\1" for i in range(2)}
        published = PublishedState(state).rename(names | {r"ref_score_subtract\.(.+)": r"calibration.0.\1"}).state
        if "conv1.weight" in state:
            published["backbone.0.weight"] = 255 * state["conv1.weight"].flip(1)
            published["calibration.0.weight"] = published["calibration.0.weight"].view(1, 1)
        return published

    def extra_repr(self) -> str:
        """The options that affect the score, for `repr` and `fingerprint`."""
        return f"stride={self.stride}, reach_end={self.reach_end}"
