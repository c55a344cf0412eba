"""How much each input of a function contributed to its value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def shapley_values(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """The exact Shapley values of the D inputs of a function, against a baseline of zeros (Shapley, 1953).

    `sum over subsets S without i of |S|! (D - |S| - 1)! / D! (f(S and i) - f(S))`, where inputs outside a subset are
    0. The values of a sample sum to `f(x) - f(0)`. The function is called once, on all 2^D subsets.

    Args:
        function: (..., D) -> (...).
        values: its inputs (N, D).

    Returns:
        (N, D), unbounded.

    Example:
        >>> shapley_values(lambda x: x.prod(-1), torch.tensor([[2.0, 3.0]]))
        tensor([[3., 3.]])
    """
    count = values.shape[1]
    chosen = torch.tensor(list(itertools.product((False, True), repeat=count)), device=values.device)  # (2^D, D)
    scores = function(values * chosen[:, None]).to(values.dtype)  # (2^D, N)
    shares = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    share = torch.tensor(shares, dtype=values.dtype, device=values.device)
    found = []
    for index, without in enumerate((~chosen).T):
        # Differences first: an input that changes nothing contributes exactly 0.
        gain = scores[chosen[:, index]] - scores[without]
        found.append(share[chosen[without].sum(1)] @ gain)
    return torch.stack(found, 1)
