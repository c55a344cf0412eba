"""MANIQA: attention across channels and across space, on the tokens of a vision transformer."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.vit import ViT
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..layers.crops import PatchScores, check_chunk, crop, grid_places, map_chunks
from ..layers.score_head import ScoreHead
from ..metric import Metric

# Side of the crops; the transformer, its patches' side, and the blocks whose tokens are taken.
SIDE, MODEL, PATCH, BLOCKS = 224, "vit_base_patch8_224", 8, (6, 7, 8, 9)
# Channels of the two stages, and of their perceptrons; side of the windows, and what attention splits channels into.
WIDTHS, HIDDEN, WINDOW, PARTS = (768, 384), 768, 4, 4


class MANIQA(Metric):
    """No-reference quality, higher is better; the published checkpoints give about 0 to 1.

    Crops of 224 x 224 pixels pass through ten blocks of a ViT. The tokens of the last four go through two stages, in
    each of which channels attend to each other, and then 28 x 28 places within shifted windows. From what comes out,
    small networks predict a score q and a weight w, a sigmoid, for each place: `sum(w q) / sum(w)`. From "MANIQA:
    multi-dimension attention network for no-reference image quality assessment" (Yang et al., CVPRW 2022), the winner
    of its track in NTIRE 2022. The score of images (N, 3, H, W) is the mean over crops on a grid, where the authors
    draw 20 crops at random. `explain` gives the places' scores and weights (N, crops, 28, 28), as `PatchScores`.

    Args:
        scale: how much a block of windows adds to its input: 0.8 for the checkpoints of KonIQ-10k and KADID-10k, 0.13
            for that of PIPAL.
        convention: "authors" takes the mean of the crops' scores; "pyiqa" the weighted mean over the places of all
            crops, and enlarges an image whose shorter side is 224 pixels to 225, for numbers to compare with that
            library's.
        crops: how many crops; where the grid is so narrow that some are the same, they are taken once.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: an unknown `convention`, or `crops` or `chunk` is below 1.

    Example:
        >>> from mdiqa_metric import create
        >>> create("maniqa", weights="ckpt_koniq10k.pt")(image).shape  # doctest: +SKIP
        torch.Size([1])
    """

    full_reference = False
    lower_is_better = False
    score_range = (0.0, math.inf)
    min_size = SIDE

    def __init__(
        self,
        scale: float = 0.8,
        convention: Literal["authors", "pyiqa"] = "authors",
        crops: int = 20,
        chunk: int = 4,
    ) -> None:
        super().__init__()
        if convention not in ("authors", "pyiqa"):
            raise ValueError(f'MANIQA takes convention "authors" or "pyiqa", got {convention!r}.')
        if crops < 1:
            raise ValueError(f"MANIQA takes 1 crop or more, got {crops}.")
        self.scale, self.convention, self.crops, self.chunk = scale, convention, crops, check_chunk(chunk)
        self.side, side = SIDE, SIDE // PATCH
        self.resize = "shorter side of 224 to 225, bilinear" if convention == "pyiqa" else "none"
        self.vit = ViT(MODEL, BLOCKS, (0.5,) * 3, (0.5,) * 3)
        widths = (len(BLOCKS) * self.vit.network.embed_dim, *WIDTHS)
        self.stages = nn.ModuleList(_Stage(widths[i], widths[i + 1], side, scale) for i in range(2))
        self.quality, self.weight = (ScoreHead(widths[-1], widths[-1], 1) for _ in range(2))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean()

    def explanation(self, image: Tensor, reference: None) -> PatchScores:
        """The places' scores and weights; see `PatchScores`."""
        crops = self._crops(image)
        quality, weight = map_chunks(self._predict, [crops], self.chunk).unflatten(0, (len(image), -1)).unbind(2)
        # sigmoid(w) / sum(sigmoid(w)), where all of a crop's may round to 0
        first = 1 if self.convention == "pyiqa" else 2
        shares = F.logsigmoid(weight.to(image.dtype)).flatten(first).softmax(first)
        return PatchScores(quality.to(image.dtype), shares.view_as(quality))

    def _crops(self, image: Tensor) -> Tensor:
        """The crops (N * K, 3, side, side) of images (N, 3, H, W)."""
        if self.convention == "pyiqa" and min(image.shape[-2:]) == self.side:
            image = F.interpolate(image, scale_factor=(self.side + 1) / self.side, mode="bilinear")
        height, width = image.shape[-2:]
        places = dict.fromkeys(grid_places(height, width, self.side, self.crops))
        return crop(image, list(places), self.side).flatten(0, 1)

    def _predict(self, crops: Tensor) -> Tensor:
        """Score and weight before the sigmoid of each place (M, 2, h, w), of crops (M, 3, side, side)."""
        tokens = torch.cat([x[:, 1:] for x in self.vit.iter_features(crops)], 2)
        x = tokens.mT.unflatten(2, (self.side // PATCH, -1))
        for stage in self.stages:
            x = stage(x)
        x = x.permute(0, 2, 3, 1)
        return torch.cat([self.quality(x).relu(), self.weight(x)], -1).permute(0, 3, 1, 2)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' files, whose unused layers and constants are left out."""
        published = PublishedState(state)
        unused = [f"vit.blocks.{index}." for index in range(BLOCKS[-1] + 1, 12)]
        published.drop("vit.norm.", "vit.head.", *unused, *(f"swintransformer{i}.downsample." for i in (1, 2)))
        names = {r"vit\.(?!network\.)(.+)": r"vit.network.\1"}
        for index in range(2):
            stage = f"stages.{index}"
            names |= {
                rf"tablock{index + 1}\.(\d)\.c_(.+)": rf"{stage}.attend.\1.\2",
                rf"conv{index + 1}\.(.+)": rf"{stage}.reduce.\1",
                rf"swintransformer{index + 1}\.layers\.(.+)": rf"{stage}.layers.\1",
            }
        for theirs, ours in (("fc_score", "quality"), ("fc_weight", "weight")):
            names |= {rf"{theirs}\.0\.(.+)": rf"{ours}.0.\1", rf"{theirs}\.3\.(.+)": rf"{ours}.2.\1"}
        found = published.rename(names).state
        constants = (".attn_mask", ".relative_position_index")
        return {key: value for key, value in found.items() if not key.endswith(constants)}

    def extra_repr(self) -> str:
        """The options that affect the score, for `repr` and `fingerprint`."""
        return f"scale={self.scale}, convention={self.convention}, crops={self.crops}"


class _Stage(nn.Module):
    """Attention across channels, a reduction of them, and attention within windows: (M, C, h, w) -> (M, D, h, w)."""

    def __init__(self, inputs: int, width: int, side: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.attend = nn.ModuleList(_ChannelAttention(side**2) for _ in range(2))
        self.reduce = FrozenConv2d(inputs, width, 1)
        self.layers = nn.ModuleList(_WindowLayer(width, side) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, D, h, w)."""
        flat = x.flatten(2)
        for attend in self.attend:
            flat = attend(flat)
        x = self.reduce(flat.view_as(x))
        for layer in self.layers:
            x = x + self.scale * layer(x)
        return x


class _ChannelAttention(nn.Module):
    """Channels that attend to each other by what they are at all places: (M, C, T) -> (M, C, T)."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(places, places) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, T) -> (M, C, T)."""
        found = (self.q(x) @ self.k(x).mT * x.shape[-1] ** -0.5).softmax(-1) @ self.v(x)
        return found.mT.reshape(x.shape) + x  # a transpose, read as if it were none: so the authors trained it


class _WindowLayer(nn.Module):
    """Two Swin blocks, the second with its windows shifted, and a convolution: (M, C, h, w) -> (M, C, h, w)."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformerBlock

        self.blocks = nn.Sequential(
            *(
                SwinTransformerBlock(
                    width, (side, side), PARTS, window_size=WINDOW, shift_size=shift, mlp_ratio=HIDDEN / width
                )
                for shift in (0, WINDOW // 2)
            )
        )
        self.conv = FrozenConv2dReLU(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, C, h, w)."""
        return self.conv(self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
