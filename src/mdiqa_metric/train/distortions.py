"""Distortions of one quality dimension of an image, with a known and physically meaningful strength.

A distortion takes an image (3, H, W) in [0, 1], a strength in [0, 1] and a source of randomness, and returns an image
of the same size in [0, 1]. Exposure, sensor noise and optical blur work in linear light, as in a camera; values that a
sensor cannot hold are clipped.
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
from ..ops.color import luma_full
from ..ops.filters import gaussian_window


class Distortion(NamedTuple):
    """A distortion of one dimension.

    Attributes:
        name: what reports call it.
        apply: image, strength and randomness to the distorted image.
        severity: the share of the dimension's score that is lost at strength 1, in (0, 1].
    """

    name: str
    apply: Callable[[Tensor, float, Random], Tensor]
    severity: float = 1.0


def expose(stops: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Changes the exposure by up to `stops`, negative for darker."""
    return lambda image, strength, random: to_srgb(to_linear(image) * 2 ** (stops * strength))


def shift_midtones(gamma: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Raises the image to a power of up to `gamma`: mid-tones move, black and white stay."""
    return lambda image, strength, random: image.clamp_min(1e-6) ** (gamma**strength)


def scale_saturation(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Multiplies the color differences from gray by up to `factor`."""
    return lambda image, strength, random: _scale(image, luma(image), 1 + (factor - 1) * strength)


def scale_contrast(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Multiplies the differences from the mean gray by up to `factor`; tones beyond black and white are clipped."""
    return lambda image, strength, random: _scale(image, luma(image).mean(), 1 + (factor - 1) * strength)


def add_haze(image: Tensor, strength: float, random: Random) -> Tensor:
    """Blends the image with a bright veil, as haze does."""
    return image + 0.8 * strength * (random.uniform(0.6, 0.9) - image)


def photon_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds sensor noise in linear light: photon noise, whose variance grows with the light, and Gaussian read noise."""
    light, level = to_linear(image), noise_level(strength)
    variance = 1.2 * level**2 * light + (0.35 * level) ** 2
    return to_srgb(light + variance.sqrt() * _normal(image.shape, random))


def display_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds white Gaussian noise to the sRGB values, independent per channel or, as often, the same in all three."""
    return (image + noise_level(strength) * _maybe_gray(_normal(image.shape, random), random)).clamp(0, 1)


def chroma_noise(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds coarse noise, mostly of color, as demosaicing leaves it."""
    noise = _coarse_normal(image, 2, random)
    noise = noise - 0.7 * noise.mean(0, keepdim=True)
    return (image + 1.5 * noise_level(strength) * noise).clamp(0, 1)


def blotches(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds noise with a grain of 2 to 6 pixels, colored or gray."""
    noise = _maybe_gray(_coarse_normal(image, random.choice((2, 3, 4, 6)), random), random)
    return (image + 0.8 * noise_level(strength) * noise).clamp(0, 1)


def denoising_residue(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds what a Wiener filter leaves of noise: little in flat areas, most at edges. The image itself stays sharp."""
    noisy = random.choice((photon_noise, display_noise))(image, strength, random)
    denoise = denoiser(noisy, (noisy - image).square().mean(), random)
    return (image + denoise(noisy) - denoise(image)).clamp(0, 1)


def gaussian_blur(image: Tensor, strength: float, random: Random) -> Tensor:
    """Blurs with a Gaussian of standard deviation up to 4.5 pixels."""
    return blur(image, gaussian(0.3 + 4.2 * strength**1.5))


def defocus(image: Tensor, strength: float, random: Random) -> Tensor:
    """Blurs with a disk of radius up to 6 pixels, in linear light."""
    radius = 0.3 + 5.7 * strength**1.5
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1.0)
    disk = (radius + 0.5 - (axis[:, None].square() + axis.square()).sqrt()).clamp(0, 1)
    return to_srgb(blur(to_linear(image), disk / disk.sum()))


def motion_blur(image: Tensor, strength: float, random: Random) -> Tensor:
    """Blurs along a straight line of up to 21 pixels in a random direction, in linear light."""
    length, angle = 1 + 20 * strength**1.5, random.uniform(0, math.pi)
    reach = math.ceil(length / 2)
    axis = torch.arange(-reach, reach + 1.0)
    along = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    across = axis[:, None] * math.cos(angle) - axis * math.sin(angle)
    line = (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    return to_srgb(blur(to_linear(image), line / line.sum()))


def downscale(image: Tensor, strength: float, random: Random) -> Tensor:
    """Downscales by up to 6 and enlarges back to the original size."""
    height, width = image.shape[1:]
    factor = 1 + 5 * strength**1.5
    small = F.interpolate(
        image[None], (max(8, round(height / factor)), max(8, round(width / factor))), mode="bicubic", antialias=True
    )
    mode = random.choice(("bicubic", "bilinear"))
    return F.interpolate(small, (height, width), mode=mode)[0].clamp(0, 1)


def oversharpen(image: Tensor, strength: float, random: Random) -> Tensor:
    """Adds up to five times the detail by an unsharp mask, which makes halos."""
    detail = image - blur(image, gaussian(random.uniform(1.0, 2.0)))
    return (image + 5 * strength * detail).clamp(0, 1)


def compress_jpeg(image: Tensor, strength: float, random: Random) -> Tensor:
    """Compresses as JPEG, from quality 95 down to 4. Its artifacts belong to no dimension."""
    return through_jpeg(image, round(95 * (4 / 95) ** strength))


def denoiser(noisy: Tensor, variance: Tensor, random: Random) -> Callable[[Tensor], Tensor]:
    """A local Wiener filter for `noisy` (3, H, W), whose noise has that variance: it smooths where it finds only noise.

    Its gains are computed from `noisy` alone and then fixed, so apart from clipping the filter is linear: applied to
    the noise-free image, it shows which part of its output is image and which is remaining noise.
    """
    window = gaussian(random.uniform(1, 2.5))
    local_variance = (blur(noisy.square(), window) - blur(noisy, window).square()).mean(0, keepdim=True)
    gain = (1 - random.uniform(0.7, 1.2) * variance / local_variance.clamp_min(1e-8)).clamp(0, 1)

    def denoise(image: Tensor) -> Tensor:
        smooth = blur(image, window)
        return (smooth + gain * (image - smooth)).clamp(0, 1)

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


def to_linear(image: Tensor) -> Tensor:
    """sRGB values to linear light (IEC 61966-2-1), both in [0, 1]."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light to sRGB values in [0, 1] (IEC 61966-2-1), clipped."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def luma(image: Tensor) -> Tensor:
    """BT.601 luma (1, H, W) of an image (3, H, W)."""
    return luma_full(image[None])[0]


def noise_level(strength: float) -> float:
    """The standard deviation `0.004 * 60 ** strength`, from barely visible to 0.24, in steps that look even."""
    return 0.004 * 60.0**strength


def gaussian(sigma: float) -> Tensor:
    """A Gaussian window (K, K) that sums to 1."""
    reach = max(1, round(3 * sigma))
    taps = gaussian_window(2 * reach + 1, sigma, torch.empty(0))
    return taps[:, None] * taps


def blur(image: Tensor, window: Tensor) -> Tensor:
    """Convolves an image (3, H, W) with a window (K, K); borders are reflected."""
    reach = window.shape[0] // 2
    padded = F.pad(image[None], [reach] * 4, mode="reflect")
    return F.conv2d(padded, window.expand(3, 1, -1, -1), groups=3)[0]


def _scale(image: Tensor, middle: Tensor, factor: float) -> Tensor:
    return (middle + factor * (image - middle)).clamp(0, 1)


def _normal(shape: torch.Size, random: Random) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(random.getrandbits(62)))


def _maybe_gray(noise: Tensor, random: Random) -> Tensor:
    """The noise itself or, as often, one plane for all channels, so that a model cannot tell noise by its color."""
    return noise[:1] if random.random() < 0.5 else noise


def _coarse_normal(image: Tensor, step: int, random: Random) -> Tensor:
    """Noise with a grain `step` pixels wide and a standard deviation of about 1 at its peaks."""
    height, width = image.shape[1:]
    grain = _normal(torch.Size((1, 3, -(-height // step), -(-width // step))), random)
    return F.interpolate(grain, (height, width), mode="bicubic")[0]
