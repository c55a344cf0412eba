"""AHIQ: attention helps a CNN see what matters."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from ..backbones.resnet import Bottleneck, ResNet50
from ..backbones.vit import ViT
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..layers.crops import check_chunk, grid_places, mean_over_crops
from ..metric import Metric
from ..ops.deformable import deformable_conv
from ..ops.pooling import max_pool

# Side of the crops, and of the ViT's patches.
SIDE, PATCH = 224, 8
# Channels: of the three CNN maps together, of five blocks of the ViT together, and of what is compared.
CNN, VIT, WIDTH = 768, 3840, 256
# Mean and standard deviation of the normalization in each convention.
NORMS = {"authors": ((0.5,) * 3, (0.5,) * 3), "pyiqa": (IMAGENET_MEAN, IMAGENET_STD)}


class AHIQ(Metric):
    """Full-reference quality, higher is better; the published checkpoint gives about 0 to 1.

    "Attentions help CNNs see better" (Lao et al., CVPRW 2022), the winner of NTIRE 2022. Of crops of 224 x 224 pixels,
    tokens of five blocks of a ViT and, at 28 x 28 places, the first maps of a ResNet-50 after a deformable convolution,
    whose offsets come from the reference's tokens for both images. From them and their difference a small network
    predicts a score and a weight for each place, and the score of a crop is the weighted mean. The score is the mean
    over crops on a grid; the authors draw 20 places at random, so that their score is a random variable.

    Args:
        convention: "authors", normalized by mean and deviation 0.5, as the checkpoint was trained; or "pyiqa", for
            numbers to compare with that library's: ImageNet's.
        crops: how many.
        chunk: how many crops are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: an unknown convention, or `crops` or `chunk` is below 1.

    Example:
        >>> image, reference = torch.rand(2, 1, 3, 224, 224)
        >>> AHIQ(crops=1).accept_untrained()(image, reference).shape
        torch.Size([1])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, math.inf)
    min_size = SIDE

    def __init__(self, convention: Literal["authors", "pyiqa"] = "authors", crops: int = 20, chunk: int = 4) -> None:
        super().__init__()
        if convention not in NORMS:
            raise ValueError(f"AHIQ takes convention 'authors' or 'pyiqa', got {convention!r}.")
        if crops < 1:
            raise ValueError(f"AHIQ is the mean over 1 crop or more, got {crops}: ask for at least one.")
        self.convention, self.crops, self.chunk = convention, crops, check_chunk(chunk)
        self.side = SIDE
        self.cnn = _FirstStage(*NORMS[convention])
        self.vit = ViT("vit_base_patch8_224", range(5), *NORMS[convention])
        self.heads = _Heads()

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,)."""
        height, width = image.shape[-2:]
        places = grid_places(height, width, self.side, self.crops)
        several = len(image) * len(places) > self.chunk
        scores = mean_over_crops(self._score, [image, reference], places, self.side, self.chunk, several)
        return scores.to(image.dtype)

    def _score(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.heads(*(maps for each in (image, reference) for maps in (self._tokens(each), self.cnn(each))))

    def _tokens(self, image: Tensor) -> Tensor:
        tokens = [each[:, 1:] for each in self.vit.iter_features(image)]
        return torch.cat(tokens, 2).mT.unflatten(2, (image.shape[-2] // PATCH, -1))

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file, torchvision's or timm's ResNet-50, or timm's ViT."""
        if part == "cnn":
            folded = ResNet50.from_torchvision_layout(state)
            return {key: value for key, value in folded.items() if key.startswith(("conv1.", "layer1."))}
        if part == "vit":
            published = PublishedState(state)
            published.drop("norm.", "head.", *(f"blocks.{index}." for index in range(5, 12)))
            return {f"network.{key}": value for key, value in published.state.items()}
        for name in ("deform_net", "regressor"):
            state = {f"{name}.{key}": value for key, value in state.pop(f"{name}_model_state_dict", {}).items()} | state
        names = {
            r"deform_net\.conv_offset\.(.+)": r"offsets.\1",
            r"deform_net\.deform\.(.+)": r"deform.\1",
            r"deform_net\.conv1\.(\d)\.(.+)": r"shrink.\1.\2",
            r"regressor\.down_channel\.(.+)": r"reduce.\1",
            r"regressor\.feat_smoothing\.(\d)\.(.+)": r"smooth.\1.\2",
            r"regressor\.conv1\.0\.(.+)": r"last.\1",
            r"regressor\.conv_attent\.0\.(.+)": r"weight.\1",
            r"regressor\.conv\.0\.(.+)": r"quality.\1",
        }
        return PublishedState(state).rename(names).state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"convention={self.convention}, crops={self.crops}"


class _FirstStage(Backbone):
    """The maps (N, 768, 56, 56) of the three blocks of ResNet-50's first stage, of crops (N, 3, 224, 224) in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        self.conv1 = FrozenConv2dReLU(3, 64, 7, 2, 3)
        self.layer1 = nn.Sequential(*(Bottleneck(channels, 64, 1) for channels in (64, 256, 256)))
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        # After a ReLU, padding with zeros equals padding with minus infinity.
        x, maps = max_pool(F.pad(self.conv1(self.normalize(image)), (1, 1, 1, 1)), 3, 2), []
        for block in self.layer1:
            x = block(x)
            maps.append(x)
        return torch.cat(maps, 1)


class _Heads(nn.Module):
    """Scores (N,) from tokens (N, 3840, 28, 28) and maps (N, 768, 56, 56) of images, and of their references."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = FrozenConv2d(VIT, 18, 3, padding=1)
        self.deform = nn.Conv2d(CNN, CNN, 3, padding=1)
        self.shrink = nn.Sequential(FrozenConv2dReLU(CNN, 512, 3, 2, 1), nn.Identity(), FrozenConv2d(512, CNN, 3, 1, 1))
        self.reduce = FrozenConv2d(CNN + VIT, WIDTH, 1)
        self.smooth = nn.Sequential(
            FrozenConv2dReLU(3 * WIDTH, 1024, 3, 1, 1), nn.Identity(), FrozenConv2d(1024, 512, 3, 1, 1)
        )
        self.last = FrozenConv2dReLU(512, 256, 3, 1, 1)
        self.quality, self.weight = FrozenConv2d(256, 1, 1), FrozenConv2d(256, 1, 1)

    def forward(self, tokens: Tensor, maps: Tensor, their_tokens: Tensor, their_maps: Tensor) -> Tensor:
        offsets = self.offsets(F.interpolate(their_tokens, scale_factor=2.0, mode="nearest"))
        weight, bias = (self.deform.get_parameter(name) for name in ("weight", "bias"))
        ours, theirs = (
            self.reduce(torch.cat([some, self.shrink(deformable_conv(cnn, offsets, weight, bias))], 1))
            for some, cnn in ((tokens, maps), (their_tokens, their_maps))
        )
        x = self.last(self.smooth(torch.cat([ours - theirs, ours, theirs], 1)))
        weights = self.weight(x).sigmoid()
        return (self.quality(x) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))
