"""Scores real photographs with known distortions, by nine metrics that need no download.

    python examples/demo.py --out out

Writes the distorted photographs, `scores.csv` and `demo.png` to the folder and prints the table. The photographs come
with scikit-image: astronaut (NASA, public domain), chelsea (Stefan van der Walt, CC0), coffee (Rachel Michetti, CC0).
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
import torch
from pace import use_fastest_threads
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torch import Tensor

import mdiqa_metric

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
# Of `mdiqa-metric list --offline`, which has more; the last three are written under the pictures.
METRICS = ("ssim-y-full", "ms-ssim-y-full", "gmsd", "mdsi", "milo", "stlpips-alex", "psnr", "lpips-alex", "mdiqa-lite")
SHOWN = METRICS[-3:]


def add_noise(image: Image.Image, sigma: float) -> Image.Image:
    """Adds white Gaussian noise of that standard deviation, on the scale of 0 to 255."""
    values = np.asarray(image) + np.random.RandomState(0).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def compress_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compresses as JPEG of that quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def downscale(image: Image.Image, factor: int) -> Image.Image:
    """Reduces by the factor and enlarges back, both bicubic."""
    small = image.resize((image.width // factor, image.height // factor), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


DISTORTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "untouched": lambda image: image,
    "blur 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blur 3": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "noise 10": lambda image: add_noise(image, 10),
    "noise 40": lambda image: add_noise(image, 40),
    "jpeg 40": lambda image: compress_jpeg(image, 40),
    "jpeg 8": lambda image: compress_jpeg(image, 8),
    "down x4": lambda image: downscale(image, 4),
    "darker": lambda image: image.point([value * 6 // 10 for value in range(256)] * 3),
}


def main() -> None:
    """Distorts, scores, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what the demo writes (default: out)")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)

    files = {
        (photograph, kind): folder / f"{photograph}-{kind.replace(' ', '-')}.png"
        for photograph in PHOTOGRAPHS
        for kind in DISTORTIONS
    }
    for (photograph, kind), path in files.items():
        DISTORTIONS[kind](Image.fromarray(getattr(skimage.data, photograph)())).save(path)
    images = {key: mdiqa_metric.read_image(path) for key, path in files.items()}

    metric, image = mdiqa_metric.create("lpips-alex"), next(iter(images.values()))
    use_fastest_threads(lambda: metric(image, image))
    scores = {name: score_all(name, images) for name in METRICS}

    write_table(folder / "scores.csv", scores)
    draw(folder / "demo.png", images, scores)
    show(f"Mean over {len(PHOTOGRAPHS)} photographs", scores)
    show("Dimensions of mdiqa-lite, mean over the same photographs, no-reference", score_dimensions(images))
    print(f"\nWrote {folder / 'scores.csv'}, {folder / 'demo.png'} and {len(files)} photographs to {folder}/.")
    print("Score your own:  mdiqa-metric score photographs/")


def score_all(name: str, images: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], float]:
    """The score of every photograph and distortion, with the untouched photograph as reference."""
    metric = mdiqa_metric.create(name)
    scores = {}
    with torch.inference_mode():
        for (photograph, kind), image in images.items():
            reference = [images[photograph, "untouched"]] if metric.full_reference else []
            scores[photograph, kind] = metric(image, *reference).item()
    return scores


def score_dimensions(images: dict[tuple[str, str], Tensor]) -> dict[str, dict[tuple[str, str], float]]:
    """The score of every dimension, photograph and distortion, from the image alone."""
    metric = mdiqa_metric.create("mdiqa-lite")
    with torch.inference_mode():
        found = {key: metric.dimensions(image)[0].tolist() for key, image in images.items()}
    return {
        name: {key: scores[index] for key, scores in found.items()} for index, name in enumerate(metric.dimension_names)
    }


def write_table(path: Path, scores: dict[str, dict[tuple[str, str], float]]) -> None:
    """Writes all scores as CSV, one line per photograph and distortion."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photograph", "distortion", *scores])
        for photograph, kind in next(iter(scores.values())):
            writer.writerow([photograph, kind, *(f"{values[photograph, kind]:.6g}" for values in scores.values())])


def show(title: str, scores: dict[str, dict[tuple[str, str], float]]) -> None:
    """Prints the means over the photographs, one row per metric or dimension."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("score", no_wrap=True)
    table.add_column("better")
    for kind in DISTORTIONS:
        table.add_column(kind, justify="right")
    for name, values in scores.items():
        lower = name in mdiqa_metric.list_metrics() and mdiqa_metric.create(name, weights=None).lower_is_better
        means = [np.mean([values[photograph, kind] for photograph in PHOTOGRAPHS]) for kind in DISTORTIONS]
        table.add_row(name, "lower" if lower else "higher", *(f"{round(mean, 6):.4g}" for mean in means))
    Console(width=max(130, Console().width)).print(table)


def draw(path: Path, images: dict[tuple[str, str], Tensor], scores: dict[str, dict[tuple[str, str], float]]) -> None:
    """Draws a grid of crops, one row per photograph, each with three of its scores."""
    figure, axes = plt.subplots(
        len(PHOTOGRAPHS), len(DISTORTIONS), figsize=(2 * len(DISTORTIONS), 2.7 * len(PHOTOGRAPHS))
    )
    for row, photograph in zip(axes, PHOTOGRAPHS, strict=True):
        for axis, kind in zip(row, DISTORTIONS, strict=True):
            height, width = images[photograph, kind].shape[-2:]
            top, left = height // 2 - 110, width // 2 - 80
            crop = images[photograph, kind][0, :, top : top + 160, left : left + 160]
            axis.imshow(crop.permute(1, 2, 0).numpy())
            axis.set_title(kind, fontsize=9)
            lines = [f"{name} {round(scores[name][photograph, kind], 6):.3g}" for name in SHOWN]
            axis.set_xlabel("\n".join(lines), fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
