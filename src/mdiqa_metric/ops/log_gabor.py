"""Log-Gabor filters in the frequency domain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def log_gabor_filters(
    like: Tensor,
    wavelengths: Sequence[float],
    orientations: int,
    bandwidth: float,
    angular_ratio: float,
) -> Iterator[Tensor]:
    """Transfer functions (H, W), for `torch.fft.fft2`, of each wavelength and orientation; the orientation runs faster.

    `exp(-log(f w)^2 / (2 log(bandwidth)^2)) exp(-d^2 / (2 s^2))` at frequency f of wavelength w, where d is the angle
    to the orientation and s the angle between orientations over `angular_ratio`. One-sided, so that responses are
    complex. An odd side of n pixels has frequencies k / (n - 1), as in Kovesi's program.

    Args:
        like: maps (..., H, W) whose size, dtype and device the filters take.
        wavelengths: in pixels.
        orientations: how many, evenly from 0 to pi.
        bandwidth: the Gaussian's deviation relative to the center frequency.
        angular_ratio: as above.

    Example:
        >>> filters = list(log_gabor_filters(torch.zeros(8, 10), (3.0, 6.0), 4, 0.55, 1.1))
        >>> len(filters), filters[0].shape, filters[0][0, 0]
        (8, torch.Size([8, 10]), tensor(0.))
    """
    down, across = (_frequencies(size, like) for size in like.shape[-2:])
    radius = torch.hypot(down[:, None], across)
    theta = torch.atan2(-down[:, None], across.expand_as(radius))
    center = torch.zeros_like(radius, dtype=torch.bool)
    center[0, 0] = True
    logarithm = radius.masked_fill(center, 1.0).log()
    deviation = math.pi / orientations / angular_ratio
    spreads = []
    for index in range(orientations):
        turned = (theta - index * math.pi / orientations).abs()
        distance = torch.minimum(turned, 2 * math.pi - turned)
        spreads.append((-distance.square() / (2 * deviation**2)).exp())
    for wavelength in wavelengths:
        exponent = (logarithm + math.log(wavelength)).square() / (2 * math.log(bandwidth) ** 2)
        radial = (-exponent).exp().masked_fill(center, 0.0)
        yield from (radial * spread for spread in spreads)


def _frequencies(size: int, like: Tensor) -> Tensor:
    """The frequencies of a side, in cycles a pixel, in the order of the Fourier transform."""
    steps = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    return torch.fft.ifftshift(steps / (size if size % 2 == 0 else max(1, size - 1)))
