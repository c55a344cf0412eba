"""Float32 for functions that would lose their digits in half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
# Computed at import: some versions of torch.compile cannot trace the call.
_AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu") if torch.amp.is_autocast_available(kind))
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function of tensors that must not run in half precision.

    Positional tensors, of which there must be at least one, are cast from float16 or bfloat16 to float32; other dtypes
    stay. Autocast is off inside, for the device of the first tensor. Gradients flow back through the cast.

    Example:
        >>> full_precision(torch.exp)(torch.tensor([20.0], dtype=torch.float16))  # float16 ends at 65504
        tensor([4.8517e+08])
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        raised: Any = [_to_float32(value) for value in args]
        if device not in _AUTOCAST:
            return function(*raised, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*raised, **kwargs)

    return cast("Callable[P, R]", wrapped)


def _to_float32(value: Any) -> Any:
    """A tensor in half precision as float32; anything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
