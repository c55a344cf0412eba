"""MDIQA-lite: five technical quality dimensions and one score out of them, small enough to come with the package."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import EfficientNetLite0
from ..checks import RANGE_TOLERANCE
from ..dimensions import Indices, MultiDimensional
from ..layers.attention import Linears, each
from ..ops.color import luma_full
from ..ops.precision import full_precision
from ..ops.resize import resized
from ..ops.statistics import local_statistics
from ..sharing import Shared

# A block of this many pixels is a token.
BLOCK, TOKEN = 16, 64
COLORS, BANDS = 6, 4
# Of each block: mean and deviation of colors, deviation of luma inside, two means of each band of detail. Each of these
# as it is there, around, and in the picture, whose deviation goes on too.
SEEN = 2 * COLORS + 1 + 2 * BANDS
# How near to black or white a sample counts as cut off, and the least detail that counts.
NEAR, LEAST = 0.04, 1 / 255
# What the attributes count in the opinion on a photograph: least squares on the training split of SPAQ (Fang et al.,
# "Perceptual quality assessment of smartphone photography", CVPR 2020).
SPAQ = (0.153, 0.067, 0.123, 0.068, 0.614)


class Explanation(NamedTuple):
    """What `MDIQALite.explain` finds in N pictures of D dimensions.

    Attributes:
        overall: the scores (N,) under the weights in force.
        scores: the dimensions' own scores (N, D).
        weights: what each dimension counts (N, D), the model's share times the user's weight; a row sums to 1.
        contributions: weights times scores (N, D).
        remainder: what the picture as a whole adds to the sum of contributions (N,); `overall` is both together.
        maps: (N, D, h, w), the dimension's score in each block of 16 x 16 pixels. The dimension's score is their mean,
            weighted by how much the model looks at each.
    """

    overall: Tensor
    scores: Tensor
    weights: Tensor
    contributions: Tensor
    remainder: Tensor
    maps: Tensor


class MDIQALite(MultiDimensional, Shared):
    """Quality without a reference from five dimensions, each score in [0, 1], higher is better.

    The dimensions are the attributes that SPAQ's viewers rated: brightness falls for under- and over-exposure,
    colorfulness for dull and garish colours, contrast for flat and crushed tones, noisiness for grain and blotches
    (clean is high), sharpness for blur and halos. They are rated from what is plain to see in each block of 16 x 16
    pixels: colours, and the energy of detail in bands. Small heads rate each block and say how much it counts. No deep
    network stands between a dimension and the pixels, so that a gradient has no room for patterns that people would not
    see: it points to the clean picture. The overall score is the dimensions' mean, weighted as SPAQ's opinions are and
    by `weigh`, moved by what the global statistics of EfficientNet-Lite0's five maps add.

    Ours: the heads' design, the training (`mdiqa-metric train mdiqa-lite`) and the weights. The dimensions' names and
    use follow MDIQA (Yao et al., 2025, arXiv 2508.16887); its four aesthetic dimensions are not here.

    Args:
        side: what the shorter side is resized to first (antialiased bicubic), for pictures that people saw at another
            size than the file's; None, the default, takes the pixels as they are.

    Raises:
        ValueError: `side` is below 64.
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
        self.trunk = EfficientNetLite0()
        self.token = Linears(count, 4 * SEEN, TOKEN)
        self.mix = Linears(count, TOKEN, TOKEN)
        self.rate = Linears(count, TOKEN, 2)
        self.remainder = nn.Sequential(
            nn.Linear(2 * (SEEN + sum(self.trunk.channels)), 64), nn.GELU(), nn.Dropout(0.3), nn.Linear(64, 1)
        )
        self.register_buffer("shares", torch.tensor(SPAQ) / sum(SPAQ), persistent=False)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self._explained(image, self.active).overall

    def score_both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N,) and those of all dimensions (N, 5) of checked images, by one pass of the trunk."""
        found = self._explained(image, self.every_dimension)
        return found.overall, found.scores

    def dimension_scores(self, image: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K)."""
        return self._rated(self.dimension_features(image, wanted), wanted)[0]

    def dimension_features(self, image: Tensor, wanted: Indices) -> Tensor:
        """The heads' tokens (K, N, h * w, 64)."""
        return self._tokens(_seen(self._sized(image)), wanted)

    def instance_weights(self, image: Tensor) -> Tensor:
        """SPAQ's shares (N, 5), the same for every picture."""
        return self.shares.expand(len(image), -1)

    def explain(self, image: Tensor) -> Explanation:
        """What the overall scores of images (N, 3, H, W) in [0, 1] are made of; see `Explanation`. Keeps no graph.

        Raises:
            TypeError, ValueError: the images are not what the metric takes; the text says what came and the mend.
        """
        image, _ = self.check(image, None)
        self.check_range(image, "image", RANGE_TOLERANCE)
        with torch.no_grad():
            return self._explained(image, self.every_dimension)

    def _explained(self, image: Tensor, wanted: Indices) -> Explanation:
        image = self._sized(image)
        seen = _seen(image)
        scores, ratings = self._rated(self._tokens(seen, wanted), wanted)
        weights = self._weights(image)[:, list(wanted)]
        contributions = weights * scores
        base = contributions.sum(1)
        overall = self._overall(base, self._remainder(image, seen))
        maps = ratings.transpose(0, 1).unflatten(2, seen.shape[-2:])
        return Explanation(overall, scores, weights, contributions, overall - base, maps)

    def _sized(self, image: Tensor) -> Tensor:
        if self.side is None:
            return image
        shorter = min(image.shape[-2:])
        return resized(image, [round(self.side * length / shorter) for length in image.shape[-2:]], "bicubic")

    def _tokens(self, seen: Tensor, wanted: Indices) -> Tensor:
        """Tokens (K, N, h * w, 64) on the grid of blocks."""
        around = F.avg_pool2d(seen, 5, 1, 2, count_include_pad=False)
        whole = _global_statistics(seen)[..., None, None].expand(-1, -1, *seen.shape[-2:])
        tokens = torch.cat([seen, around, whole], 1).flatten(2).mT.to(self.token.weight.dtype)
        shared = tokens.expand(len(wanted), -1, -1, -1)
        return each(wanted, lambda x, heads: _joined(self.token(x, heads), self.mix, heads), shared)

    def _rated(self, tokens: Tensor, wanted: Indices) -> tuple[Tensor, Tensor]:
        """Scores (N, K) of tokens (K, N, T, 64), and each token's own (K, N, T)."""
        return _pooled(each(wanted, self.rate, tokens))

    def _weights(self, image: Tensor) -> Tensor:
        weights = self.instance_weights(image) * self.user_weights(image)
        return weights / weights.sum(1, keepdim=True)

    def _remainder(self, image: Tensor, seen: Tensor) -> Tensor:
        """What the trunk's and the blocks' global statistics add to the overall score's logit, (N,)."""
        found = _global_statistics(seen, *self.trunk(image))
        return self.remainder(found.to(self.shares.dtype)).squeeze(1)

    @full_precision
    def _overall(self, base: Tensor, remainder: Tensor) -> Tensor:
        return (base.logit(1e-4) + remainder).sigmoid()

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our own layout alone."""
        return dict(state)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"side={self.side}"


def _joined(x: Tensor, mix: Linears, heads: slice) -> Tensor:
    x = F.gelu(x)
    return x + F.gelu(mix(x, heads))


@full_precision
def _pooled(rated: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and tokens' own (K, N, T) of their logits and attention (K, N, T, 2)."""
    ratings = rated[..., 0].sigmoid()
    return (ratings * rated[..., 1].softmax(2)).sum(2).mT, ratings


@full_precision
def _seen(image: Tensor) -> Tensor:
    """What is plain to see in each block of 16 x 16 pixels of images (N, 3, H, W): (N, 21, h, w), of order 1.

    Mean and deviation of luma, two colour differences, how far they are from grey, and how near the samples are to
    black and to white, beyond which there is nothing left; luma's deviation inside the block; and of the energies of
    luma's detail finer than about 2, 4 and 8 pixels, and of colour's finer than 2, two means. The logarithm's mean,
    which noise raises more than edges do, being everywhere; its slope is a denoiser's, steepest for the weakest detail.
    And the mean's logarithm, which edges raise more; its slope goes with the detail.
    """
    size = (-(-image.shape[-2] // BLOCK), -(-image.shape[-1] // BLOCK))
    plain = _plain(image)
    colorful = (plain[:, 1:].square().sum(1) + 1e-4).sqrt()
    black, white = torch.exp(-image / NEAR).mean(1), torch.exp((image - 1) / NEAR).mean(1)
    colors = torch.cat([2 * plain, torch.stack([2 * colorful, black, white], 1)], 1)
    details = _details(plain)
    luma = plain[:, :1]
    variance = F.adaptive_avg_pool2d(luma.square(), size) - F.adaptive_avg_pool2d(luma, size).square()
    means = [F.adaptive_avg_pool2d(_log(details), size), _log(F.adaptive_avg_pool2d(details, size))]
    return torch.cat([local_statistics(colors, size), _log(variance.clamp_min(0)), *means], 1)


def _details(plain: Tensor) -> Tensor:
    """Energies of luma's detail finer than about 2, 4 and 8 pixels, and of colour's finer than 2: (N, 4, H, W)."""
    second = _smoothed(plain)
    third = _smoothed(second[:, :1], 2)
    fourth = _smoothed(third, 4)
    fine = (plain - second).square()
    bands = [fine[:, :1], (second[:, :1] - third).square(), (third - fourth).square(), fine[:, 1:].sum(1, keepdim=True)]
    return torch.cat(bands, 1)


def _plain(image: Tensor) -> Tensor:
    """Luma and two colour differences."""
    luma = luma_full(image)
    return torch.cat([luma, image[:, :1] - luma, image[:, 2:] - luma], 1)


def _log(energy: Tensor) -> Tensor:
    return 0.25 * torch.log1p(energy / LEAST**2)


def _smoothed(x: Tensor, step: int = 1) -> Tensor:
    """Maps (N, C, H, W) filtered by [1, 2, 1] / 4 both ways, taps `step` pixels apart, borders repeated."""
    x = F.pad(x, [step] * 4, mode="replicate")
    x = x[..., : -2 * step] + 2 * x[..., step:-step] + x[..., 2 * step :]
    return (x[..., : -2 * step, :] + 2 * x[..., step:-step, :] + x[..., 2 * step :, :]) / 16


@full_precision
def _global_statistics(*maps: Tensor) -> Tensor:
    """Mean and deviation of each channel of maps (N, C, H, W): (N, 2 * all channels)."""
    return torch.cat([y for x in maps for y in (x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-5).sqrt())], 1)
