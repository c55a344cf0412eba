"""MILO: absolute difference under a learned mask of what people see."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

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


class Explanation(NamedTuple):
    """What `MILO.explain` finds in N pairs of images.

    Attributes:
        map: the visible difference `mask * |image - reference|` (N, 3, H, W), whose mean is the score.
        mask: how visible a difference would be at each pixel (N, 1, H, W), in (0, 4).
        mos: the opinion score (N,) that the authors' second network expects, in (0, 5), higher is better.
    """

    map: Tensor
    mask: Tensor
    mos: Tensor


class MILO(Metric):
    """The mean of `mask * |image - reference|`, in [0, 4], 0 for equal images; `explain` gives mask, map and MOS.

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
        self.opinion = nn.Sequential(
            nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Sigmoid()
        )

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,)."""
        return (self._mask(image, reference) * (image - reference).abs()).mean((1, 2, 3))

    def explanation(self, image: Tensor, reference: Tensor) -> Explanation:
        """Map, mask and expected opinion; see `Explanation`."""
        mask = self._mask(image, reference)
        visible = mask * (image - reference).abs()
        error = visible.mean((1, 2, 3)).to(self._dtype())
        return Explanation(visible, mask, 5 * (1 - self.opinion(error[:, None]).squeeze(1)))

    def _mask(self, image: Tensor, reference: Tensor) -> Tensor:
        """The visibility of differences (N, 1, H, W)."""
        pyramid = [torch.cat([reference, image], 1)]
        for _ in range(SCALES - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        mask: Tensor | None = None
        for pair in reversed(pyramid):
            coarse = torch.zeros_like(pair[:, :1]) if mask is None else _upsample(mask, pair.shape[-2:])
            mask = self.network(torch.cat([pair, coarse], 1)).to(image.dtype).sigmoid() + coarse
        assert mask is not None
        return mask

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, whose opinion network has 1x1 convolutions."""
        published = PublishedState(state)
        keys = {rf"mask_finder_1\.netBasic\.{2 * index}\.(.+)": rf"network.{index}.\1" for index in range(len(WIDTHS))}
        renamed = published.rename(keys | {r"scaler_network\.model\.(.+)": r"opinion.\1"}).state
        return {key: w.flatten(1) if key.startswith("opinion") and w.ndim == 4 else w for key, w in renamed.items()}


def _upsample(mask: Tensor, size: torch.Size) -> Tensor:
    """A mask (N, 1, h, w) at twice its size; the last row and column are repeated where `size` is odd."""
    mask = F.interpolate(mask, (size[0] // 2 * 2, size[1] // 2 * 2), mode="bilinear", align_corners=True)
    return F.pad(mask, (0, size[1] % 2, 0, size[0] % 2), mode="replicate")
