"""Which images a metric's weights were trained on, recognized by perceptual hashes that are stored with the weights.

A hash says at which places of a coarse grid an image gets brighter to the right and downwards. It hardly changes when
the image is saved as JPEG, rounded, resized, blurred or noisy; a crop has another. No image can be made from one.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..checkpoints import files
from ..metric import Metric
from ..ops.color import luma_full
from ..ops.resize import resize
from ..registry import manifest

Bits = npt.NDArray[np.bool_]

# "chosen on": the weights were not trained on these images, but were kept because they did best on them.
KINDS = ("trained on", "chosen on")
_SIDE, _STEP = 8, 1 / 255  # differences below a gray level are rounding's
# Of 128 bits, up to which two images are taken for one; unrelated photographs differ by 64, and rarely by 15.
_APART = 8


def image_hash(image: Tensor) -> Bits | None:
    """128 bits of an image (1, 3, H, W) in [0, 1]; None of one so flat that they would say nothing."""
    luma = luma_full(image.detach().cpu().float())
    bits, largest = [], 0.0
    for size, axis in (((_SIDE, _SIDE + 1), 1), ((_SIDE + 1, _SIDE), 0)):
        grid = resize(luma, size, "bilinear")[0, 0].numpy()
        bits.append((np.diff(grid, axis=axis) > _STEP).ravel())
        largest = max(largest, float(np.ptp(grid)))
    return np.concatenate(bits) if largest > 8 * _STEP else None


class TrainedImages:
    """The hashes of the images that weights were trained on, or chosen on."""

    def __init__(self, by_kind: Mapping[str, npt.NDArray[np.bool_]]) -> None:
        self.by_kind = by_kind

    def kind_of(self, found: Bits | None) -> str | None:
        """Of `KINDS`, how an image of that hash had a part in the weights; None where it had none."""
        if found is None:
            return None
        for kind, hashes in self.by_kind.items():
            if len(hashes) and (hashes != found).sum(axis=1).min() <= _APART:
                return kind
        return None


def describe(seen: Mapping[str, int]) -> str:
    """How many images had a part in the weights, in words; "" where none had."""
    return ", ".join(f"{kind} {count}" for kind, count in seen.items() if count)


def trained_images(metric: Metric) -> TrainedImages | None:
    """The images that a metric's weights, or those of a metric in it, were trained on; None where no list is known.

    It goes by the weights themselves: others under the same name were trained on other images.
    """
    lists = _lists()
    return next((lists[key] for part in metric.members() if (key := _weights_key(part)) in lists), None)


def write_trained_images(path: Path, metric: Metric, images: Mapping[str, Iterable[Tensor]]) -> None:
    """Writes the list of a metric's weights: by kind, the hashes of images (1, 3, H, W), each scene once."""
    lines = [
        "# Perceptual hashes of the images that these weights were trained on, or chosen on: mdiqa_metric.trained",
        f"weights {_weights_key(metric)}",
    ]
    for kind in KINDS:
        kept = np.zeros((0, 2 * _SIDE * _SIDE), np.bool_)
        for image in images.get(kind, ()):
            found = image_hash(image)
            if found is not None and TrainedImages({kind: kept}).kind_of(found) is None:
                kept = np.append(kept, found[None], axis=0)
        lines += [kind, *(base64.b64encode(np.packbits(row).tobytes()).decode().rstrip("=") for row in kept)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _weights_key(metric: Metric) -> str | None:
    """The hash of its weights, as its fingerprint has it."""
    found = re.search(r"weights (sha256:[0-9a-f]+)", metric.fingerprint())
    return found[1] if found else None


@functools.cache
def _lists() -> dict[Any, TrainedImages]:
    """All lists that come with the package, by the hash of the weights."""
    found = {}
    for row in manifest()["files"].values():
        if "trained_images" in row:
            path = files.embedded(row["trained_images"])
            _, weights, *lines = path.read_text(encoding="utf-8").splitlines()
            found[weights.removeprefix("weights ")] = _read(lines)
    return found


def _read(lines: Iterable[str]) -> TrainedImages:
    by_kind: dict[str, list[Bits]] = {}
    for line in lines:
        if line in KINDS:
            hashes = by_kind[line] = []
        else:
            hashes.append(np.unpackbits(np.frombuffer(base64.b64decode(line + "=="), np.uint8)).astype(np.bool_))
    return TrainedImages({kind: np.array(hashes, np.bool_) for kind, hashes in by_kind.items()})
