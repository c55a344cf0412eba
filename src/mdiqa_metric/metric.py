"""The contract that every metric keeps."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .checks import RANGE_TOLERANCE, check_pair, check_picture, check_range


class Encoded(NamedTuple):
    """A reference that a metric has already sent through its trunk: what `Metric.encode` returns.

    It stands wherever that metric, or a `Loss` of it, takes a reference picture.
    """

    features: tuple[Tensor, ...]
    shape: tuple[int, ...]
    metric: str

    def to(self, *args: Any, **kwargs: Any) -> Encoded:
        """The same reference on another device or in another dtype; takes what `Tensor.to` takes."""
        return self._replace(features=tuple(feature.to(*args, **kwargs) for feature in self.features))


class Metric(nn.Module, ABC):
    """An image-quality metric: pictures in, one score a picture out.

    `metric(image)` or, where `full_reference`, `metric(image, reference)`. Both are RGB floats (N, 3, H, W) in [0, 1]
    on the metric's device; the scores are (N,), at least float32. Gradients flow to whatever input asks for them.
    Subclasses are final: they state the facts below and write `score`.

    Attributes:
        full_reference: whether the metric compares with a reference.
        lower_is_better: the direction of the score.
        score_range: the lowest and the highest score there can be, `math.inf` where unbounded.
        differentiable: whether autograd's gradient is the slope of the score. A subclass that loses it by an option
            (rounding) sets it to False on the instance and says why in `no_gradient`.
        min_size: the least height and width taken, in pixels.
        color, resize, crop: what happens to the picture before it is scored, in words, for `fingerprint`.
        name: the name given to `create`, or the class's.
    """

    full_reference: ClassVar[bool]
    lower_is_better: ClassVar[bool]
    score_range: tuple[float, float]
    differentiable: bool = True
    no_gradient: str = ""
    min_size: int = 1
    color: str = "RGB"
    resize: str = "none"
    crop: str = "none"

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()

    def forward(self, image: Tensor, reference: Tensor | Encoded | None = None) -> Tensor:
        """Scores (N,) of images (N, 3, H, W) in [0, 1], against references of the same shape where it has them.

        Raises:
            TypeError, ValueError: an input is not what the metric takes; the text says what came and the mend.
        """
        image, reference = self.check(image, reference)
        self.check_range(image, "image", RANGE_TOLERANCE)
        if isinstance(reference, Tensor):
            self.check_range(reference, "reference", RANGE_TOLERANCE)
        return self.scored(image, reference)

    @abstractmethod
    def score(self, image: Tensor, reference: Any) -> Tensor:
        """Scores (N,) of checked inputs; `reference` is None without one, or an `Encoded` of this metric's own."""

    def scored(self, image: Tensor, reference: Any) -> Tensor:
        """What `score` gives, at least float32 where the metric's own weights are in half precision."""
        scores = self.score(image, reference)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def encode(self, reference: Tensor) -> Encoded:
        """References (N, 3, H, W) sent through the trunk once, to be passed in their place; no graph is kept.

        Raises:
            TypeError, ValueError: the metric does not take such a picture, or has no trunk whose pass could be saved.
        """
        reference = self.check_picture(reference, "reference")
        self.check_range(reference, "reference", RANGE_TOLERANCE)
        with torch.no_grad():
            return Encoded(tuple(self.features(reference)), tuple(reference.shape), self._encoder())

    def features(self, picture: Tensor) -> Iterable[Tensor]:
        """The maps that a metric on a trunk compares, each computed when it is asked for; written by those alone."""
        raise TypeError(f"{self.name} has no trunk, so there is nothing to encode: pass the reference picture itself.")

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for a weight file of `part` ("" for the whole) in the published layout; our own layout passes."""
        return dict(state)

    def fingerprint(self) -> str:
        """One line for a paper: name, options, hash of the weights, colour, resize, crop and version."""
        from mdiqa_metric import __version__

        digest = hashlib.sha256()
        state = self.state_dict()
        for key in sorted(state):
            digest.update(key.encode())
            digest.update(state[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        weights = f"weights sha256:{digest.hexdigest()[:12]}" if state else "no weights"
        facts = (self.name, self.settings(), weights, self.color, f"resize {self.resize}", f"crop {self.crop}")
        return " | ".join([fact for fact in facts if fact] + [f"mdiqa_metric {__version__}"])

    def settings(self) -> str:
        """The options that decide the score, for `fingerprint`."""
        return self.extra_repr()

    def check(self, image: Tensor, reference: Any) -> tuple[Tensor, Any]:
        """The inputs in the dtype that `score` computes in, or an error. It costs no device synchronisation."""
        if self.full_reference and reference is None:
            raise ValueError(f"{self.name} compares with a reference, got none: call it as metric(image, reference).")
        if not self.full_reference and reference is not None:
            raise ValueError(f"{self.name} needs no reference, got one: call it as metric(image).")
        image = self.check_picture(image, "image")
        if isinstance(reference, Encoded):
            if reference.metric != self._encoder():
                raise ValueError(
                    f"{self.name} takes references that it encoded itself ({self._encoder()}), got one of "
                    f"{reference.metric}: encode it with this metric."
                )
            check_pair(self.name, image, reference.shape, reference.features[0].device, "encoded reference")
        elif reference is not None:
            reference = self.check_picture(reference, "reference")
            check_pair(self.name, image, reference.shape, reference.device, "reference")
        return image, reference

    def check_picture(self, picture: Any, role: str) -> Tensor:
        """One input in the dtype that `score` computes in, or an error; `role` names it there."""
        weight = next(self.parameters(), None)
        own = weight if weight is not None else next(self.buffers(), None)
        return check_picture(
            self.name,
            picture,
            role,
            self.min_size,
            None if own is None else own.device,
            None if weight is None else weight.dtype,
        )

    def check_range(self, picture: Tensor, role: str, margin: float) -> None:
        """ValueError unless every value lies within `margin` of [0, 1]. It stalls a GPU, but no compiled graph."""
        check_range(self.name, picture.detach(), role, margin)

    def _encoder(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
