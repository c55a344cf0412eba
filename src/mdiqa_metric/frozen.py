"""Modules that no parent trains, saves, loads, initializes or empties."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Frozen")
Move = Callable[[Tensor], Tensor]
# In the memo of `named_modules` when it was called on the frozen module itself, not on a parent.
_INSIDE = "inside"


class Frozen(nn.Module):
    """A module that no parent changes until `unfreeze` is called.

    While it is frozen, a parent's `train()`, `requires_grad_()`, `apply()`, `parameters()`, `buffers()`, `modules()`,
    `state_dict()` and `load_state_dict()` skip it, and so do optimizers, DDP and weight averaging. `.to()`, `deepcopy`
    and pickling include it, and `to_empty()` moves it with its values.

    Its own `parameters()`, `state_dict()`, `load_state_dict()` and `requires_grad_()` work as usual when called on it
    directly. `train()` and `apply()` cannot tell who calls them and do nothing. Code that goes through `children()`
    still reaches it: `nn.DataParallel`, which fails on it, and quantization.

    Example:
        >>> parent = nn.Sequential(nn.Linear(2, 2), Frozen().freeze())
        >>> parent.train()[1].training
        False
    """

    _frozen = True
    _open = False
    _loading_from = ""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_miss_nothing)

    def freeze(self: Self) -> Self:
        """Switches to eval mode, disables the weights' gradients and hides it from parents; returns the module."""
        self._frozen = True
        for part in self.children():
            if isinstance(part, Frozen):
                part.freeze()
        return self.eval().requires_grad_(False)

    def unfreeze(self: Self) -> Self:
        """Allows training: the weights require gradients, and parents and `train()` reach it; returns the module."""
        self._frozen = False
        for part in self.children():
            if isinstance(part, Frozen):
                part.unfreeze()
        return self.requires_grad_(True)

    def train(self: Self, mode: bool = True) -> Self:
        """Sets training mode, or eval mode while frozen."""
        return super().train(mode and not self._frozen)

    def apply(self: Self, fn: Callable[[nn.Module], None]) -> Self:
        """Applies `fn` to all submodules, or to none while frozen."""
        return self if self._frozen else super().apply(fn)

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As `nn.Module.named_modules`; a parent, which passes its memo on, finds nothing while frozen."""
        if memo is None:
            memo = {_INSIDE}
        if not self._frozen or _INSIDE in memo:
            yield from super().named_modules(memo, prefix, remove_duplicate)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """As `nn.Module.state_dict`; adds nothing to the dict that a parent passes on while frozen."""
        if destination is None and not args:
            with self._opened():
                return super().state_dict(prefix=prefix, keep_vars=keep_vars)
        if self._frozen and not self._open:
            return args[0] if args else destination
        return super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As `nn.Module.load_state_dict`, its own."""
        with self._opened():
            return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._loading_from = prefix if self._frozen and not self._open else ""
        if self._loading_from:
            state_dict.clear()  # a dict of this module's own entries, which its parts would take theirs from
        super()._load_from_state_dict(state_dict, prefix, *args)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """This and the frozen modules in it, open to what is asked of this one."""
        parts = [part for part in self.modules() if isinstance(part, Frozen)]
        for part in parts:
            part._open = True
        try:
            yield
        finally:
            for part in parts:
                part._open = False

    def _apply(self: Self, fn: Move, recurse: bool = True) -> Self:
        # Tensors made in inference mode could never be saved for a gradient again.
        with torch.inference_mode(False):
            return super()._apply(_keeping_values(fn, type(self).__name__), recurse)


def _miss_nothing(module: Frozen, incompatible: Any) -> None:
    """After a parent's state was loaded: a frozen module's own weights are not missing from it."""
    if prefix := module._loading_from:
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.startswith(prefix)]


def _keeping_values(fn: Move, name: str) -> Move:
    """What `_apply` is to do, `fn`, but moving where that would leave memory unset, as `to_empty` does."""
    probe = torch.tensor([float(random.SystemRandom().randint(1, 255)) for _ in range(16)], device="cpu")
    result = fn(probe)
    lost = not result.is_meta and not torch.equal(result.to("cpu", torch.float32), probe)

    def move(tensor: Tensor) -> Tensor:
        if tensor.is_meta and not result.is_meta:
            raise RuntimeError(
                f"{name} lost its weights when it was moved to the meta device: create it once more, after to_empty()."
            )
        return tensor.to(result.device) if lost else fn(tensor)

    return move
