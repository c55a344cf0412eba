"""IQT: a transformer that compares a network's maps of an image and its reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.inception_resnet_v2 import InceptionResNetV2
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d
from ..layers.crops import check_chunk, enlarge, grid_places, mean_over_crops
from ..metric import Metric

# Into how many parts attention splits its channels, and what is added to a variance before its root is taken.
PARTS, EPSILON = 4, 1e-12
# Channels of the backbone's six maps, after which its layers are not needed.
CHANNELS = 6 * 320
TAIL = ("mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8", "conv2d_7b")


class Size(NamedTuple):
    """Side of the crops, grid of the backbone's maps of it, the transformer's width and layers, the head's width."""

    side: int
    grid: int
    width: int
    layers: int
    head: int


SIZES = {"live": Size(256, 29, 256, 2, 512), "pipal": Size(192, 21, 128, 1, 128)}


class IQT(Metric):
    """Full-reference quality, higher is better, on the scale of what it was trained on.

    Six maps of Inception-ResNet-v2 of the image are taken from those of the reference; a transformer's encoder sees the
    differences, and one token of its decoder, which attends to what the encoder made of them, becomes the score. From
    "Perceptual image quality assessment with transformers" (Cheon et al., CVPRW 2021), which won NTIRE 2021. The score
    is the mean over crops on a grid; smaller images are enlarged.

    The authors published neither code nor weights. This is the network of re-implementations, of which the decoder's
    first token sees no other, so that the reference's own maps have no influence beside the difference. Weights of your
    own come in the layout of anse3832/IQT.

    Args:
        size: "live", crops of 256 pixels, the paper's network for LIVE, CSIQ and TID2013; or "pipal", crops of 192
            pixels, its network for NTIRE 2021.
        crops: how many.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: an unknown size, or `crops` or `chunk` is below 1.

    Example:
        >>> image, reference = torch.rand(2, 1, 3, 192, 192)
        >>> IQT("pipal").accept_untrained()(image, reference).shape
        torch.Size([1])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = 32

    def __init__(self, size: Literal["live", "pipal"] = "live", crops: int = 20, chunk: int = 4) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"IQT takes size 'live' or 'pipal', got {size!r}.")
        if crops < 1:
            raise ValueError(f"IQT is the mean over 1 crop or more, got {crops}: ask for at least one.")
        self.size, self.crops, self.chunk = size, crops, check_chunk(chunk)
        self.side = SIZES[size].side
        self.backbone = InceptionResNetV2()
        for name in TAIL:
            delattr(self.backbone.network, name)
        self.heads = _Heads(SIZES[size])

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,)."""
        if self.crops > 1 or image.shape[-2:] != (self.side, self.side):  # one crop of that size is the image
            image, reference = (enlarge(each, self.side) for each in (image, reference))
        height, width = image.shape[-2:]
        places = grid_places(height, width, self.side, self.crops)
        several = len(image) * len(places) > self.chunk
        return mean_over_crops(self._score, [image, reference], places, self.side, self.chunk, several).to(image.dtype)

    def _score(self, image: Tensor, reference: Tensor) -> Tensor:
        ours, theirs = (torch.cat(list(islice(self.backbone.iter_features(each), 6)), 1) for each in (image, reference))
        return self.heads(theirs - ours)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for timm's backbone, or for a file in the layout of anse3832/IQT."""
        if part == "backbone":
            published = PublishedState(state)
            published.drop("classif.", *(f"{name}." for name in TAIL))
            return {f"network.{key}": value for key, value in published.state.items()}
        published = PublishedState(state.get("model_state_dict", state))
        published.drop("conv_dec.", "enc_inputs", "dec_inputs")  # without influence, and masks of ones
        names = {r"conv_enc\.(.+)": r"reduce.\1", r"projection\.(.+)": r"head.\1"}
        names |= {r"transformer\.(.+)\.cls_token": r"\1.token", r"transformer\.(.+)\.pos_embedding": r"\1.positions"}
        layer = r"transformer\.(.+\.layers\.\d)\."
        names |= {layer + rf"layer_norm{index + 1}\.(.+)": rf"\1.norms.{index}.\2" for index in range(3)}
        names |= {layer + rf"pos_ffn\.conv{i}\.(.+)": rf"\1.{name}.\2" for i, name in ((1, "up"), (2, "down"))}
        ours = published.rename(names | {layer + r"(.+_attn\..+)": r"\1.\2"}).state
        ours = {key: value.squeeze(2) if ".up.w" in key or ".down.w" in key else value for key, value in ours.items()}
        if "decoder.positions" in ours:  # the others are those of tokens that the first does not see
            ours["decoder.positions"] = ours["decoder.positions"][:, :1]
        return ours

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"size={self.size}, crops={self.crops}"


class _Heads(nn.Module):
    """Scores (N,) from the differences (N, 1920, H, W) of maps."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.reduce = FrozenConv2d(CHANNELS, width, 1)
        self.encoder = _Tokens(size.grid**2 + 1, width, [_Layer(width, memory=False) for _ in range(size.layers)])
        self.decoder = _Tokens(1, width, [_Layer(width, memory=True) for _ in range(size.layers)])
        self.head = nn.Sequential(
            nn.Linear(width, size.head, bias=False), nn.ReLU(), nn.Linear(size.head, 1, bias=False)
        )

    def forward(self, apart: Tensor) -> Tensor:
        tokens = self.reduce(apart).flatten(2).mT
        found = self.decoder(tokens[:, :0], self.encoder(tokens))
        with torch.autocast(apart.device.type, enabled=False):
            return self.head(found[:, 0].to(self.head[0].get_parameter("weight").dtype)).squeeze(1)


class _Attention(nn.Module):
    """Attention of tokens x to tokens y, (N, T, C) and (N, T', C), in four parts of C channels each: (N, T, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Linear(width, PARTS * width) for _ in range(3))
        self.linear = nn.Linear(PARTS * width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = ((self.W_Q, x), (self.W_K, y), (self.W_V, y))
        query, key, value = (layer(each).unflatten(-1, (PARTS, -1)).transpose(1, 2) for layer, each in pairs)
        return self.linear(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Attention to itself, then to a memory if there is one, then two layers; normalized after each: (N, T, C)."""

    def __init__(self, width: int, memory: bool) -> None:
        super().__init__()
        self.self_attn = _Attention(width)
        self.dec_enc_attn = _Attention(width) if memory else None
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPSILON) for _ in range(3 if memory else 2))
        self.up, self.down = nn.Linear(width, 1024), nn.Linear(1024, width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        first, *between, last = self.norms
        x = first(x + self.self_attn(x, x))
        if self.dec_enc_attn is not None:
            x = between[0](x + self.dec_enc_attn(x, memory))
        return last(x + self.down(F.gelu(self.up(x))))


class _Tokens(nn.Module):
    """Layers over a token of their own and those that are given, (N, T, C), at positions: (N, 1 + T, C)."""

    def __init__(self, count: int, width: int, layers: Iterable[_Layer]) -> None:
        super().__init__()
        self.token, self.positions = (nn.Parameter(torch.zeros(1, size, width)) for size in (1, count))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x, memory)
        return x
