"""HyperIQA: a small network scores each crop, with weights that another predicts from what the crop shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet50
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..layers.crops import Place, check_chunk, crop, grid_places, map_chunks
from ..metric import Metric
from ..ops.precision import full_precision
from ..ops.resize import resize

# Side of a crop, and of its last feature map; what the small network takes and has behind each layer.
SIDE, MAP = 224, 7
WIDTHS = (224, 112, 56, 28, 14, 1)
# What is kept of the first three stages' maps before they are compared place by place, and what each gives the network.
REDUCED, LOCAL = (16, 32, 64), 16
# Channels that the weights are predicted from.
HYPER = 112
# Height and width that the authors resize to.
AUTHORS_SIZE = (512, 384)


class CropScores(NamedTuple):
    """What `explain` returns for a metric that is the mean over crops.

    Attributes:
        scores: of the crops (N, K). The metric's score is their mean.
        places: top and left of each crop (K, 2), in pixels of the image after it was resized.
    """

    scores: Tensor
    places: Tensor


class HyperIQA(Metric):
    """No-reference quality, higher is better: pyiqa's checkpoint gives about 0 to 1, the authors' 0 to 100.

    The mean over crops of 224 x 224 pixels of images (N, 3, H, W). ResNet-50's last map of a crop becomes the weights
    of a network of five layers with sigmoids between them, which scores the crop from 224 values of all four stages.
    From "Blindly assess image quality in the wild guided by a self-adaptive hyper network" (Su et al., CVPR 2020). The
    crops form an even grid that does not quite reach the last row and column; an image whose shorter side is 224 or
    less is first enlarged to 225 (bilinear). `explain` gives the crops' scores, as `CropScores`.

    Args:
        convention: "native" takes crops at the image's own size, as pyiqa trained its checkpoint; "authors" first
            resizes every image, whatever its shape, to 512 rows and 384 columns (bilinear, antialiased), not rounded.
        crops: how many.
        seed: draws the crops' places at random, the same ones in every call, as the authors do; None has the grid.
        chunk: how many crops are scored at a time. If there are more, backward scores them again, which bounds memory.

    Raises:
        ValueError: an unknown convention, or `crops` or `chunk` is below 1.

    Example:
        >>> metric = HyperIQA(crops=4).accept_untrained()
        >>> metric(torch.rand(1, 3, 40, 50)).shape, metric.explain(torch.rand(1, 3, 230, 240)).places.tolist()
        (torch.Size([1]), [[0, 0], [0, 8], [3, 0], [3, 8]])
    """

    full_reference = False
    lower_is_better = False
    score_range = (-math.inf, math.inf)

    def __init__(
        self,
        convention: Literal["native", "authors"] = "native",
        crops: int = 25,
        seed: int | None = None,
        chunk: int = 32,
    ) -> None:
        super().__init__()
        if convention not in ("native", "authors"):
            raise ValueError(f"HyperIQA takes convention 'native' or 'authors', got {convention!r}.")
        if crops < 1:
            raise ValueError(f"HyperIQA takes 1 crop or more, got crops={crops}: ask for at least one.")
        self.convention, self.crops, self.seed, self.chunk = convention, crops, seed, check_chunk(chunk)
        self.resize = f"a shorter side of {SIDE} or less to {SIDE + 1}, bilinear"
        if convention == "authors":
            self.resize = f"{AUTHORS_SIZE[0]} rows, {AUTHORS_SIZE[1]} columns, antialiased bilinear"
        self.crop = f"{crops} of {SIDE} px, {'even grid' if seed is None else f'random with seed {seed}'}"
        self.backbone = ResNet50()
        channels = self.backbone.channels[1:]
        self.reduce = nn.ModuleList(
            FrozenConv2d(count, kept, 1, bias=False) for count, kept in zip(channels, REDUCED, strict=False)
        )
        inputs = [kept * (MAP * 8 >> level) ** 2 // MAP**2 for level, kept in enumerate(REDUCED)]
        self.local = nn.ModuleList(nn.Linear(count, LOCAL) for count in inputs)
        self.local.append(nn.Linear(channels[-1], WIDTHS[0] - LOCAL * len(inputs)))
        steps = itertools.pairwise((channels[-1], 1024, 512, HYPER))
        self.hyper = nn.Sequential(*(FrozenConv2dReLU(before, after, 1) for before, after in steps))
        layers = [*itertools.pairwise(WIDTHS)]
        # The last layer has too few weights for a map of 7 x 7 places.
        self.weights = nn.ModuleList(
            FrozenConv2d(HYPER, before * after // MAP**2, 3, padding=1) for before, after in layers[:-1]
        )
        self.weights.append(nn.Linear(HYPER, WIDTHS[-2]))
        self.biases = nn.ModuleList(nn.Linear(HYPER, after) for _, after in layers)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return self._crop_scores(image)[0].mean(1)

    def explanation(self, image: Tensor, reference: None) -> CropScores:
        """The crops' scores and places; see `CropScores`."""
        scores, places = self._crop_scores(image)
        return CropScores(scores, torch.tensor(places, device=image.device))

    def _crop_scores(self, image: Tensor) -> tuple[Tensor, list[Place]]:
        """The crops' scores (N, K), and their places."""
        if self.convention == "authors":
            # Bilinear resizing keeps the range; a Loss may go beyond it.
            image = resize(image, AUTHORS_SIZE, "bilinear", overshoot=True)
        elif (shorter := min(image.shape[-2:])) <= SIDE:
            image = _enlarge(image, (SIDE + 1) / shorter).to(image.dtype)
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        places = grid_places(image.shape[-2], image.shape[-1], SIDE, self.crops, generator)
        crops = crop(image, places, SIDE).flatten(0, 1)
        return map_chunks(self._score_crops, [crops], self.chunk).view(len(image), -1), places

    def _score_crops(self, crops: Tensor) -> Tensor:
        """Scores (M,) of crops (M, 3, 224, 224)."""
        values = []
        stages = itertools.islice(self.backbone.iter_features(crops), 1, None)
        for x, reduce, local in itertools.zip_longest(stages, self.reduce, self.local):
            # A 1 x 1 convolution of means is the mean of that convolution.
            pooled = F.avg_pool2d(x, MAP)
            values.append(local((reduce(pooled) if reduce else pooled).flatten(1)))
        maps = self.hyper(x)
        means = maps.mean((2, 3))
        weights = [layer(maps) for layer in self.weights[:-1]] + [self.weights[-1](means)]
        return _target_network(torch.cat(values, 1), weights, [layer(means) for layer in self.biases])

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file or for pyiqa's."""
        published = PublishedState(state.get("params", state))
        leaf = r"(weight|bias)"
        names = {rf"conv1\.{2 * i}\.{leaf}": rf"hyper.{i}.\1" for i in range(3)}
        if "res.conv1.weight" in published.state:
            names |= {rf"res\.lda{i + 1}_pool\.0\.weight": f"reduce.{i}.weight" for i in range(3)}
            names |= {rf"res\.lda{i + 1}_fc\.{leaf}": rf"local.{i}.\1" for i in range(4)}
            names |= {rf"fc{i + 1}w_(?:conv|fc)\.{leaf}": rf"weights.{i}.\1" for i in range(5)}
            names |= {rf"fc{i + 1}b_fc\.{leaf}": rf"biases.{i}.\1" for i in range(5)}
            prefix = "res."
        elif "base_model.conv1.weight" in published.state:
            names |= {
                r"lda_modules\.([012])\.0\.weight": r"reduce.\1.weight",
                rf"lda_modules\.([012])\.3\.{leaf}": r"local.\1.\2",
                rf"lda_modules\.3\.2\.{leaf}": r"local.3.\1",
                rf"fc_w_modules\.([0123])\.{leaf}": r"weights.\1.\2",
                rf"fc_w_modules\.4\.2\.{leaf}": r"weights.4.\1",
                rf"fc_b_modules\.(\d)\.2\.{leaf}": r"biases.\1.\2",
            }
            prefix = "base_model."
        else:
            return published.state
        published.rename(names)
        backbone = ResNet50.from_torchvision_layout(published.under(prefix))
        return {f"backbone.{key}": value for key, value in backbone.items()} | published.state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}, crops={self.crops}, seed={self.seed}"


@full_precision
def _enlarge(image: Tensor, factor: float) -> Tensor:
    # The factor and not the size, which is rounded down: so pyiqa has it.
    return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)


def _target_network(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Scores (M,) of values (M, 224), each by its own weights, in any shape, and biases (M, after) of five layers."""
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = _layer(x if index == 0 else x.sigmoid(), weight, bias)
    return x.squeeze(1)


@full_precision
def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(M, C) -> (M, D)."""
    return (weight.reshape(len(x), -1, x.shape[1]) @ x.unsqueeze(2)).squeeze(2) + bias
