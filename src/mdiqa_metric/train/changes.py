"""Changes of one quality dimension of a picture, of known and physically meaningful strength.

A change takes a picture (3, H, W) in [0, 1], a strength in [0, 1] and a source of randomness, and gives a picture of
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

from ..io import through_jpeg
from ..ops.color import BT601
from ..ops.filters import gaussian_window


class Change(NamedTuple):
    """A change, its name, and the share of a dimension's score that its full strength takes away."""

    name: str
    make: Callable[[Tensor, float, Random], Tensor]
    harm: float = 1.0


def exposed(stops: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Exposure by up to so many stops."""
    return lambda picture, strength, random: to_display(to_light(picture) * 2 ** (stops * strength))


def graded(gamma: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Mid-tones moved by a power, up to `gamma`; black and white stay."""
    return lambda picture, strength, random: picture.clamp_min(1e-6) ** (gamma**strength)


def saturated(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Colour differences from grey multiplied, by up to `factor`."""
    return lambda picture, strength, random: _scaled(picture, luma(picture), 1 + (factor - 1) * strength)


def contrasted(factor: float) -> Callable[[Tensor, float, Random], Tensor]:
    """Differences from the mean grey multiplied, by up to `factor`; tones beyond black and white are crushed."""
    return lambda picture, strength, random: _scaled(picture, luma(picture).mean(), 1 + (factor - 1) * strength)


def veiled(picture: Tensor, strength: float, random: Random) -> Tensor:
    """Haze: a bright veil over all."""
    return picture + 0.8 * strength * (random.uniform(0.6, 0.9) - picture)


def photon_noise(picture: Tensor, strength: float, random: Random) -> Tensor:
    """A sensor's noise, in linear light: Poisson's, which grows with the light, and Gaussian readout noise."""
    light, level = to_light(picture), noise_level(strength)
    variance = 1.2 * level**2 * light + (0.35 * level) ** 2
    return to_display(light + variance.sqrt() * _normal(picture.shape, random))


def display_noise(picture: Tensor, strength: float, random: Random) -> Tensor:
    """White Gaussian noise on the displayed values, of each colour by itself or, as often, of all alike."""
    return (picture + noise_level(strength) * _grey_at_times(_normal(picture.shape, random), random)).clamp(0, 1)


def chroma_noise(picture: Tensor, strength: float, random: Random) -> Tensor:
    """Coarse noise, mostly of colour, as demosaicing leaves it."""
    noise = _coarse_normal(picture, 2, random)
    noise = noise - 0.7 * noise.mean(0, keepdim=True)
    return (picture + 1.5 * noise_level(strength) * noise).clamp(0, 1)


def blotches(picture: Tensor, strength: float, random: Random) -> Tensor:
    """Noise of several pixels' grain, of colours or grey."""
    noise = _grey_at_times(_coarse_normal(picture, random.choice((2, 3, 4, 6)), random), random)
    return (picture + 0.8 * noise_level(strength) * noise).clamp(0, 1)


def denoising_residue(picture: Tensor, strength: float, random: Random) -> Tensor:
    """What Wiener's filter leaves of noise: little in flat parts, most on edges. The picture itself stays sharp."""
    noisy = random.choice((photon_noise, display_noise))(picture, strength, random)
    denoise = denoiser(noisy, (noisy - picture).square().mean(), random)
    return (picture + denoise(noisy) - denoise(picture)).clamp(0, 1)


def gaussian_blur(picture: Tensor, strength: float, random: Random) -> Tensor:
    """A Gaussian's, standard deviation up to 4.5 pixels."""
    return blurred(picture, gaussian(0.3 + 4.2 * strength**1.5))


def defocus(picture: Tensor, strength: float, random: Random) -> Tensor:
    """A disk's, radius up to 6 pixels, in linear light."""
    radius = 0.3 + 5.7 * strength**1.5
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1.0)
    disk = (radius + 0.5 - (axis[:, None].square() + axis.square()).sqrt()).clamp(0, 1)
    return to_display(blurred(to_light(picture), disk / disk.sum()))


def motion_blur(picture: Tensor, strength: float, random: Random) -> Tensor:
    """A straight line's, up to 21 pixels long, in linear light."""
    length, angle = 1 + 20 * strength**1.5, random.uniform(0, math.pi)
    reach = math.ceil(length / 2)
    axis = torch.arange(-reach, reach + 1.0)
    along = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    across = axis[:, None] * math.cos(angle) - axis * math.sin(angle)
    line = (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    return to_display(blurred(to_light(picture), line / line.sum()))


def downscaled(picture: Tensor, strength: float, random: Random) -> Tensor:
    """Made smaller, by up to 6, and brought back to size."""
    height, width = picture.shape[1:]
    factor = 1 + 5 * strength**1.5
    small = F.interpolate(
        picture[None], (max(8, round(height / factor)), max(8, round(width / factor))), mode="bicubic", antialias=True
    )
    mode = random.choice(("bicubic", "bilinear"))
    return F.interpolate(small, (height, width), mode=mode)[0].clamp(0, 1)


def oversharpened(picture: Tensor, strength: float, random: Random) -> Tensor:
    """Halos: an unsharp mask of up to five times the detail."""
    detail = picture - blurred(picture, gaussian(random.uniform(1.0, 2.0)))
    return (picture + 5 * strength * detail).clamp(0, 1)


def compressed(picture: Tensor, strength: float, random: Random) -> Tensor:
    """JPEG, from quality 95 down to 4; it harms in a way that no dimension is for."""
    return through_jpeg(picture, round(95 * (4 / 95) ** strength))


def denoiser(noisy: Tensor, variance: Tensor, random: Random) -> Callable[[Tensor], Tensor]:
    """Wiener's filter for a picture with noise of that variance: it smooths where no more than noise is to be seen.

    It is made for `noisy` and linear but for clipping: what it makes of the picture without the noise tells what it
    left of that.
    """
    window = gaussian(random.uniform(1, 2.5))
    seen = (blurred(noisy.square(), window) - blurred(noisy, window).square()).mean(0, keepdim=True)
    kept = (1 - random.uniform(0.7, 1.2) * variance / seen.clamp_min(1e-8)).clamp(0, 1)

    def denoise(picture: Tensor) -> Tensor:
        smooth = blurred(picture, window)
        return (smooth + kept * (picture - smooth)).clamp(0, 1)

    return denoise


CHANGES: dict[str, tuple[Change, ...]] = {
    "brightness": (
        Change("under-exposure", exposed(-3.2)),
        Change("over-exposure", exposed(2.4)),
        Change("darker mid-tones", graded(3.2)),
        Change("lighter mid-tones", graded(0.35)),
    ),
    "colorfulness": (Change("dull", saturated(0.0)), Change("garish", saturated(3.5), 0.25)),
    "contrast": (
        Change("flat", contrasted(0.15)),
        Change("veiled", veiled),
        Change("crushed", contrasted(3.5), 0.7),
    ),
    "noisiness": (
        Change("sensor noise", photon_noise),
        Change("white noise", display_noise),
        Change("chroma noise", chroma_noise),
        Change("blotches", blotches),
        Change("denoising residue", denoising_residue, 0.7),
    ),
    "sharpness": (
        Change("Gaussian blur", gaussian_blur),
        Change("defocus", defocus),
        Change("motion blur", motion_blur),
        Change("downscaling", downscaled),
        Change("halos", oversharpened, 0.5),
    ),
}


def to_light(picture: Tensor) -> Tensor:
    """sRGB's displayed values (IEC 61966-2-1) to linear light."""
    return torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_display(light: Tensor) -> Tensor:
    """Linear light to sRGB's displayed values, clipped."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def luma(picture: Tensor) -> Tensor:
    """Grey (1, H, W)."""
    return (picture * torch.tensor(BT601)[:, None, None]).sum(0, keepdim=True)


def noise_level(strength: float) -> float:
    """Standard deviation, from 0.004 (hardly seen) to 0.24, in steps that look even."""
    return 0.004 * 60.0**strength


def gaussian(sigma: float) -> Tensor:
    """A window (K, K) of sum 1."""
    reach = max(1, round(3 * sigma))
    taps = gaussian_window(2 * reach + 1, sigma, torch.empty(0))
    return taps[:, None] * taps


def blurred(picture: Tensor, window: Tensor) -> Tensor:
    """Convolution with a window (K, K) over reflected borders."""
    reach = window.shape[0] // 2
    padded = F.pad(picture[None], [reach] * 4, mode="reflect")
    return F.conv2d(padded, window.expand(3, 1, -1, -1), groups=3)[0]


def _scaled(picture: Tensor, middle: Tensor, factor: float) -> Tensor:
    return (middle + factor * (picture - middle)).clamp(0, 1)


def _normal(shape: torch.Size, random: Random) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(random.getrandbits(62)))


def _grey_at_times(noise: Tensor, random: Random) -> Tensor:
    """As it is or, as often, one plane for all colours: a model must not tell noise by its colour alone."""
    return noise[:1] if random.random() < 0.5 else noise


def _coarse_normal(picture: Tensor, step: int, random: Random) -> Tensor:
    """Noise whose grain is `step` pixels wide, of standard deviation about 1 at its peaks."""
    height, width = picture.shape[1:]
    grain = _normal(torch.Size((1, 3, -(-height // step), -(-width // step))), random)
    return F.interpolate(grain, (height, width), mode="bicubic")[0]
