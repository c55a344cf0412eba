"""Gradient checkpointing: recomputing activations in backward instead of saving them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from ..ops.autograd import is_transformed

R = TypeVar("R")


def maybe_checkpoint(wanted: bool, function: Callable[..., R], *args: Any) -> R:
    """`function(*args)`; if `wanted` and gradients are enabled, only the arguments are saved for backward.

    Inside `torch.func` transforms, which know no checkpoints, all is saved.

    `function` must be deterministic: it runs again in backward, where random numbers would differ.

    Example:
        >>> maybe_checkpoint(True, torch.square, torch.tensor(3.0, requires_grad=True)).item()
        9.0
    """
    if wanted and torch.is_grad_enabled() and not is_transformed():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return function(*args)
