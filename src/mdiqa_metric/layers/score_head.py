"""A perceptron that predicts scores."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class ScoreHead(nn.Sequential):
    """Linear layers with ReLU between them: (..., C) -> (..., D), unbounded.

    Since these are scores, it runs in its weights' precision under autocast too. Layers are numbered without dropout.

    Args:
        widths: of the input, of what lies between, and of the output.

    Example:
        >>> ScoreHead(8, 4, 1)(torch.zeros(2, 3, 8)).shape
        torch.Size([2, 3, 1])
    """

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self[0].get_parameter("weight").dtype))
