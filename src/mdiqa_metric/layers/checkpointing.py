"""Computing once more in backward what would otherwise be kept for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

R = TypeVar("R")


def maybe_checkpoint(wanted: bool, function: Callable[..., R], *args: Any) -> R:
    """`function(*args)`, of which backward keeps the arguments alone where that is `wanted` and a graph is built."""
    if wanted and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return function(*args)
