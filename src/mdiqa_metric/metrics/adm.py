"""ADM: how much detail an image keeps, and how much it adds, by wavelets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import luma_full, luma_full_8bit
from ..ops.powers import power
from ..ops.precision import full_precision

# Daubechies' wavelet of four taps: low and high pass.
LOW = (0.482962913144690, 0.836516303737469, 0.224143868041857, -0.129409522550921)
HIGH = (-0.129409522550921, -0.224143868041857, 0.836516303737469, -0.482962913144690)
SCALES = 4
# Watson's model of visible steps of luma (1997), per band (horizontal, vertical, diagonal), and the amplitudes of the
# wavelet that it was made for, finest scale first; pixels per degree at 3 heights of a display of 1080 lines.
STEP, STEEPNESS, PEAK, BAND_GAINS = 0.495, 0.466, 0.401, (1.0, 1.0, 0.534)
AMPLITUDES = (
    (0.67234, 0.67234, 0.72709),
    (0.41317, 0.41317, 0.49428),
    (0.22727, 0.22727, 0.28688),
    (0.11792, 0.11792, 0.15214),
)
PIXELS_PER_DEGREE = 3.0 * 1080 * math.pi / 180
# Within this angle a change of the horizontal and vertical band together is one of contrast.
ALIGNED = math.tan(math.radians(1.0))
# The share of each side that is not pooled; the noise that is added to each band, for values in [0, 1].
BORDER, NOISE = 0.1, 1 / 32 / 255**3
# A neighbor's part in masking; the pixel itself counts twice.
MASKING = 1 / 30


class Explanation(NamedTuple):
    """What `ADM.explain` finds in N pairs of images.

    Attributes:
        scales: the share of detail kept at each scale (N, 4), finest first.
        aim: the additive impairment (N,), in [0, 1], 0 for equal images: what the image adds over the detail there is.
        adm3: the mean of the score and `1 - aim` (N,).
    """

    scales: Tensor
    aim: Tensor
    adm3: Tensor


class ADM(Metric):
    """Detail kept, of VMAF's `float_adm` (Li, Zhang, Ma, Ngan, IEEE TMM 2011): 1 for equal images, 0 for none.

    Each of four wavelet scales of luma is parted into what is restored of the reference, between 0 and its value, and
    what is added. The score is the 3-norms of what is restored, weighted by contrast sensitivity and masked by what is
    added, summed over bands and scales, over the same sum of the reference; a tenth of each side is not pooled.
    `explain` gives scales, additive impairment and libvmaf's adm3. Higher is better. The gradient is that of the
    parting as it stands: whether a coefficient counts as a change of contrast has none.

    Args:
        gain: how far a change of contrast alone counts as restored, times the reference. With more than 1 an image with
            more contrast than its reference can score above 1 (VMAF's default), with 1 it cannot (VMAF's NEG).
        rounded: rounds luma to 8 bits first, as VMAF gets it. It has no useful gradient, so `Loss` refuses it.

    Raises:
        ValueError: `gain` is below 1.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 64, 64)
        >>> ADM()(image, image)
        tensor([1.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (0.0, math.inf)
    min_size = 32
    color = "Y BT.601 full range"
    no_gradient = "it rounds to 8 bits; use adm."

    def __init__(self, gain: float = 100.0, rounded: bool = False) -> None:
        super().__init__()
        self.gain, self.rounded = _check_gain(gain), rounded
        self.score_range = self.facts(gain=gain)["score_range"]
        self.differentiable = self.facts(rounded=rounded)["differentiable"]
        self.color = _color(rounded)

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        highest = math.inf if options.get("gain", 100.0) > 1 else 1.0
        return super().facts() | {"score_range": (0.0, highest), "differentiable": not options.get("rounded", False)}

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) from 0 up."""
        restored, _, whole = self._norms(image, reference)
        # One minus the share that is missing: equal images give exactly 1.
        return 1 - (whole - restored).sum(1) / whole.sum(1)

    def explanation(self, image: Tensor, reference: Tensor) -> Explanation:
        """Scales, additive impairment and adm3; see `Explanation`."""
        restored, added, whole = self._norms(image, reference)
        aim = (added.sum(1) / whole.sum(1)).clamp(max=1)
        return Explanation(restored / whole, aim, (restored.sum(1) / whole.sum(1) + 1 - aim) / 2)

    def _norms(self, image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _norms(_luma(image, self.rounded), _luma(reference, self.rounded), gain=self.gain)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"gain={self.gain:g}, rounded={self.rounded}"


class ADMAim(Metric):
    """Additive impairment, of VMAF's `float_adm`: 0 for equal images, 1 at most, lower is better.

    What `ADM` parts from the reference as added (noise, ringing, blocks), weighted by contrast sensitivity and masked
    by what is restored, over the detail of the reference. Where that is more than 1, the score is 1 and the gradient
    goes on. See `ADM` for the paper and `gain`.

    Raises:
        ValueError: `gain` is below 1.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 64, 64)
        >>> ADMAim()(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, 1.0)
    min_size = 32
    color = "Y BT.601 full range"

    def __init__(self, gain: float = 100.0) -> None:
        super().__init__()
        self.gain = _check_gain(gain)

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,) in [0, 1]."""
        _, added, whole = _norms(_luma(image, False), _luma(reference, False), gain=self.gain)
        share = added.sum(1) / whole.sum(1)
        return share - (share.detach() - 1).relu()  # 1 at most, with a gradient that leads back

    def extra_repr(self) -> str:
        """The option, for `repr` and `fingerprint`."""
        return f"gain={self.gain:g}"


def _check_gain(gain: float) -> float:
    if not gain >= 1:
        raise ValueError(f"ADM takes a gain of 1 or more, got {gain!r}.")
    return float(gain)


def _color(rounded: bool) -> str:
    return "Y BT.601 full range" + (", rounded to 8 bits" if rounded else "")


def _luma(image: Tensor, rounded: bool) -> Tensor:
    return (luma_full_8bit(image) if rounded else luma_full(image)) - 0.5


@full_precision
def _norms(image: Tensor, reference: Tensor, gain: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of each scale, the summed norms of the bands of what is restored, of what is added, and of the reference."""
    found = []
    for scale in range(SCALES):
        (image, bands), (reference, references) = _transform(image), _transform(reference)
        restored = _restore(bands, references, gain)
        weights = _sensitivity(scale, image)
        restored, added, whole = (weights * each for each in (restored, bands - restored, references))
        noise = NOISE * _cut(whole)[0, 0].numel()
        found.append(
            (
                _norm((restored.abs() - _mask(added)).relu(), noise),
                _norm((added.abs() - _mask(restored)).relu(), 0.0),
                _norm(whole.abs(), noise),
            )
        )
    restored, added, whole = (torch.stack(norms, 1) for norms in zip(*found, strict=True))
    return restored, added, whole


def _transform(luma: Tensor) -> tuple[Tensor, Tensor]:
    """One scale of the wavelet transform of (N, 1, H, W): the low pass, and the three bands (N, 3, H', W')."""
    taps = torch.tensor([LOW, HIGH], dtype=luma.dtype, device=luma.device)
    rows = F.conv2d(_extend(luma, 2), taps.view(2, 1, 4, 1), stride=(2, 1))
    both = F.conv2d(_extend(rows, 3), taps.view(2, 1, 1, 4).repeat(2, 1, 1, 1), stride=(1, 2), groups=2)
    low, vertical, horizontal, diagonal = both.split(1, 1)
    return low, torch.cat([horizontal, vertical, diagonal], 1)


def _extend(maps: Tensor, dim: int) -> Tensor:
    """One value more before, mirrored without the first, and one or two after, mirrored with the last."""
    size = maps.shape[dim]
    return torch.cat([maps.narrow(dim, 1, 1), maps, maps.narrow(dim, size - 1 - size % 2, 1 + size % 2).flip(dim)], dim)


def _restore(bands: Tensor, references: Tensor, gain: float) -> Tensor:
    """What the bands keep of the reference: between 0 and its value, `gain` times that where only contrast differs."""
    (ours, our_other), (theirs, their_other) = (each[:, :2].detach().split(1, 1) for each in (bands, references))
    # By the tangent: float32 could not tell the cosine of a degree from 1 well enough.
    along, across = ours * theirs + our_other * their_other, ours * their_other - our_other * theirs
    aligned = across.abs() <= ALIGNED * along
    limit = torch.where(aligned, gain * references, references)
    return torch.minimum(torch.maximum(bands, limit.clamp(max=0)), limit.clamp(min=0))


def _sensitivity(scale: int, like: Tensor) -> Tensor:
    """The reciprocal of the visible step in each band (3, 1, 1)."""
    frequency = 2 ** (scale + 1) * PEAK / PIXELS_PER_DEGREE
    steps = [
        2 * STEP * 10 ** (STEEPNESS * math.log10(frequency * band) ** 2) / amplitude
        for band, amplitude in zip(BAND_GAINS, AMPLITUDES[scale], strict=True)
    ]
    return torch.tensor([1 / step for step in steps], dtype=like.dtype, device=like.device).view(3, 1, 1)


def _mask(bands: Tensor) -> Tensor:
    """What the contrast around a pixel hides, (N, 1, H, W): all bands of its eight neighbors, and its own twice."""
    contrast = bands.abs().sum(1, keepdim=True)
    around = F.avg_pool2d(F.pad(contrast, (1, 1, 1, 1), mode="replicate"), 3, 1) * 9
    return MASKING * (around + contrast)


def _cut(maps: Tensor) -> Tensor:
    """The maps without a tenth at each side."""
    rows, columns = (slice(max(0, int(BORDER * n - 0.5)), n - max(0, int(BORDER * n - 0.5))) for n in maps.shape[-2:])
    return maps[..., rows, columns]


def _norm(maps: Tensor, noise: float) -> Tensor:
    """The 3-norms of the three bands (N, 3, H, W) from 0 up, each with its noise added, summed: (N,)."""
    return (power((_cut(maps) ** 3).sum((2, 3)), 1 / 3) + noise ** (1 / 3)).sum(1)
