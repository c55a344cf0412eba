"""Gradient maps of images, by the 3 x 3 operators of the field."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .powers import power
from .precision import full_precision

Operator = Literal["prewitt", "scharr", "sobel"]

# Weights of the two outer differences and of the middle one; the three sum to 1.
SMOOTHING = {"prewitt": (1 / 3, 1 / 3), "scharr": (3 / 16, 10 / 16), "sobel": (1 / 4, 2 / 4)}


@full_precision
def gradient_maps(maps: Tensor, operator: Operator) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical gradient, (N, C, H, W) each, of maps (N, C, H, W) padded with zeros.

    Each is the left minus the right pixel (above minus below), smoothed across by weights that sum to 1, as in GMSD and
    MDSI ("prewitt"), and FSIM, VSI and SR-SIM ("scharr"): a ramp that rises by s per pixel gives -2 s. In at least
    float32.

    Example:
        >>> import torch
        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> gradient_maps(ramp, "scharr")[0][0, 0, 2, 1:4]
        tensor([-2., -2., -2.])
    """
    edge, center = SMOOTHING[operator]
    framed = F.pad(maps, (1, 1, 1, 1))
    # Differences first: those of equal pixels are exactly 0, which a sum of weighted pixels is not.
    across, down = framed[..., :-2] - framed[..., 2:], framed[..., :-2, :] - framed[..., 2:, :]
    horizontal = edge * (across[..., :-2, :] + across[..., 2:, :]) + center * across[..., 1:-1, :]
    vertical = edge * (down[..., :-2] + down[..., 2:]) + center * down[..., 1:-1]
    return horizontal, vertical


@full_precision
def gradient_magnitude(maps: Tensor, operator: Operator) -> Tensor:
    """`sqrt(gx^2 + gy^2)` of maps (N, C, H, W): (N, C, H, W), from 0 up, in at least float32; see `gradient_maps`.

    Where an image is flat the magnitude is exactly 0, and so is its gradient.

    Example:
        >>> import torch
        >>> gradient_magnitude(torch.full((1, 1, 4, 4), 0.5), "prewitt")[0, 0, 1:3, 1:3]
        tensor([[0., 0.],
                [0., 0.]])
    """
    horizontal, vertical = gradient_maps(maps, operator)
    return power(horizontal.square() + vertical.square(), 0.5)
