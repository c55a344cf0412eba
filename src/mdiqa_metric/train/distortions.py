"""Changes of one quality dimension of an image, of known and physically meaningful strength.

A change takes an image (3, H, W) in [0, 1], a strength in [0, 1] and a source of randomness, and gives an image of
the same size. Light is changed in linear units, as a camera would see it, and what a sensor cannot hold is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.images import through_jpeg
from ..ops.color import BT601
from ..ops.filters import gaussian_window


class Distortion(NamedTuple):
    """A change, its name, and the share of a dimension's score that its full strength takes away."""

    name: str
    apply: Callable[[Tensor, float, Random], Tensor]
    severity: float = 1.0


def expose(stops: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Exposure by up to so many stops."""
    return lambda image, strength, random: to_display(to_light(image) * 2 ** (stops * strength))


def shift_midtones(gamma: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Mid-tones moved by a power, up to `gamma`; black and white stay."""
    return lambda image, strength, random: image.clamp_min(1e-6) ** (gamma**strength)


def scale_saturation(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Color differences from gray multiplied, by up to `factor`."""
    return lambda image, strength, random: _scale(image, luma(image), 1 + (factor - 1) * strength)


def scale_contrast(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Differences from the mean gray multiplied, by up to `factor`; tones beyond black and white are crushed."""
    return lambda image, strength, random: _scale(image, luma(image).mean(), 1 + (factor - 1) * strength)


def add_haze(image: Tensor, strength: float, random: Random) -> Tensor:
    """Haze: a bright veil over all."""
    return image + 0.8 * strength * (random.uniform(0.6, 0.9) - image)


def photon_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """A sensor's noise, in linear light: Poisson's, which grows with the light, and Gaussian readout noise."""
    light, level = to_light(image), noise_level(strength)
    variance = 1.2 * level**2 * light + (0.35 * level) ** 2
    return to_display(light + variance.sqrt() * _normal(image.shape, random))


def display_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """White Gaussian noise on the displayed values, of each color by itself or, as often, of all alike."""
    return (image + noise_level(strength) * _gray_at_times(_normal(image.shape, random), random)).clamp(0, 1)


def chroma_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """Coarse noise, mostly of color, as demosaicing leaves it."""
    noise = _coarse_normal(image, 2, random)
    noise = noise - 0.7 * noise.mean(0, keepdim=True)
    return (image + 1.5 * noise_level(strength) * noise).clamp(0, 1)


def blotches(image: Tensor, strength: float, random: Random) -> Tensor:
    """Noise of several pixels' grain, of colors or gray."""
    noise = _gray_at_times(_coarse_normal(image, random.choice((2, 3, 4, 6)), random), random)
    return (image + 0.8 * noise_level(strength) * noise).clamp(0, 1)


def denoising_residue(image: Tensor, strength: float, random: Random) -> Tensor:
    """What Wiener's filter leaves of noise: little in flat parts, most on edges. The image itself stays sharp."""
    noisy = random.choice((photon_noise, display_noise))(image, strength, random)
    denoise = denoiser(noisy, (noisy - image).square().mean(), random)
    return (image + denoise(noisy) - denoise(image)).clamp(0, 1)


def gaussian_blur(image: Tensor, strength: float, random: Random) -> Tensor:
    """A Gaussian's, standard deviation up to 4.5 pixels."""
    return blur(image, gaussian(0.3 + 4.2 * strength**1.5))


def defocus(image: Tensor, strength: float, random: Random) -> Tensor:
    """A disk's, radius up to 6 pixels, in linear light."""
    radius = 0.3 + 5.7 * strength**1.5
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1.0)
    disk = (radius + 0.5 - (axis[:, None].square() + axis.square()).sqrt()).clamp(0, 1)
    return to_display(blur(to_light(image), disk / disk.sum()))


def motion_blur(image: Tensor, strength: float, random: Random) -> Tensor:
    """A straight line's, up to 21 pixels long, in linear light."""
    length, angle = 1 + 20 * strength**1.5, random.uniform(0, math.pi)
    reach = math.ceil(length / 2)
    axis = torch.arange(-reach, reach + 1.0)
    along = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    across = axis[:, None] * math.cos(angle) - axis * math.sin(angle)
    line = (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    return to_display(blur(to_light(image), line / line.sum()))


def downscale(image: Tensor, strength: float, random: Random) -> Tensor:
    """Made smaller, by up to 6, and brought back to size."""
    height, width = image.shape[1:]
    factor = 1 + 5 * strength**1.5
    small = F.interpolate(
        image[None], (max(8, round(height / factor)), max(8, round(width / factor))), mode="bicubic", antialias=True
    )
    mode = random.choice(("bicubic", "bilinear"))
    return F.interpolate(small, (height, width), mode=mode)[0].clamp(0, 1)


def oversharpen(image: Tensor, strength: float, random: Random) -> Tensor:
    """Halos: an unsharp mask of up to five times the detail."""
    detail = image - blur(image, gaussian(random.uniform(1.0, 2.0)))
    return (image + 5 * strength * detail).clamp(0, 1)


def compress_jpeg(image: Tensor, strength: float, random: Random) -> Tensor:
    """JPEG, from quality 95 down to 4; it harms in a way that no dimension is for."""
    return through_jpeg(image, round(95 * (4 / 95) ** strength))


def denoiser(noisy: Tensor, variance: Tensor, random: Random) -> Callable[[Tensor], Tensor]:
    """Wiener's filter for an image with noise of that variance: it smooths where no more than noise is to be seen.

    It is made for `noisy` and linear but for clipping: what it makes of the image without the noise tells what it
    left of that.
    """
    window = gaussian(random.uniform(1, 2.5))
    seen = (blur(noisy.square(), window) - blur(noisy, window).square()).mean(0, keepdim=True)
    kept = (1 - random.uniform(0.7, 1.2) * variance / seen.clamp_min(1e-8)).clamp(0, 1)

    def denoise(image: Tensor) -> Tensor:
        smooth = blur(image, window)
        return (smooth + kept * (image - smooth)).clamp(0, 1)

    return denoise


DISTORTIONS: dict[str, tuple[Distortion, ...]] = {
    "brightness": (
        Distortion("under-exposure", expose(-3.2)),
        Distortion("over-exposure", expose(2.4)),
        Distortion("darker mid-tones", shift_midtones(3.2)),
        Distortion("lighter mid-tones", shift_midtones(0.35)),
    ),
    "colorfulness": (Distortion("dull", scale_saturation(0.0)), Distortion("garish", scale_saturation(3.5), 0.25)),
    "contrast": (
        Distortion("flat", scale_contrast(0.15)),
        Distortion("veiled", add_haze),
        Distortion("crushed", scale_contrast(3.5), 0.7),
    ),
    "noisiness": (
        Distortion("sensor noise", photon_noise),
        Distortion("white noise", display_noise),
        Distortion("chroma noise", chroma_noise),
        Distortion("blotches", blotches),
        Distortion("denoising residue", denoising_residue, 0.7),
    ),
    "sharpness": (
        Distortion("Gaussian blur", gaussian_blur),
        Distortion("defocus", defocus),
        Distortion("motion blur", motion_blur),
        Distortion("downscaling", downscale),
        Distortion("halos", oversharpen, 0.5),
    ),
}


def to_light(image: Tensor) -> Tensor:
    """sRGB's displayed values (IEC 61966-2-1) to linear light."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_display(light: Tensor) -> Tensor:
    """Linear light to sRGB's displayed values, clipped."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def luma(image: Tensor) -> Tensor:
    """Gray (1, H, W)."""
    return (image * torch.tensor(BT601)[:, None, None]).sum(0, keepdim=True)


def noise_level(strength: float) -> float:
    """Standard deviation, from 0.004 (hardly seen) to 0.24, in steps that look even."""
    return 0.004 * 60.0**strength


def gaussian(sigma: float) -> Tensor:
    """A window (K, K) of sum 1."""
    reach = max(1, round(3 * sigma))
    taps = gaussian_window(2 * reach + 1, sigma, torch.empty(0))
    return taps[:, None] * taps


def blur(image: Tensor, window: Tensor) -> Tensor:
    """Convolution with a window (K, K) over reflected borders."""
    reach = window.shape[0] // 2
    padded = F.pad(image[None], [reach] * 4, mode="reflect")
    return F.conv2d(padded, window.expand(3, 1, -1, -1), groups=3)[0]


def _scale(image: Tensor, middle: Tensor, factor: float) -> Tensor:
    return (middle + factor * (image - middle)).clamp(0, 1)


def _normal(shape: torch.Size, random: Random) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(random.getrandbits(62)))


def _gray_at_times(noise: Tensor, random: Random) -> Tensor:
    """As it is or, as often, one plane for all colors: a model must not tell noise by its color alone."""
    return noise[:1] if random.random() < 0.5 else noise


def _coarse_normal(image: Tensor, step: int, random: Random) -> Tensor:
    """Noise whose grain is `step` pixels wide, of standard deviation about 1 at its peaks."""
    height, width = image.shape[1:]
    grain = _normal(torch.Size((1, 3, -(-height // step), -(-width // step))), random)
    return F.interpolate(grain, (height, width), mode="bicubic")[0]
