"""When a hand-written gradient replaces autograd's, and how to differentiate it a second time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_recording_graph() -> bool:
    """Whether this runs to become a graph, of torch.compile, torch.export or torch.jit.trace: no value can be read."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_transformed() -> bool:
    """Whether this runs inside a transform of torch.func, whose tensors are wrappers."""
    return bool(torch._C._are_functorch_transforms_active())


def is_recorded(*inputs: Tensor) -> bool:
    """Whether autograd, or a transform of torch.func, may differentiate what is computed from these inputs."""
    if is_transformed():
        return True
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def takes_function(*inputs: Tensor) -> bool:
    """Whether a `torch.autograd.Function` may record what is computed from these inputs.

    In a graph and under the transforms of torch.func (grad, vmap, jvp...) the plain operations do it, which both know
    how to take apart.
    """
    return is_recorded(*inputs) and not is_recording_graph() and not is_transformed()


def differentiable_gradient(
    plain: Callable[..., Any], inputs: Sequence[Tensor], wanted: Sequence[bool], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradient of `plain(*inputs)` with respect to the `wanted` inputs, with a graph for the next derivative.

    For the backward of a Function whose own is faster than it can be differentiated: it is called where
    `torch.is_grad_enabled()` there, that is under `create_graph=True`.
    """
    outputs = plain(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    given = [(y, gradient) for y, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    sought = [x for x, want in zip(inputs, wanted, strict=True) if want]
    found = iter(
        torch.autograd.grad(
            [y for y, _ in given], sought, [gradient for _, gradient in given], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(found) if want else None for want in wanted)
