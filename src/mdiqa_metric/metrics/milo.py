"""MILO: absolute difference under a learned mask of what people see."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..metric import Metric

# Channels of the convolutions between the input (two images and a mask) and the mask.
WIDTHS = (7, 32, 64, 32, 16)
# The image and three halvings of it.
SCALES = 4


class MILO(Metric):
    """The mean of `mask * |image - reference|`, in [0, 4], 0 for equal images.

    A small network predicts the mask, which says where a difference is visible, from coarse to fine: at each of four
    scales it gets both images and the mask of the coarser scale, and adds a value in (0, 1). From "MILO: a lightweight
    perceptual quality metric for image and latent-space optimization" (Cogalan et al., ACM TOG 2025). The reference is
    the network's first input, as in the authors' error maps; their `forward(distorted, reference)` swaps the two.

    Example:
        >>> from mdiqa_metric import create
        >>> image = torch.rand(1, 3, 32, 32)
        >>> create("milo")(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, float(SCALES))
    min_size = 16

    def __init__(self) -> None:
        super().__init__()
        layers = [FrozenConv2dReLU(a, b, 3, padding=1) for a, b in itertools.pairwise(WIDTHS)]
        self.network = nn.Sequential(*layers, FrozenConv2d(WIDTHS[-1], 1, 3, padding=1))
        self.network.to(memory_format=torch.channels_last)

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,)."""
        pyramid = [torch.cat([reference, image], 1)]
        for _ in range(SCALES - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        mask: Tensor | None = None
        for pair in reversed(pyramid):
            coarse = torch.zeros_like(pair[:, :1]) if mask is None else _upsample(mask, pair.shape[-2:])
            mask = self.network(torch.cat([pair, coarse], 1)).to(image.dtype).sigmoid() + coarse
        assert mask is not None
        return (mask * (image - reference).abs()).mean((1, 2, 3))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, without the network that turns errors into opinions."""
        published = PublishedState(state)
        published.drop("scaler_network.")
        layers = {
            rf"mask_finder_1\.netBasic\.{2 * index}\.(.+)": rf"network.{index}.\1" for index in range(len(WIDTHS))
        }
        return published.rename(layers).state


def _upsample(mask: Tensor, size: torch.Size) -> Tensor:
    """A mask (N, 1, h, w) at twice its size; the last row and column are repeated where `size` is odd."""
    mask = F.interpolate(mask, (size[0] // 2 * 2, size[1] // 2 * 2), mode="bilinear", align_corners=True)
    return F.pad(mask, (0, size[1] % 2, 0, size[0] % 2), mode="replicate")
