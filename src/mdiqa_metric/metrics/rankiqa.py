"""RankIQA: a network that learned from rankings of distorted images, then from opinions."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..backbones.torchvision import MaxPool, torchvision_backbone
from ..checkpoints.remapping import PublishedState
from ..layers.crops import check_chunk, grid_places, mean_over_crops
from ..layers.score_head import ScoreHead
from ..metric import Metric

# Side of the crops.
SIDE = 224
# VGG16's convolutions, as torchvision numbers them.
CONVOLUTIONS = dict(
    zip(
        (f"conv{stage}_{layer}" for stage in range(1, 6) for layer in range(1, 3 if stage < 3 else 4)),
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        strict=True,
    )
)


class RankIQA(Metric):
    """No-reference quality in TID2013's opinions (Liu, van de Weijer, Bagdanov, ICCV 2017), higher is better.

    VGG16 with one output, of crops of 224 x 224 pixels in 0..255, no mean subtracted; the score is the mean over
    crops on a grid. The authors draw 30 places at random, so that their score is a random variable. It first learned
    which of two distorted images is worse, which needs no opinions.

    The authors' files, Caffe's, or converted to `torch.save`'s, are loaded by hand: FT_tid2013, or Rank_live and
    Rank_tid2013, which are not tuned to opinions and only order images. FT_live, of which lower is better, is refused.

    Args:
        crops: how many.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: `crops` or `chunk` is below 1.

    Example:
        >>> import torch
        >>> metric = RankIQA(crops=1).accept_untrained()
        >>> metric(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = SIDE

    def __init__(self, crops: int = 30, chunk: int = 8) -> None:
        super().__init__()
        if crops < 1:
            raise ValueError(f"RankIQA is the mean over 1 crop or more, got {crops}: ask for at least one.")
        self.crops = crops
        self.chunk = check_chunk(chunk)
        self.backbone = torchvision_backbone("vgg16", mean=(0.0,) * 3, std=(1 / 255,) * 3)
        self.pool = MaxPool(2, 2)
        self.head = ScoreHead(512 * (SIDE // 32) ** 2, 4096, 4096, 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        height, width = image.shape[-2:]
        places = grid_places(height, width, SIDE, self.crops)
        several = len(image) * len(places) > self.chunk
        return mean_over_crops(self._score, [image], places, SIDE, self.chunk, checkpointing=several)

    def _score(self, crops: Tensor) -> Tensor:
        *_, maps = self.backbone.iter_features(crops)
        return self.head(self.pool(maps).contiguous().flatten(1)).squeeze(1)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"crops={self.crops}"

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for a published file, whose channels are blue, green, red."""
        if "fc8.weight" in state and "fc6_m.weight" not in state:
            raise ValueError(
                "RankIQA takes a file of which higher is better, got FT_live, tuned to differences of opinions, "
                "where lower is better: use FT_tid2013."
            )
        names = {rf"{name}\.(.+)": rf"backbone.features.{index}.\1" for name, index in CONVOLUTIONS.items()}
        names |= {rf"fc{6 + layer}(?:_m)?\.(.+)": rf"head.{2 * layer}.\1" for layer in range(3)}
        ours = PublishedState(state).rename(names).state
        if "conv1_1.weight" in state:
            ours["backbone.features.0.weight"] = state["conv1_1.weight"].flip(1)
        return ours
