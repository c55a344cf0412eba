"""Recomputing in backward what would otherwise be saved for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

R = TypeVar("R")


def maybe_checkpoint(wanted: bool, function: Callable[..., R], *args: Any) -> R:
    """`function(*args)`; if `wanted` and a graph is built, only the arguments are saved for backward."""
    if wanted and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return function(*args)
