"""Phase congruency: where the frequencies of an image agree in phase, as at edges and lines."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .log_gabor import log_gabor_filters
from .powers import power
from .precision import full_precision

# Kovesi's parameters as FSIM has them: wavelengths in pixels, orientations, bandwidth, angular ratio.
WAVELENGTHS, ORIENTATIONS, BANDWIDTH, ANGULAR_RATIO = (6.0, 12.0, 24.0, 48.0), 4, 0.55, 1.2
# The low-pass filter on top: cutoff frequency and sharpness.
CUTOFF, SHARPNESS = 0.45, 15
# What is cut, in Rayleigh parameters of the noise: its mean and two deviations, which overestimate it by 1.7.
THRESHOLD = (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7
# Below this an amplitude is rounding noise, for values in [0, 1].
EPSILON = 2.0**-23 / 255


class Filters(NamedTuple):
    """The log-Gabor filters for images of one size, for half the frequencies of a real transform.

    Attributes:
        even: the filters' even parts (orientations, scales, H, W // 2 + 1), whose responses are real.
        odd: their odd parts, of the same shape.
        noise: the energy of the scales' summed even parts over that of the finest filter (orientations,).
    """

    even: Tensor
    odd: Tensor
    noise: Tensor


def congruency_filters(like: Tensor) -> Filters:
    """The filters for maps of the size, dtype and device of `like` (..., H, W).

    Example:
        >>> congruency_filters(torch.rand(1, 1, 32, 48)).even.shape
        torch.Size([4, 4, 32, 25])
    """
    # Axes exchanged, as piq and pyiqa have them, which only the highest frequency of an even side notices (1e-6).
    filters = torch.stack([*log_gabor_filters(like.mT, WAVELENGTHS, ORIENTATIONS, BANDWIDTH, ANGULAR_RATIO)]).mT
    down, across = (torch.fft.fftfreq(size, dtype=like.dtype, device=like.device) for size in like.shape[-2:])
    radius = torch.hypot(down[:, None], across)
    filters = filters / (1 + (radius / CUTOFF) ** (2 * SHARPNESS))
    filters = filters.unflatten(0, (len(WAVELENGTHS), ORIENTATIONS)).transpose(0, 1)
    mirrored = filters.flip(2, 3).roll((1, 1), (2, 3))  # at the opposite frequencies
    even, odd, half = (filters + mirrored) / 2, (filters - mirrored) / 2, like.shape[-1] // 2 + 1
    noise = even.sum(1).square().sum((1, 2)) / filters[:, 0].square().sum((1, 2))  # in space, by Parseval's theorem
    return Filters(even[..., :half].contiguous(), odd[..., :half].contiguous(), noise)


@full_precision
def phase_congruency(luma: Tensor, filters: Filters) -> Tensor:
    """Phase congruency (Kovesi, 1999) of luma (N, 1, H, W) in [0, 1]: (N, 1, H, W), in [0, 1].

    `sum_o max(E_o - T_o, 0) / sum A`, over the responses to log-Gabor filters of four orientations and four scales: E
    is the length of the scales' summed response less what deviates from its phase, T an estimate of E in noise from the
    median response at the finest scale, and A the responses' amplitudes. In at least float32.

    Example:
        >>> edge = (torch.arange(32) < 16).float().expand(1, 1, 32, 32)
        >>> congruency = phase_congruency(edge, congruency_filters(edge))
        >>> bool(congruency[..., 15:17].mean() > congruency[..., 6:10].mean())
        True
    """
    spectrum = torch.fft.rfft2(luma)[:, :, None]
    even, odd = _respond(spectrum, filters.even, luma), _respond(-1j * spectrum, filters.odd, luma)
    squares = even.square() + odd.square()  # (N, orientations, scales, H, W)
    sum_even, sum_odd = even.sum(2, keepdim=True), odd.sum(2, keepdim=True)
    length = power(sum_even.square() + sum_odd.square(), 0.5)
    across = (even * sum_odd - odd * sum_even).abs().sum(2, keepdim=True) / (length + EPSILON)
    # The squared response of the finest scale in noise has an exponential distribution, whose median tells its mean.
    median = squares[:, :, 0].flatten(2).median(2).values / math.log(2)
    threshold = power(median * filters.noise, 0.5) * THRESHOLD
    energy = (length - across - threshold[..., None, None, None]).relu().sum((1, 2))[:, None]
    return (energy + EPSILON) / (power(squares, 0.5).sum((1, 2))[:, None] + EPSILON)


def _respond(spectrum: Tensor, filters: Tensor, luma: Tensor) -> Tensor:
    """Real responses (N, orientations, scales, H, W)."""
    # A product of real tensors: torch would make the filters complex first.
    filtered = torch.view_as_complex(torch.view_as_real(spectrum) * filters[..., None])
    return torch.fft.irfft2(filtered, list(luma.shape[-2:]))
