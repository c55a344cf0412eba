"""The highest and lowest response of filters, without keeping their maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision

# How many rows of a map are computed at a time.
ROWS = 128


def filter_extremes(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d(image, weight, bias)`, the maximum and then the minimum of each map: (N, C, H, W) -> (N, 2D).

    The maps are computed some rows at a time, only to find where the extremes are; the values are then computed from
    these windows alone. So neither forward nor backward holds a map, and backward costs next to nothing. Of equal
    responses the first counts.

    Args:
        image: (N, C, H, W), no smaller than a filter.
        weight, bias: (D, C, K, K) and (D,).

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> filter_extremes(image, torch.ones(1, 1, 2, 2), torch.zeros(1))
        tensor([[24.,  8.]])
    """
    with torch.no_grad():
        places = _find(image.to(weight.dtype), weight)
    return _responses(image, weight, bias, places)


def _find(image: Tensor, weight: Tensor) -> Tensor:
    """Where each map's maximum and minimum are (N, 2D), counted in positions of the map, row by row."""
    size, columns = weight.shape[-1], image.shape[-1] - weight.shape[-1] + 1
    rows, values, places = image.shape[-2] - size + 1, [], []
    for top in range(0, rows, ROWS):
        maps = F.conv2d(image[..., top : min(top + ROWS, rows) + size - 1, :], weight).flatten(2)
        (highest, at), (lowest, at_lowest) = maps.max(2), maps.min(2)
        values.append(torch.cat([highest, -lowest], 1))
        places.append(torch.cat([at, at_lowest], 1) + top * columns)
    band = torch.stack(values).argmax(0, keepdim=True)
    return torch.stack(places).gather(0, band)[0]


@full_precision
def _responses(image: Tensor, weight: Tensor, bias: Tensor, places: Tensor) -> Tensor:
    """The responses (N, 2D) at the places that `_find` returns."""
    size, width = weight.shape[-1], image.shape[-1]
    columns = width - size + 1
    corners = places.div(columns, rounding_mode="floor") * width + places % columns
    steps = torch.arange(size, device=places.device)
    window = (steps[:, None] * width + steps).flatten()
    indices = (corners[..., None] + window).flatten(1)  # (N, 2D K K)
    pixels = image.flatten(2).gather(2, indices[:, None].expand(-1, image.shape[1], -1))
    pixels = pixels.unflatten(2, (-1, size * size))  # (N, C, 2D, K K)
    filters = torch.cat([weight, weight]).flatten(2).transpose(0, 1)  # (C, 2D, K K)
    return (pixels * filters.to(pixels.dtype)).sum((1, 3)) + torch.cat([bias, bias])
