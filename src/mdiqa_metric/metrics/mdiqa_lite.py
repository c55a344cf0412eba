"""MDIQA-lite: five technical quality dimensions and one score out of them, small enough to come with the package."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.timm import EfficientNetLite0
from ..checkpoints.hub import HubMixin
from ..layers.attention import StackedLinear, each, select
from ..multidimensional import Indices, MultiDimensional
from ..ops.color import luma_full
from ..ops.precision import full_precision
from ..ops.resize import resize_shorter_side
from ..ops.statistics import local_statistics

# A block of this many pixels is a token.
BLOCK, TOKEN = 16, 64
COLORS, BANDS = 6, 4
# Of each block: mean and deviation of colors, deviation of luma inside, two means of each band of detail. Each of these
# as it is there, around, and in the image, whose deviation goes on too.
SEEN = 2 * COLORS + 1 + 2 * BANDS
# Each side of a block is cut into this many cells, whose detail is looked at one by one.
CELLS = 4
# How near to black or white a sample counts as cut off, and the least detail that counts, in a cell and in a block.
NEAR, FAINT, LEAST = 0.04, 0.25 / 255, 1 / 255
# What the attributes count in the opinion on a photograph: least squares on the training split of SPAQ (Fang et al.,
# "Perceptual quality assessment of smartphone photography", CVPR 2020).
SPAQ = (0.153, 0.067, 0.123, 0.068, 0.614)
# Weight of the dimensions' mean in the overall score, in logits. The dimensions were trained on distortions of one
# image and compare different images less well: at 1 the overall score agreed less with opinions on held-out scenes.
DIMENSION_LOGIT_WEIGHT = 0.25


class Explanation(NamedTuple):
    """What `MDIQALite.explain` finds in N images of D dimensions.

    Attributes:
        overall: the scores (N,) under the weights in force.
        scores: the dimensions' own scores (N, D).
        weights: what each dimension counts (N, D), the model's share times the user's weight; a row sums to 1.
        contributions: weights times scores (N, D).
        remainder: what the image as a whole adds to the sum of contributions (N,); `overall` is both together.
        maps: (N, D, h, w), the dimension's score in each block of 16 x 16 pixels. The dimension's score is their mean,
            weighted by how much the model looks at each.
    """

    overall: Tensor
    scores: Tensor
    weights: Tensor
    contributions: Tensor
    remainder: Tensor
    maps: Tensor


class Standardized(nn.Module):
    """Features (N, C) standardized by the mean and scale of the training images."""

    mean: Tensor
    scale: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C)."""
        return (x - self.mean) / self.scale


class MDIQALite(MultiDimensional, HubMixin):
    """No-reference quality from five dimensions, each score in [0, 1], higher is better.

    The dimensions are the attributes that SPAQ's viewers rated: brightness drops for under- and over-exposure,
    colorfulness for dull and garish colors, contrast for flat and crushed tones, noisiness for grain and blotches
    (clean is high), sharpness for blur and halos. They are computed from simple statistics of blocks of 16 x 16 pixels,
    colors and the energy of detail in bands; small heads rate each block and weight it. No deep network lies between
    the pixels
    and a dimension, which leaves its gradient no room for invisible patterns: it points to the clean image. The overall
    score is the dimensions' mean, weighted by SPAQ's opinions and `set_weights`, which counts for a quarter in logits,
    plus a term from the global statistics of EfficientNet-Lite0's five feature maps. Use `DimensionMean` to steer.

    Heads, training (`mdiqa-metric train mdiqa-lite`) and weights are ours. The dimensions' names and use follow MDIQA
    (Yao et al., 2025, arXiv 2508.16887), without its four aesthetic dimensions.

    Args:
        side: resizes the shorter side to this first (antialiased bicubic), for images that people saw at another size
            than the file's; None takes the pixels as they are.

    Raises:
        ValueError: `side` is below 64.

    Example:
        >>> from mdiqa_metric import create
        >>> create("mdiqa-lite").dimensions(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 5])
    """

    dimension_names = ("brightness", "colorfulness", "contrast", "noisiness", "sharpness")
    dimension_range = (0.0, 1.0)
    score_range = (0.0, 1.0)
    min_size = 64
    shares: Tensor

    def __init__(self, side: int | None = None) -> None:
        super().__init__()
        if side is not None and side < self.min_size:
            raise ValueError(f"MDIQA-lite takes a side from {self.min_size} pixels up or None, got {side}.")
        self.side = side
        self.resize = "none" if side is None else f"shorter side to {side}, antialiased bicubic"
        count = len(self.dimension_names)
        self.backbone = EfficientNetLite0()
        self.token = StackedLinear(count, 4 * SEEN, TOKEN)
        self.mix = StackedLinear(count, TOKEN, TOKEN)
        self.rate = StackedLinear(count, TOKEN, 2)
        found = 2 * (SEEN + sum(self.backbone.channels))
        self.remainder = nn.Sequential(
            Standardized(found), nn.Linear(found, 64), nn.GELU(), nn.Dropout(0.5), nn.Linear(64, 1)
        )
        self.register_buffer("shares", torch.tensor(SPAQ) / sum(SPAQ), persistent=False)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self._explain(image, self.active).overall

    def dimension_scores(self, image: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K)."""
        return self._rate_tokens(self.dimension_features(image, wanted), wanted)[0]

    def dimension_features(self, image: Tensor, wanted: Indices) -> Tensor:
        """The heads' tokens (K, N, h * w, 64)."""
        return self._tokens(_seen(self._resize_input(image)), wanted)

    def instance_weights(self, image: Tensor) -> Tensor:
        """SPAQ's shares (N, 5), the same for every image."""
        return self.shares.expand(image.shape[0], -1)

    def explanation(self, image: Tensor, reference: None) -> Explanation:
        """What the overall scores of images (N, 3, H, W) in [0, 1] are made of; see `Explanation`."""
        return self._explain(image, self.every_dimension)

    def _explain(self, image: Tensor, wanted: Indices) -> Explanation:
        image = self._resize_input(image)
        seen = _seen(image)
        scores, ratings = self._rate_tokens(self._tokens(seen, wanted), wanted)
        weights = select(self._weights(image), wanted, 1)
        contributions = weights * scores
        base = contributions.sum(1)
        overall = self.overall(base, self._remainder(image, seen))
        maps = ratings.transpose(0, 1).unflatten(2, seen.shape[-2:])
        return Explanation(overall, scores, weights, contributions, overall - base, maps)

    def _resize_input(self, image: Tensor) -> Tensor:
        if self.side is None:
            return image
        return resize_shorter_side(image, self.side, "bicubic")

    def _tokens(self, seen: Tensor, wanted: Indices) -> Tensor:
        """Tokens (K, N, h * w, 64) on the grid of blocks."""
        around = F.avg_pool2d(seen, 5, 1, 2, count_include_pad=False)
        whole = _global_statistics(seen)[..., None, None].expand(-1, -1, *seen.shape[-2:])
        tokens = torch.cat([seen, around, whole], 1).flatten(2).mT.to(self.token.weight.dtype)
        shared = tokens.expand(len(wanted), -1, -1, -1)
        return each(wanted, lambda x, heads: _mix_tokens(self.token(x, heads), self.mix, heads), shared)

    def _rate_tokens(self, tokens: Tensor, wanted: Indices) -> tuple[Tensor, Tensor]:
        """Scores (N, K) of tokens (K, N, T, 64), and each token's own (K, N, T)."""
        return _pool_ratings(each(wanted, self.rate, tokens))

    def _weights(self, image: Tensor) -> Tensor:
        weights = self.instance_weights(image) * self.user_weights(image)
        return weights / weights.sum(1, keepdim=True)

    def _remainder(self, image: Tensor, seen: Tensor) -> Tensor:
        """What the backbone's and the blocks' global statistics add to the overall score's logit, (N,)."""
        found = _global_statistics(seen, *self.backbone(image))
        return self.remainder(found.to(self.shares.dtype)).squeeze(1)

    @full_precision
    def overall(self, base: Tensor, remainder: Tensor) -> Tensor:
        """Scores (N,) of the dimensions' mean (N,) and what the image as a whole adds (N,), in logits."""
        return (DIMENSION_LOGIT_WEIGHT * base.logit(1e-4) + remainder).sigmoid()

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our own layout alone."""
        return dict(state)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"side={self.side}"


def _mix_tokens(x: Tensor, mix: StackedLinear, heads: slice) -> Tensor:
    x = F.gelu(x)
    return x + F.gelu(mix(x, heads))


@full_precision
def _pool_ratings(rated: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and tokens' own (K, N, T) of their logits and attention (K, N, T, 2)."""
    ratings = rated[..., 0].sigmoid()
    return (ratings * rated[..., 1].softmax(2)).sum(2).mT, ratings


@full_precision
def _seen(image: Tensor) -> Tensor:
    """What is plain to see in each block of 16 x 16 pixels of images (N, 3, H, W): (N, 21, h, w), of order 1.

    Mean and deviation of luma, two color differences, how far they are from gray, and how near the samples are to
    black and to white, beyond which there is nothing left; luma's deviation inside the block; and of the energies of
    luma's detail finer than about 2, 4 and 8 pixels, and of color's finer than 2, two means. The mean over cells of
    4 x 4 pixels of the logarithm, which noise raises more than edges do, being everywhere; its slope is a denoiser's,
    steepest in the flattest cells. And the logarithm of the block's mean, which edges raise more.
    """
    size = (-(-image.shape[-2] // BLOCK), -(-image.shape[-1] // BLOCK))
    plain = luma_and_differences(image)
    colorful = (plain[:, 1:].square().sum(1) + 1e-4).sqrt()
    black, white = torch.exp(-image / NEAR).mean(1), torch.exp((image - 1) / NEAR).mean(1)
    colors = torch.cat([2 * plain, torch.stack([2 * colorful, black, white], 1)], 1)
    details = _details(plain)
    luma = plain[:, :1]
    variance = F.adaptive_avg_pool2d(luma.square(), size) - F.adaptive_avg_pool2d(luma, size).square()
    cells = F.adaptive_avg_pool2d(details, (CELLS * size[0], CELLS * size[1]))
    means = [F.avg_pool2d(_log(cells, FAINT), CELLS), _log(F.adaptive_avg_pool2d(details, size), LEAST)]
    return torch.cat([local_statistics(colors, size), _log(variance.clamp_min(0), LEAST), *means], 1)


def _details(plain: Tensor) -> Tensor:
    """Energies of luma's detail finer than about 2, 4 and 8 pixels, and of color's finer than 2: (N, 4, H, W)."""
    second = _smooth(plain)
    third = _smooth(second[:, :1], 2)
    fourth = _smooth(third, 4)
    fine = (plain - second).square()
    bands = [fine[:, :1], (second[:, :1] - third).square(), (third - fourth).square(), fine[:, 1:].sum(1, keepdim=True)]
    return torch.cat(bands, 1)


def luma_and_differences(image: Tensor) -> Tensor:
    """Luma, red and blue less luma: (N, 3, H, W)."""
    luma = luma_full(image)
    return torch.cat([luma, image[:, :1] - luma, image[:, 2:] - luma], 1)


def _log(energy: Tensor, least: float) -> Tensor:
    return 0.25 * torch.log1p(energy / least**2)


def _smooth(x: Tensor, step: int = 1) -> Tensor:
    """Maps (N, C, H, W) filtered by [1, 2, 1] / 4 both ways, taps `step` pixels apart, borders repeated."""
    x = F.pad(x, [step] * 4, mode="replicate")
    x = x[..., : -2 * step] + 2 * x[..., step:-step] + x[..., 2 * step :]
    return (x[..., : -2 * step, :] + 2 * x[..., step:-step, :] + x[..., 2 * step :, :]) / 16


@full_precision
def _global_statistics(*maps: Tensor) -> Tensor:
    """Mean and deviation of each channel of maps (N, C, H, W): (N, 2 * all channels)."""
    return torch.cat([y for x in maps for y in (x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-5).sqrt())], 1)
