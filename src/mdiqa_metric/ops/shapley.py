"""How much each input of a function contributed to its value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def shapley_values(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """The exact Shapley values (N, D) of D numbers (N, D) in a function (..., D) -> (...), against zeros."""
    count = values.shape[1]
    chosen = torch.tensor(list(itertools.product((False, True), repeat=count)), device=values.device)  # (2^D, D)
    scores = function(values * chosen[:, None])  # (2^D, N)
    shares = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    orders = torch.tensor(shares, dtype=values.dtype, device=values.device)
    size = chosen.sum(1, keepdim=True)
    share = torch.where(chosen, orders[(size - 1).clamp(min=0)], -orders[size.clamp(max=count - 1)])
    return (share.to(values.dtype).T @ scores.to(values.dtype)).T
