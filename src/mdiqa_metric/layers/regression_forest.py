"""Regression forests read from tables, and the quality that three of them predict together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Where the fields that matter stand in a model of randomforest-matlab.
FIELDS = {"left": 0, "right": 1, "threshold": 4, "value": 5, "feature": 6}


class RegressionForest(nn.Module):
    """The mean prediction of regression trees: features (N, F) -> (N,).

    Each table is (nodes, trees). From node 0, a tree goes to the node `left` if `feature` of the input is at most
    `threshold`, else to the node `right`, until it comes to one whose `left` is 0, which predicts its `value`. A forest
    has no trees and predicts 0 until tables are loaded, whose shape it takes.
    """

    left: Tensor
    right: Tensor
    feature: Tensor
    threshold: Tensor
    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("left", "right", "feature"):
            self.register_buffer(name, torch.zeros(0, 0, dtype=torch.int64))
        for name in ("threshold", "value"):
            self.register_parameter(name, nn.Parameter(torch.zeros(0, 0), requires_grad=False))

    def forward(self, features: Tensor) -> Tensor:
        """Predictions (N,)."""
        trees = self.left.shape[1]
        if not trees:
            return torch.zeros_like(features[:, 0])
        node = torch.zeros(len(features), trees, dtype=torch.int64, device=features.device)
        threshold = self.threshold.to(features.dtype)
        while (inner := self.left.gather(0, node) > 0).any():
            low = features.gather(1, self.feature.gather(0, node)) <= threshold.gather(0, node)
            below = torch.where(low, self.left.gather(0, node), self.right.gather(0, node))
            node = torch.where(inner, below, node)
        return self.value.to(features.dtype).gather(0, node).mean(1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, own in [*self.named_buffers(), *self.named_parameters()]:
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != own.shape:
                own.data = own.data.new_zeros(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class QualityForests(nn.Module):
    """A constant and the predictions of several forests, weighted: a list of features (N, F) each -> (N,)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.forests = nn.ModuleList(RegressionForest() for _ in range(count))
        self.weight = nn.Parameter(torch.zeros(count + 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Qualities (N,)."""
        found = self.predictions(features)
        weight = self.weight.to(found.dtype)
        return weight[0] + (found * weight[1:]).sum(1)

    def predictions(self, features: Sequence[Tensor]) -> Tensor:
        """The forests' own (N, count)."""
        return torch.stack([forest(each) for forest, each in zip(self.forests, features, strict=True)], 1)

    @staticmethod
    def from_published(state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Our keys for a struct `model` of weights `linear` and forests `rf`, or for our own keys."""
        if "model" not in state:
            return dict(state)
        model = state["model"]
        found = {"weight": model["linear"].flatten()}
        for index, forest in enumerate(model["rf"]):
            tables = list(forest.values())
            for name, place in FIELDS.items():
                table = tables[place]
                if name in ("left", "right", "feature"):  # counted from 1, 0 at a leaf
                    table = (table.to(torch.int64) - 1).clamp(min=0)
                found[f"forests.{index}.{name}"] = table
        return found
