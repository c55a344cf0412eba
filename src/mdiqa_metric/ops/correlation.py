"""Differentiable correlation."""

from __future__ import annotations

from torch import Tensor

from .precision import full_precision


@full_precision
def pearson(x: Tensor, y: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Pearson's correlation along the last dimension, in [-1, 1]; 0 where either input is constant.

    `sum(x' y') / (|x'| |y'| + epsilon)` of the deviations x', y' from the means, in at least float32.

    Args:
        x, y: values (..., M) of one shape.
        epsilon: keeps value and gradient finite for constant values; negligible for deviations of order 1.

    Returns:
        Correlations (...).

    Example:
        >>> import torch
        >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 5.0, 7.0]))
        tensor(1.0000)
    """
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1) + epsilon)
