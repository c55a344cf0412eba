"""The contract that every metric keeps, and the one place where its inputs are checked."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

# Float rounding of resizes and colour conversions stays far below this; 1.0001 does not.
RANGE_TOLERANCE = 1e-5


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
    score_range: ClassVar[tuple[float, float]]
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
        self.check_range(image, "image", -RANGE_TOLERANCE, 1 + RANGE_TOLERANCE)
        if isinstance(reference, Tensor):
            self.check_range(reference, "reference", -RANGE_TOLERANCE, 1 + RANGE_TOLERANCE)
        return self.score(image, reference)

    @abstractmethod
    def score(self, image: Tensor, reference: Any) -> Tensor:
        """Scores (N,) of checked inputs; `reference` is None without one, or an `Encoded` of this metric's own."""

    def encode(self, reference: Tensor) -> Encoded:
        """The trunk's features of a reference, computed once and then passed in its place.

        Raises:
            TypeError: the metric has no trunk whose pass could be saved.
        """
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
        facts = (self.name, self.extra_repr(), weights, self.color, f"resize {self.resize}", f"crop {self.crop}")
        return " | ".join([fact for fact in facts if fact] + [f"mdiqa_metric {__version__}"])

    def check(self, image: Tensor, reference: Any) -> tuple[Tensor, Any]:
        """The inputs in the dtype that `score` computes in, or an error. It costs no device synchronisation."""
        if self.full_reference and reference is None:
            raise ValueError(f"{self.name} compares with a reference, got none: call it as metric(image, reference).")
        if not self.full_reference and reference is not None:
            raise ValueError(f"{self.name} needs no reference, got one: call it as metric(image).")
        image = self._check_picture(image, "image")
        if isinstance(reference, Encoded):
            self._check_encoded(image, reference)
        elif reference is not None:
            reference = self._check_picture(reference, "reference")
            if reference.shape != image.shape:
                raise ValueError(
                    f"{self.name} takes an image and a reference of one shape, got {_shape(image)} and "
                    f"{_shape(reference)}: crop or resize one of them, and repeat a shared reference for each image."
                )
            if reference.device != image.device:
                raise ValueError(
                    f"{self.name} takes both pictures on one device, got the image on {image.device} and the reference "
                    f"on {reference.device}: move one with .to()."
                )
        return image, reference

    def check_range(self, picture: Tensor, role: str, low: float, high: float) -> None:
        """Raises ValueError unless every value lies in [low, high]. Stalls a GPU; inside a compiled graph it does not."""
        picture = picture.detach()
        if torch.compiler.is_compiling():
            inside = ((picture >= low) & (picture <= high)).all()
            torch._assert_async(
                inside,
                f"{self.name} takes {_a(role)} in [0, 1] without NaN, got other values: look at its range before the call.",
            )
            return
        lowest, highest = (value.item() for value in picture.aminmax())
        if low <= lowest and highest <= high:
            return
        if not (lowest == lowest and abs(lowest) < float("inf") and abs(highest) < float("inf")):
            mend = "find where it became NaN or infinite before it is scored."
        elif highest > 2:
            mend = "divide by 255." if highest <= 256 and lowest >= 0 else "scale it to [0, 1] first."
        elif lowest < -0.25:
            mend = "if it lies in [-1, 1], use x / 2 + 0.5; if it overshoots, clamp it."
        else:
            mend = "clamp it with .clamp(0, 1)."
        raise ValueError(
            f"{self.name} takes {_a(role)} in [0, 1], got values from {lowest:.5g} to {highest:.5g}: {mend}"
        )

    def _check_picture(self, picture: Any, role: str) -> Tensor:
        takes = f"{self.name} takes {_a(role)} of floats (N, 3, H, W) in [0, 1]"
        if not isinstance(picture, Tensor):
            raise TypeError(
                f"{takes}, got {type(picture).__name__}: mdiqa_metric.read_image(path) makes one of a file."
            )
        if not picture.is_floating_point():
            mend = "divide by 255." if picture.dtype == torch.uint8 else "convert it to float and scale it to [0, 1]."
            raise TypeError(f"{takes}, got {picture.dtype}: {mend}")
        if picture.ndim != 4:
            mend = (
                "add a batch dimension with image[None]." if picture.ndim == 3 else "make it a batch of RGB pictures."
            )
            raise ValueError(f"{takes}, got {picture.ndim} dimensions {_shape(picture)}: {mend}")
        count, channels, height, width = picture.shape
        if channels != 3:
            if width == 3:
                mend = "move the channels first with .permute(0, 3, 1, 2)."
            elif channels == 1:
                mend = "repeat a grey picture with .expand(-1, 3, -1, -1)."
            elif channels == 4:
                mend = "blend the alpha channel away first."
            else:
                mend = "pass three colour channels."
            raise ValueError(f"{takes}, got {channels} channels {_shape(picture)}: {mend}")
        if count == 0:
            raise ValueError(f"{takes}, got an empty batch {_shape(picture)}: leave empty batches out.")
        if min(height, width) < self.min_size:
            raise ValueError(
                f"{self.name} takes pictures from {self.min_size}x{self.min_size} pixels up, got {_a(role)} of "
                f"{height}x{width}: use a larger picture or crop."
            )
        weight = next(self.parameters(), None)
        own = weight if weight is not None else next(self.buffers(), None)
        if own is not None and picture.device != own.device:
            raise ValueError(
                f"{self.name} is on {own.device}, got {_a(role)} on {picture.device}: move one with .to(), as in "
                f'metric.to("{picture.device}").'
            )
        if weight is None:
            return picture if picture.dtype == torch.float64 else picture.float()
        if picture.dtype == torch.float64 and weight.dtype != torch.float64:
            raise TypeError(
                f"{self.name} computes in {weight.dtype}, got {_a(role)} of torch.float64: use metric.double() or "
                f"{role}.float()."
            )
        return picture.to(weight.dtype)

    def _check_encoded(self, image: Tensor, reference: Encoded) -> None:
        if reference.metric != self._encoder():
            raise ValueError(
                f"{self.name} takes references that it encoded itself ({self._encoder()}), got one of "
                f"{reference.metric}: encode it with this metric."
            )
        if tuple(reference.shape) != tuple(image.shape):
            raise ValueError(
                f"{self.name} takes an image of its encoded reference's shape {tuple(reference.shape)}, got "
                f"{_shape(image)}: encode the reference of this batch."
            )
        feature = reference.features[0]
        if feature.device != image.device:
            raise ValueError(
                f"{self.name} takes both on one device, got the image on {image.device} and the encoded reference on "
                f"{feature.device}: move it with .to()."
            )

    def _encoder(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _shape(picture: Tensor) -> tuple[int, ...]:
    return tuple(picture.shape)


def _a(role: str) -> str:
    return f"an {role}" if role == "image" else f"a {role}"
