"""Parameters of the distributions that filtered natural images follow, estimated for many samples at once."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .powers import power
from .precision import full_precision


@full_precision
def fit_asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right scale of asymmetric generalized Gaussians (Lasmar, Stitou, Berthoumieu 2009).

    Args:
        values: (..., K), a sample along the last dimension.

    Returns:
        Three tensors (...), in at least float32. Shapes are multiples of 0.001 from 0.2 to 10, found in a table, so
        they have no gradient. NaN where a sample has no value on one side of 0.

    Example:
        >>> shape, left, right = fit_asymmetric_gaussian(torch.tensor([-1.0, -1.0, 1.0, 3.0, -2.0, 2.0]))
        >>> shape, left / right
        (tensor(10.), tensor(0.6547))
    """
    below, above = values.clamp(max=0).square(), values.clamp(min=0).square()
    left = power(below.sum(-1) / (values < 0).sum(-1), 0.5)
    right = power(above.sum(-1) / (values > 0).sum(-1), 0.5)
    ratio = left / right
    moments = values.abs().mean(-1).square() / (below + above).mean(-1)
    target = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shape = _nearest_shape(target, 200)
    scale = (0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape))).exp()
    return shape, left * scale, right * scale


@full_precision
def fit_gaussian(values: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and variance of generalized Gaussians around 0 (Sharifi, Leon-Garcia 1995): samples (..., K) -> (...) each.

    Shapes are multiples of 0.001 from 0.2 to 10, found in a table by variance over squared mean deviation, so they have
    no gradient. NaN where all values are 0. In at least float32.

    Example:
        >>> fit_gaussian(torch.tensor([-2.0, -1.0, 1.0, 2.0]))
        (tensor(10.), tensor(2.5000))
    """
    variance = values.square().mean(-1)
    return _nearest_shape(values.abs().mean(-1).square() / variance, 200, inverse=True), variance


@full_precision
def generalized_gaussian_shape(values: Tensor) -> Tensor:
    """The shape of generalized Gaussians, a multiple of 0.001 from 0.03 to 10: samples (..., K) -> (...).

    That whose variance over squared mean deviation is nearest to the sample's, `var(x) / (mean(|x - m|)^2 + 1e-7)`.
    Found in a table, so it has no gradient. In at least float32.

    Example:
        >>> generalized_gaussian_shape(torch.tensor([-2.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 2.0]))
        tensor(1.4570)
    """
    deviations = values - values.mean(-1, keepdim=True)
    variance = deviations.square().sum(-1) / (values.shape[-1] - 1)
    target = (deviations.abs().mean(-1).square() + 1e-7) / variance
    return _nearest_shape(target, 30, inverse=True)


@full_precision
def fit_weibull(values: Tensor, iterations: int = 5) -> tuple[Tensor, Tensor]:
    """Scale and shape of Weibull distributions, of greatest likelihood, of samples (..., K) above 0: (...) each.

    `iterations` of Newton's method from the estimate 1.2 over the logarithm's deviation. In at least float32. A sample
    of equal values, whose likelihood has no maximum, gives NaN.

    Example:
        >>> scale, shape = fit_weibull(torch.tensor([0.5, 1.0, 1.5, 2.0]))
        >>> scale, shape
        (tensor(1.4143), tensor(2.4532))
    """
    logs = values.log()
    highest = logs.amax(-1)
    logs = logs - highest.unsqueeze(-1)
    mean = logs.mean(-1)
    shape = 1.2 / logs.std(-1)
    for _ in range(iterations):
        weights = (logs * shape.unsqueeze(-1)).exp()
        total = weights.sum(-1)
        first = (weights * logs).sum(-1) / total
        second = (weights * logs.square()).sum(-1) / total
        step = (first - mean - 1 / shape) / (second - first.square() + 1 / shape.square())
        shape = torch.minimum(torch.maximum(shape - step, shape / 3), 3 * shape)
    scale = (highest + (logs * shape.unsqueeze(-1)).exp().mean(-1).log() / shape).exp()
    return scale, shape


def _nearest_shape(target: Tensor, first: int, inverse: bool = False) -> Tensor:
    """The shape in thousandths, `first` to 10000, whose moment ratio is nearest to the target; NaN for NaN.

    The ratio is `mean(|x|)^2 / mean(x^2)`; with `inverse`, distances are those of its inverse.
    """
    table = target.new_tensor(_moment_ratios(first))
    upper = torch.searchsorted(table, target.detach().contiguous()).clamp(1, len(table) - 1)
    low, high = table[upper - 1], table[upper]
    nearer_low = target * (low + high) <= 2 * low * high if inverse else target - low <= high - target
    shape = (upper - nearer_low.to(upper.dtype) + first).to(target.dtype) / 1000
    return torch.where(target.isnan(), target, shape)


@functools.cache
def _moment_ratios(first: int) -> tuple[float, ...]:
    """`gamma(2 / a)^2 / (gamma(1 / a) gamma(3 / a))` of shapes a in thousandths, rising; in double precision."""
    shapes = (step / 1000 for step in range(first, 10001))
    return tuple(math.exp(2 * math.lgamma(2 / a) - math.lgamma(1 / a) - math.lgamma(3 / a)) for a in shapes)
