"""Cross-scale attention: the semantics in a backbone's small maps decide where to look in the large ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import ALL, Attention, MLPHead

LEVELS = 5
# Side of the table of positions, which is interpolated to the size of the map.
TABLE = 32


class CrossScale(nn.Module):
    """Networks that turn a backbone's five maps, all of one size, into scores: one network for each of `heads`.

    From "TOPIQ: a top-down approach from semantics to distortions for image quality assessment" (Chen et al., TIP
    2024). Each level attends to itself; the tokens of the last level then attend to each earlier level in turn, last to
    first, and to themselves; their mean goes through an MLP. Five maps (N, C, h, w) -> (D, N, outputs), unbounded.

    Args:
        heads: how many networks, D; their parameters are stacked (see `attention`).
        width: channels C of the maps.
        parts: into how many parts attention splits the channels; a divisor of `width`.
        outputs: values per network.

    Example:
        >>> CrossScale(heads=2, width=8)([torch.rand(1, 8, 3, 4)] * 5).shape
        torch.Size([2, 1, 1])
    """

    def __init__(self, heads: int, width: int = 256, parts: int = 4, outputs: int = 1) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.02 * torch.randn(heads, width // 2, TABLE))
        self.columns = nn.Parameter(0.02 * torch.randn(heads, width // 2, TABLE))
        self.within = nn.ModuleList(Attention(heads, width, parts) for _ in range(LEVELS))
        self.across = nn.ModuleList(Attention(heads, width, parts) for _ in range(LEVELS - 1))
        self.pool = Attention(heads, width, parts)
        self.head = MLPHead(heads, width, outputs)

    def forward(self, maps: Sequence[Tensor], heads: slice = ALL) -> Tensor:
        """Values (D, N, outputs) of five maps (N, C, h, w), that of the largest level first."""
        return self.values(self.query(maps, heads), heads)

    def query(self, maps: Sequence[Tensor], heads: slice = ALL) -> Tensor:
        """The last level's tokens (D, N, h * w, C) after they have attended to all other levels."""
        position = self._position(maps[0].shape[-2:], heads)
        query: Tensor | None = None
        for level in reversed(range(LEVELS)):
            tokens = self.within[level](position + maps[level].flatten(2).mT, heads=heads)
            query = tokens if query is None else self.across[LEVELS - 2 - level](query, tokens, heads)
        assert query is not None
        return query

    def values(self, query: Tensor, heads: slice = ALL) -> Tensor:
        """Values (D, N, outputs) of the tokens (D, N, h * w, C) that `query` returns."""
        return self.head(self.pool(query, heads=heads).mean(2, keepdim=True), heads).squeeze(2)

    def _position(self, size: Sequence[int], heads: slice) -> Tensor:
        """Position tokens (D, 1, h * w, C); each table is interpolated along one side and repeated along the other."""
        height, width = size
        rows = F.interpolate(self.rows[heads, ..., None], (height, 1), mode="bicubic").expand(-1, -1, -1, width)
        columns = F.interpolate(self.columns[heads, :, None], (1, width), mode="bicubic").expand(-1, -1, height, -1)
        return torch.cat([rows, columns], 1).flatten(2).mT[:, None]
