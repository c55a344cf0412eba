"""CNNIQA: one convolution, pooled to its extremes, and a perceptron."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn

from ..checkpoints.remapping import PublishedState
from ..layers.crops import check_chunk, crop, map_chunks, tile_places
from ..layers.score_head import ScoreHead
from ..metric import Metric, QualityMap
from ..ops.color import gray_pillow, luma_full
from ..ops.extremes import filter_extremes
from ..ops.statistics import normalize_locally

# Number and side of the filters, and the side of the patches, which is their distance too.
FILTERS, KERNEL, SIDE = 50, 7, 32


class CNNIQA(Metric):
    """No-reference quality of the whole image, higher is better; the published checkpoint gives about 0 to 1.

    The highest and the lowest response of each of 50 filters of 7 x 7 pixels go through a perceptron. The network of
    "Convolutional neural networks for no-reference image quality assessment" (Kang et al., CVPR 2014) as pyiqa changed
    and trained it: it takes RGB, not normalized, and images (N, 3, H, W) as a whole. See `CNNIQAPatches` for the
    paper's. The score depends on at most 100 windows, so nothing else has a gradient.

    Example:
        >>> import torch
        >>> CNNIQA().accept_untrained()(torch.rand(2, 3, 40, 50)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = KERNEL

    def __init__(self) -> None:
        super().__init__()
        self.filters = FilterExtremes(3, FILTERS, KERNEL)
        self.head = ScoreHead(2 * FILTERS, 800, 800, 1)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.head(self.filters(image)).squeeze(1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the published file."""
        return _from_published(state)


class CNNIQAPatches(Metric):
    """No-reference distortion, lower is better: the mean over gray patches; the network of LIVE gives about 0 to 100.

    From "Convolutional neural networks for no-reference image quality assessment" (Kang et al., CVPR 2014), in the
    program of lidq92 that most use. Luma's patches of 32 x 32 pixels lose their local mean and contrast,
    `(x - mean) / (deviation + 1)` over 3 x 3 pixels inside the patch, and pass the network of `CNNIQA`. They tile the
    image (N, 3, H, W) from the top left and end before the last row and column, as that program has it: a side of 64
    pixels has one patch, of 65 two, and what lies beyond has no influence. `explain` gives the scores of the patches,
    (N, 1, rows, columns).

    Args:
        convention: "unrounded" takes BT.601 luma as it is; "8-bit" rounds it as Pillow does, which that
            program reads images with.
        chunk: how many patches are scored at a time. If there are more, backward scores them again, which bounds
            memory.

    Rounding has no useful gradient, so `Loss` refuses such a metric, although autograd passes straight through it.

    Raises:
        ValueError: an unknown convention, or `chunk` is below 1.

    Example:
        >>> import torch
        >>> CNNIQAPatches().accept_untrained()(torch.rand(2, 3, 40, 50)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = True
    score_range = (-math.inf, math.inf)
    min_size = SIDE + 1
    no_gradient = 'it rounds to 8 bits; create it with convention="unrounded", as cnniqa-live.'

    def __init__(self, convention: Literal["unrounded", "8-bit"] = "unrounded", chunk: int = 2048) -> None:
        super().__init__()
        if convention not in ("unrounded", "8-bit"):
            raise ValueError(f"CNNIQA takes convention 'unrounded' or '8-bit', got {convention!r}.")
        self.convention, self.chunk = convention, check_chunk(chunk)
        self.color = "gray of Pillow, 8 bits" if convention == "8-bit" else "Y BT.601 full range"
        self.differentiable = self.facts(convention=convention)["differentiable"]
        self.filters = FilterExtremes(1, FILTERS, KERNEL)
        self.head = ScoreHead(2 * FILTERS, 800, 800, 1)

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {"differentiable": options.get("convention") != "8-bit"}

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).map.mean((1, 2, 3))

    def explanation(self, image: Tensor, reference: None) -> QualityMap:
        """The scores of the patches (N, 1, rows, columns)."""
        luma = gray_pillow(image) if self.convention == "8-bit" else luma_full(image)
        height, width = image.shape[-2:]
        patches = crop(luma, tile_places(height - 1, width - 1, SIDE, SIDE), SIDE)
        scores = map_chunks(self._score_patches, [patches.flatten(0, 1)], self.chunk)
        return QualityMap(scores.view(len(image), 1, (height - 1) // SIDE, -1))

    def _score_patches(self, patches: Tensor) -> Tensor:
        """Scores (M, 1) of luma (M, 1, 32, 32)."""
        return self.head(self.filters(normalize_locally(patches)))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for lidq92's file."""
        return _from_published(state)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}"


class FilterExtremes(nn.Conv2d):
    """A convolution, of which only the maximum and the minimum of each map are kept: (N, C, H, W) -> (N, 2D)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2D)."""
        assert self.bias is not None
        return filter_extremes(x, self.weight, self.bias)


def _from_published(state: Any) -> dict[str, Tensor]:
    names = {r"conv1\.(.+)": r"filters.\1"} | {rf"fc{i + 1}\.(.+)": rf"head.{2 * i}.\1" for i in range(3)}
    return PublishedState(state.get("params", state)).rename(names).state
