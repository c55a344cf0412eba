"""Losses that metrics learn with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.correlation import pearson


def plcc_loss(scores: Tensor, opinions: Tensor) -> Tensor:
    """1 - Pearson's correlation of two (N,), a scalar in [0, 2]."""
    return 1 - pearson(scores, opinions)


def pairwise_ranking_loss(scores: Tensor, opinions: Tensor, margin: float = 0.05, softness: float = 0.05) -> Tensor:
    """How far pairs whose opinions differ by `margin` are from scores that differ by as much; (N,) each, a scalar."""
    wanted = (opinions[:, None] - opinions > margin).to(scores.dtype)
    apart = scores[:, None] - scores
    return (wanted * soft_hinge(apart, margin, softness)).sum() / wanted.sum().clamp_min(1)


def soft_hinge(value: Tensor, least: Tensor | float, softness: float = 0.05) -> Tensor:
    """A soft hinge: about least - value where that is positive, towards 0 where it is not."""
    return softness * F.softplus((torch.as_tensor(least) - value) / softness)
