"""FLIP: the difference that is seen when one flips between two images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric, QualityMap
from ..ops.color import srgb_to_linear
from ..ops.filters import filter_channels
from ..ops.powers import power
from ..ops.precision import full_precision

# A display 0.7 m away and 0.7 m wide, of 3840 pixels.
DISPLAY = 3840 * math.pi / 180
# Linear RGB to CIE XYZ, and back, as NVIDIA's program has them.
TO_XYZ = (
    (10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794),
    (2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897),
    (1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382),
)
TO_RGB = (
    (3.241003275, -1.537398934, -0.498615861),
    (-0.969224334, 1.875930071, 0.041554224),
    (0.055639423, -0.204011202, 1.057148933),
)
WHITE = tuple(sum(row) for row in TO_XYZ)
# Contrast sensitivity of luma and red-green: one Gaussian each, by its b; of blue-yellow: two, with their a and b.
LUMA_B, RED_GREEN_B = 0.0047, 0.0053
BLUE_YELLOW = ((34.1, 0.04), (13.5, 0.025))
# Width of the features in degrees; exponents of color and feature differences; where the color scale bends.
FEATURE, COLOR_EXPONENT, FEATURE_EXPONENT = 0.082, 0.7, 0.5
BEND, BENT = 0.4, 0.95


class FLIP(Metric):
    """LDR-FLIP (Andersson, Nilsson, Akenine-Moeller et al., PACM CGIT 2020): 0 for equal images, 1 at most.

    The mean of `c^(1 - f)`, where c is the difference in color after blurring by contrast sensitivity (HyAB distance in
    Hunt-adjusted Lab) and f the difference in edges and points of luma: `explain` gives this map, (N, 1, H, W). Lower
    is better. Scores are those of NVIDIA's program for sRGB images.

    Args:
        ppd: pixels per degree of visual angle, by default of a 3840-pixel display as wide as it is far away.

    Raises:
        ValueError: `ppd` is not a number above 0.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> FLIP()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 1.0)
    color = "YCxCz and Lab of linear RGB"

    def __init__(self, ppd: float = DISPLAY) -> None:
        super().__init__()
        if not (isinstance(ppd, float | int) and 0 < ppd < math.inf):
            raise ValueError(f"FLIP takes ppd, a number of pixels per degree above 0, got {ppd!r}.")
        self.ppd = float(ppd)

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        return self.explanation(image, reference).map.mean((1, 2, 3))

    def explanation(self, image: Tensor, reference: Tensor) -> QualityMap:
        """The map of visible differences (N, 1, H, W)."""
        return QualityMap(_difference(image, reference, ppd=self.ppd))

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"ppd={self.ppd:.6g}"


@full_precision
def _difference(image: Tensor, reference: Tensor, ppd: float) -> Tensor:
    x, y = (_transform(srgb_to_linear(each), TO_XYZ) for each in (image, reference))
    color = _bend(_color_difference(_lab(_blur(x, ppd)), _lab(_blur(y, ppd))))
    luma = torch.cat([x[:, 1:2], y[:, 1:2]], 1)
    feature = power(_feature_difference(luma, ppd) / 2**0.5, FEATURE_EXPONENT)
    zero = color == 0  # where the power has no logarithm
    return (color.masked_fill(zero, 1.0).log() * (1 - feature)).exp().masked_fill(zero, 0.0)


def _transform(image: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """Each pixel (N, 3, H, W) times a 3 x 3 matrix."""
    return torch.einsum("ij,njhw->nihw", torch.tensor(matrix, dtype=image.dtype, device=image.device), image)


def _white(like: Tensor) -> Tensor:
    return torch.tensor(WHITE, dtype=like.dtype, device=like.device)[:, None, None]


def _blur(xyz: Tensor, ppd: float) -> Tensor:
    """XYZ as the eye resolves it: YCxCz filtered by contrast sensitivity, as linear RGB in [0, 1]."""
    x, y, z = (xyz / _white(xyz)).split(1, 1)
    radius = math.ceil(3 * math.sqrt(BLUE_YELLOW[0][1] / (2 * math.pi**2)) * ppd)
    spreads = (LUMA_B, RED_GREEN_B, *(b for _, b in BLUE_YELLOW))
    taps = [_gaussian(radius, math.sqrt(b / 2) / math.pi * ppd) for b in spreads]
    # The volume of each of blue-yellow's Gaussians, before they are scaled to sum to 1 together.
    volumes = [a * math.sqrt(math.pi / b) * sum(g) ** 2 for (a, b), g in zip(BLUE_YELLOW, taps[2:], strict=True)]
    normal = torch.tensor([[tap / sum(g) for tap in g] for g in taps], dtype=xyz.dtype, device=xyz.device)
    padded = _pad(torch.cat([y, x - y, y - z, y - z], 1), radius)
    y, cx, first, second = filter_channels(padded, normal, normal).split(1, 1)
    cz = (volumes[0] * first + volumes[1] * second) / sum(volumes)
    filtered = torch.cat([y + cx, y, y - cz], 1) * _white(xyz)
    rgb = _transform(filtered, TO_RGB)
    return rgb.clamp(0, 1)


def _lab(rgb: Tensor) -> Tensor:
    """Lab of linear RGB, with a and b scaled by lightness (Hunt's effect)."""
    ratio = _transform(rgb, TO_XYZ) / _white(rgb)
    knee = (6 / 29) ** 3
    root = torch.where(ratio > knee, ratio.clamp(min=knee) ** (1 / 3), ratio * 841 / 108 + 4 / 29)
    x, y, z = root.split(1, 1)
    light = 116 * y - 16
    return torch.cat([light, 5 * light * (x - y), 2 * light * (y - z)], 1)


def _color_difference(x: Tensor, y: Tensor) -> Tensor:
    """HyAB distance: that of lightness plus that in the plane of a and b, to the power of 0.7."""
    difference = x - y
    plane = power(difference[:, 1:].square().sum(1, keepdim=True), 0.5)
    return power(difference[:, :1].abs() + plane, COLOR_EXPONENT)


def _bend(difference: Tensor) -> Tensor:
    """Differences on [0, 1], with 0.95 of the scale for the lower 0.4 of what colors can differ by, green and blue."""
    eye = torch.eye(3, dtype=difference.dtype, device=difference.device)
    green, blue = (_lab(eye[index].view(1, 3, 1, 1)) for index in (1, 2))
    most = _color_difference(green, blue)
    bend = BEND * most
    steep = difference * BENT / bend
    return torch.where(difference < bend, steep, BENT + (difference - bend) / (most - bend) * (1 - BENT))


def _feature_difference(luma: Tensor, ppd: float) -> Tensor:
    """The larger of the differences in edges and in points of two luma planes (N, 2, H, W): (N, 1, H, W)."""
    deviation = FEATURE / 2 * ppd
    radius = math.ceil(3 * deviation)
    smooth = _gaussian(radius, deviation)
    smooth = [tap / sum(smooth) for tap in smooth]
    places = range(-radius, radius + 1)
    edge = _balance([-k * tap for k, tap in zip(places, smooth, strict=True)])
    point = _balance([(k * k / deviation**2 - 1) * tap for k, tap in zip(places, smooth, strict=True)])
    # Along x and along y, of edges and of points, of both planes.
    across, down = [edge, smooth, point, smooth], [smooth, edge, smooth, point]
    taps = [torch.tensor(kernels * 2, dtype=luma.dtype, device=luma.device) for kernels in (down, across)]
    maps = filter_channels(_pad(luma, radius).repeat_interleave(4, 1), *taps)
    features = power(maps.unflatten(1, (2, 2, 2)).square().sum(3), 0.5)  # of each plane: edges, points
    return (features[:, 0] - features[:, 1]).abs().amax(1, keepdim=True)


def _gaussian(radius: int, deviation: float) -> list[float]:
    return [math.exp(-(k**2) / (2 * deviation**2)) for k in range(-radius, radius + 1)]


def _balance(taps: list[float]) -> list[float]:
    """Taps whose negative ones sum to -1 and whose positive ones sum to 1."""
    negative, positive = -sum(tap for tap in taps if tap < 0), sum(tap for tap in taps if tap > 0)
    return [tap / (negative if tap < 0 else positive) for tap in taps]


def _pad(maps: Tensor, radius: int) -> Tensor:
    return F.pad(maps, (radius,) * 4, mode="replicate")
