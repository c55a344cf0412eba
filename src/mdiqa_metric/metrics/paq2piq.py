"""PaQ-2-PiQ: the quality of an image and of its patches, by one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backbones.resnet import ResNet18
from ..checkpoints.remapping import PublishedState, fold_norm
from ..layers.score_head import ScoreHead
from ..metric import Metric, QualityMap
from ..ops.precision import full_precision

# Pixels a side that one place of the last map stands for, and rows and columns that a patch of that map is pooled to.
STRIDE, BINS = 32, 2


class PaQ2PiQ(Metric):
    """No-reference quality, higher is better; the authors' checkpoint gives about 0 to 100.

    The mean and the maximum of the last feature map of ResNet-18, of which each quarter's maximum is taken first, go
    through a perceptron. From "From patches to pictures (PaQ-2-PiQ): mapping the perceptual space of picture quality"
    (Ying et al., CVPR 2020), which was trained on patches too: `explain` gives the scores of the patches that an image
    (N, 3, H, W) is divided into, (N, 1, blocks, blocks). Images are not normalized.

    Args:
        blocks: rows and columns of patches that `explain` tells; 20 is the authors' number. The score is the same.

    Raises:
        ValueError: `blocks` is below 1.

    Example:
        >>> metric = PaQ2PiQ().accept_untrained()
        >>> metric(torch.rand(2, 3, 40, 50)).shape, metric.explain(torch.rand(2, 3, 40, 50)).map.shape
        (torch.Size([2]), torch.Size([2, 1, 20, 20]))
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)

    def __init__(self, blocks: int = 20) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"PaQ2PiQ takes 1 block a side or more, got blocks={blocks}: ask for at least one.")
        self.blocks = blocks
        self.backbone = ResNet18(mean=(0, 0, 0), std=(1, 1, 1))
        self.head = ScoreHead(2 * self.backbone.channels[-1], 512, 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self._score_blocks(image, 1).flatten()

    def explanation(self, image: Tensor, reference: None) -> QualityMap:
        """The scores of the patches (N, 1, blocks, blocks)."""
        return QualityMap(self._score_blocks(image, self.blocks))

    def _score_blocks(self, image: Tensor, blocks: int) -> Tensor:
        """The scores of `blocks` rows and columns of patches, (N, 1, blocks, blocks)."""
        pooled = _pool_regions(self.backbone.last_features(image), image.shape[-2:], blocks)
        pooled = pooled.unflatten(3, (blocks, BINS)).unflatten(2, (blocks, BINS))
        features = torch.cat([pooled.amax((3, 5)), pooled.mean((3, 5))], 1)
        return self.head(features.movedim(1, -1)).movedim(-1, 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, with batch normalization folded into what it feeds or follows."""
        published = PublishedState(state.get("model", state))
        if "body.0.weight" not in published.state:
            return published.state
        backbone = ResNet18.from_children_layout(published.under("body."))
        ours = {f"backbone.{key}": value for key, value in backbone.items()}
        for norm, linear, index in (("head.2", "head.4", 0), ("head.6", "head.8", 2)):
            scale, shift, mean, variance = (
                published.take(f"{norm}.{leaf}").double() for leaf in ("weight", "bias", "running_mean", "running_var")
            )
            published.drop(f"{norm}.num_batches_tracked")
            scale = scale / (variance + 1e-5).sqrt()
            weight, bias = published.take(f"{linear}.weight"), published.take(f"{linear}.bias")
            folded = fold_norm(scale, shift - mean * scale, weight, bias)
            ours[f"head.{index}.weight"], ours[f"head.{index}.bias"] = folded
        return ours | published.state


@full_precision
def _pool_regions(x: Tensor, size: Sequence[int], blocks: int) -> Tensor:
    """The maxima (N, C, 2 blocks, 2 blocks) of the quarters of the blocks of an image of that size, in its last map.

    RoI pooling as torchvision has it, of blocks that tile the image: where it rounds, neighbors overlap, and what lies
    beyond the map is empty and counts as 0.
    """
    for dim, side in ((2, size[0]), (3, size[1])):
        bins = [x.narrow(dim, start, end - start) for start, end in _bins(side, x.shape[dim], blocks)]
        empty = x.new_zeros(()).expand_as(x.narrow(dim, 0, 1))
        x = torch.cat([part.amax(dim, keepdim=True) if part.shape[dim] else empty for part in bins], dim)
    return x


def _bins(side: int, length: int, blocks: int) -> list[tuple[int, int]]:
    """Where the halves of the blocks of a side of that many pixels start and end in a map of that length."""
    found = []
    for block in range(blocks):
        first, last = (math.floor(side * (block + step) / blocks / STRIDE + 0.5) for step in (0, 1))
        span = (last - first + 1) / BINS
        for half in range(BINS):
            start, end = first + math.floor(half * span), first + math.ceil((half + 1) * span)
            found.append((min(start, length), min(end, length)))
    return found
