"""Transformer blocks for several heads at once, each head with parameters of its own.

A *head* here is the network of one quality dimension. The heads of multi-head attention, which split the channels, are
called *parts*. The parameters of D heads are stacked along a first dimension, so that one batched product computes all
of them; tokens are (D, N, T, C). Every `forward` takes the slice of the heads that its tokens belong to. Layer
normalization has no scale and shift: those of a published file are folded into the linear layer that follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALL = slice(None)


def slices(heads: tuple[int, ...]) -> list[slice]:
    """Slices that together select the given heads, which must ascend: a single one if they are evenly spaced.

    Example:
        >>> slices((0, 2, 4)), slices((0, 1, 3))[2]
        ([slice(0, 5, 2)], slice(3, 4, None))
    """
    steps = {after - before for before, after in itertools.pairwise(heads)}
    if len(steps) <= 1 and heads:
        return [slice(heads[0], heads[-1] + 1, steps.pop() if steps else 1)]
    return [slice(head, head + 1) for head in heads]


def select(x: Tensor, wanted: tuple[int, ...], dim: int = 0) -> Tensor:
    """The wanted entries of x along a dimension, by slices: indexing with a list would synchronize a GPU.

    Example:
        >>> select(torch.arange(4), (0, 1, 3))
        tensor([0, 1, 3])
    """
    x = x.movedim(dim, 0)
    return torch.cat([x[part] for part in slices(wanted)]).movedim(0, dim)


def each(wanted: tuple[int, ...], function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """`function(*tokens, heads)` for the tokens (K, ...) of K wanted heads, called once per slice and concatenated.

    Example:
        >>> layer = StackedLinear(heads=4, inputs=8, outputs=2)
        >>> each((0, 1, 3), layer, torch.zeros(3, 1, 5, 8)).shape
        torch.Size([3, 1, 5, 2])
    """
    parts = slices(wanted)
    counts = [len(range(part.start, part.stop, part.step or 1)) for part in parts]
    pieces = zip(*(stack.split(counts) for stack in tokens), strict=True)
    return torch.cat([function(*piece, part) for piece, part in zip(pieces, parts, strict=True)])


class StackedLinear(nn.Module):
    """A linear layer for each of `heads`, `y = x W^T + b`: (D, N, T, inputs) -> (D, N, T, outputs).

    Example:
        >>> StackedLinear(heads=4, inputs=8, outputs=2)(torch.zeros(4, 1, 5, 8)).shape
        torch.Size([4, 1, 5, 2])
    """

    def __init__(self, heads: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(heads, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(heads, outputs)) if bias else None

    def forward(self, x: Tensor, heads: slice = ALL) -> Tensor:
        """(D, N, T, inputs) -> (D, N, T, outputs)."""
        rows, weight = x.flatten(1, 2), self.weight[heads].mT
        out = rows @ weight if self.bias is None else torch.baddbmm(self.bias[heads, None], rows, weight)
        return out.unflatten(1, x.shape[1:3])


class Attention(nn.Module):
    """A pre-norm transformer block: attention, then an MLP of two layers.

    `x = x + out(attention(norm(x), norm(memory)))`, then `x + down(gelu(up(norm(x))))`: (D, N, T, C) -> (D, N, T, C).

    Args:
        heads: how many networks are stacked.
        width: channels C.
        parts: into how many parts attention splits the channels; a divisor of `width`.

    Example:
        >>> block = Attention(heads=2, width=8, parts=4)
        >>> block(torch.zeros(2, 1, 5, 8), memory=torch.zeros(2, 1, 9, 8)).shape
        torch.Size([2, 1, 5, 8])
    """

    def __init__(self, heads: int, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.query = StackedLinear(heads, width, width)
        self.key_value = StackedLinear(heads, width, 2 * width)
        self.out = StackedLinear(heads, width, width)
        self.up = StackedLinear(heads, width, 4 * width)
        self.down = StackedLinear(heads, 4 * width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None, heads: slice = ALL) -> Tensor:
        """Tokens x (D, N, T, C) that attend to `memory` (D, N, T', C), or to themselves if that is None."""
        normal = layer_norm(x)
        seen = normal if memory is None else layer_norm(memory)
        tokens = (self.query(normal, heads), *self.key_value(seen, heads).chunk(2, -1))
        # Networks and images form one batch, since fused kernels take four dimensions.
        query, key, value = (t.flatten(0, 1).unflatten(-1, (self.parts, -1)).transpose(1, 2) for t in tokens)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
        x = x + self.out(found, heads)
        return x + self.down(F.gelu(self.up(layer_norm(x), heads)), heads)


class MLPHead(nn.Module):
    """Three linear layers with GELU between them, the first two on normalized input.

    (D, N, T, C) -> (D, N, T, outputs), unbounded. Since these are scores, it runs in its weights' precision under
    autocast too; for a single pooled token that costs nothing.

    Example:
        >>> MLPHead(heads=2, width=8, outputs=1)(torch.zeros(2, 3, 1, 8)).shape
        torch.Size([2, 3, 1, 1])
    """

    def __init__(self, heads: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(StackedLinear(heads, width, size) for size in (width, width, outputs))

    def forward(self, x: Tensor, heads: slice = ALL) -> Tensor:
        """(D, N, T, C) -> (D, N, T, outputs)."""
        first, second, last = self.layers
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(first.get_parameter("weight").dtype)
            return last(F.gelu(second(layer_norm(F.gelu(first(layer_norm(x), heads))), heads)), heads)


def layer_norm(x: Tensor) -> Tensor:
    """Tokens (..., C) normalized to mean 0 and variance 1 each, without scale and shift.

    Example:
        >>> layer_norm(torch.tensor([1.0, 3.0]))
        tensor([-1.0000,  1.0000])
    """
    return F.layer_norm(x, x.shape[-1:])
