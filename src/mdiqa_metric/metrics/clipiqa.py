"""CLIP-IQA: how much closer an image is to "Good photo." than to "Bad photo." in CLIP's space."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.clip import CLIP, encode_texts
from ..checkpoints.remapping import PublishedState
from ..layers.attention import select
from ..metric import Metric
from ..multidimensional import Indices, MultiDimensional
from ..ops.precision import full_precision

PAPER = (("Good photo.", "Bad photo."),)
# Dimensions of CLIP's space, and the logits' scale that training CLIP ended at.
WIDTH, SCALE = 1024, 100
# Learned embeddings around the words, and their width.
CONTEXT, TOKEN = 16, 512
# What the archives of OpenAI hold beside weights.
NOTES = ("context_length", "input_resolution", "vocab_size")


class PromptScores(NamedTuple):
    """What `CLIPIQA.explain` finds in N images of D pairs of prompts.

    Attributes:
        overall: the scores (N,) under the weights in force.
        scores: each pair's score (N, D), as `dimensions` gives.
        weights: what each pair counts (N, D); a row sums to 1.
        logits: CLIP's logits (N, D, 2) for each pair's first and second prompt. The score is the first's softmax.
    """

    overall: Tensor
    scores: Tensor
    weights: Tensor
    logits: Tensor


class CLIPIQA(MultiDimensional):
    """No-reference quality in [0, 1], higher is better, from any pairs of prompts, without training on opinions.

    `softmax(scale * cosine)` of an image with two opposite texts in CLIP's space, the probability of the first; the
    mean of several pairs. From "Exploring CLIP for assessing the look and feel of images" (Wang et al., AAAI 2023).
    CLIP's ResNet-50 takes images (N, 3, H, W) at their own size, as its attention pooling leaves out positions.

    Each pair is a dimension, named by its first prompt ("Sharp photo." is `sharp_photo`), so that `dimensions` scores
    it, `set_weights` says how much it counts and `DimensionMean` makes a loss of it; `explain` gives `PromptScores`.
    CLIP's text encoder runs when weights are loaded and is not kept. Which attributes prompts measure well is an open
    question: check yours on images that differ in nothing else.

    Args:
        prompts: pairs of texts, the better one first. The paper's are one pair, "Good photo." and "Bad photo."; pyiqa
            takes the mean of five others, which gives other scores.

    Raises:
        ValueError: no pair, no pair of texts, or two pairs of one name.

    Example:
        >>> from mdiqa_metric import create
        >>> pairs = [("Sharp photo.", "Blurry photo."), ("Bright photo.", "Dark photo.")]
        >>> metric = create("clipiqa", prompts=pairs, weights=None).set_weights(sharp_photo=2.0)
        >>> metric.dimension_names, metric.dimensions(torch.rand(1, 3, 64, 80)).shape
        (('sharp_photo', 'bright_photo'), torch.Size([1, 2]))
    """

    dimension_range = (0.0, 1.0)
    score_range = (0.0, 1.0)
    min_size = 32

    def __init__(self, prompts: Sequence[Sequence[str]] = PAPER) -> None:
        self.prompts = _check_prompts(prompts)
        self.dimension_names = tuple(_name(first) for first, _ in self.prompts)
        super().__init__()
        self.backbone = CLIP("RN50", positions=False)
        self.heads = _heads(self.prompts)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return (self._weights(image, self.active) * self.dimension_scores(image, self.active)).sum(1)

    def dimension_scores(self, image: Tensor, wanted: Indices) -> Tensor:
        """Scores (N, K)."""
        return self._logits(image, wanted).softmax(2)[..., 0]

    def dimension_features(self, image: Tensor, wanted: Indices) -> Tensor:
        """The logits (K, N, 1, 2) of each pair."""
        return self._logits(image, wanted).transpose(0, 1)[:, :, None]

    def instance_weights(self, image: Tensor) -> Tensor:
        """Equal weights (N, D)."""
        count = len(self.dimension_names)
        return image.new_full((image.shape[0], count), 1 / count)

    def explanation(self, image: Tensor, reference: None) -> PromptScores:
        """What the scores of images (N, 3, H, W) in [0, 1] are made of; see `PromptScores`."""
        logits = self._logits(image, self.every_dimension)
        scores, weights = logits.softmax(2)[..., 0], self._weights(image, self.every_dimension)
        return PromptScores((weights * scores).sum(1), scores, weights, logits)

    def _weights(self, image: Tensor, wanted: Indices) -> Tensor:
        weights = select(self.user_weights(image), wanted, 1)
        return weights / weights.sum(1, keepdim=True)

    def _logits(self, image: Tensor, wanted: Indices) -> Tensor:
        heads = torch.stack([self.heads[_key(self.prompts[index])] for index in wanted])
        return _compare(self.backbone(image), heads)

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for CLIP's file, of which `complete_state` makes the heads."""
        return _from_published(part, state)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The image encoder, and the heads that CLIP's text encoder makes of the prompts."""
        return _complete_state(state, self.prompts)

    def extra_repr(self) -> str:
        """The options, for `repr` and `fingerprint`."""
        return f"prompts={self.prompts}"


class CLIPIQAPlus(Metric):
    """No-reference quality in [0, 1], higher is better: CLIP-IQA with a context learned from opinions on KonIQ-10k.

    As `CLIPIQA`, from the same paper, with 16 learned embeddings around the words of "Good photo." and "Bad photo.",
    half of them on each side (CoOp). CLIP itself is not trained.

    Example:
        >>> CLIPIQAPlus().accept_untrained()(torch.rand(2, 3, 64, 80)).shape
        torch.Size([2])
    """

    full_reference = False
    lower_is_better = False
    score_range = (0.0, 1.0)
    min_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.backbone = CLIP("RN50", positions=False)
        self.heads = _heads(PAPER)

    def score(self, image: Tensor, reference: None) -> Tensor:
        """Scores (N,)."""
        return _compare(self.backbone(image), self.heads[_key(PAPER[0])][None])[:, 0].softmax(1)[:, 0]

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for CLIP's file and for that of the learned context, of which `complete_state` makes the heads.

        The authors' context, a bare tensor (16, 512), serves both prompts; others have one for each (2, 16, 512).
        """
        if part != "heads":
            return _from_published(part, state)
        if isinstance(state, Mapping) and "prompt_learner.ctx" not in state:
            return dict(state)
        context = state["prompt_learner.ctx"] if isinstance(state, Mapping) else state
        return {"context": context.expand(2, CONTEXT, TOKEN)}

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The image encoder, and the heads that CLIP's text encoder makes of the prompts in their context."""
        others = {key: value for key, value in state.items() if key != "heads.context"}
        if "backbone.token_embedding.weight" in state and len(others) == len(state):
            raise ValueError('a learned context is missing: give CLIP alone as weights={"backbone": PATH}')
        return _complete_state(others, PAPER, state.get("heads.context"))


@full_precision
def _compare(features: Tensor, heads: Tensor) -> Tensor:
    """Logits (N, K, 2) of unit vectors (N, C) and the heads (K, 2, C) of K pairs."""
    return (features @ heads.flatten(0, 1).mT).unflatten(1, heads.shape[:2])


def _heads(prompts: Sequence[Sequence[str]]) -> nn.ParameterDict:
    """What images are compared with: by the prompts it stands for, so that weights of other prompts do not load."""
    return nn.ParameterDict({_key(pair): SCALE / WIDTH**0.5 * torch.randn(2, WIDTH) for pair in prompts})


def _check_prompts(prompts: Any) -> tuple[tuple[str, str], ...]:
    wanted = 'CLIP-IQA takes prompts as pairs of texts, [("Sharp photo.", "Blurry photo.")]'
    pairs = [] if isinstance(prompts, str) else [tuple(pair) for pair in prompts if not isinstance(pair, str)]
    if not pairs or len(pairs) != len(prompts):
        raise ValueError(f"{wanted}, got {prompts!r}.")
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(text, str) and _name(text) for text in pair):
            raise ValueError(f"{wanted}, got the pair {pair!r}.")
    names = [_name(first) for first, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"CLIP-IQA names each pair by its first prompt, got {min(twice)} twice: word one differently.")
    return tuple(pairs)


def _name(text: str) -> str:
    """A text's words, as the name of a dimension."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")


def _key(pair: Sequence[str]) -> str:
    return "-".join(map(_name, pair))


def _from_published(part: str, state: Any) -> dict[str, Tensor]:
    if part == "heads":
        return {} if "visual.conv1.weight" in state else dict(state)
    prefix = "" if part or "backbone.visual.conv1.weight" in state else "backbone."
    return {f"{prefix}{key}": state[key] for key in state if key not in NOTES}


def _complete_state(
    state: dict[str, Tensor], prompts: Sequence[Sequence[str]], context: Tensor | None = None
) -> dict[str, Tensor]:
    published = PublishedState(state)
    clip = published.under("backbone.")
    if "token_embedding.weight" not in clip:
        return state
    found = encode_texts(clip, [text for pair in prompts for text in pair], context).unflatten(0, (-1, 2))
    ours = {f"backbone.{key}": value for key, value in CLIP.from_published(clip).items()}
    return ours | {f"heads.{_key(pair)}": head for pair, head in zip(prompts, found, strict=True)} | published.state
