"""LPIPS: learned perceptual image patch similarity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.base import LPIPS_SCALE, LPIPS_SHIFT
from ..backbones.torchvision import CHANNELS, torchvision_backbone
from ..checkpoints.remapping import PublishedState
from ..metric import EncodedReference, Metric
from ..ops.feature_distance import LayerDistances, layer_distances, unit_distance

# torchvision's name of each backbone, and the least size whose last map is not empty.
NETS = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16), "squeeze": ("squeezenet1_1", 17)}


class LPIPS(Metric):
    """Weighted distance between unit-length feature vectors of an ImageNet backbone, in [0, inf), 0 for equal images.

    The squared difference of the feature vectors at each position, each scaled to length 1, weighted per channel,
    averaged over positions and summed over the feature maps. From "The unreasonable effectiveness of deep features as a
    perceptual metric" (Zhang et al., CVPR 2018), whose authors recommend AlexNet for measuring and VGG as a loss.
    `explain` gives the distance at each pixel (their `spatial=True`) and of each layer: see `LayerDistances`.

    Args:
        net: the backbone: "alex", "vgg" or "squeeze".
        version: "0.1", or "0.0" of the first preprint, with other heads and without ImageNet's color normalization.
        range: "-1..1", what the network is given, as its authors do; or "0..1", for numbers to compare with papers on
            Gaussian splatting, whose common program passes images on as they are. Such scores are several times
            smaller, and agree with nobody else's.

    Raises:
        ValueError: an unknown net, version or range.

    Example:
        >>> from mdiqa_metric import create
        >>> lpips, image = create("lpips-alex"), torch.rand(1, 3, 64, 64)
        >>> lpips(image, image)
        tensor([0.])
        >>> found = lpips.explain(image, image)
        >>> found.map.shape, found.layers.shape
        (torch.Size([1, 1, 64, 64]), torch.Size([1, 5]))
    """

    full_reference = True
    lower_is_better = True
    score_range = (0.0, math.inf)

    def __init__(
        self,
        net: Literal["alex", "vgg", "squeeze"] = "alex",
        version: Literal["0.1", "0.0"] = "0.1",
        range: Literal["-1..1", "0..1"] = "-1..1",
    ) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f'LPIPS takes net "alex", "vgg" or "squeeze", got {net!r}.')
        if version not in ("0.1", "0.0"):
            raise ValueError(f'LPIPS takes version "0.1" or "0.0", got {version!r}.')
        if range not in ("-1..1", "0..1"):
            raise ValueError(f'LPIPS takes range "-1..1" or "0..1", got {range!r}.')
        self.net, self.version, self.range = net, version, range
        name = NETS[net][0]
        self.min_size = self.facts(net=net)["min_size"]
        shift, scale = (LPIPS_SHIFT, LPIPS_SCALE) if version == "0.1" else ((0.0,) * 3, (1.0,) * 3)
        self.backbone = torchvision_backbone(name, shift, scale)
        self.heads = nn.ParameterList(torch.full((1, width, 1, 1), 1 / width) for width in CHANNELS[name])

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """See `Metric.facts`."""
        return super().facts() | {"min_size": NETS[options.get("net", "alex")][1]}

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
        return self.backbone.iter_features(2 * image - 1 if self.range == "-1..1" else image)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for torchvision's file ("backbone"), the authors' heads ("heads") or their whole module ("")."""
        if part == "backbone":
            return {key: value for key, value in state.items() if not key.startswith("classifier.")}
        prefix = "" if part == "heads" else "heads."
        names = {r"net\.slice\d\.(.+)": r"backbone.features.\1", r"lins?\.?(\d)\.model\.1\.weight": rf"{prefix}\1"}
        return (
            PublishedState(state)
            .drop_constants({r"scaling_layer\.shift": LPIPS_SHIFT, r"scaling_layer\.scale": LPIPS_SCALE})
            .rename(names)
            .state
        )

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"net={self.net}, version={self.version}" + (", range=0..1" if self.range == "0..1" else "")
