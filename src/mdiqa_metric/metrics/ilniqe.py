"""ILNIQE: integrated local natural image quality evaluator."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..metric import Metric, QualityMap
from ..ops.color import round_8bit
from ..ops.distributions import fit_asymmetric_gaussian, fit_weibull
from ..ops.filters import filter_separable, gaussian_derivatives, gaussian_window
from ..ops.log_gabor import log_gabor_filters
from ..ops.natural_scene import normalized_features, pristine_distance
from ..ops.precision import full_precision
from ..ops.resize import resize_matlab
from ..ops.statistics import local_normalization

# The side that every image is resized to, and the blocks of its whole part.
SIDE, BLOCK, BLOCKS = 524, 84, 6
# Features of a block, at two scales, and how many of their principal components are compared.
FEATURES, COMPONENTS = 468, 430
# Rows of the opponent channels for R, G and B.
OPPONENT = ((0.3, 0.04, -0.35), (0.34, -0.6, 0.17), (0.06, 0.63, 0.27))
# Deviations of the Gaussians that give the gradients and that shrink the image.
GRADIENT_SIGMA, SHRINK_SIGMA = 1.66, 0.9
# Shortest wavelength of the log-Gabor filters and its growth; their radial bandwidth and angular ratio.
WAVELENGTH, GROWTH, BANDWIDTH, ANGULAR_RATIO = 2.4, 1.31, 0.55, 1.1
# Powers of the scale (1, 2) by which wavelengths and gradient deviations shrink at the second one.
WAVELENGTH_POWER, GRADIENT_POWER = 0.87, 0.28
# Added before a logarithm: to channels in 0..255, and to gradient magnitudes.
LOG_OFFSET, TINY = 1e-5, 2.0**-52
# Features are cut at the first; the second stands for the coefficients of an image that has none.
HIGHEST, MISSING = 1e4, 2e3


class ILNIQE(Metric):
    """Distance of an image's local statistics from those of pristine photographs (Zhang, Zhang, Bovik, TIP 2015).

    The 8-bit image is resized to 524x524, whatever its aspect, and cut to 6x6 blocks. Each gives 468 features: how its
    normalized luminance, their products with neighbors, opponent colors, gradients and log-Gabor responses are
    distributed, at two scales. Principal components f of these are compared with a Gaussian model (m, S) of pristine
    images: a block's score is `sqrt((f - m)' ((S + C) / 2)^-1 (f - m))`, C being the covariance of the image's blocks.
    The score is the mean over blocks; `explain` gives them as a map (N, 1, 6, 6). 0 or more, lower is better.

    A block that some distribution cannot be fitted to, such as a flat one, counts as the mean of the others.

    Example:
        >>> from mdiqa_metric import create
        >>> create("ilniqe", weights=None).explain(torch.rand(1, 3, 64, 96)).map.shape
        torch.Size([1, 1, 6, 6])
    """

    full_reference = False
    lower_is_better = True
    score_range = (0.0, math.inf)
    differentiable = False
    no_gradient = "it rounds to 8 bits and looks the shapes of distributions up in a table; use topiq-nr or mdiqa-lite."
    min_size = 16
    color = "RGB in 8 bits"
    resize = f"bicubic, {SIDE}x{SIDE} (MATLAB)"

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(FEATURES))
        # Features less their mean, times `projection`, less `origin`: components whose pristine model is N(0, 1).
        self.projection = nn.Parameter(torch.eye(FEATURES, COMPONENTS))
        self.origin = nn.Parameter(torch.zeros(COMPONENTS))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,) from 0 up."""
        return self.explanation(image, reference).map.mean((1, 2, 3))

    def explanation(self, image: Tensor, reference: None) -> QualityMap:
        """The blocks' distances (N, 1, 6, 6)."""
        distances = _distances(_features(image), self.mean, self.projection, self.origin)
        return QualityMap(distances.unflatten(1, (1, BLOCKS, BLOCKS)))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, a cell array of mean, covariance, features' mean and principal vectors."""
        if "templateModel" in state:
            names = ("mu", "cov", "meanOfSampleData", "principleVectors")
            state = {f"templateModel.{name}": value for name, value in zip(names, state["templateModel"], strict=True)}
        if "templateModel.mu" not in state:
            return dict(state)
        mean, covariance, center, vectors = (
            state[f"templateModel.{name}"].double() for name in ("mu", "cov", "meanOfSampleData", "principleVectors")
        )
        root = torch.linalg.cholesky(covariance)
        projection = torch.linalg.solve_triangular(root, vectors.T, upper=False).T
        origin = torch.linalg.solve_triangular(root, mean.reshape(-1, 1), upper=False)
        return {"mean": center.flatten(), "projection": projection.contiguous(), "origin": origin.flatten()}


@full_precision
def _distances(features: Tensor, mean: Tensor, projection: Tensor, origin: Tensor) -> Tensor:
    """Distances (N, B) of blocks' features (N, B, F) from the pristine model; see `pristine_distance`."""
    valid = features.isfinite().all(2, keepdim=True)
    count = valid.sum(1, keepdim=True)
    cut = torch.where(valid, features, mean).clamp(max=HIGHEST)
    whitened = (cut - mean) @ projection - origin
    middle = torch.where(valid, whitened, 0.0).sum(1, keepdim=True) / count.clamp(min=1)
    middle = torch.where(count > 0, middle, MISSING)
    whitened = torch.where(valid, whitened, middle)
    return pristine_distance(whitened, whitened, middle)


@full_precision
def _features(image: Tensor) -> Tensor:
    """The features of each block (N, 36, 468), blocks row by row."""
    whole = slice(BLOCK * BLOCKS)
    rgb = resize_matlab(round_8bit(image) * 255, (SIDE, SIDE)).clamp(0, 255)[..., whole, whole]
    red, green, blue = rgb.split(1, 1)
    opponent = torch.cat([a * red + b * green + c * blue for a, b, c in OPPONENT], 1)
    fine = _scale_features(rgb, opponent, 1)
    taps = gaussian_window(math.ceil(6 * SHRINK_SIGMA), SHRINK_SIGMA, rgb)
    rgb, opponent = (
        filter_separable(F.pad(maps, (2, 3, 2, 3), mode="replicate"), taps)[..., ::2, ::2] for maps in (rgb, opponent)
    )
    return torch.cat([fine, _scale_features(rgb, opponent, 2)], 2)


def _scale_features(rgb: Tensor, opponent: Tensor, scale: int) -> Tensor:
    """The features of one scale (N, 36, 234)."""
    luminance, sigma = opponent[:, 2:], GRADIENT_SIGMA / scale**GRADIENT_POWER
    gradients, magnitudes = _gradient_features(opponent, sigma, scale)
    responses: list[Tensor] = []
    derivatives: list[tuple[Tensor, Tensor]] = []
    wavelengths = [WAVELENGTH / scale**WAVELENGTH_POWER * GROWTH**step for step in range(3)]
    spectrum = torch.fft.fft2(luminance)
    for gabor in log_gabor_filters(luminance, wavelengths, 4, BANDWIDTH, ANGULAR_RATIO):
        response = torch.fft.ifft2(gabor * spectrum)
        maps = torch.cat([response.real, response.imag], 1)
        responses.append(_asymmetric(maps, scale))
        derivatives.append(_gradient_features(maps, sigma, scale))
    of_responses, of_magnitudes = zip(*derivatives, strict=True)
    plain = (_normalized_features(luminance, scale), magnitudes, _color_features(rgb, scale), gradients)
    return torch.cat([*plain, *responses, *of_responses, *of_magnitudes], 2)


def _normalized_features(luminance: Tensor, scale: int) -> Tensor:
    """Of the normalized luminance and its products with neighbors, around each block's borders (N, 36, 18)."""
    return normalized_features(_tiles(local_normalization(luminance, 5, 5 / 6), scale).squeeze(1))


def _color_features(rgb: Tensor, scale: int) -> Tensor:
    """Mean and variance of the three opponent channels of the colors' logarithms (N, 36, 6)."""
    logarithms = (rgb + LOG_OFFSET).log()
    red, green, blue = (logarithms - logarithms.mean((2, 3), keepdim=True)).split(1, 1)
    colors = ((red + green + blue) / 3**0.5, (red + green - 2 * blue) / 6**0.5, (red - green) / 2**0.5)
    tiles = _tiles(torch.cat(colors, 1), scale).flatten(3)
    return _by_block(tiles.mean(3), tiles.var(3))


def _gradient_features(maps: Tensor, sigma: float, scale: int) -> tuple[Tensor, Tensor]:
    """Of the Gaussian derivatives of maps (N, C, H, W), (N, 36, 4 C), and of their magnitudes, (N, 36, 2 C)."""
    across, down = gaussian_derivatives(maps, sigma)
    magnitude = torch.hypot(across, down) + TINY
    both = torch.stack([across, down], 2).flatten(1, 2)
    return _asymmetric(both, scale), _by_block(*fit_weibull(_tiles(magnitude, scale).flatten(3)))


def _asymmetric(maps: Tensor, scale: int) -> Tensor:
    """Shape and mean scale of the distribution in each block of maps (N, C, H, W): (N, 36, 2 C)."""
    shape, left, right = fit_asymmetric_gaussian(_tiles(maps, scale).flatten(3))
    return _by_block(shape, (left + right) / 2)


def _tiles(maps: Tensor, scale: int) -> Tensor:
    """The blocks of maps (N, C, H, W): (N, C, 36, side, side)."""
    side = BLOCK // scale
    return maps.unflatten(3, (BLOCKS, side)).unflatten(2, (BLOCKS, side)).transpose(3, 4).flatten(2, 3)


def _by_block(*features: Tensor) -> Tensor:
    """Features (N, C, 36) each, as (N, 36, C x features)."""
    return torch.stack(features, -1).transpose(1, 2).flatten(2)
