"""A published state dict brought to our keys: tensors taken, renamed and folded, one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


class PublishedState:
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

    def rename(self, names: Mapping[str, str]) -> PublishedState:
        """Renames every key that one of the patterns matches as a whole, to what it expands to; returns itself.

        A tensor that comes twice (the same head under two names) is kept once. Two different tensors for one key stay
        as they were, to be an error of loading.
        """
        renamed: State = {}
        for key, value in self.state.items():
            new = next((m.expand(names[p]) for p in names if (m := re.fullmatch(p, key))), key)
            differs = new in renamed and not torch.equal(value, renamed[new])
            renamed[key if differs else new] = value
        self.state = renamed
        return self

    def drop_constants(self, constants: Mapping[str, Any]) -> PublishedState:
        """Leaves out tensors whose key matches a pattern and that hold the value our code holds itself; returns itself.

        The value, as nested tuples, may have dimensions of size one more and be repeated. Another value stays, to be an
        error of loading.
        """
        self.state = {
            key: value
            for key, value in self.state.items()
            if not any(re.fullmatch(p, key) and _holds(value, constant) for p, constant in constants.items())
        }
        return self


def stack(states: Sequence[State]) -> State:
    """The parameters of several networks along a new first dimension."""
    return {key: torch.stack([state[key] for state in states]) for key in states[0]}


def named(ours: str, layer: tuple[Tensor, Tensor]) -> State:
    """A layer's weight and bias under our name."""
    return {f"{ours}.weight": layer[0], f"{ours}.bias": layer[1]}


def fold_norm(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer that takes what a normalization of that scale and shift takes, without them."""
    folded = bias + weight.double() @ shift.double()
    return (weight.double() * scale.double()).to(weight), folded.to(bias)


def fold_batch_norm(state: State, convolutions: dict[str, str], epsilon: float = 1e-5) -> State:
    """A state dict whose batch normalizations are folded into the convolutions before them.

    Args:
        state: the published tensors by name; the convolutions may have a bias.
        convolutions: each normalization's name to its convolution's.
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
        bias = folded.get(f"{name}.bias", torch.zeros_like(shift))
        folded[f"{name}.bias"] = (shift.double() + (bias.double() - mean.double()) * factor).to(shift)
    return folded


def _holds(value: Tensor, constant: Any) -> bool:
    return bool((value.squeeze() == torch.tensor(constant)).all())
