"""AHIQ: a vision transformer tells a convolutional network where to look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from ..backbones.resnet import Bottleneck, ResNet50
from ..backbones.vit import ViT
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..layers.crops import PatchScores, check_chunk, crop, grid_places, map_chunks
from ..metric import EncodedReference, Metric
from ..ops.deformable import deformable_conv
from ..ops.pooling import max_pool

# Side of the crops; the transformer, its patches' side, and the blocks whose tokens are taken.
SIDE, MODEL, PATCH, BLOCKS = 224, "vit_base_patch8_224", 8, (0, 1, 2, 3, 4)
# Channels of the three convolutional maps together, of what is compared, and down and right for each of nine taps.
CNN, WIDTH, OFFSETS = 3 * 256, 256, 2 * 9
# Channels between the convolutions that halve the size of the maps, and after those that compare.
SHRINK, SMOOTH = 512, (1024, 512, 256)
# Mean and standard deviation that images are normalized by in each convention.
NORMS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "authors": ((0.5,) * 3, (0.5,) * 3),
    "pyiqa": (IMAGENET_MEAN, IMAGENET_STD),
}


class AHIQ(Metric):
    """Full-reference quality, higher is better; the published checkpoint gives about 0 to 1.

    Crops of 224 x 224 pixels pass through the first five blocks of a ViT and the first stage of a ResNet-50. The maps
    of the latter go through a deformable convolution, whose offsets come from the reference's tokens for both images.
    From tokens and maps of the image, of the reference and their difference a small network predicts a score q and a
    weight w, a sigmoid, at 28 x 28 places: `sum(w q) / sum(w)`. From "Attentions help CNNs see better: attention-based
    hybrid image quality assessment network" (Lao et al., CVPRW 2022). The score of images (N, 3, H, W) is the mean over
    crops on a grid, where the authors draw 20 crops at random. `explain` gives the places' scores and weights
    (N, crops, 28, 28), as `PatchScores`; the weights of a crop add up to 1. `encode` keeps 1 MB for each crop.

    Args:
        convention: "authors" normalizes images to [-1, 1], as the checkpoint was trained; "pyiqa" by ImageNet's mean
            and deviation, for numbers to compare with that library's.
        crops: how many crops; where the grid is so narrow that some are the same, they are taken once.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: an unknown `convention`, or `crops` or `chunk` is below 1.

    Example:
        >>> with torch.device("meta"):
        ...     metric, (image, reference) = AHIQ(crops=4).accept_untrained(), torch.rand(2, 1, 3, 240, 320)
        >>> metric.score(image, reference).shape, metric.explanation(image, reference).map.shape
        (torch.Size([1]), torch.Size([1, 4, 28, 28]))
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = SIDE

    def __init__(self, convention: Literal["authors", "pyiqa"] = "authors", crops: int = 20, chunk: int = 4) -> None:
        super().__init__()
        if convention not in NORMS:
            raise ValueError(f'AHIQ takes convention "authors" or "pyiqa", got {convention!r}.')
        if crops < 1:
            raise ValueError(f"AHIQ takes 1 crop or more, got {crops}.")
        self.convention, self.crops, self.chunk, self.side = convention, crops, check_chunk(chunk), SIDE
        mean, std = NORMS[convention]
        self.resnet50, self.vit = _FirstStage(mean, std), ViT(MODEL, BLOCKS, mean, std)
        self.heads = _Heads(len(BLOCKS) * self.vit.network.embed_dim)

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        return self.explanation(image, reference).mean()

    def explanation(self, image: Tensor, reference: Tensor | EncodedReference) -> PatchScores:
        """The places' scores and weights; see `PatchScores`."""
        if isinstance(reference, EncodedReference):
            references = reference.features[0].flatten(0, 1)
        else:
            references = self._crops(reference)
        values = map_chunks(self._compare, [self._crops(image), references], self.chunk).to(image.dtype)
        quality, weight = values.unflatten(0, (len(image), -1)).unbind(2)
        # sigmoid(w) / sum(sigmoid(w)), where all of a crop's may round to 0
        shares = F.logsigmoid(weight).flatten(2).softmax(2)
        return PatchScores(quality, shares.view_as(quality))

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """What is kept of the crops (N, K, V) of references (N, 3, H, W) in [0, 1]; see `_values`."""
        yield map_chunks(self._values, [self._crops(image)], self.chunk).unflatten(0, (len(image), -1))

    def _crops(self, image: Tensor) -> Tensor:
        """The crops (N * K, 3, side, side) of images (N, 3, H, W)."""
        height, width = image.shape[-2:]
        places = dict.fromkeys(grid_places(height, width, self.side, self.crops))
        return crop(image, list(places), self.side).flatten(0, 1)

    def _tokens(self, crops: Tensor) -> Tensor:
        """The tokens of all blocks (M, C, h, w) of crops (M, 3, side, side)."""
        tokens = torch.cat([x[:, 1:] for x in self.vit.iter_features(crops)], 2)
        return tokens.mT.unflatten(2, (self.side // PATCH, -1))

    def _values(self, crops: Tensor) -> Tensor:
        """What the comparison needs of a reference's crops: `_Heads.fuse`'s maps and the offsets, flat (M, V)."""
        tokens, maps = self._tokens(crops), self.resnet50(crops)
        offsets = self.heads.offsets(F.interpolate(tokens, maps.shape[-2:]))
        return torch.cat([self.heads.fuse(tokens, maps, offsets).flatten(1), offsets.flatten(1)], 1)

    def _compare(self, crops: Tensor, reference: Tensor) -> Tensor:
        """Score and weight of each place (M, 2, h, w) of crops, given the reference's crops or their `_values`."""
        values = self._values(reference) if reference.ndim == 4 else reference
        tokens, maps = self._tokens(crops), self.resnet50(crops)
        theirs, offsets = values.split([WIDTH * tokens[0, 0].numel(), OFFSETS * maps[0, 0].numel()], 1)
        x = self.heads.fuse(tokens, maps, offsets.view(-1, OFFSETS, *maps.shape[-2:]))
        return self.heads(x, theirs.view_as(x))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for timm's ResNet-50 and ViT and the authors' file, whose optimizer is left out."""
        if part == "resnet50":
            folded = ResNet50.from_torchvision_layout(state)
            return {key: value for key, value in folded.items() if key.startswith(("conv1.", "layer1."))}
        if part == "vit" and "cls_token" in state:
            published = PublishedState(state)
            published.drop("norm.", "head.", *(f"blocks.{index}." for index in range(len(BLOCKS), 12)))
            return {f"network.{key}": value for key, value in published.state.items()}
        if "regressor_model_state_dict" in state:
            nets = {name: state[f"{name}_model_state_dict"] for name in ("deform_net", "regressor")}
            state = {f"{name}.{key}": value for name, net in nets.items() for key, value in net.items()}
        names = {
            r"deform_net\.conv_offset\.(.+)": r"offsets.\1",
            r"deform_net\.deform\.(.+)": r"deform.\1",
            r"deform_net\.conv1\.(.+)": r"shrink.\1",
            r"regressor\.down_channel\.(.+)": r"reduce.\1",
            r"regressor\.feat_smoothing\.(.+)": r"smooth.\1",
            r"regressor\.conv1\.0\.(.+)": r"smooth.3.\1",
            r"regressor\.conv\.0\.(.+)": r"quality.\1",
            r"regressor\.conv_attent\.0\.(.+)": r"weight.\1",
        }
        return PublishedState(state).rename(names).state

    def extra_repr(self) -> str:
        """The options that affect the score, for `repr` and `fingerprint`."""
        return f"convention={self.convention}, crops={self.crops}"


class _FirstStage(Backbone):
    """The maps of the three blocks of ResNet-50's first stage: (N, 3, H, W) in [0, 1] -> (N, 768, H / 4, W / 4)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(mean, std)
        self.conv1 = FrozenConv2dReLU(3, 64, 7, 2, 3)
        self.layer1 = nn.Sequential(*(Bottleneck(channels, 64, 1) for channels in (64, 256, 256)))
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        # After a ReLU, padding with zeros equals padding with minus infinity.
        x = max_pool(F.pad(self.conv1(self.normalize(image)), (1, 1, 1, 1)), 3, 2)
        maps = []
        for block in self.layer1:
            x = block(x)
            maps.append(x)
        return torch.cat(maps, 1)


class _Heads(nn.Module):
    """What the authors trained: everything behind the two frozen backbones, whose tokens have so many channels."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.offsets = FrozenConv2d(tokens, OFFSETS, 3, 1, 1)
        self.deform = nn.Conv2d(CNN, CNN, 3)
        self.shrink = nn.Sequential(
            FrozenConv2dReLU(CNN, SHRINK, 3, 2, 1), nn.Identity(), FrozenConv2d(SHRINK, CNN, 3, 1, 1)
        )
        self.reduce = FrozenConv2d(tokens + CNN, WIDTH, 1)
        first, second, last = SMOOTH
        self.smooth = nn.Sequential(
            FrozenConv2dReLU(3 * WIDTH, first, 3, 1, 1),
            nn.Identity(),
            FrozenConv2d(first, second, 3, 1, 1),
            FrozenConv2dReLU(second, last, 3, 1, 1),
        )
        self.quality, self.weight = FrozenConv2d(last, 1, 1), FrozenConv2d(last, 1, 1)

    def fuse(self, tokens: Tensor, maps: Tensor, offsets: Tensor) -> Tensor:
        """Tokens (M, C, h, w) and maps (M, 768, 2h, 2w), seen at places moved by the offsets, as (M, 256, h, w)."""
        weight, bias = (self.deform.get_parameter(name) for name in ("weight", "bias"))
        seen = deformable_conv(maps, offsets, weight, bias).to(maps.dtype)
        return self.reduce(torch.cat([tokens, self.shrink(seen)], 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Score and weight (M, 2, h, w), from the image's and the reference's (M, 256, h, w)."""
        x = self.smooth(torch.cat([x - y, x, y], 1))
        return torch.cat([self.quality(x), self.weight(x)], 1)
