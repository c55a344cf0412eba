"""Conversion of TOPIQ's layers from the layout of its authors' files to ours.

Each function takes its tensors out of a published state and returns them under our keys; a missing key is a KeyError.
Folding happens in float64. Weights that the authors' files hold but never use (the self-attention of cross-attention
blocks) are dropped. Any other key that is not taken remains in the published state, and fails the strict loading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..checkpoints.remapping import PublishedState, State, fold_norm, named, stack


def gate(published: PublishedState, prefix: str, ours: str) -> State:
    """`Gate`: convolutions 0, 2 and 4.

    Example:
        >>> convolutions = {f"blk.{i}.{leaf}": torch.zeros(1) for i in (0, 2, 4) for leaf in ("weight", "bias")}
        >>> list(gate(PublishedState(convolutions), "blk", "gate"))[:2]
        ['gate.0.weight', 'gate.0.bias']
    """
    return {
        key: value
        for index in ("0", "2", "4")
        for key, value in published.conv(f"{prefix}.{index}", f"{ours}.{index}").items()
    }


def gated_pooling(published: PublishedState, level: int, prefix: str = "") -> State:
    """`GatedPooling` of a level; half of its first convolution feeds the gate and is folded into the gate's first."""
    ours, pool = f"levels.{level}", f"{prefix}weight_pool.{level}"
    state = gate(published, f"{pool}.weight_blk", f"{ours}.gate")
    value, feed = published.take(f"{pool}.splitconv.weight").chunk(2)
    value_bias, feed_bias = published.take(f"{pool}.splitconv.bias").chunk(2)
    first, bias = state[f"{ours}.gate.0.weight"].flatten(1).double(), state[f"{ours}.gate.0.bias"]
    state[f"{ours}.gate.0.weight"] = (first @ feed.flatten(1).double()).to(feed)[..., None, None]
    state[f"{ours}.gate.0.bias"] = (bias + first @ feed_bias.double()).to(bias)
    state |= {f"{ours}.value.weight": value, f"{ours}.value.bias": value_bias}
    return state | published.conv(f"{prefix}dim_reduce.{level}.0", f"{ours}.reduce")


def cross_scale(published: PublishedState, prefixes: Sequence[str]) -> State:
    """`CrossScale`, stacked from the networks under the given prefixes."""
    state = {
        "rows": torch.cat([published.take(f"{prefix}h_emb")[..., 0] for prefix in prefixes]),
        "columns": torch.cat([published.take(f"{prefix}w_emb")[:, :, 0] for prefix in prefixes]),
    }
    blocks = {f"sa_attn_blks.{i}.layers.0": f"within.{i}" for i in range(5)} | {"attn_pool": "pool"}
    for theirs, ours in blocks.items():
        state |= stack([attention(published, f"{prefix}{theirs}", ours) for prefix in prefixes])
    for i in range(4):
        block = f"attn_blks.{i}.layers.0"
        state |= stack([attention(published, f"{prefix}{block}", f"across.{i}", True) for prefix in prefixes])
        published.drop(*(f"{prefix}{block}.self_attn." for prefix in prefixes))
    return state | stack([perceptron(published, f"{prefix}score_linear", "head") for prefix in prefixes])


def attention(published: PublishedState, prefix: str, ours: str, cross: bool = False) -> State:
    """`Attention` of one network; a `cross` attention has a normalization of its own for the memory.

    Example:
        >>> block = torch.nn.TransformerEncoderLayer(4, nhead=1, dim_feedforward=16)
        >>> theirs = PublishedState({f"attn_pool.{key}": value for key, value in block.state_dict().items()})
        >>> attention(theirs, "attn_pool", "pool")["pool.key_value.weight"].shape
        torch.Size([8, 4])
    """
    name = "multihead_attn" if cross else "self_attn"
    weight, bias = published.take(f"{prefix}.{name}.in_proj_weight"), published.take(f"{prefix}.{name}.in_proj_bias")
    width = weight.shape[1]
    indices = (1, 2, 3) if cross else (1, 2)
    norms = [(published.take(f"{prefix}.norm{i}.weight"), published.take(f"{prefix}.norm{i}.bias")) for i in indices]
    up = published.take(f"{prefix}.linear1.weight"), published.take(f"{prefix}.linear1.bias")
    return {
        **named(f"{ours}.query", fold_norm(*norms[0], weight[:width], bias[:width])),
        **named(f"{ours}.key_value", fold_norm(*norms[1 if cross else 0], weight[width:], bias[width:])),
        **published.conv(f"{prefix}.{name}.out_proj", f"{ours}.out"),
        **named(f"{ours}.up", fold_norm(*norms[-1], *up)),
        **published.conv(f"{prefix}.linear2", f"{ours}.down"),
    }


def perceptron(published: PublishedState, prefix: str, ours: str) -> State:
    """`MLPHead` of one network.

    Example:
        >>> theirs = {f"mlp.{i}.{leaf}": torch.zeros(2) for i in (0, 1, 3, 4, 6) for leaf in ("weight", "bias")}
        >>> theirs |= {f"mlp.{i}.weight": torch.zeros(2, 2) for i in (1, 4)}
        >>> list(perceptron(PublishedState(theirs), "mlp", "head"))[:2]
        ['head.layers.0.weight', 'head.layers.0.bias']
    """
    state: State = {}
    for index, norm, linear in ((0, "0", "1"), (1, "3", "4")):
        scale, shift = published.take(f"{prefix}.{norm}.weight"), published.take(f"{prefix}.{norm}.bias")
        pair = published.take(f"{prefix}.{linear}.weight"), published.take(f"{prefix}.{linear}.bias")
        state |= named(f"{ours}.layers.{index}", fold_norm(scale, shift, *pair))
    return state | published.conv(f"{prefix}.6", f"{ours}.layers.2")
