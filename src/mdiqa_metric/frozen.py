"""Modules that whatever holds them neither trains nor saves, initializes or empties."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Frozen")
Move = Callable[[Tensor], Tensor]
# In the memo of `named_modules` where a frozen module itself is asked, not a parent of it.
_INSIDE = "inside"


class Frozen(nn.Module):
    """A module that stays as it is in any parent, until `unfreeze` asks for the opposite.

    While it is frozen, what a parent does to all of its parts passes it by: `train()`, `requires_grad_()`, `apply()`,
    `parameters()`, `buffers()`, `modules()`, `state_dict()`, `load_state_dict()`, and with them optimizers, DDP and
    averages of weights. `.to()`, `deepcopy` and pickling take it along, and `to_empty()` moves it, values and all.

    Its own methods see the inside: `parameters()`, `state_dict()` and `load_state_dict()` called on it, and
    `requires_grad_()`. Only `train()` and `apply()` cannot tell who calls, and do nothing. Whoever walks the tree by
    `children()` reaches it all the same: `nn.DataParallel`, which fails on it, and quantization do.
    """

    _frozen = True
    _open = False
    _loading_from = ""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_miss_nothing)

    def freeze(self: Self) -> Self:
        """Puts it in eval mode, without gradients to the weights, and out of its parents' reach; returns it."""
        self._frozen = True
        for part in self.children():
            if isinstance(part, Frozen):
                part.freeze()
        return self.eval().requires_grad_(False)

    def unfreeze(self: Self) -> Self:
        """Lets it be trained: its weights ask for gradients, and parents and `train()` reach them; returns it."""
        self._frozen = False
        for part in self.children():
            if isinstance(part, Frozen):
                part.unfreeze()
        return self.requires_grad_(True)

    def train(self: Self, mode: bool = True) -> Self:
        """Sets training mode, but eval mode while it is frozen."""
        return super().train(mode and not self._frozen)

    def apply(self: Self, fn: Callable[[nn.Module], None]) -> Self:
        """Applies `fn` to all parts, but to none while it is frozen."""
        return self if self._frozen else super().apply(fn)

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As `nn.Module.named_modules`; a parent, which passes its memo on, finds nothing while this is frozen."""
        if memo is None:
            memo = {_INSIDE}
        if not self._frozen or _INSIDE in memo:
            yield from super().named_modules(memo, prefix, remove_duplicate)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """As `nn.Module.state_dict`; into a parent's, which is passed on, nothing goes while this is frozen."""
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
