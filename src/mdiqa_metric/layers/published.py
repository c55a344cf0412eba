"""TOPIQ's blocks in the layout of their authors' files, brought to ours.

Folding happens in float64. What the authors' files hold and never use (the self-attention of cross-attention blocks)
is left out; every other key that is not taken stays in the state dict it came in, to be an error of loading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


class Published:
    """A published state dict that is emptied key by key: what is left at the end is foreign."""

    def __init__(self, state: State) -> None:
        self.state = dict(state)

    def take(self, key: str) -> Tensor:
        """One tensor; KeyError names it where it is missing."""
        return self.state.pop(key)

    def drop(self, *prefixes: str) -> None:
        """Leaves out every key that starts with one of the prefixes."""
        self.state = {key: value for key, value in self.state.items() if not key.startswith(prefixes)}

    def under(self, prefix: str) -> State:
        """Takes every key with the prefix, and cuts it off."""
        found = {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}
        self.drop(prefix)
        return found

    def conv(self, prefix: str, ours: str) -> State:
        """A convolution or a linear layer as it is."""
        return {f"{ours}.{leaf}": self.take(f"{prefix}.{leaf}") for leaf in ("weight", "bias")}

    def gate(self, prefix: str, ours: str) -> State:
        """Convolutions 0, 2 and 4 of a gate."""
        return {
            key: value
            for index in ("0", "2", "4")
            for key, value in self.conv(f"{prefix}.{index}", f"{ours}.{index}").items()
        }

    def gated_pooling(self, level: int, prefix: str = "") -> State:
        """`GatedPooling`: the half of the first convolution that feeds the gate goes into the gate's first."""
        ours, pool = f"levels.{level}", f"{prefix}weight_pool.{level}"
        state = self.gate(f"{pool}.weight_blk", f"{ours}.gate")
        value, feed = self.take(f"{pool}.splitconv.weight").chunk(2)
        value_bias, feed_bias = self.take(f"{pool}.splitconv.bias").chunk(2)
        first, bias = state[f"{ours}.gate.0.weight"].flatten(1).double(), state[f"{ours}.gate.0.bias"]
        state[f"{ours}.gate.0.weight"] = (first @ feed.flatten(1).double()).to(feed)[..., None, None]
        state[f"{ours}.gate.0.bias"] = (bias + first @ feed_bias.double()).to(bias)
        state |= {f"{ours}.value.weight": value, f"{ours}.value.bias": value_bias}
        return state | self.conv(f"{prefix}dim_reduce.{level}.0", f"{ours}.reduce")

    def cross_scale(self, prefixes: Sequence[str]) -> State:
        """`CrossScale` of the networks under the given prefixes."""
        state = {
            "rows": torch.cat([self.take(f"{prefix}h_emb")[..., 0] for prefix in prefixes]),
            "columns": torch.cat([self.take(f"{prefix}w_emb")[:, :, 0] for prefix in prefixes]),
        }
        blocks = {f"sa_attn_blks.{i}.layers.0": f"within.{i}" for i in range(5)} | {"attn_pool": "pool"}
        for theirs, ours in blocks.items():
            state |= self.stack([self.attention(f"{prefix}{theirs}", ours) for prefix in prefixes])
        for i in range(4):
            block = f"attn_blks.{i}.layers.0"
            state |= self.stack([self.attention(f"{prefix}{block}", f"across.{i}", True) for prefix in prefixes])
            self.drop(*(f"{prefix}{block}.self_attn." for prefix in prefixes))
        return state | self.stack([self.perceptron(f"{prefix}score_linear", "head") for prefix in prefixes])

    def attention(self, prefix: str, ours: str, cross: bool = False) -> State:
        """`Attention` of one network; an attention `cross` has a normalisation of its own for what it looks at."""
        name = "multihead_attn" if cross else "self_attn"
        weight, bias = self.take(f"{prefix}.{name}.in_proj_weight"), self.take(f"{prefix}.{name}.in_proj_bias")
        width = weight.shape[1]
        norms = [(self.take(f"{prefix}.norm{i}.weight"), self.take(f"{prefix}.norm{i}.bias")) for i in (1, 2)]
        norms.append((self.take(f"{prefix}.norm3.weight"), self.take(f"{prefix}.norm3.bias")) if cross else norms[1])
        up = self.take(f"{prefix}.linear1.weight"), self.take(f"{prefix}.linear1.bias")
        return {
            **named(f"{ours}.query", after_norm(*norms[0], weight[:width], bias[:width])),
            **named(f"{ours}.key_value", after_norm(*norms[1 if cross else 0], weight[width:], bias[width:])),
            **self.conv(f"{prefix}.{name}.out_proj", f"{ours}.out"),
            **named(f"{ours}.up", after_norm(*norms[2], *up)),
            **self.conv(f"{prefix}.linear2", f"{ours}.down"),
        }

    def perceptron(self, prefix: str, ours: str) -> State:
        """`Perceptron` of one network."""
        state: State = {}
        for index, norm, linear in ((0, "0", "1"), (1, "3", "4")):
            scale, shift = self.take(f"{prefix}.{norm}.weight"), self.take(f"{prefix}.{norm}.bias")
            pair = self.take(f"{prefix}.{linear}.weight"), self.take(f"{prefix}.{linear}.bias")
            state |= named(f"{ours}.layers.{index}", after_norm(scale, shift, *pair))
        return state | self.conv(f"{prefix}.6", f"{ours}.layers.2")

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """The parameters of several networks along a new first dimension."""
        return {key: torch.stack([state[key] for state in states]) for key in states[0]}


def named(ours: str, layer: tuple[Tensor, Tensor]) -> State:
    """A layer's weight and bias under our name."""
    return {f"{ours}.weight": layer[0], f"{ours}.bias": layer[1]}


def after_norm(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer that takes what a normalisation of that scale and shift takes, without them."""
    folded = bias + weight.double() @ shift.double()
    return (weight.double() * scale.double()).to(weight), folded.to(bias)


def after_batch_norm(state: State, convolutions: dict[str, str], epsilon: float = 1e-5) -> State:
    """A state dict whose batch normalisations are folded into the convolutions before them.

    Args:
        state: the published tensors by name.
        convolutions: each normalisation's name to its convolution's.
        epsilon: under the root of the variance.
    """
    folded = dict(state)
    for norm, name in convolutions.items():
        scale, shift, mean, variance = (
            folded.pop(f"{norm}.{leaf}") for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        folded.pop(f"{norm}.num_batches_tracked", None)
        weight = folded[f"{name}.weight"]
        factor = scale.double() / (variance.double() + epsilon).sqrt()
        folded[f"{name}.weight"] = (weight.double() * factor[:, None, None, None]).to(weight)
        folded[f"{name}.bias"] = (shift.double() - mean.double() * factor).to(shift)
    return folded
