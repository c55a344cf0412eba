"""WaDIQaM: the mean of the scores of patches, by weights that the network predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.torchvision import MaxPool
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2dReLU
from ..layers.crops import PatchScores, Place, check_chunk, crop, map_chunks, tile_places
from ..layers.score_head import ScoreHead
from ..metric import EncodedReference, Metric

# Side of the patches, which is their distance too, and channels of the five stages of two convolutions.
SIDE = 32
WIDTHS = (32, 64, 128, 256, 512)
# Added to the weights of patches, so that they never add up to 0.
LEAST_WEIGHT = 1e-8


class WaDIQaMNR(Metric):
    """No-reference quality, higher is better; the published checkpoint gives about 0 to 1.

    `sum(w q) / sum(w)` over patches of 32 x 32 pixels: ten convolutions turn a patch into 512 values, from which one
    small network predicts its quality q and another its weight w, `relu(.) + 1e-8`. From "Deep neural networks for
    no-reference and full-reference image quality assessment" (Bosse et al., TIP 2018). Patches tile images (N, 3, H, W)
    from the top left and end before the last row and column, as in the program that the checkpoint was trained with: a
    side of 64 pixels has one patch, of 65 two, and what lies beyond has no influence. `explain` gives the score and the
    weight of each patch, as `PatchScores`.

    Args:
        chunk: how many patches are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> metric = WaDIQaMNR().accept_untrained()
        >>> metric(torch.rand(2, 3, 72, 100)).shape, metric.explain(torch.rand(2, 3, 72, 100)).weights.shape
        (torch.Size([2]), torch.Size([2, 1, 2, 3]))
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = SIDE + 1

    def __init__(self, chunk: int = 2048) -> None:
        super().__init__()
        self.chunk = check_chunk(chunk)
        self.backbone = _backbone()
        self.quality, self.weight = (ScoreHead(WIDTHS[-1], 512, 1) for _ in range(2))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean()

    def explanation(self, image: Tensor, reference: None) -> PatchScores:
        """The patches' scores and weights; see `PatchScores`."""
        x = _patch_features(self.backbone, image, self.chunk)
        return _patch_scores(self.quality(x), self.weight(x), image)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the published file."""
        return _from_published(state)


class WaDIQaMFR(Metric):
    """Full-reference quality, higher is better; the published checkpoint gives about 0 to 1.

    As `WaDIQaMNR`, from the same paper, but both small networks see the 512 values of the reference's patch, those of
    the image's, and the second minus the first. Equal images do not all get the same score. `encode` keeps the
    reference's values.

    Args:
        chunk: see `WaDIQaMNR`.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> metric, reference = WaDIQaMFR().accept_untrained(), torch.rand(2, 3, 72, 100)
        >>> metric(torch.rand(2, 3, 72, 100), metric.encode(reference)).shape
        torch.Size([2])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = SIDE + 1

    def __init__(self, chunk: int = 2048) -> None:
        super().__init__()
        self.chunk = check_chunk(chunk)
        self.backbone = _backbone()
        self.quality, self.weight = (ScoreHead(3 * WIDTHS[-1], 512, 1) for _ in range(2))

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean()

    def explanation(self, image: Tensor, reference: Tensor | EncodedReference) -> PatchScores:
        """The patches' scores and weights; see `PatchScores`."""
        references = reference.features if isinstance(reference, EncodedReference) else self.features(reference)
        (x,), (y,) = self.features(image), references
        x = torch.cat([y, x, x - y], -1)
        return _patch_scores(self.quality(x), self.weight(x), image)

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The values of the patches (N, K, 512) of images (N, 3, H, W) in [0, 1]."""
        yield _patch_features(self.backbone, image, self.chunk)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the published file."""
        return _from_published(state)


def _backbone() -> nn.Sequential:
    """Five stages of two convolutions and a pooling to half the size, numbered as in the published files."""
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        layers += [FrozenConv2dReLU(channels, width, 3, padding=1), nn.Identity()]
        layers += [FrozenConv2dReLU(width, width, 3, padding=1), nn.Identity(), MaxPool(2, 2)]
        channels = width
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _places(image: Tensor) -> list[Place]:
    height, width = image.shape[-2:]
    return tile_places(height - 1, width - 1, SIDE, SIDE)


def _patch_features(backbone: nn.Module, image: Tensor, chunk: int) -> Tensor:
    """The backbone's values of the patches (N, K, 512) of images (N, 3, H, W)."""
    patches = crop(image, _places(image), SIDE)
    return map_chunks(backbone, [patches.flatten(0, 1)], chunk).flatten(1).unflatten(0, patches.shape[:2])


def _patch_scores(quality: Tensor, weight: Tensor, image: Tensor) -> PatchScores:
    """Maps of patches' scores (N, K, 1) and weights before the ReLU."""
    rows = (image.shape[-2] - 1) // SIDE
    maps = (x.to(image.dtype).mT.unflatten(-1, (rows, -1)) for x in (quality, weight.relu() + LEAST_WEIGHT))
    return PatchScores(*maps)


def _from_published(state: Any) -> dict[str, Tensor]:
    names = {r"features\.(.+)": r"backbone.\1"}
    for theirs, ours in (("fc_q", "quality"), ("fc_w", "weight")):
        names |= {rf"{theirs}\.0\.(.+)": rf"{ours}.0.\1", rf"{theirs}\.3\.(.+)": rf"{ours}.2.\1"}
    return PublishedState(state.get("params", state)).rename(names).state
