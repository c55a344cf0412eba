"""Training losses for scores and opinions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.correlation import pearson


def plcc_loss(scores: Tensor, opinions: Tensor) -> Tensor:
    """`1 - PLCC(scores, opinions)` of two (N,), a scalar in [0, 2]."""
    return 1 - pearson(scores, opinions)


def pairwise_ranking_loss(scores: Tensor, opinions: Tensor, margin: float = 0.05, softness: float = 0.05) -> Tensor:
    """The mean soft hinge of `scores[i] - scores[j]` to `margin` over pairs with `opinions[i] - opinions[j] > margin`.

    Args:
        scores, opinions: (N,) each.
        margin: the least difference in opinion that ranks a pair, and the difference in score it should have.
        softness: see `soft_hinge`.

    Returns:
        A scalar of at least 0; 0 where no pair is ranked.
    """
    ranked = (opinions[:, None] - opinions > margin).to(scores.dtype)
    differences = scores[:, None] - scores
    return (ranked * soft_hinge(differences, margin, softness)).sum() / ranked.sum().clamp_min(1)


def soft_hinge(value: Tensor, least: Tensor | float, softness: float = 0.05) -> Tensor:
    """`softness * softplus((least - value) / softness)`: close to `least - value` below `least`, to 0 above it."""
    return softness * F.softplus((torch.as_tensor(least) - value) / softness)
