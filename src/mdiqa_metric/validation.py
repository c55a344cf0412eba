"""Validation of inputs, in one place. Errors say what was expected, what was given and how to fix it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .ops.autograd import is_recording_graph

# Float rounding of resizes and color conversions stays far below this; 1.0001 does not.
RANGE_TOLERANCE = 1e-5


def check_image(
    name: str, image: Any, role: str, min_size: int, device: torch.device | None, dtype: torch.dtype | None
) -> Tensor:
    """Checks an image and returns it in the dtype to compute in: `dtype`, or at least float32 if that is None.

    Values are not read; see `check_range`.

    Args:
        name: the metric, for error messages.
        image: what the user passed.
        role: what error messages call it, "image" or "reference".
        min_size: smallest height and width accepted, in pixels.
        device: the device of the metric's weights, or None if it has none.
        dtype: the dtype of the metric's weights, or None if it has none.

    Raises:
        TypeError: not a floating-point tensor, or float64 where the weights are not.
        ValueError: not (N, 3, H, W) with N > 0, smaller than `min_size`, or on another device.

    Example:
        >>> check_image("psnr", torch.zeros(1, 3, 8, 8, dtype=torch.float16), "image", 1, None, None).dtype
        torch.float32
    """
    takes = f"{name} takes {_a(role)} of floats (N, 3, H, W) in [0, 1]"
    if not isinstance(image, Tensor):
        raise TypeError(f"{takes}, got {type(image).__name__}: mdiqa_metric.read_image(path) makes one of a file.")
    if not image.is_floating_point():
        mend = "divide by 255." if image.dtype == torch.uint8 else "convert it to float and scale it to [0, 1]."
        raise TypeError(f"{takes}, got {image.dtype}: {mend}")
    shape = tuple(image.shape)
    if image.ndim != 4:
        mend = "add a batch dimension with image[None]." if image.ndim == 3 else "make it a batch of RGB images."
        raise ValueError(f"{takes}, got {image.ndim} dimensions {shape}: {mend}")
    if shape[1] != 3:
        if shape[3] == 3:
            mend = "move the channels first with .permute(0, 3, 1, 2)."
        elif shape[1] == 1:
            mend = "repeat a gray image with .expand(-1, 3, -1, -1)."
        elif shape[1] == 4:
            mend = "blend the alpha channel away first."
        else:
            mend = "pass three color channels."
        raise ValueError(f"{takes}, got {shape[1]} channels {shape}: {mend}")
    if shape[0] == 0:
        raise ValueError(f"{takes}, got an empty batch {shape}: leave empty batches out.")
    if min(shape[2:]) < min_size:
        raise ValueError(
            f"{name} takes images from {min_size}x{min_size} pixels up, got {_a(role)} of {shape[2]}x{shape[3]}: "
            "use a larger image or crop."
        )
    if device is not None and image.device != device:
        raise ValueError(
            f'{name} is on {device}, got {_a(role)} on {image.device}: move one, as in metric.to("{image.device}").'
        )
    if dtype is None:
        return image if image.dtype == torch.float64 else image.float()
    if image.dtype == torch.float64 and dtype != torch.float64:
        raise TypeError(
            f"{name} computes in {dtype}, got {_a(role)} of torch.float64: use metric.double() or {role}.float()."
        )
    return image.to(dtype)


def check_pair(name: str, image: Tensor, shape: Sequence[int], device: torch.device, role: str) -> None:
    """Checks that an image (N, 3, H, W) and a reference of the given shape and device can be compared.

    Raises:
        ValueError: the shapes or the devices differ.

    Example:
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> check_pair("psnr", image, image.shape, image.device, "reference")
    """
    if tuple(image.shape) != tuple(shape):
        raise ValueError(
            f"{name} takes an image and {_a(role)} of one shape, got {tuple(image.shape)} and {tuple(shape)}: crop or "
            "resize one of them, and repeat a shared reference for each image."
        )
    if image.device != device:
        raise ValueError(
            f"{name} takes both on one device, got the image on {image.device} and the {role} on {device}: move one "
            "with .to()."
        )


def check_range(name: str, image: Tensor, role: str, margin: float) -> bool:
    """Checks that every value lies in [-margin, 1 + margin], which NaN does not.

    Reading the extremes synchronizes the device. A compiled or exported graph asserts on the device instead.

    Returns:
        Whether all values are known to lie in [0, 1]; False in a graph.

    Raises:
        ValueError: a value lies outside.
        RuntimeError: the same, in a compiled or exported graph.

    Example:
        >>> check_range("psnr", torch.tensor([0.0, 1.1]), "image", margin=0.25)
        False
    """
    takes = f"{name} takes {_a(role)} in [0, 1]"
    if is_recording_graph():
        inside = ((image >= -margin) & (image <= 1 + margin)).all()
        torch._assert_async(inside, f"{takes}, without NaN; this one leaves it: look at its range before the call.")
        return False
    lowest, highest = (value.item() for value in _unwrap(image).aminmax())
    if -margin <= lowest and highest <= 1 + margin:
        return lowest >= 0 and highest <= 1
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        mend = "find where it became NaN or infinite before it is scored."
    elif highest > 2:
        mend = "divide by 255." if highest <= 256 and lowest >= 0 else "scale it to [0, 1] first."
    elif lowest < -0.25:
        mend = "if it lies in [-1, 1], use x / 2 + 0.5; if it overshoots, clamp it."
    else:
        mend = "clamp it with .clamp(0, 1)."
    raise ValueError(f"{takes}, got values from {lowest:.5g} to {highest:.5g}: {mend}")


def as_number(value: Any, owner: str) -> float:
    """Converts a weight to a float: any real number of Python or NumPy, or a tensor or array of shape ().

    `owner` is what the error message calls the receiver.

    Raises:
        ValueError: anything else, including bool.

    Example:
        >>> as_number(torch.tensor(0.5), "Loss")
        0.5
    """
    single = getattr(value, "ndim", None) == 0 and hasattr(value, "item")  # a tensor or an array
    number = value.item() if single else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise ValueError(f"{owner} takes a finite number as weight, got {value!r}: give a float.")
    return float(number)


def check_weight(value: Any, owner: str) -> float:
    """Converts the weight of a loss to a float and checks it.

    Raises:
        ValueError: not a number (see `as_number`), not finite in float32, or negative.

    Example:
        >>> check_weight(2, "Loss")
        2.0
    """
    weight = as_number(value, owner)
    if not abs(weight) <= torch.finfo(torch.float32).max:
        raise ValueError(f"{owner} takes a finite number as weight, of float32, got {weight}: give a smaller one.")
    if weight < 0:
        raise ValueError(
            f"{owner} takes a weight from 0 up, got {weight:g}: a loss of negative weight would reward what the metric "
            "calls worse. Leave the sign out: `Loss` applies the metric's direction."
        )
    return weight


def recordable(image: Tensor) -> Tensor:
    """Returns a tensor that autograd can save for backward: a copy if it was made in inference mode, else the tensor.

    Example:
        >>> with torch.inference_mode():
        ...     image = torch.zeros(1, 3, 8, 8)
        >>> recordable(image).is_inference()
        False
    """
    if is_recording_graph() or not torch.is_grad_enabled() or not image.is_inference():
        return image
    return image.clone()


def _unwrap(image: Tensor) -> Tensor:
    """The tensor inside the wrappers of torch.func, with all vmap lanes; a wrapped tensor's values cannot be read."""
    while torch._C._functorch.is_functorch_wrapped_tensor(image):
        image = torch._C._functorch.get_unwrapped(image)
    return image


def _a(role: str) -> str:
    return f"a {role}" if role == "reference" else f"an {role}"
