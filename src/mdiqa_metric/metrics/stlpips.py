"""ST-LPIPS: shift-tolerant LPIPS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.base import LPIPS_SCALE, LPIPS_SHIFT
from ..backbones.torchvision import BINOMIAL, CHANNELS, BlurPool, MaxPool, TappedBackbone
from ..checkpoints.remapping import PublishedState
from ..layers.convolution import FrozenConv2d, FrozenConv2dReLU
from ..metric import EncodedReference, Metric
from ..ops.convolution import conv
from ..ops.feature_distance import LayerDistances, layer_distances, unit_distance
from ..ops.pooling import blur_pool
from ..ops.precision import full_precision


class STLPIPS(Metric):
    """LPIPS with a backbone that blurs before it downsamples, in [0, inf), 0 for equal images.

    Shifting one of the images by a few pixels, which nobody notices, hardly changes it. From "Shift-tolerant perceptual
    similarity metric" (Ghildyal and Liu, ECCV 2022); backbone and heads were trained by the authors.

    Args:
        net: the backbone: "alex", with stride 1 in its first convolution, or "vgg".

    Raises:
        ValueError: an unknown net.

    Example:
        >>> from mdiqa_metric import create
        >>> image = torch.rand(1, 3, 32, 32)
        >>> create("stlpips-alex")(image, image)
        tensor([0.])
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, math.inf)

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__()
        if net not in ("alex", "vgg"):
            raise ValueError(f'ST-LPIPS takes net "alex" or "vgg", got {net!r}.')
        self.net = net
        self.backbone = _alexnet() if net == "alex" else _vgg16()
        self.min_size = self.facts(net=net)["min_size"]
        widths = CHANNELS["alexnet" if net == "alex" else "vgg16"]
        self.heads = nn.ParameterList(torch.full((1, width, 1, 1), 1 / width) for width in widths)

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {
            "min_size": 18 if options.get("net") == "vgg" else 21
        }  # smaller, the last map is empty

    def score(self, image: Tensor, reference: Tensor | EncodedReference) -> Tensor:
        """Scores (N,)."""
        return torch.stack([unit_distance(*layer) for layer in self._layers(image, reference)]).sum(0)

    def explanation(self, image: Tensor, reference: Tensor | EncodedReference) -> LayerDistances:
        """Where and in which layers the images differ; see `LayerDistances`."""
        return layer_distances(self._layers(image, reference), (image.shape[-2], image.shape[-1]))

    def _layers(self, image: Tensor, reference: Tensor | EncodedReference) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Both images' maps and the channels' weights, layer by layer."""
        references = reference.features if isinstance(reference, EncodedReference) else self.features(reference)
        for x, y, head in zip(self.features(image), references, self.heads, strict=True):
            yield x, y, head.flatten()

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """The backbone's maps of images (N, 3, H, W) in [0, 1]."""
        return self.backbone.iter_features(2 * image - 1)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for the authors' file."""
        names = {r"net\.slice\d\.(.+)": r"backbone.features.\1", r"lins?\.?(\d)\.model\.1\.weight": r"heads.\1"}
        constants = {r"scaling_layer\.shift": LPIPS_SHIFT, r"scaling_layer\.scale": LPIPS_SCALE, r".+\.filt": BINOMIAL}
        return PublishedState(state).drop_constants(constants).rename(names).state

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"net={self.net}"


class BlurredConv(FrozenConv2d):
    """A convolution followed by blur pooling, as one convolution of stride 2: a third of the work and no full-size map.

    Inside its borders that is one convolution, with the blurred kernel. The first value repeats the second, since what
    is reflected at a border is what lies behind it; the last is worked out apart, from a strip of the input.
    """

    window: Tensor

    def __init__(self, channels: int, width: int, size: int, padding: int) -> None:
        super().__init__(channels, width, size, padding=padding)
        self.register_buffer("window", torch.tensor(BINOMIAL), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H', W')."""
        size, padding = self.weight.shape[-1], int(self.padding[0])
        # Four or five values of the convolution, as many as of its whole map by twos, the first two spoilt by the cut.
        height, width = (size + 3 - 2 * padding + (side - size + 1) % 2 for side in x.shape[-2:])
        y = conv(x, _blur_kernels(self.weight, self.window).to(self.weight.dtype), self.bias, 2, padding, False)
        right = self._edge_values(x[..., -width:])[..., 1:-1, -1:]
        y = torch.cat([y[..., :1], y, right], -1)
        bottom = self._edge_values(x[..., -height:, :])[..., -1:, :]
        return torch.cat([y[..., :1, :], y, bottom], -2)

    def _edge_values(self, x: Tensor) -> Tensor:
        return blur_pool(conv(x, self.weight, self.bias, 1, int(self.padding[0]), False), self.window)


@full_precision
def _blur_kernels(weight: Tensor, window: Tensor) -> Tensor:
    kernels = F.conv2d(weight.flatten(0, 1)[:, None], window.to(weight.dtype)[None, None], padding=2)
    return kernels.unflatten(0, weight.shape[:2])[:, :, 0]


def _alexnet() -> TappedBackbone:
    """Layers are numbered as the authors number theirs."""
    layers = [
        *(BlurredConv(3, 64, 11, padding=2), nn.Identity(), nn.ReLU(inplace=True)),
        *(MaxPool(3, 1), BlurPool(), FrozenConv2dReLU(64, 192, 5, padding=2), nn.Identity()),
        *(MaxPool(3, 1), BlurPool(), FrozenConv2dReLU(192, 384, 3, padding=1), nn.Identity()),
        *(FrozenConv2dReLU(384, 256, 3, padding=1), nn.Identity()),
        *(FrozenConv2dReLU(256, 256, 3, padding=1), nn.Identity()),
    ]
    return TappedBackbone(nn.Sequential(*layers), (2, 6, 10, 12, 14), LPIPS_SHIFT, LPIPS_SCALE)


def _vgg16() -> TappedBackbone:
    """Layers are numbered as the authors number theirs."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(CHANNELS["vgg16"], (2, 2, 3, 3, 3), strict=True):
        if layers:
            layers += [MaxPool(2, 1), BlurPool()]
        for _ in range(depth):
            layers += [FrozenConv2dReLU(channels, width, 3, padding=1), nn.Identity()]
            channels = width
    return TappedBackbone(nn.Sequential(*layers), (3, 9, 17, 25, 33), LPIPS_SHIFT, LPIPS_SCALE)
