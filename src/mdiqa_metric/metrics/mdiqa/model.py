"""MDIQA: nine dimensions of image quality, and one score out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backbones.clip import ClipRN50
from ...backbones.resnet import ResNet50
from ...backbones.timm import MobileNetV3
from ...checkpoints.hub import HubMixin
from ...checkpoints.remapping import PublishedState
from ...layers.attention import Attention, MLPHead, StackedLinear, each, layer_norm, slices
from ...layers.checkpointing import maybe_checkpoint
from ...layers.convolution import FrozenConv2d
from ...layers.cross_scale import CrossScale
from ...layers.gated_pooling import GatedPyramid, ReducedPooling
from ...multidimensional import Indices, MultiDimensional
from ...ops.shapley import shapley_values
from . import checkpoint

TECHNICAL = ("brightness", "colorfulness", "contrast", "noisiness", "sharpness")
AESTHETIC = ("color", "composition", "content", "light")
WIDTH, PARTS = 256, 4


class Explanation(NamedTuple):
    """What `MDIQA.explain` finds in N images of D dimensions.

    Attributes:
        overall: the scores (N,) under the weights in force.
        scores: the dimensions' own scores (N, D), as `dimensions` gives.
        local_scores: what the tokens that CLIP has joined add to each (N, D); overall weighs the sum of both.
        instance_weights: what each dimension counts in this image by the weight branch (N, D); a row sums to 1.
        user_weights: what `set_weights` set (N, D).
        contributions: each dimension's part of the overall score (N, D), its exact Shapley value: what adding its
            weighed score to the others' changes, averaged over all orders of adding. A row sums to `overall` minus
            `baseline`.
        baseline: the overall score where every weighed score is 0, a scalar.
        maps: (N, D, h, w), a value for each 32 x 32 block: the dimension's local score if the block's token, which has
            looked at all others, stood for the whole image. Global score and weights are left out, and since the
            score is a network of the mean token, the mean of a map is not the local score.
    """

    overall: Tensor
    scores: Tensor
    local_scores: Tensor
    instance_weights: Tensor
    user_weights: Tensor
    contributions: Tensor
    baseline: Tensor
    maps: Tensor


class MDIQA(MultiDimensional, HubMixin):
    """No-reference quality from nine dimensions, higher is better; the published checkpoint gives about 0 to 1.

    Two ResNet-50 backbones, one for the five technical and one for the four aesthetic dimensions, each with one TOPIQ
    head per dimension, give the dimension scores. CLIP's tokens join each head's features for a second, local score. A
    weight branch predicts how much each dimension counts in the image, `set_weights` multiplies these weights (the
    authors' `weight_ratio`), and a small network turns the nine weighted scores into one. From "MDIQA: unified image
    quality assessment for multi-dimensional evaluation and restoration" (Yao et al., 2025, arXiv 2508.16887).

    CLIP's branch, including its 1 x 1 convolution, carries no gradient, as in the authors' program.

    Args:
        branch: the weight branch: "mobilenetv3", or "resnet50" of the authors' later files.
        checkpointing: recomputes the backbones in backward instead of keeping their feature maps.

    Raises:
        ValueError: an unknown branch.

    Example:
        >>> from mdiqa_metric import create
        >>> metric = create("mdiqa", weights="mdiqa/")  # doctest: +SKIP
        >>> metric(image).shape, metric.dimensions(image).shape  # doctest: +SKIP
        (torch.Size([1]), torch.Size([1, 9]))
    """

    dimension_names = TECHNICAL + AESTHETIC
    score_range = (-math.inf, math.inf)
    min_size = 32

    def __init__(self, branch: Literal["mobilenetv3", "resnet50"] = "mobilenetv3", checkpointing: bool = False) -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f'MDIQA takes branch "mobilenetv3" or "resnet50", got {branch!r}.')
        self.branch, self.checkpointing = branch, checkpointing
        self.technical = Base(len(TECHNICAL), checkpointing)
        self.aesthetic = Base(len(AESTHETIC), checkpointing)
        self.fusion = Fusion(len(self.dimension_names), branch)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        query = self._query(image, self.active)
        local, _ = self._local(image, query, self.active)
        return self.fusion.overall(self._weight_scores(image, self._values(query, self.active) + local, self.active))

    def dimension_scores(self, image: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K): what the heads predict for each dimension, before CLIP's tokens join."""
        return self._values(self._query(image, wanted), wanted)

    def dimension_features(self, image: Tensor, wanted: Indices) -> Tensor:
        """The heads' query tokens (K, N, h * w, 256)."""
        return self._query(image, wanted)

    def instance_weights(self, image: Tensor) -> Tensor:
        """The weight branch's (N, 9), which sum to 1 an image."""
        return self.fusion.branch(image)

    def explanation(self, image: Tensor, reference: None) -> Explanation:
        """What the overall scores of images (N, 3, H, W) in [0, 1] are made of; see `Explanation`."""
        every = self.every_dimension
        query = self._query(image, every)
        scores = self._values(query, every)
        local, tokens = self._local(image, query, every)
        maps = each(every, self.fusion.head, tokens).squeeze(3).transpose(0, 1)
        weighed = self._weight_scores(image, scores + local, every)
        return Explanation(
            overall=self.fusion.overall(weighed),
            scores=scores,
            local_scores=local,
            instance_weights=self.instance_weights(image),
            user_weights=self.user_weights(image),
            contributions=shapley_values(self.fusion.overall, weighed),
            baseline=self.fusion.overall(torch.zeros_like(weighed[0])),
            maps=maps.unflatten(2, _grid(image)).to(image.dtype),
        )

    def _query(self, image: Tensor, wanted: Indices) -> Tensor:
        """Query tokens (K, N, h * w, 256); a base without a wanted head is not run."""
        return torch.cat([base.query(image, heads) for base, heads in self._bases(wanted)])

    def _values(self, query: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K) of the query tokens of the wanted dimensions."""
        groups = self._bases(wanted)
        pieces = query.split([len(heads) for _, heads in groups])
        values = [each(heads, base.heads.values, piece) for (base, heads), piece in zip(groups, pieces, strict=True)]
        return _rows(torch.cat(values))

    def _local(self, image: Tensor, query: Tensor, wanted: Indices) -> tuple[Tensor, Tensor]:
        """Local scores (N, K) and the tokens (K, N, h * w, 256) whose mean they are read from."""
        meaning = self.fusion.meaning(image).expand_as(query)
        tokens = each(wanted, self.fusion.joined, query, meaning)
        return _rows(each(wanted, self.fusion.head, tokens.mean(2, keepdim=True)).squeeze(2)), tokens

    def _bases(self, wanted: Indices) -> list[tuple[Base, Indices]]:
        """The bases to run, each with which of its heads."""
        count = len(TECHNICAL)
        groups = (
            (self.technical, tuple(index for index in wanted if index < count)),
            (self.aesthetic, tuple(index - count for index in wanted if index >= count)),
        )
        return [(base, heads) for base, heads in groups if heads]

    def _weight_scores(self, image: Tensor, scores: Tensor, wanted: Indices) -> Tensor:
        """All nine scores (N, 9) times their weights; 0 where a score is not wanted."""
        weights = self.instance_weights(image) * self.user_weights(image)
        place = dict(zip(wanted, scores.to(weights.dtype).unbind(1), strict=True))
        none = torch.zeros_like(weights[:, 0])
        return torch.stack([place.get(index, none) for index in self.every_dimension], 1) * weights

    @classmethod
    def from_published_files(
        cls, names: Sequence[str], read: Callable[[str], Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state dicts and the weight branch of the authors' eight files, as they are.

        Six technical files (`*freeze_backbone*.pth` and `*_head0.pth` to `*_head4.pth`), the aesthetic one
        (`*PARA*.pth`) and the fusion (any other, which decides on the weight branch). They come by hand from the
        authors' Google Drive folder and forbid commercial use.

        Raises:
            ValueError: a file is missing or there are two of it.
        """
        states: dict[str, Any] = {}
        for part, files in checkpoint.arrange(names, len(TECHNICAL)).items():
            states[part] = {}
            for name, prefix in files.items():
                content = read(name)
                content = content.get("params", content)
                states[part] |= {prefix + key: value for key, value in content.items()}
        later = checkpoint.has_residual_branch(states["fusion"])
        return states, {"branch": "resnet50" if later else "mobilenetv3"}

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' "technical", "aesthetic" or "fusion" state dict."""
        published = PublishedState(state.get("params", state))
        if part in ("technical", "aesthetic"):
            return published.state if "heads.rows" in published.state else checkpoint.base(published)
        return published.state if "net.0.weight" in published.state else checkpoint.fusion(published)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"branch={self.branch}"


class Base(nn.Module):
    """A backbone, its gated pyramid, and TOPIQ heads that share both."""

    def __init__(self, heads: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.backbone = ResNet50(checkpointing)
        self.pyramid = GatedPyramid(self.backbone.channels, WIDTH)
        self.heads = CrossScale(heads, WIDTH, PARTS)

    def query(self, image: Tensor, heads: Indices) -> Tensor:
        """Query tokens (K, N, h * w, C) of the given heads."""
        size = _grid(image)
        levels = zip(self.pyramid.levels, self.backbone.iter_features(image), strict=True)
        maps = [maybe_checkpoint(self.checkpointing, level, x, size) for level, x in levels]
        return torch.cat([maybe_checkpoint(self.checkpointing, self.heads.query, maps, some) for some in slices(heads)])


class Fusion(nn.Module):
    """CLIP's part in each dimension, and the network that makes one score of nine."""

    def __init__(self, heads: int, branch: str) -> None:
        super().__init__()
        self.branch = BRANCHES[branch](heads)
        self.clip = ClipRN50()
        self.project = FrozenConv2d(1024, WIDTH, 1)
        self.squeeze = StackedLinear(heads, 2 * WIDTH, WIDTH // 2, bias=False)
        self.expand = StackedLinear(heads, WIDTH // 2, WIDTH, bias=False)
        self.attention = Attention(heads, WIDTH, PARTS)
        self.head = MLPHead(heads, WIDTH, 1)
        self.net = nn.Sequential(
            nn.Linear(heads, 4 * heads), nn.GELU(), nn.Linear(4 * heads, 4 * heads), nn.GELU(), nn.Linear(4 * heads, 1)
        )

    @torch.no_grad()
    def meaning(self, image: Tensor) -> Tensor:
        """CLIP's tokens (N, h * w, C) on the heads' grid."""
        tokens = self.project(self.clip(image))
        return F.interpolate(tokens, _grid(image), mode="bicubic").flatten(2).mT

    def joined(self, query: Tensor, meaning: Tensor, heads: slice) -> Tensor:
        """Query tokens (D, N, h * w, C) after CLIP's have joined and they have looked at each other."""
        both = torch.cat([query, meaning.to(query.dtype)], -1)
        joined = query + self.expand(F.gelu(self.squeeze(both, heads)), heads)
        return self.attention(joined, heads=heads)

    def overall(self, weighed: Tensor) -> Tensor:
        """One score of nine weighed ones: (..., 9) -> (...)."""
        with torch.autocast(weighed.device.type, enabled=False):
            x = weighed.to(torch.promote_types(weighed.dtype, torch.float32))  # users' weights may be beyond float16's
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    x = F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
                else:
                    x = layer(x)
            return x.squeeze(-1)


class MobileBranch(nn.Module):
    """The weight branch on MobileNetV3: all five levels at the fourth's size, a perceptron a position, their mean."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.backbone = MobileNetV3()
        self.reduce = nn.ModuleList(ReducedPooling(count, WIDTH) for count in self.backbone.channels)
        width = WIDTH * len(self.backbone.channels)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Weights (N, outputs) of images (N, 3, H, W); a row sums to 1."""
        maps = self.backbone(image)
        size = maps[-2].shape[-2:]
        maps = [reduce(x, size) for reduce, x in zip(self.reduce, maps, strict=True)]
        tokens = layer_norm(torch.cat(maps, 1).flatten(2).mT)
        return self.out(F.gelu(self.hidden(tokens))).mean(1).to(image.dtype).softmax(1)


class ResidualBranch(nn.Module):
    """The weight branch on ResNet-50: the mean of the last map, one linear layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.out = nn.Linear(self.backbone.channels[-1], outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Weights (N, outputs) of images (N, 3, H, W); a row sums to 1."""
        *_, last = self.backbone.iter_features(image)
        return self.out(last.mean((2, 3))).to(image.dtype).softmax(1)


BRANCHES = {"mobilenetv3": MobileBranch, "resnet50": ResidualBranch}


def _rows(values: Tensor) -> Tensor:
    """(K, N, 1) -> (N, K), at least float32."""
    return values.squeeze(2).mT.to(torch.promote_types(values.dtype, torch.float32))


def _grid(image: Tensor) -> tuple[int, int]:
    return ResNet50.sizes(*image.shape[-2:])
