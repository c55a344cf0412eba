"""The Gaussian model of pristine photographs that NIQE and the perceptual index compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.natural_scene import pristine_distance
from ..ops.precision import full_precision


class PristineModel(nn.Module):
    """Distance (N,) of the features (N, B, F) of images' blocks from the mean n and the covariance S of pristine ones.

    `sqrt((m - n)' ((S + C) / 2)^-1 (m - n))`, where m and C are the blocks' mean and covariance. Blocks with NaN are
    left out; without any other the distance is NaN.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features))
        # Features less their mean, times `whitening`: coordinates in which the pristine model is N(0, 1).
        self.whitening = nn.Parameter(torch.eye(features))

    def forward(self, features: Tensor) -> Tensor:
        """Distances (N,) from 0 up."""
        return _distance(features, self.mean, self.whitening)

    @staticmethod
    def from_published(state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Our keys for the file of NIQE's authors, mean and covariance of the features of pristine photographs."""
        if "cov_prisparam" not in state:
            return dict(state)
        root = torch.linalg.cholesky(state["cov_prisparam"].double())
        unit = torch.eye(len(root), dtype=root.dtype, device=root.device)
        whitening = torch.linalg.solve_triangular(root, unit, upper=False).T
        return {"mean": state["mu_prisparam"].flatten(), "whitening": whitening.contiguous()}


@full_precision
def _distance(features: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """The distance (N,) of blocks' features (N, B, 36) from the pristine model, blocks without structure left out."""
    mean, whitening = mean.to(features.dtype), whitening.to(features.dtype)
    structured = features.isfinite().all(2, keepdim=True)
    middle = features.nanmean(1, keepdim=True)
    point, blocks = ((each - mean) @ whitening for each in (middle, torch.where(structured, features, middle)))
    count = structured.sum(1, keepdim=True).clamp(min=1)  # NaN would keep the whole batch from being decomposed
    center = torch.where(structured, blocks, 0.0).sum(1, keepdim=True) / count
    return pristine_distance(point, torch.where(structured, blocks, center), center).squeeze(1)
