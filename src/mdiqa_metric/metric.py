"""The contract that every metric keeps."""

from __future__ import annotations

import hashlib
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from .frozen import Frozen, Move
from .validation import RANGE_TOLERANCE, check_image, check_pair, check_range, recordable

Self = TypeVar("Self", bound="Metric")


class EncodedReference(NamedTuple):
    """A reference that a metric has already sent through its backbone: what `Metric.encode` returns.

    It stands wherever that metric, or a `Loss` of it, takes a reference image. It is bound to the metric's class,
    options and weights, their dtype too: whatever else is given it refuses. Only weights that are written through
    `.data`, behind autograd's back, are not noticed.
    """

    features: tuple[Tensor, ...]
    shape: tuple[int, ...]
    metric: str

    def to(self, *args: Any, **kwargs: Any) -> EncodedReference:
        """The same reference on another device or in another dtype; takes what `Tensor.to` takes."""
        return self._replace(features=tuple(feature.to(*args, **kwargs) for feature in self.features))


class Metric(Frozen, ABC):
    """An image-quality metric: images in, one score an image out.

    `metric(image)` or, where `full_reference`, `metric(image, reference)`. Both are RGB floats (N, 3, H, W) in [0, 1]
    on the metric's device; the scores are (N,), at least float32. Gradients flow to whatever input asks for them.
    Subclasses are final: they state the facts below and write `score`.

    A metric is in eval mode and frozen, and stays so in whatever module holds it (see `Frozen`): it can be an attribute
    of a network or of a LightningModule that logs scores, and adds nothing to their `parameters()` and `state_dict()`.
    One whose weights are to be trained is asked for by `unfreeze()`. A class called by itself makes an untrained
    network, which scores only once it has weights; `create(name)` loads them.

    Attributes:
        full_reference: whether the metric compares with a reference.
        lower_is_better: the direction of the score.
        score_range: the lowest and the highest score there can be, `math.inf` where unbounded.
        differentiable: whether autograd's gradient is the slope of the score. A subclass that loses it by an option
            (rounding) sets it to False on the instance and says why in `no_gradient`.
        min_size: the least height and width taken, in pixels.
        border: pixels cut from each side before anything is scored; see `cut_border`.
        color, resize, crop: what happens to the image before it is scored, in words, for `fingerprint`.
        name: the name given to `create`, or the class's.
    """

    full_reference: ClassVar[bool]
    lower_is_better: ClassVar[bool]
    score_range: tuple[float, float]
    differentiable: bool = True
    no_gradient: str = ""
    min_size: int = 1
    border: int = 0
    color: str = "RGB"
    resize: str = "none"
    crop: str = "none"
    # Whether weights were loaded; None while nobody has loaded any or asked to go without.
    _trained: bool | None = None
    # Versions of the weights, and the hash that was made of them.
    _hashed: tuple[tuple[Any, ...], str] = ((), "")

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()

    def forward(
        self, image: Tensor, reference: Tensor | EncodedReference | None = None, *, _checked: bool = False
    ) -> Tensor:
        """Scores (N,) of images (N, 3, H, W) in [0, 1], against references of the same shape where it has them.

        Raises:
            TypeError, ValueError: an input is not what the metric takes; the text says what came and the mend.
            RuntimeError: nobody has loaded the metric's weights.
        """
        if not _checked:  # a `Loss` checks itself, for it admits more
            image, reference = self.prepare_inputs(image, reference)
            self.check_range(image, "image", RANGE_TOLERANCE)
            if isinstance(reference, Tensor):
                self.check_range(reference, "reference", RANGE_TOLERANCE)
        return self._score_float32(image, reference)

    @abstractmethod
    def score(self, image: Tensor, reference: Any) -> Tensor:
        """Scores (N,) of checked inputs; `reference` is None, a tensor or this metric's own `EncodedReference`."""

    def _score_float32(self, image: Tensor, reference: Any) -> Tensor:
        """What `score` gives, at least float32 where the metric's own weights are in half precision."""
        reference = self._within_border(reference) if isinstance(reference, Tensor) else reference
        scores = self.score(self._within_border(image), reference)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def encode(self, reference: Tensor) -> EncodedReference:
        """References (N, 3, H, W) sent through the backbone once, to be passed in their place; no graph is kept.

        Raises:
            TypeError, ValueError: the metric does not take such an image, or has no backbone whose pass could be saved.
        """
        with torch.inference_mode(False), torch.no_grad():
            reference = self.prepare_image(reference, "reference")
            self.check_range(reference, "reference", RANGE_TOLERANCE)
            features = tuple(self.features(self._within_border(reference)))
            return EncodedReference(features, tuple(reference.shape), self._encoder())

    def features(self, image: Tensor) -> Iterable[Tensor]:
        """The maps that a metric on a backbone compares, each computed when it is asked for; written by those alone."""
        raise TypeError(f"{self.name} has no backbone, so there is nothing to encode: pass the reference image itself.")

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Our keys for a weight file of `part` ("" for the whole) in the published layout; our own layout passes."""
        return dict(state)

    @classmethod
    def from_published_files(
        cls, names: Sequence[str], read: Callable[[str], Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """State dicts by part, and options of the constructor, of a model whose authors publish a folder of files.

        Written by the metrics that have one. `names` are the files of the folder, as paths below it; `read(name)` gives
        what a file holds.

        Raises:
            TypeError: the metric has no such folder.
            ValueError: a file is missing or there are two of it.
        """
        raise TypeError(f"{cls.__name__} is not published as a folder of files.")

    def fingerprint(self) -> str:
        """One line for a paper: name, options, hash of the weights, color, resize, crop and version."""
        from . import __version__

        state = self.state_dict()
        untrained = "" if all(part._trained for part in self.members() if part._has_weights()) else "untrained "
        weights = f"weights {untrained}sha256:{_digest(state)}" if state else "no weights"
        facts = (self.name, self.settings(), weights, self.color, f"resize {self.resize}", f"crop {self.crop}")
        return " | ".join([fact for fact in facts if fact] + [f"mdiqa_metric {__version__}"])

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """`min_size`, `score_range` and `differentiable` of a metric of these options, without building it."""
        return {name: getattr(cls, name) for name in ("min_size", "score_range", "differentiable")}

    def cut_border(self: Self, border: int) -> Self:
        """Has both images of a full-reference metric cut by `border` pixels a side before they are compared.

        As super-resolution papers do, by the scale factor; `create(name, border=4)` calls it.

        Raises:
            ValueError: `border` is not a whole number from 0 up.
        """
        if isinstance(border, bool) or not isinstance(border, numbers.Integral) or border < 0:
            raise ValueError(f"{self.name} takes a border of 0 pixels or more, got {border!r}.")
        border = int(border)
        self.min_size += 2 * (border - self.border)
        self.border = border
        self.crop = f"{border} px a side" if border else "none"
        return self

    def settings(self) -> str:
        """The options that decide the score, for `fingerprint`."""
        return self.extra_repr()

    def unfreeze(self: Self) -> Self:
        """Lets it be trained, and score on the way; see `Frozen.unfreeze`. It is untrained until weights are loaded."""
        self._trained = bool(self._trained)
        return super().unfreeze()

    def accept_untrained(self: Self) -> Self:
        """Lets it score without loaded weights, as `create(name, weights=None)` asks; freezes and returns it."""
        self._trained = False
        return self.freeze()

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As `nn.Module.load_state_dict`; with no weight missing the metric scores, frozen unless it was unfrozen."""
        found = super().load_state_dict(state_dict, strict, assign)
        self._trained = True if not found.missing_keys else self._trained
        if self._frozen:
            self.freeze()
        if self._hashed[1]:
            self._encoder()  # a compiled graph goes by the hash that is here
        return found

    def prepare_inputs(self, image: Tensor, reference: Any) -> tuple[Tensor, Any]:
        """The inputs in the dtype that `score` computes in, or an error. It costs no device synchronization."""
        if self.full_reference and reference is None:
            raise ValueError(f"{self.name} compares with a reference, got none: call it as metric(image, reference).")
        if not self.full_reference and reference is not None:
            raise ValueError(f"{self.name} needs no reference, got one: call it as metric(image).")
        image = self.prepare_image(image, "image")
        if isinstance(reference, EncodedReference):
            if reference.metric != (own := self._encoder()):
                raise ValueError(
                    f"{self.name} takes references that it encoded itself ({own}), got one of {reference.metric}: "
                    "encode it with this metric."
                )
            check_pair(self.name, image, reference.shape, reference.features[0].device, "encoded reference")
            reference = reference._replace(features=tuple(map(recordable, reference.features)))
        elif reference is not None:
            reference = self.prepare_image(reference, "reference")
            check_pair(self.name, image, reference.shape, reference.device, "reference")
            common = torch.promote_types(image.dtype, reference.dtype)
            image, reference = image.to(common), reference.to(common)
        return image, reference

    def prepare_image(self, image: Any, role: str) -> Tensor:
        """One input in the dtype that `score` computes in, or an error; `role` names it there."""
        weight = next(self.parameters(), None)
        own = weight if weight is not None else next(self.buffers(), None)
        for part in self.members():
            if part._trained is None and part._has_weights():
                raise RuntimeError(
                    f"{part.name} has no trained weights, so its scores would mean nothing: load them with "
                    "mdiqa_metric.create(name) or load_state_dict(), or ask for an untrained network with "
                    "create(name, weights=None)."
                )
        device = None if own is None else own.device
        return recordable(check_image(self.name, image, role, self.min_size, device, self._dtype()))

    def check_range(self, image: Tensor, role: str, margin: float) -> bool:
        """ValueError unless every value lies within `margin` of [0, 1]. It stalls a GPU, but no compiled graph.

        Returns whether all are known to lie in [0, 1].
        """
        return check_range(self.name, image.detach(), role, margin)

    def _within_border(self, image: Tensor) -> Tensor:
        rows, columns = (slice(self.border, size - self.border) for size in image.shape[-2:])
        return image[..., rows, columns] if self.border else image

    def members(self) -> Iterator[Metric]:
        """This metric and those that it is made of."""
        yield self
        for part in self.children():
            if isinstance(part, Metric):
                yield from part.members()

    def _has_weights(self) -> bool:
        return next(self.parameters(), None) is not None

    def _encoder(self) -> str:
        """What made an encoded reference: class, options and weights."""
        if not torch.compiler.is_compiling():  # a graph is made for the weights that were hashed last
            versions = self._versions()
            if self._hashed[0] != versions:
                self._hashed = versions, _digest(self.state_dict())
        return f"{type(self).__name__}({self.extra_repr()}, border={self.border}) {self._hashed[1]}"

    def _versions(self) -> tuple[Any, ...]:
        """What changes where a weight is written to or replaced."""
        weights = [*self.state_dict().values()]
        return tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights)

    def __getstate__(self) -> dict[str, Any]:
        known = self._hashed[0] == self._versions()
        return self.__dict__ | {"_hashed": ((), self._hashed[1] if known else "")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._hashed[1]:  # a copy has the weights of its original
            self._hashed = self._versions(), self._hashed[1]

    def _apply(self: Self, fn: Move, recurse: bool = True) -> Self:
        known, dtype = bool(self._hashed[1]) and self._hashed[0] == self._versions(), self._dtype()
        super()._apply(fn, recurse)
        if known and self._dtype() == dtype:  # the same weights elsewhere; in another dtype they are others
            self._hashed = self._versions(), self._hashed[1]
        else:
            self._hashed = (), ""
        return self

    def _dtype(self) -> torch.dtype | None:
        weight = next(self.parameters(), None)
        return None if weight is None else weight.dtype


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
