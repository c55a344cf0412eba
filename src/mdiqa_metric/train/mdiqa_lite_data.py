"""The images that MDIQA-lite is trained on, and the crops and distorted triplets made of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.dataset import QualityDataset
from ..data.images import read_image
from ..data.pairing import list_images
from ..data.tables import read_table, split_by_content
from ..evaluation.trained_images import KINDS, write_trained_images
from ..metrics.mdiqa_lite import MDIQALite
from .distortions import DISTORTIONS, Distortion, compress_jpeg, display_noise, gaussian_blur

FRACTIONS = {"train": 0.8, "val": 0.2}
# Restored images are soft and noisy at once, so noise must be recognized in soft images and blur in noisy ones.
PRIOR_DISTORTIONS = {"noisiness": gaussian_blur, "sharpness": display_noise}
# Photographs with at least this opinion are good enough to be distorted.
GOOD_OPINION = 0.6
# A sigmoid is nearly flat close to 0 and 1: opinions are mapped to [OPINION_MARGIN, 1 - OPINION_MARGIN].
OPINION_MARGIN = 0.05


class Rated(NamedTuple):
    """An image (3, H, W) in uint8 and its mean opinion in [0, 1]."""

    pixels: Tensor
    mos: float


class Images(NamedTuple):
    """The images of a split: rated photographs, rated distorted images, and clean ones (3, H, W) in uint8."""

    photographs: list[Rated]
    distorted: list[Rated]
    clean: list[Tensor]


class Triplet(NamedTuple):
    """An image and two versions of it under one distortion, the second stronger.

    Attributes:
        images: (3, 3, H, W) in [0, 1], from the original to the strongest.
        dimension: index of the distorted dimension; the number of dimensions for JPEG, which belongs to none.
        severity: the share of the dimension's score that each image loses (3,), in [0, 1].
        is_clean: whether the first image is a clean one.
    """

    images: Tensor
    dimension: int
    severity: Tensor
    is_clean: bool


def load_images(data: Path, work: Path, split_seed: int) -> tuple[Images, Images]:
    """The train and the held-out images; no scene is in both, even across data sets.

    Args:
        data: a folder with clive/table.csv, kodak24/ and rebuild.py.
        work: a folder for LIVE's images, which rebuild.py makes if they are missing.
        split_seed: selects the held-out scenes.

    Raises:
        TableError, ImageError: a table or an image cannot be read.
        subprocess.CalledProcessError: rebuild.py failed.
    """
    live = work / "live" / "table.csv"
    if not live.is_file():
        subprocess.run([sys.executable, str(data / "rebuild.py"), str(work)], check=True, capture_output=True)
    photographs = split_by_content(read_table(data / "clive" / "table.csv"), FRACTIONS, split_seed)
    distorted = split_by_content(read_table(live), FRACTIONS, split_seed)
    split_of_scene = dict(zip(distorted["content"], distorted["split"], strict=True))
    clean: dict[str, list[Tensor]] = {"train": [], "val": []}
    for path in list_images([str(data / "kodak24")]):
        clean[split_of_scene.get(path.stem, "train")].append(_read_bytes(path))
    references = distorted.drop_duplicates("content")
    for row in references[~references["content"].str.startswith("kodim")].itertuples():
        clean[str(row.split)].append(_read_bytes(live.parent / str(row.reference)))
    train, held_out = (
        Images(
            _load_rated(photographs, split, data / "clive"), _load_rated(distorted, split, live.parent), clean[split]
        )
        for split in FRACTIONS
    )
    return train, held_out


def save_trained_images(metric: MDIQALite, path: Path, data: Path, work: Path, split_seed: int, chosen: bool) -> None:
    """Writes the hashes of the images that the weights were trained on and, if `chosen`, of those that selected them.

    Clean images come before the distorted ones made of them, which are recognized by the hash of their scene where
    theirs is close enough.

    Args:
        metric: the trained metric, whose hash the file records.
        path: the file to write.
        data, work, split_seed: as in `load_images`.
        chosen: whether the weights are the best of several seeds on the held-out photographs.
    """
    train, held_out = load_images(data, work, split_seed)
    trained_on = [*train.clean, *(rated.pixels for rated in (*train.photographs, *train.distorted))]
    chosen_on = [rated.pixels for rated in held_out.photographs] if chosen else []
    images = {
        kind: (pixels[None] / 255 for pixels in some) for kind, some in zip(KINDS, (trained_on, chosen_on), strict=True)
    }
    write_trained_images(path, metric, images)


def draw_triplets(
    names: Sequence[str], images: Images, count: int, side: int, random: Random, indices: Sequence[int]
) -> list[Triplet]:
    """Triplets of random crops, each with a distortion of a dimension drawn from `indices`.

    Args:
        names: the metric's dimensions.
        images: the train images; clean ones and good photographs are distorted.
        count: how many triplets.
        side: of the crops, in pixels.
        random: the source of randomness.
        indices: dimensions to draw from, as in `Triplet.dimension`.
    """
    good = [rated.pixels for rated in images.photographs if rated.mos >= GOOD_OPINION]
    triplets = []
    for _ in range(count):
        index, is_clean = random.choice(indices), not good or random.random() < 0.6
        image = random_crop(random.choice(images.clean if is_clean else good), side, random)
        if index == len(names):
            distortion = Distortion("JPEG", compress_jpeg)
        else:
            distortion = random.choice(DISTORTIONS[names[index]])
            if random.random() < 0.3 and (prior := PRIOR_DISTORTIONS.get(names[index])):
                image, is_clean = prior(image, random.uniform(0.2, 0.5), random), False
        weak = random.uniform(0.02, 0.7)
        strong = random.uniform(weak + 0.15, 1)
        versions = [image, distortion.apply(image, weak, random), distortion.apply(image, strong, random)]
        severity = distortion.severity * torch.tensor([0, weak, strong])
        triplets.append(Triplet(torch.stack(versions), index, severity, is_clean))
    return triplets


def random_crop(pixels: Tensor, side: int, random: Random) -> Tensor:
    """A random square of an image (3, H, W) in uint8, mirrored half the time, in [0, 1]; a small image stays whole."""
    height, width = pixels.shape[1:]
    top, left = random.randint(0, max(0, height - side)), random.randint(0, max(0, width - side))
    crop = pixels[:, top : top + side, left : left + side] / 255
    return crop.flip(2) if random.random() < 0.5 else crop


def center_crop(image: Tensor, side: int) -> Tensor:
    """The square of that side in the middle of an image (3, H, W)."""
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def to_batch(image: Rated, metric: MDIQALite) -> Tensor:
    """The whole image as a batch (1, 3, H, W) in [0, 1] on the metric's device."""
    return image.pixels[None].to(metric.shares.device) / 255


def _load_rated(table: Any, split: str, root: Path) -> list[Rated]:
    dataset = QualityDataset(table, split, root=root)
    # Opinions in the training tables range from 0 to 100; LIVE's exceed that slightly.
    opinions = OPINION_MARGIN + (1 - 2 * OPINION_MARGIN) * (dataset.table["mos"] / 100).clip(0, 1)
    return [Rated(_read_bytes(dataset.path(index)), float(mos)) for index, mos in enumerate(opinions)]


def _read_bytes(path: Path) -> Tensor:
    return (read_image(path)[0] * 255).round().byte()
