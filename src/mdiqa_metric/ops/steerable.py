"""Bands of the steerable pyramid (Simoncelli and Freeman, ICIP 1995): oriented details of one octave."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def complex_bands(maps: Tensor, level: int, orientations: int) -> Tensor:
    """One level of the complex steerable pyramid of maps (N, 1, H, W): (N, K, h, w), complex, in at least float32.

    The level's spectrum is a raised cosine of log2 of the frequency, an octave to each side of 2^-level of the highest,
    times `cos^(K - 1)` of the angle to the band's orientation, `pi b / K`, on that half plane. Sampled every
    2^(level - 1) pixels, as matlabPyrTools' buildSCFpyr does, with its constants. Borders wrap around. The mean of an
    image has no part in it, nor has a constant any gradient.

    Args:
        maps: real, with sides of at least 2^(level + 2), where the bump ends above frequency 0.
        level: from 2 for the octave below the finest.
        orientations: K, 2 or more.

    Example:
        >>> complex_bands(torch.rand(2, 1, 64, 80), level=4, orientations=8).shape
        torch.Size([2, 8, 8, 10])
    """
    height, width = maps.shape[-2:]
    h, w = _halved(height, level - 1), _halved(width, level - 1)
    # Without its mean a flat map is 0, as are then its bands; the low frequencies are all that is needed.
    maps = maps - maps.detach().mean((-2, -1), keepdim=True)
    spectrum = _low(torch.fft.fft(_low(torch.fft.fft(maps, dim=-1), w, -1), dim=-2), h, -2)
    y, x = (2 / size * _frequencies(length, maps) for size, length in ((height, h), (width, w)))
    y = y.view(-1, 1)
    radius = (y.square() + x.square()).sqrt()
    radius = torch.where(radius == 0, 1.0, radius)
    octaves = (radius.log2() + level).clamp(-1, 1)
    radial = (math.pi / 2 * octaves).cos() * (octaves.abs() < 1)
    order = orientations - 1
    # By this the real bands' powers add up to the image's; the first 2 makes up for the half plane that is left out.
    scale = 2 * 2**order * math.factorial(order) / math.sqrt(orientations * math.factorial(2 * order))
    angles = [math.pi * band / orientations for band in range(orientations)]
    angular = torch.stack([((math.cos(a) * x + math.sin(a) * y) / radius).clamp_min(0) ** order for a in angles])
    return torch.fft.ifft2(spectrum * (scale * (-1j) ** order * radial * angular))


def _halved(size: int, times: int) -> int:
    """The side left after halving so often, rounded up where 0 is to stay in the middle of the frequencies."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def _frequencies(count: int, like: Tensor) -> Tensor:
    """0, 1, ... and the negative ones, in the order of the FFT: (count,)."""
    indices = torch.arange(count, dtype=like.dtype, device=like.device)
    return torch.where(indices < (count + 1) // 2, indices, indices - count)


def _low(spectrum: Tensor, count: int, dim: int) -> Tensor:
    """The `count` lowest frequencies along `dim`, in the order of the FFT."""
    positive, negative = (count + 1) // 2, count // 2
    start = spectrum.shape[dim] - negative
    return torch.cat([spectrum.narrow(dim, 0, positive), spectrum.narrow(dim, start, negative)], dim)
