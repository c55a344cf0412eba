"""Cross-scale attention: what the small maps of a backbone mean says where to look in the large ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import ALL, Attention, MLPHead

LEVELS = 5
# Side of the table of positions, which is stretched over the map.
TABLE = 32


class CrossScale(nn.Module):
    """Networks that turn the maps of a backbone, all of one size, into scores: one for each of `heads`.

    From "TOPIQ: a top-down approach from semantics to distortions for image quality assessment" (Chen et al., TIP
    2024). The tokens of the last level look at those of each larger level in turn.

    Args:
        heads: how many networks; their parameters are stacked (see `attention`).
        width: channels of the maps.
        parts: what attention splits the channels into.
        outputs: values a network gives.
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
        """Values (D, N, outputs) of maps (N, C, h, w), the largest level's first."""
        return self.values(self.query(maps, heads), heads)

    def query(self, maps: Sequence[Tensor], heads: slice = ALL) -> Tensor:
        """The last level's tokens (D, N, h * w, C) after they have looked at all others."""
        position = self._position(maps[0].shape[-2:], heads)
        query: Tensor | None = None
        for level in reversed(range(LEVELS)):
            tokens = self.within[level](position + maps[level].flatten(2).mT, heads=heads)
            query = tokens if query is None else self.across[LEVELS - 2 - level](query, tokens, heads)
        assert query is not None
        return query

    def values(self, query: Tensor, heads: slice = ALL) -> Tensor:
        """Values (D, N, outputs) of what `query` gives."""
        return self.head(self.pool(query, heads=heads).mean(2, keepdim=True), heads).squeeze(2)

    def _position(self, size: Sequence[int], heads: slice) -> Tensor:
        """Tokens (D, 1, h * w, C); a table that is constant along a side is stretched along the other alone."""
        height, width = size
        rows = F.interpolate(self.rows[heads, ..., None], (height, 1), mode="bicubic").expand(-1, -1, -1, width)
        columns = F.interpolate(self.columns[heads, :, None], (1, width), mode="bicubic").expand(-1, -1, height, -1)
        return torch.cat([rows, columns], 1).flatten(2).mT[:, None]
