"""The steerable pyramid: bands of an image by scale and orientation, computed in the frequency domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def steerable_pyramid(maps: Tensor, scales: int, orientations: int) -> tuple[Tensor, list[Tensor]]:
    """The high-pass residual of maps (N, 1, H, W) and, from fine to coarse, their oriented bands (N, K, h, w).

    Simoncelli and Freeman's (ICIP 1995), with filters of order K - 1 for an even number K of orientations: each scale
    has half the size of the one before, rounded up, the first the size of the maps. In at least float32.

    Example:
        >>> high, bands = steerable_pyramid(torch.zeros(1, 1, 33, 40), 2, 6)
        >>> high.shape, [band.shape for band in bands]
        (torch.Size([1, 1, 33, 40]), [torch.Size([1, 6, 33, 40]), torch.Size([1, 6, 17, 20])])
    """
    down, across = (_frequencies(size, maps) for size in maps.shape[-2:])
    angle = torch.atan2(down[:, None], across.expand(len(down), -1))
    radius = torch.hypot(down[:, None], across)
    # The mean has no direction, and lies below every band.
    octave = radius.clamp(min=1e-9).log2()
    spectrum = torch.fft.fftshift(torch.fft.fft2(maps), (-2, -1))
    high = _inverse(spectrum * _rise(octave))
    spectrum = spectrum * _fall(octave)
    order = orientations - 1
    gain = 2**order * math.factorial(order) / math.sqrt(orientations * math.factorial(2 * order))
    bands = []
    for _ in range(scales):
        octave = octave + 1
        passed = spectrum * (gain * _rise(octave))
        turns = [(angle - math.pi * index / orientations).cos() ** order for index in range(orientations)]
        bands.append(torch.cat([_inverse((-1j) ** order * (passed * turn)) for turn in turns], 1))
        rows, columns = (_middle(size) for size in octave.shape)
        octave, angle = octave[rows, columns], angle[rows, columns]
        spectrum = spectrum[..., rows, columns] * _fall(octave)
    return high, bands


def _frequencies(size: int, like: Tensor) -> Tensor:
    """Frequencies of a side, 1 being half the sampling rate, from the lowest up."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) - size // 2) / (size / 2)


def _middle(size: int) -> slice:
    """The half of a side's frequencies around 0."""
    half = (size + 1) // 2
    return slice(size // 2 - half // 2, size // 2 - half // 2 + half)


def _rise(octave: Tensor) -> Tensor:
    """From 0 an octave below to 1: the root of a raised cosine."""
    return (math.pi / 2 * octave.clamp(-1, 0)).cos()


def _fall(octave: Tensor) -> Tensor:
    """The complement in energy."""
    return (math.pi / 2 * octave.clamp(-1, 0)).sin().abs()


def _inverse(spectrum: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, (-2, -1))).real
