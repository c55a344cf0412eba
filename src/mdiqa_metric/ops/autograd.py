"""When a hand-written gradient may replace autograd's, and how to differentiate one a second time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_recording_graph() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is tracing the call, so that no value can be read.

    Example:
        >>> is_recording_graph()
        False
    """
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_transformed() -> bool:
    """Whether the call runs inside a `torch.func` transform (grad, vmap, jvp...), whose tensors are wrappers.

    Example:
        >>> torch.func.vmap(lambda x: x + is_transformed())(torch.zeros(2))
        tensor([1., 1.])
    """
    return bool(torch._C._are_functorch_transforms_active())


def is_recorded(*inputs: Tensor) -> bool:
    """Whether autograd or a `torch.func` transform may differentiate what is computed from these inputs.

    Example:
        >>> is_recorded(torch.ones(1)), is_recorded(torch.ones(1, requires_grad=True))
        (False, True)
    """
    if is_transformed():
        return True
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def takes_function(*inputs: Tensor) -> bool:
    """Whether to compute the result of these inputs with a `torch.autograd.Function`.

    True where autograd needs a gradient. False while a graph is recorded and inside `torch.func` transforms, which
    differentiate the plain operations themselves.

    Example:
        >>> takes_function(torch.ones(1, requires_grad=True))
        True
    """
    return is_recorded(*inputs) and not is_recording_graph() and not is_transformed()


def differentiable_gradient(
    plain: Callable[..., Any], inputs: Sequence[Tensor], wanted: Sequence[bool], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradient of `plain(*inputs)` with respect to the `wanted` inputs, which can itself be differentiated.

    For the backward of a Function whose hand-written gradient cannot be differentiated: call this there if
    `torch.is_grad_enabled()`, which means that the caller asked for `create_graph=True`.

    Args:
        plain: computes the Function's outputs, a tensor or a tuple of them, by operations that autograd knows.
        inputs: what `plain` takes; the wanted ones require a gradient.
        wanted: for each input, whether to return its gradient.
        gradients: the gradient with respect to each output, None for an unused one.

    Returns:
        For each input a gradient of its shape, or None where not wanted.

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> differentiable_gradient(torch.square, [x], [True], [torch.ones(1)])
        (tensor([6.], grad_fn=<MulBackward0>),)
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
