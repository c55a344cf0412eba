"""CLIP's image towers, as open_clip has them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.resize import resize_shorter_side
from .base import CLIP_MEAN, CLIP_STD, Backbone, without_batch_norm


class ClipRN50(Backbone):
    """The image tower of CLIP's ResNet-50, whose attention pooling gives every token instead of the first alone.

    The network is open_clip's own `ModifiedResNet`; from "Learning transferable visual models from natural language
    supervision" (Radford et al., ICML 2021). Batch normalization is folded into the convolutions.
    """

    side = 224
    visual: Any

    def __init__(self) -> None:
        super().__init__(CLIP_MEAN, CLIP_STD)
        self.visual = without_batch_norm(self.network())
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def network() -> nn.Module:
        """open_clip's image tower, untrained."""
        from open_clip.modified_resnet import ModifiedResNet

        return ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32, image_size=ClipRN50.side)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """Tokens (N, 1024, 7, 7) of images (N, 3, H, W) in [0, 1]: the middle square of 224 pixels a side, of the
        image with its shorter side resized to that (antialiased bicubic)."""
        image = resize_shorter_side(image, self.side, "bicubic", overshoot=True)  # as MDIQA's authors do
        top, left = (_round_half(length - self.side) for length in image.shape[-2:])
        image = image[..., top : top + self.side, left : left + self.side]
        visual = self.visual
        x = visual.stem(self.normalize(image))
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))
        x = x.flatten(2).permute(2, 0, 1)
        pool = visual.attnpool
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None].to(x.dtype)
        tokens, _ = F.multi_head_attention_forward(
            x[1:],
            x,
            x,
            x.shape[-1],
            pool.num_heads,
            None,
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            None,
            None,
            False,
            0.0,
            pool.c_proj.weight,
            pool.c_proj.bias,
            training=False,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
        )
        return tokens.permute(1, 2, 0).unflatten(2, (7, 7))


def _round_half(number: int) -> int:
    """`round(number / 2)`, an odd one to the even neighbor, of the symbols of a graph too."""
    half = number // 2
    return half + number % 2 * (half % 2)
