"""The elementwise similarity of two maps, as SSIM, FSIM, GMSD, VSI and others use it."""

from __future__ import annotations

from torch import Tensor

from .precision import full_precision


@full_precision
def similarity_map(x: Tensor, y: Tensor, stabilizer: float) -> Tensor:
    """`(2 x y + c) / (x^2 + y^2 + c)` of two maps of one shape: in (-1, 1], and in (0, 1] for maps from 0 up.

    Computed as `1 - (x - y)^2 / (x^2 + y^2 + c)`, which is the same but cancels no digits: equal values give exactly 1
    and no gradient. In at least float32.

    Args:
        x, y: maps of any one shape.
        stabilizer: c, above 0. The papers' constants are for values in 0..255: divide them by 255^2 for [0, 1].

    Example:
        >>> import torch
        >>> similarity_map(torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0]), 0.01)
        tensor([1.0000, 0.0099])
    """
    return 1 - (x - y).square() / (x.square() + y.square() + stabilizer)
