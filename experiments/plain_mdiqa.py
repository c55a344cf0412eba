"""MDIQA as a good programmer would first write it: the baseline of experiments/mdiqa.py.

One module after the other, like the authors' program: live batch normalization, nine heads in a loop with PyTorch's own
attention and layer normalization, and plain autograd. It loads the published key layout and gives the same scores as
ours with the same parameters. Frozen, in eval mode, and CLIP without gradient, as the authors have it.
"""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CHANNELS = (64, 256, 512, 1024, 2048)
MOBILE_CHANNELS = (16, 24, 40, 112, 960)


def layer_norm(image: Tensor, constants: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (image.new_tensor(values)[:, None, None] for values in constants)
    return (image - mean) / std


class Encoder(nn.Module):
    """Self-attention and a perceptron, normalized first."""

    def __init__(self, width: int = 256, parts: int = 4) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, parts)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.self_attn(normal, normal, normal, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Decoder(nn.Module):
    """Attention to a memory and a perceptron; `self_attn` is in the published files but unused."""

    def __init__(self, width: int = 256, parts: int = 4) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = (nn.MultiheadAttention(width, parts) for _ in range(2))
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        memory = self.norm2(memory)
        x = x + self.multihead_attn(self.norm1(x), memory, memory, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


class Layers(nn.Module):
    """A list of one layer, as in the published key names."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer])

    def forward(self, *tokens: Tensor) -> Tensor:
        return self.layers[0](*tokens)


class GatedConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.splitconv = nn.Conv2d(channels, 2 * channels, 1)
        self.weight_blk = nn.Sequential(
            nn.Conv2d(channels, 64, 1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.splitconv(x).chunk(2, 1)
        return F.gelu(value) * self.weight_blk(gate)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.semantic_model = timm.create_model("resnet50", pretrained=False, features_only=True)
        self.weight_pool = nn.ModuleList(GatedConv(count) for count in CHANNELS)
        self.dim_reduce = nn.ModuleList(nn.Sequential(nn.Conv2d(count, 256, 1), nn.GELU()) for count in CHANNELS)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.semantic_model(layer_norm(image, IMAGENET))
        size = maps[-1].shape[-2:]
        levels = zip(maps, self.weight_pool, self.dim_reduce, strict=True)
        return [reduce(F.adaptive_avg_pool2d(pool(x), size)) for x, pool, reduce in levels]


def score_layers() -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(256),
        nn.Linear(256, 256),
        nn.GELU(),
        nn.LayerNorm(256),
        nn.Linear(256, 256),
        nn.GELU(),
        nn.Linear(256, 1),
    )


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h_emb = nn.Parameter(torch.zeros(1, 128, 32, 1))
        self.w_emb = nn.Parameter(torch.zeros(1, 128, 1, 32))
        self.sa_attn_blks = nn.ModuleList(Layers(Encoder()) for _ in range(5))
        self.attn_blks = nn.ModuleList(Layers(Decoder()) for _ in range(4))
        self.attn_pool = Encoder()
        self.score_linear = score_layers()

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        table = torch.cat([self.h_emb.expand(-1, -1, -1, 32), self.w_emb.expand(-1, -1, 32, -1)], 1)
        position = F.interpolate(table, maps[0].shape[-2:], mode="bicubic")
        tokens = [
            block((x + position).flatten(2).permute(2, 0, 1)) for block, x in zip(self.sa_attn_blks, maps, strict=True)
        ]
        query = tokens[-1]
        for block, memory in zip(self.attn_blks, reversed(tokens[:-1]), strict=True):
            query = block(query, memory)
        return self.score_linear(self.attn_pool(query).mean(0)), query


class CFANet(nn.Module):
    """A base: a backbone and its heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.cfanet_backbone = Backbone()
        self.cfanet_heads = nn.ModuleList(Head() for _ in range(heads))

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = self.cfanet_backbone(image)
        return [head(maps) for head in self.cfanet_heads]


class Joint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_ln, self.out_ln = nn.Linear(512, 128, bias=False), nn.Linear(128, 256, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_ln(F.gelu(self.in_ln(x)))


class Local(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.fusion_before_attn = nn.ModuleList(Joint() for _ in range(heads))
        self.attn_pools = nn.ModuleList(Encoder() for _ in range(heads))
        self.score_linears = nn.ModuleList(score_layers() for _ in range(heads))
        self.net = nn.Sequential(
            nn.Linear(heads, 4 * heads), nn.GELU(), nn.Linear(4 * heads, 4 * heads), nn.GELU(), nn.Linear(4 * heads, 1)
        )


class Branch(nn.Module):
    """The weight branch."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.semantic_model = timm.create_model("mobilenetv3_large_100", pretrained=False, features_only=True)
        self.dim_reduce = nn.ModuleList(nn.Sequential(nn.Conv2d(count, 256, 1), nn.GELU()) for count in MOBILE_CHANNELS)
        self.score_linear = nn.Sequential(nn.LayerNorm(1280), nn.Linear(1280, 1280), nn.GELU(), nn.Linear(1280, heads))

    def forward(self, image: Tensor) -> Tensor:
        maps = self.semantic_model(layer_norm(image, IMAGENET))
        size = maps[-2].shape[-2:]
        levels = zip(maps, self.dim_reduce, strict=True)
        tokens = torch.cat([F.adaptive_avg_pool2d(reduce(x), size) for x, reduce in levels], 1).flatten(2).mT
        return self.score_linear(tokens).mean(1).softmax(1)


class Fusion(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.local_score_module = Local(heads)
        self.instance_specific_weighted_branch = Branch(heads)
        self.semantic_model = nn.ModuleDict({"visual": ModifiedResNet([3, 4, 6, 3], 1024, 32)})
        self.semantic_feat_conv = nn.Conv2d(1024, 256, 1)

    @torch.no_grad()
    def meaning(self, image: Tensor, size: torch.Size) -> Tensor:
        sides = [224 * side // min(image.shape[-2:]) for side in image.shape[-2:]]
        image = F.interpolate(image, sides, mode="bicubic", antialias=True)
        top, left = (round((side - 224) / 2) for side in sides)
        visual = self.semantic_model["visual"]
        x = visual.stem(layer_norm(image[..., top : top + 224, left : left + 224], CLIP))
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(x)))).flatten(2).permute(2, 0, 1)
        pool = visual.attnpool
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        tokens = F.multi_head_attention_forward(
            *(x, x, x, 2048, 32, None),
            torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            *(None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias),
            training=False,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
        )[0]
        x = self.semantic_feat_conv(tokens[1:].permute(1, 2, 0).unflatten(2, (7, 7)))
        return F.interpolate(x, size, mode="bicubic")


class PlainMDIQA(nn.Module):
    """The overall scores (N,) of images (N, 3, H, W) in [0, 1].

    Args:
        parts: the published state dicts "technical", "aesthetic" and "fusion".
    """

    def __init__(self, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.technical, self.aesthetic, self.fusion = CFANet(5), CFANet(4), Fusion(9)
        for name, state in parts.items():
            unused = ("semantic_model.visual.", "dataset_specific_weights.")
            text = [key for key in state if key.startswith("semantic_model.") and not key.startswith(unused[0])]
            kept = {key: v for key, v in state.items() if key not in text and not key.startswith(unused[1])}
            getattr(self, name).load_state_dict(kept)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        height, width = (-(-side // 32) for side in image.shape[-2:])
        meaning = self.fusion.meaning(image, torch.Size((height, width))).flatten(2).permute(2, 0, 1)
        local, tokens = self.fusion.local_score_module, []
        for index, (score, query) in enumerate(self.technical(image) + self.aesthetic(image)):
            joint = query + local.fusion_before_attn[index](torch.cat([query, meaning], -1))
            tokens.append(score + local.score_linears[index](local.attn_pools[index](joint).mean(0)))
        return local.net(torch.cat(tokens, 1) * self.fusion.instance_specific_weighted_branch(image)).squeeze(1)
