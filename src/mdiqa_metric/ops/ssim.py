"""The core of SSIM and MS-SSIM: how luminance, contrast and structure agree in each 11x11 window."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .autograd import differentiable_gradient, is_recorded, takes_function
from .filters import filter_separable, gaussian_window
from .precision import full_precision

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
# (K1 L)^2 and (K2 L)^2 of the papers, for values in [0, 1].
C1 = 0.01**2
C2 = 0.03**2
# A mean contrast-structure below this is rounding noise: the score is 0.
SMALLEST = 1e-8
# Below this the slope of a fractional power grows without use, and at 0 there is none: the gradient goes on as here.
KNEE = 0.01


@full_precision
def ssim_maps(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance and the contrast-structure map of a pair (Wang et al., TIP 2004, equations 6 to 13).

    Both are computed from the pair's sum s and difference d, as one minus a quotient that vanishes with d: luminance is
    `1 - 2 E[d]^2 / (E[s]^2 + E[d]^2 + 2 C1)`, contrast-structure `1 - 2 var(d) / (var(s) + var(d) + 2 C2)`. So equal
    windows give exactly 1, no window gives more, and float32 suffices.

    Args:
        image, reference: (N, C, H, W) in [0, 1], each side at least 11 pixels. Gradients flow to both.

    Returns:
        Two maps (N, C, H - 10, W - 10), in at least float32: luminance in [0, 1], contrast-structure in [-1, 1].

    Example:
        >>> luminance, contrast_structure = ssim_maps(torch.full((1, 1, 12, 11), 0.5), torch.full((1, 1, 12, 11), 0.6))
        >>> luminance.flatten(), contrast_structure.flatten()
        (tensor([0.9836, 0.9836]), tensor([1., 1.]))
    """
    if takes_function(image, reference):
        return _SSIMMaps.apply(image, reference)
    if is_recorded(image, reference):
        return _plain(image, reference)
    return _compute(image, reference)[:2]


def _plain(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """`ssim_maps` by operations that autograd and torch.func can differentiate any number of times."""
    origin = _origin(image, reference)
    means, squares = filter_separable(_powers(image, reference, origin), _window(image)).chunk(2, 1)
    variances = (squares - means.square()).clamp(min=0)
    return _agreement((means + origin).square(), C1), _agreement(variances, C2)


def _compute(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`ssim_maps` in little memory, with what its gradient needs: the origin, and moments relative to it."""
    origin = _origin(image, reference)
    moments = filter_separable(_powers(image, reference, origin), _window(image))
    means, variances = moments.chunk(2, 1)
    variances.addcmul_(means, means, value=-1).clamp_(min=0)  # in place of the mean squares
    return _agreement((means + origin).square_(), C1), _agreement(variances, C2), origin, moments


def _origin(image: Tensor, reference: Tensor) -> Tensor:
    """The means of sum and difference (N, 2C, 1, 1)."""
    level, reference_level = (x.mean((-2, -1), keepdim=True) for x in (image, reference))
    return torch.cat([level + reference_level, level - reference_level], 1)


class _SSIMMaps(torch.autograd.Function):
    """`ssim_maps` with a hand-written gradient, which saves 4 maps where autograd saves 20."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        luminance, contrast_structure, origin, moments = _compute(image, reference)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(image, reference, origin, moments)
        return luminance, contrast_structure

    @staticmethod
    def backward(ctx: Any, luminance: Tensor | None, contrast_structure: Tensor | None) -> tuple[Tensor | None, ...]:
        image, reference, origin, moments = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradients = luminance, contrast_structure
            return differentiable_gradient(_plain, (image, reference), ctx.needs_input_grad, gradients)
        return _gradients(image, reference, origin, moments, luminance, contrast_structure, ctx.needs_input_grad)


def _powers(image: Tensor, reference: Tensor, origin: Tensor) -> Tensor:
    """Sum and difference of the pair relative to the origin, then their squares.

    A variance does not change with the origin, but E[x^2] - E[x]^2 loses digits far from it.
    """
    pair = torch.cat([image + reference, image - reference], 1).sub_(origin)
    return torch.cat([pair, pair.square()], 1)


@full_precision  # backward may be called under autocast
def _gradients(
    image: Tensor,
    reference: Tensor,
    origin: Tensor,
    moments: Tensor,
    luminance: Tensor | None,
    contrast_structure: Tensor | None,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, ...]:
    """The gradients with respect to image and reference, where wanted, from those with respect to the two maps."""
    maps = _power_gradients(origin, moments, luminance, contrast_structure, wanted)
    # The window is symmetric, so this is the adjoint of the filter.
    spread = filter_separable(maps, _window(image), padding=WINDOW_SIZE - 1)
    of_sum_square, of_difference_square, *of_inputs = spread.split(image.shape[1], 1)
    sum_origin, difference_origin = origin.chunk(2, 1)
    through_sum = (image + reference).sub_(sum_origin).mul_(of_sum_square)
    through_difference = (image - reference).sub_(difference_origin).mul_(of_difference_square)
    of_image = (through_sum + through_difference).mul_(2).add_(of_inputs[0]) if wanted[0] else None
    of_reference = (through_sum - through_difference).mul_(2).add_(of_inputs[-1]) if wanted[1] else None
    return of_image, of_reference


def _power_gradients(
    origin: Tensor,
    moments: Tensor,
    luminance: Tensor | None,
    contrast_structure: Tensor | None,
    wanted: tuple[bool, bool],
) -> Tensor:
    """The gradients with respect to what was filtered: both squares, then each wanted input through the means."""
    sum_origin, difference_origin = origin.chunk(2, 1)
    sum_mean, difference_mean, sum_variance, difference_variance = moments.chunk(4, 1)
    if contrast_structure is None:
        contrast_structure = torch.zeros_like(sum_mean)
    of_squares = _agreement_gradients(contrast_structure, sum_variance, difference_variance, C2)
    of_sum, of_difference = -2 * sum_mean * of_squares[0], -2 * difference_mean * of_squares[1]
    if luminance is not None:
        gradients = _agreement_gradients(
            luminance, (sum_mean + sum_origin).square_(), (difference_mean + difference_origin).square_(), C1
        )
        of_sum.addcmul_(sum_mean + sum_origin, gradients[0], value=2)
        of_difference.addcmul_(difference_mean + difference_origin, gradients[1], value=2)
    of_image = [of_sum + of_difference] if wanted[0] else []
    of_reference = [of_sum - of_difference] if wanted[1] else []
    return torch.cat([*of_squares, *of_image, *of_reference], 1)


def _window(like: Tensor) -> Tensor:
    """SSIM's Gaussian window (11,)."""
    return gaussian_window(WINDOW_SIZE, WINDOW_SIGMA, like)


def _agreement(energies: Tensor, stabilizer: float) -> Tensor:
    """`1 - 2 d / (s + d + 2 stabilizer)` of the energies (s, d) of sum and difference."""
    of_sum, of_difference = energies.chunk(2, 1)
    return of_difference.div((of_sum + of_difference).add_(2 * stabilizer)).mul_(-2).add_(1)


def _agreement_gradients(
    gradient: Tensor, of_sum: Tensor, of_difference: Tensor, stabilizer: float
) -> tuple[Tensor, Tensor]:
    """The gradients with respect to s and d, from that with respect to their agreement."""
    whole = (of_sum + of_difference).add_(2 * stabilizer)
    common = (2 * gradient).div_(whole).div_(whole)
    return common * of_difference, (of_sum + 2 * stabilizer).mul_(common).neg_()


def product_of_scales(means: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The product of the scales' means (N, C) to the power of their weights, 0 where one is not positive: (N, C).

    Where one is below `KNEE` the gradient is `product * weight / KNEE` for it, and `product * weight / mean` for the
    others, of the product that has `KNEE` in its place: no slope vanishes, and none takes the others' away.

    Example:
        >>> product_of_scales([torch.tensor([[0.25]]), torch.tensor([[0.5]])], (0.5, 1.0))
        tensor([[0.2500]])
    """
    above = [mean > KNEE for mean in means]
    whole = functools.reduce(torch.logical_and, above)
    safe = [torch.where(high, mean, 1.0) for high, mean in zip(above, means, strict=True)]
    exact = _weighted_product([mean.detach().clamp(min=0) for mean in means], weights)
    exact = exact * functools.reduce(torch.logical_and, [mean.detach() > SMALLEST for mean in means])
    logs = [
        torch.where(high, one.log(), (mean - KNEE) / KNEE + math.log(KNEE))
        for high, one, mean in zip(above, safe, means, strict=True)
    ]
    slope = functools.reduce(torch.add, [weight * log for weight, log in zip(weights, logs, strict=True)])
    sloping = _weighted_product([mean.detach().clamp(min=KNEE) for mean in means], weights) * slope
    return torch.where(whole, _weighted_product(safe, weights), sloping + (exact - sloping.detach()))


def _weighted_product(means: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return functools.reduce(torch.mul, [mean**weight for weight, mean in zip(weights, means, strict=True)])
