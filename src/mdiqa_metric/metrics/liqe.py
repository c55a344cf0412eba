"""LIQE: which of the texts on an image's quality, content and distortion fits it best, by a CLIP trained for that."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.clip import CLIP, encode_texts
from ..checkpoints.remapping import PublishedState
from ..layers.crops import check_chunk, mean_over_crops, tile_places
from ..metric import Metric
from ..ops.precision import full_precision

# Side of the windows, pixels between them, and how many of them are looked at.
SIDE, STRIDE, WINDOWS = 224, 32, 15
# Dimensions of CLIP's space, and the logits' scale that training CLIP ended at.
WIDTH, SCALE = 512, 100
QUALITIES = ("bad", "poor", "fair", "good", "perfect")
SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
DISTORTIONS = (
    *("jpeg2000 compression", "jpeg compression", "noise", "blur", "color", "contrast"),
    *("overexposure", "underexposure", "spatial", "quantization", "other"),
)
QUALITY_TEXTS = tuple(f"a photo with {quality} quality" for quality in QUALITIES)
JOINT_TEXTS = tuple(
    f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
    for quality, scene, distortion in product(QUALITIES, SCENES, DISTORTIONS)
)


class QualityProbabilities(NamedTuple):
    """What `LIQE.explain` finds in N images.

    Attributes:
        quality: how probable each of `QUALITIES` is, from bad to perfect (N, 5). The score is their mean, 1 to 5.
    """

    quality: Tensor


class JointProbabilities(NamedTuple):
    """What `LIQE.explain` finds in N images where texts join quality, scene and distortion; rows sum to 1.

    Attributes:
        quality: how probable each of `QUALITIES` is, from bad to perfect (N, 5). The score is their mean, 1 to 5.
        scene: how probable each of `SCENES` is (N, 9).
        distortion: how probable each of `DISTORTIONS` is (N, 11).
    """

    quality: Tensor
    scene: Tensor
    distortion: Tensor


class LIQE(Metric):
    """No-reference quality from 1 (bad) to 5 (perfect), higher is better, out of the texts that fit an image.

    `sum(k p_k)`, where the softmax of CLIP's logits gives each text its probability and p_k adds up those of quality k.
    The texts are "a photo with {quality} quality", or name a scene and a distortion too, which `explain` then tells:
    `QualityProbabilities` or `JointProbabilities`. From "Blind image quality assessment via vision-language
    correspondence: a multitask learning perspective" (Zhang et al., CVPR 2023), whose authors use the joint texts.

    CLIP's ViT-B/32 looks at windows of 224 x 224 pixels of images (N, 3, H, W), 32 apart, of which 15 at even steps are
    taken, and the logits are averaged. What the windows leave at the right and the bottom has no influence, and of a
    large image most. The text encoder runs when weights are loaded, some seconds for the joint texts, and is not kept.

    Args:
        joint: whether texts join quality, scene and distortion, 495 of them, as in the authors' checkpoint.
        chunk: how many windows are processed at a time. If there are more, backward processes them again, which bounds
            memory.

    Raises:
        ValueError: `chunk` is below 1.

    Example:
        >>> metric = LIQE(joint=True).accept_untrained()
        >>> image = torch.rand(1, 3, 224, 256)
        >>> metric(image).shape, metric.explain(image).scene.shape
        (torch.Size([1]), torch.Size([1, 9]))
    """

    full_reference = False
    lower_is_better = False
    score_range = (1.0, 5.0)
    min_size = SIDE

    def __init__(self, joint: bool = False, chunk: int = 64) -> None:
        super().__init__()
        self.joint, self.chunk = joint, check_chunk(chunk)
        self.texts = JOINT_TEXTS if joint else QUALITY_TEXTS
        self.crop = f"up to {WINDOWS} windows of {SIDE} px"
        self.backbone = CLIP("ViT-B-32")
        self.heads = nn.Parameter(SCALE / WIDTH**0.5 * torch.randn(len(self.texts), WIDTH))

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        quality = self.explanation(image, reference).quality
        return (quality * torch.arange(1, 6, device=image.device)).sum(1)

    def explanation(self, image: Tensor, reference: None) -> QualityProbabilities | JointProbabilities:
        """How probable each quality, scene and distortion is."""
        found = self.logits(image).softmax(1)
        if not self.joint:
            return QualityProbabilities(found)
        found = found.unflatten(1, (len(QUALITIES), len(SCENES), len(DISTORTIONS)))
        return JointProbabilities(found.sum((2, 3)), found.sum((1, 3)), found.sum((1, 2)))

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, P) of the texts, the mean over windows of images (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        places = tile_places(height, width, SIDE, STRIDE)
        places = places[:: max(1, len(places) // WINDOWS)][:WINDOWS]
        several = image.shape[0] * len(places) > self.chunk
        features = mean_over_crops(self.backbone, [image], places, SIDE, self.chunk, checkpointing=several)
        return _compare(features, self.heads)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for a trained CLIP, of which `complete_state` makes the heads."""
        state = state.get("params", state)
        if "heads" in state:
            return dict(state)
        return {f"backbone.{key.removeprefix('clip_model.')}": value for key, value in state.items()}

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The image encoder, and what the text encoder makes of the texts."""
        published = PublishedState(state)
        clip = published.under("backbone.")
        if "token_embedding.weight" not in clip:
            return state
        ours = {f"backbone.{key}": value for key, value in CLIP.from_published(clip).items()}
        return ours | {"heads": encode_texts(clip, self.texts)} | published.state

    def extra_repr(self) -> str:
        """The options that affect the score, for `repr` and `fingerprint`."""
        return f"joint={self.joint}"


@full_precision
def _compare(features: Tensor, heads: Tensor) -> Tensor:
    """Logits (N, P) of features (N, C) and the texts' (P, C)."""
    return features @ heads.mT
