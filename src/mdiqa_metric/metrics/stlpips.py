"""ST-LPIPS: shift-tolerant LPIPS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones import (
    BINOMIAL,
    CHANNELS,
    LPIPS_SCALE,
    LPIPS_SHIFT,
    BlurPool,
    Conv,
    ConvReLU,
    MaxPool,
    Trunk,
    published,
)
from ..metric import Encoded, Metric
from ..ops.compare import unit_distance


class STLPIPS(Metric):
    """LPIPS whose trunk blurs wherever it halves its maps, in [0, inf), 0 where pictures are equal.

    It hardly feels a shift of one of the pictures by a few pixels that nobody sees. From "Shift-tolerant perceptual
    similarity metric" (Ghildyal and Liu, ECCV 2022), trunk and heads trained by the authors.

    Args:
        net: the trunk: "alex", with no stride in its first convolution, or "vgg".

    Raises:
        ValueError: an unknown net.
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, math.inf)

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__()
        if net not in ("alex", "vgg"):
            raise ValueError(f'ST-LPIPS takes net "alex" or "vgg", got {net!r}.')
        self.net = net
        self.trunk, widths = (_alex(), CHANNELS["alexnet"]) if net == "alex" else (_vgg(), CHANNELS["vgg16"])
        self.heads = nn.ParameterList(torch.full((1, width, 1, 1), 1 / width) for width in widths)

    def score(self, image: Tensor, reference: Tensor | Encoded) -> Tensor:
        """Scores (N,)."""
        references = reference.features if isinstance(reference, Encoded) else self.features(reference)
        maps = zip(self.features(image), references, self.heads, strict=True)
        return torch.stack([unit_distance(x, y, head.flatten()) for x, y, head in maps]).sum(0)

    def features(self, picture: Tensor) -> Iterator[Tensor]:
        """The trunk's maps of pictures (N, 3, H, W) in [0, 1]."""
        return self.trunk.walk(2 * picture - 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file."""
        names = {r"net\.slice\d\.(.+)": r"trunk.features.\1", r"lins?\.?(\d)\.model\.1\.weight": r"heads.\1"}
        constants = {r"scaling_layer\.shift": LPIPS_SHIFT, r"scaling_layer\.scale": LPIPS_SCALE, r".+\.filt": BINOMIAL}
        return published(state, names, constants)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"net={self.net}"


def _alex() -> Trunk:
    """Layers are numbered as the authors number theirs."""
    layers = [
        *(Conv(3, 64, 11, padding=2), BlurPool(), nn.ReLU(inplace=True)),
        *(MaxPool(3, 1), BlurPool(), ConvReLU(64, 192, 5, padding=2), nn.Identity()),
        *(MaxPool(3, 1), BlurPool(), ConvReLU(192, 384, 3, padding=1), nn.Identity()),
        *(ConvReLU(384, 256, 3, padding=1), nn.Identity()),
        *(ConvReLU(256, 256, 3, padding=1), nn.Identity()),
    ]
    return Trunk(nn.Sequential(*layers), (2, 6, 10, 12, 14), LPIPS_SHIFT, LPIPS_SCALE)


def _vgg() -> Trunk:
    """Layers are numbered as the authors number theirs."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(CHANNELS["vgg16"], (2, 2, 3, 3, 3), strict=True):
        if layers:
            layers += [MaxPool(2, 1), BlurPool()]
        for _ in range(depth):
            layers += [ConvReLU(channels, width, 3, padding=1), nn.Identity()]
            channels = width
    return Trunk(nn.Sequential(*layers), (3, 9, 17, 25, 33), LPIPS_SHIFT, LPIPS_SCALE)
