"""CLIP's image and text encoders, as open_clip implements them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.remapping import PublishedState, fold_batch_norm
from ..ops.precision import full_precision
from ..ops.resize import resize_shorter_side
from .base import CLIP_MEAN, CLIP_STD, Backbone, batch_norms, without_batch_norm

# What belongs to the text encoder in OpenAI's layout.
TEXT_KEYS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection", "logit_scale")


class ClipRN50(Backbone):
    """The image encoder of CLIP's ResNet-50, whose attention pooling returns every token instead of only the first.

    Images (N, 3, H, W) in [0, 1] -> tokens (N, 1024, 7, 7). The network is open_clip's own `ModifiedResNet`, with batch
    normalization folded into the convolutions; from "Learning transferable visual models from natural language
    supervision" (Radford et al., ICML 2021).

    Example:
        >>> with torch.device("meta"):
        ...     tokens = ClipRN50()(torch.rand(1, 3, 240, 320))
        >>> tokens.shape
        torch.Size([1, 1024, 7, 7])
    """

    side = 224
    visual: Any

    def __init__(self) -> None:
        super().__init__(CLIP_MEAN, CLIP_STD)
        self.visual = without_batch_norm(self.network())
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def network() -> nn.Module:
        """open_clip's image encoder, untrained."""
        from open_clip.modified_resnet import ModifiedResNet

        return ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32, image_size=ClipRN50.side)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (N, 1024, 7, 7) of images (N, 3, H, W) in [0, 1].

        The shorter side is resized to 224 pixels (antialiased bicubic), and the central square is used.
        """
        image = resize_shorter_side(image, self.side, "bicubic", overshoot=True)  # as MDIQA's authors do
        top, left = (_round_half(length - self.side) for length in image.shape[-2:])
        image = image[..., top : top + self.side, left : left + self.side]
        pool, tokens = self.visual.attnpool, _tokens(self.visual, self.normalize(image))
        tokens = tokens + pool.positional_embedding[:, None].to(tokens.dtype)
        tokens = _attention_pool(pool, tokens[1:], tokens)
        return tokens.permute(1, 2, 0).unflatten(2, (7, 7))


class CLIP(Backbone):
    """CLIP's image encoder, which maps to unit vectors (N, D) in a space that it shares with texts; see `encode_texts`.

    From "Learning transferable visual models from natural language supervision" (Radford et al., ICML 2021), with
    OpenAI's activation (QuickGELU). The networks are open_clip's, batch normalization folded into the convolutions. D
    is 1024 for "RN50" and 512 for the others.

    Args:
        model: "RN50", "ViT-B-32" or "ViT-B-16".
        positions: whether "RN50" adds the positions of a 7 x 7 grid before it pools, which fixes images to 224 x 224.
            CLIP-IQA leaves them out, so that it takes images of any size from 32 pixels up.

    Raises:
        ValueError: an unknown model, or a vision transformer without positions.

    Example:
        >>> with torch.device("meta"):
        ...     features = CLIP("RN50", positions=False)(torch.rand(2, 3, 64, 96))
        >>> features.shape
        torch.Size([2, 1024])
    """

    visual: Any

    def __init__(self, model: Literal["RN50", "ViT-B-32", "ViT-B-16"], positions: bool = True) -> None:
        super().__init__(CLIP_MEAN, CLIP_STD)
        if model not in ("RN50", "ViT-B-32", "ViT-B-16"):
            raise ValueError(f'CLIP takes model "RN50", "ViT-B-32" or "ViT-B-16", got {model!r}.')
        if not positions and model != "RN50":
            raise ValueError(f'Only "RN50" pools without positions, got {model!r}: leave `positions` out.')
        from open_clip.transformer import QuickGELU, VisionTransformer

        self.positions = positions
        if model == "RN50":
            self.visual = without_batch_norm(ClipRN50.network())
        else:
            patch = int(model.removeprefix("ViT-B-"))
            self.visual = VisionTransformer(224, patch, 768, 12, 12, 4.0, output_dim=512, act_layer=QuickGELU)
            # Batches first, attention without a gradient would be one fused operation, which vmap does not know.
            transformer: Any = self.visual.transformer
            transformer.batch_first = False
            for block in transformer.resblocks:
                block.attn.batch_first = False
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Unit vectors (N, D) of images (N, 3, H, W) in [0, 1], in at least float32; see `positions` for the size."""
        image = self.normalize(image)
        if self.positions:
            return _unit(self.visual(image))
        tokens = _tokens(self.visual, image)
        return _unit(_attention_pool(self.visual.attnpool, tokens[:1], tokens)[0])

    @staticmethod
    def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our keys for a whole CLIP in OpenAI's layout, which is open_clip's, without its text encoder."""
        published = PublishedState(dict(state))
        visual = published.under("visual.")
        published.drop(*TEXT_KEYS)
        if "bn1.weight" in visual:
            with torch.device("meta"):
                visual = fold_batch_norm(visual, batch_norms(ClipRN50.network()))
        return {f"visual.{key}": value for key, value in visual.items()} | published.state


def encode_texts(state: Mapping[str, Tensor], texts: Sequence[str], context: Tensor | None = None) -> Tensor:
    """What CLIP makes of P texts: unit vectors (P, D) times the scale of its logits, in float32 and without a graph.

    Their product with an image's unit vector is CLIP's logits. Texts are cut to 77 tokens. The encoder is built, used
    and let go, which takes a second; the tokenizer's vocabulary comes with open_clip.

    Args:
        state: a whole CLIP in OpenAI's layout, with a text encoder of width 512.
        texts: what is encoded.
        context: learned embeddings (P, L, 512) to put around each text, half of them before and half after its words,
            as CoOp does ("Learning to prompt for vision-language models", Zhou et al., IJCV 2022). The text is followed
            by a period and must have three tokens with it.

    Raises:
        KeyError, RuntimeError: the state is of another layout.
    """
    from open_clip import tokenize
    from open_clip.transformer import QuickGELU, TextTransformer

    with torch.device("meta"):
        encoder: Any = TextTransformer(output_dim=state["text_projection"].shape[1], act_layer=QuickGELU).eval()
    encoder.load_state_dict({key: state[key].float() for key in encoder.state_dict()}, assign=True)
    count = 0 if context is None else context.shape[1]
    tokens = tokenize([f"{'X ' * count}{text}{'.' if count else ''}" for text in texts])
    with torch.no_grad():
        words = encoder.token_embedding(tokens)
        if context is not None:
            name, end = words[:, 1 + count : 4 + count], words[:, 4 + count :]
            before, after = context.to(words).chunk(2, 1)
            words = torch.cat([words[:, :1], before, name, after, end], 1)
        found = torch.empty(len(texts), encoder.output_dim)
        order = sorted(range(len(texts)), key=texts.__getitem__)  # neighbors begin alike
        for start in range(0, len(texts), 64):
            some = order[start : start + 64]
            found[some] = _encode_words(words[some], tokens[some], encoder, shared=context is None)
        return state["logit_scale"].float().exp() * found


@full_precision
def _encode_words(words: Tensor, tokens: Tensor, encoder: Any, shared: bool) -> Tensor:
    """Unit vectors (P, D) of embedded texts (P, 77, 512), which end at the highest of their tokens (P, 77).

    A word sees only those before it, so a beginning that several texts share is computed once: all texts are one
    sequence, in which each word attends to those that it continues.
    """
    places: dict[tuple[int, ...], int] = {}
    sources: list[tuple[int, int]] = []
    seen: list[list[int]] = []
    last: list[int] = []
    for text, (row, end) in enumerate(zip(tokens.tolist(), tokens.argmax(1).tolist(), strict=True)):
        line: list[int] = []
        for position in range(end + 1):
            key = (0 if shared else text, *row[: position + 1])
            line.append(places.setdefault(key, len(places)))
            if len(places) > len(seen):
                sources.append((text, position))
                seen.append([*line])
        last.append(line[-1])
    mask = words.new_full((len(seen), len(seen)), -torch.inf)
    for place, earlier in enumerate(seen):
        mask[place, earlier] = 0
    texts, positions = torch.tensor(sources).unbind(1)
    x = words[texts, positions] + encoder.positional_embedding[positions]
    x = encoder.ln_final(encoder.transformer(x[None], attn_mask=mask)[0, last])
    return _unit(x @ encoder.text_projection)


def _tokens(visual: Any, image: Tensor) -> Tensor:
    """The tokens that CLIP's ResNet-50 pools, (1 + h * w, N, C): the mean of its last map, then each position of it."""
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(image)))))
    x = x.flatten(2).permute(2, 0, 1)
    return torch.cat([x.mean(0, keepdim=True), x])


def _attention_pool(pool: Any, query: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's attention pooling of query tokens (Q, N, C) over all tokens (T, N, C): (Q, N, D)."""
    found, _ = F.multi_head_attention_forward(
        query,
        tokens,
        tokens,
        tokens.shape[-1],
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
    return found


def _unit(features: Tensor) -> Tensor:
    """Features (..., D) scaled to length 1, in at least float32."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _round_half(number: int) -> int:
    """`round(number / 2)`, where halves go to the even neighbor; also for symbolic sizes in a graph."""
    half = number // 2
    return half + number % 2 * (half % 2)
