"""Fractional powers whose gradient is finite at zero."""

from __future__ import annotations

from torch import Tensor

from .precision import full_precision


@full_precision
def power(values: Tensor, exponent: float) -> Tensor:
    """`values ** exponent` of values from 0 up, of any shape; the gradient is 0 where the value is 0.

    A power below 1 has an infinite gradient at 0, which times the 0 of what was rooted gives NaN: on black, flat and
    equal images. There the true function has a minimum or is constant, so 0 is right. In at least float32.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> power(x, 0.5).sum().backward()
        >>> x.grad
        tensor([0.0000, 0.2500])
    """
    zero = values == 0
    positive = values.masked_fill(zero, 1.0)
    return (positive.sqrt() if exponent == 0.5 else positive**exponent).masked_fill(zero, 0.0)
