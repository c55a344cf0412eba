"""TReS: a transformer over all stages of a network, whose tokens are the places of the image."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet50
from ..backbones.torchvision import BINOMIAL, Binomial
from ..checkpoints.remapping import PublishedState
from ..layers.crops import check_chunk, enlarge, grid_places, mean_over_crops
from ..layers.score_head import ScoreHead
from ..metric import Metric
from ..ops.pooling import l2_pool
from ..ops.precision import full_precision

# Side of the crops, and what the authors' program pools each stage's map by, to the size of the last.
SIDE, POOLS = 224, (8, 4, 2, 1)
# Channels of the four maps together, of attention's parts, of the layers between attention, and of what the head sees.
WIDTH, PARTS, HIDDEN, FEATURES = 3840, 16, 64, 2048


class TReS(Metric):
    """No-reference quality, higher is better; the published checkpoint of KonIQ-10k gives about 0 to 100.

    The maps of ResNet-50's four stages are scaled to length 1 over their channels and pooled to 7 x 7 places, which are
    the tokens of a transformer; a linear layer predicts the score of a crop from the means of what it made of them and
    of the last map. From "No-reference image quality assessment via transformers, relative ranking, and
    self-consistency" (Golestaneh et al., WACV 2022); ranking and self-consistency are terms of its training loss. The
    score is the mean over crops of 224 x 224 pixels on a grid; the authors draw 50 places at random, so that their
    score is a random variable, from KonIQ-10k's images resized to 512 x 384. Here smaller images are enlarged to fit a
    crop, and no others are resized.

    Args:
        crops: how many.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: `crops` or `chunk` is below 1.

    Example:
        >>> TReS(crops=1).accept_untrained()(torch.rand(2, 3, 40, 50)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 32

    def __init__(self, crops: int = 50, chunk: int = 8) -> None:
        super().__init__()
        if crops < 1:
            raise ValueError(f"TReS is the mean over 1 crop or more, got {crops}: ask for at least one.")
        self.crops, self.chunk = crops, check_chunk(chunk)
        self.side = SIDE
        self.backbone = ResNet50()
        self.pool = Binomial()
        self.layers = nn.ModuleList(_Layer() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.reduce = nn.Linear(WIDTH, FEATURES)
        self.head = ScoreHead(2 * FEATURES, 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        image = enlarge(image, self.side)
        height, width = image.shape[-2:]
        places = grid_places(height, width, self.side, self.crops)
        several = len(image) * len(places) > self.chunk
        return mean_over_crops(self._score, [image], places, self.side, self.chunk, several)

    def _score(self, image: Tensor) -> Tensor:
        """Scores (M,) of crops."""
        _, *stages = self.backbone.iter_features(image)
        window = self.pool.window
        x = torch.cat([_pooled(stage, window, size) for stage, size in zip(stages, POOLS, strict=True)], 1)
        x = x.to(self.norm.weight.dtype)
        places = _places(x)
        x = x.flatten(2).mT
        for layer in self.layers:
            x = layer(x, places)
        seen = torch.cat([self.reduce(self.norm(x).mean(1)), stages[-1].mean((2, 3))], 1)
        return self.head(seen).squeeze(1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' files."""
        published = PublishedState(state.get("params", state))
        published.drop_constants({r"L2pooling_l\d\.filter": BINOMIAL})
        backbone = ResNet50.from_torchvision_layout(published.under("model."))
        names = {
            r"transformer\.encoder\.layers\.(\d)\.self_attn\.(.+)": r"layers.\1.attention.\2",
            r"transformer\.encoder\.layers\.(\d)\.linear1\.(.+)": r"layers.\1.up.\2",
            r"transformer\.encoder\.layers\.(\d)\.linear2\.(.+)": r"layers.\1.down.\2",
            r"transformer\.encoder\.(.+)": r"\1",
            r"fc2\.(.+)": r"reduce.\1",
            r"fc\.(.+)": r"head.0.\1",
        }
        return {f"backbone.{key}": value for key, value in backbone.items()} | published.rename(names).state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"crops={self.crops}"


class _Layer(nn.Module):
    """Attention, whose queries and keys know their place, then two layers, each on normalized tokens (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, PARTS, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        normal = self.norm1(x)
        placed = normal + places
        x = x + self.attention(placed, placed, normal, need_weights=False)[0]
        return x + self.down(self.up(self.norm2(x)).relu())


@full_precision
def _pooled(x: Tensor, window: Tensor, size: int) -> Tensor:
    """A map (N, C, H, W) scaled to length 1 over its channels, pooled by L2 and then by `size`."""
    return F.avg_pool2d(l2_pool(F.normalize(x), window, stride=1), size)


def _places(x: Tensor) -> Tensor:
    """The sines and cosines (1, H W, C) that tell where in maps (N, C, H, W) a token lies, as in DETR.

    The first half of the channels tells the row, the second the column; wavelengths are 1 to 10000 times the map.
    """
    channels, height, width = x.shape[1:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    steps = torch.arange(channels // 4, dtype=dtype, device=x.device) * (4 / channels)
    sides = []
    for length in (height, width):
        at = torch.arange(1, length + 1, dtype=dtype, device=x.device) / (length + 1e-6) * (2 * math.pi)
        angles = at[:, None] / 10000**steps
        sides.append(torch.stack([angles.sin(), angles.cos()], 2).flatten(1))
    rows, columns = sides
    grid = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(grid, 2).flatten(0, 1)[None].to(x.dtype)
