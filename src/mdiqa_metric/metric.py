"""The contract of every metric."""

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
    """The feature maps of a reference, as `Metric.encode` returns them.

    Pass it in place of the reference image to the metric that made it, or to a `Loss` of that metric. It is bound to
    the metric's class, options, weights and dtype, and any other metric refuses it. One change goes unnoticed: weights
    written through `.data`, which autograd does not see either.
    """

    features: tuple[Tensor, ...]
    shape: tuple[int, ...]
    metric: str

    def to(self, *args: Any, **kwargs: Any) -> EncodedReference:
        """The same reference on another device or in another dtype; takes what `Tensor.to` takes."""
        return self._replace(features=tuple(feature.to(*args, **kwargs) for feature in self.features))


class QualityMap(NamedTuple):
    """What `Metric.explain` returns for a metric that pools one map: local scores (N, C, h, w)."""

    map: Tensor


class Metric(Frozen, ABC):
    """An image-quality metric: `metric(image)`, or `metric(image, reference)` if it is full-reference.

    Images are RGB floats (N, 3, H, W) in [0, 1] on the metric's device. Scores are (N,), one per image, in at least
    float32. Gradients flow to every input that requires one. Subclasses are final: they state the facts below and
    implement `score`.

    A metric is frozen and in eval mode, and stays so inside any parent module (see `Frozen`): as an attribute of a
    network or a LightningModule it adds nothing to their `parameters()` and `state_dict()`. Call `unfreeze()` to train
    its weights. Calling a class directly builds an untrained network, which refuses to score until weights are loaded;
    `create(name)` loads them.

    Attributes:
        full_reference: whether the metric compares the image with a reference.
        lower_is_better: whether a lower score means a better image.
        score_range: lowest and highest possible score, `math.inf` where unbounded.
        differentiable: whether autograd computes the true gradient of the score. An option that breaks it (rounding)
            sets this to False on the instance and gives the reason in `no_gradient`.
        min_size: smallest height and width accepted, in pixels.
        border: pixels cut from each side before scoring; see `cut_border`.
        color, resize, crop: how the image is prepared, in words, for `fingerprint`.
        name: the name passed to `create`, or the class name in lower case.

    Example:
        >>> from mdiqa_metric import create
        >>> metric = create("psnr")
        >>> metric(torch.full((2, 3, 16, 16), 0.5), torch.full((2, 3, 16, 16), 0.6))
        tensor([20.0000, 20.0000])
        >>> metric.higher_is_better
        True
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
    # Whether weights were loaded. None until they are, or until an untrained network was asked for.
    _trained: bool | None = None
    # The versions of the weights when they were last hashed, and that hash.
    _hashed: tuple[tuple[Any, ...], str] = ((), "")

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()

    @property
    def higher_is_better(self) -> bool:
        """The opposite of `lower_is_better`, by torchmetrics' name."""
        return not self.lower_is_better

    @property
    def is_differentiable(self) -> bool:
        """`differentiable`, by torchmetrics' name."""
        return self.differentiable

    def forward(
        self, image: Tensor, reference: Tensor | EncodedReference | None = None, *, _checked: bool = False
    ) -> Tensor:
        """Scores (N,) of images (N, 3, H, W) in [0, 1], compared with references of the same shape if full-reference.

        Raises:
            TypeError, ValueError: an input is unsuitable; the message says what was expected, what came, and the mend.
            RuntimeError: the metric's weights have not been loaded.
        """
        if not _checked:  # `Loss` does its own checks, since it admits a wider range
            image, reference = self._prepare_in_range(image, reference)
        return self._score_float32(image, reference)

    @abstractmethod
    def score(self, image: Tensor, reference: Any) -> Tensor:
        """Scores (N,) of validated inputs; `reference` is None, a tensor or this metric's own `EncodedReference`."""

    def _score_float32(self, image: Tensor, reference: Any) -> Tensor:
        """The scores in at least float32, also when the metric's weights are in half precision."""
        reference = self._within_border(reference) if isinstance(reference, Tensor) else reference
        scores = self.score(self._within_border(image), reference)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def encode(self, reference: Tensor) -> EncodedReference:
        """Computes the feature maps of references (N, 3, H, W) once, to be passed in place of the images.

        Saves a backbone pass per step when a reference is used repeatedly. No graph is kept.

        Raises:
            TypeError, ValueError: the image is unsuitable, or the metric compares no feature maps.

        Example:
            >>> from mdiqa_metric import create
            >>> metric, reference = create("stlpips-alex"), torch.rand(1, 3, 64, 64)
            >>> bool(metric(reference, metric.encode(reference)) == 0)
            True
        """
        with torch.inference_mode(False), torch.no_grad():
            reference = self.prepare_image(reference, "reference")
            self.check_range(reference, "reference", RANGE_TOLERANCE)
            features = tuple(self.features(self._within_border(reference)))
            return EncodedReference(features, tuple(reference.shape), self._encoder())

    def features(self, image: Tensor) -> Iterable[Tensor]:
        """The feature maps that the metric compares, computed one at a time; implemented where there is a backbone."""
        raise TypeError(f"{self.name} has no backbone, so there is nothing to encode: pass the reference image itself.")

    def explain(self, image: Tensor, reference: Tensor | EncodedReference | None = None) -> Any:
        """What the score is made of, as a NamedTuple of tensors that the class docstring describes. Keeps no graph.

        Takes what calling the metric takes. For a metric that pools a map it is a `QualityMap`.

        Raises:
            TypeError, ValueError: an input is unsuitable, or there is nothing but the score.

        Example:
            >>> from mdiqa_metric import create
            >>> image = torch.rand(1, 3, 32, 32)
            >>> create("ssim-y-full").explain(image, image).map.shape
            torch.Size([1, 1, 22, 22])
        """
        image, reference = self._prepare_in_range(image, reference)
        reference = self._within_border(reference) if isinstance(reference, Tensor) else reference
        with torch.no_grad():
            return self.explanation(self._within_border(image), reference)

    def explanation(self, image: Tensor, reference: Any) -> Any:
        """What `explain` returns, of validated inputs; implemented where there is more than the score."""
        raise TypeError(f"{self.name} has nothing to explain: it gives a score and no more.")

    @classmethod
    def from_published(cls, part: str, state: Any) -> dict[str, Tensor]:
        """Maps the keys of a published file of `part` ("" for the whole metric) to ours; our own pass through."""
        return dict(state)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state dict to load, out of what `from_published` gave for all parts.

        Implemented where weights are computed from published ones and from options, as the features of texts are.
        """
        return state

    @classmethod
    def from_published_files(
        cls, names: Sequence[str], read: Callable[[str], Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """State dicts by part, and constructor options, of a model whose authors publish a folder of files.

        Implemented by metrics that have one. `names` are the paths of the files below the folder; `read(name)` returns
        the content of a file.

        Raises:
            TypeError: the metric has no such folder.
            ValueError: a file is missing or there are two of it.
        """
        raise TypeError(f"{cls.__name__} is not published as a folder of files.")

    def fingerprint(self) -> str:
        """One line for a paper: name, options, hash of the weights, color, resize, crop and version.

        Example:
            >>> from mdiqa_metric import create
            >>> create("psnr-y-studio:border=4").fingerprint().partition(" | mdiqa_metric")[0]
            'psnr-y-studio | channel=y-studio, border=4 | no weights | Y BT.601 studio range (MATLAB) | resize none | \
crop 4 px a side'
        """
        from . import __version__

        state = self.state_dict()
        untrained = "" if all(part._trained for part in self.members() if part._has_weights()) else "untrained "
        weights = f"weights {untrained}sha256:{_digest(state)}" if state else "no weights"
        facts = (self.name, self.settings(), weights, self.color, f"resize {self.resize}", f"crop {self.crop}")
        return " | ".join([fact for fact in facts if fact] + [f"mdiqa_metric {__version__}"])

    @classmethod
    def facts(cls, **options: Any) -> dict[str, Any]:
        """`min_size`, `score_range` and `differentiable` of a metric with these options, without building it."""
        return {name: getattr(cls, name) for name in ("min_size", "score_range", "differentiable")}

    def cut_border(self: Self, border: int) -> Self:
        """Cuts `border` pixels from each side of both images before they are compared; returns the metric.

        Super-resolution papers cut as many as the scale factor. `create(name, border=4)` calls this.

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
        """The options that affect the score, for `fingerprint`."""
        return self.extra_repr()

    def unfreeze(self: Self) -> Self:
        """Allows training, and scoring while it trains; see `Frozen.unfreeze`. Returns the metric."""
        self._trained = bool(self._trained)
        return super().unfreeze()

    def accept_untrained(self: Self) -> Self:
        """Allows scoring without loaded weights, for `create(name, weights=None)`; freezes and returns the metric."""
        self._trained = False
        return self.freeze()

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As `nn.Module.load_state_dict`. Once no weight is missing the metric scores, and stays frozen if it was."""
        found = super().load_state_dict(state_dict, strict, assign)
        self._trained = True if not found.missing_keys else self._trained
        if self._frozen:
            self.freeze()
        if self._hashed[1]:
            self._encoder()  # a compiled graph reads the hash that is stored
        return found

    def _prepare_in_range(self, image: Tensor, reference: Any) -> tuple[Tensor, Any]:
        """The inputs, validated down to their values."""
        image, reference = self.prepare_inputs(image, reference)
        self.check_range(image, "image", RANGE_TOLERANCE)
        if isinstance(reference, Tensor):
            self.check_range(reference, "reference", RANGE_TOLERANCE)
        return image, reference

    def prepare_inputs(self, image: Tensor, reference: Any) -> tuple[Tensor, Any]:
        """Validates the inputs, without a device synchronization, and returns them in the dtype to compute in."""
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
        """Validates one input, called `role` in errors, and returns it in the dtype that `score` computes in."""
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
        """Raises ValueError unless every value lies within `margin` of [0, 1]; returns whether all lie in [0, 1].

        Reading the values synchronizes a GPU; inside a compiled graph the check becomes an assertion instead.
        """
        return check_range(self.name, image.detach(), role, margin)

    def _within_border(self, image: Tensor) -> Tensor:
        rows, columns = (slice(self.border, size - self.border) for size in image.shape[-2:])
        return image[..., rows, columns] if self.border else image

    def members(self) -> Iterator[Metric]:
        """This metric and the metrics inside it."""
        yield self
        for part in self.children():
            if isinstance(part, Metric):
                yield from part.members()

    def _has_weights(self) -> bool:
        return next(self.parameters(), None) is not None

    def _encoder(self) -> str:
        """Identifies the maker of an encoded reference: class, options and a hash of the weights."""
        if not torch.compiler.is_compiling():  # a graph is compiled for the weights that were hashed last
            versions = self._versions()
            if self._hashed[0] != versions:
                self._hashed = versions, _digest(self.state_dict())
        return f"{type(self).__name__}({self.extra_repr()}, border={self.border}) {self._hashed[1]}"

    def _versions(self) -> tuple[Any, ...]:
        """Changes whenever a weight is written to or replaced."""
        weights = [*self.state_dict().values()]
        return tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights)

    def __getstate__(self) -> dict[str, Any]:
        known = self._hashed[0] == self._versions()
        return self.__dict__ | {"_hashed": ((), self._hashed[1] if known else "")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._hashed[1]:  # a copy has its original's weights
            self._hashed = self._versions(), self._hashed[1]

    def _apply(self: Self, fn: Move, recurse: bool = True) -> Self:
        known, dtype = bool(self._hashed[1]) and self._hashed[0] == self._versions(), self._dtype()
        super()._apply(fn, recurse)
        if known and self._dtype() == dtype:  # the same weights, on another device; another dtype would change them
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
