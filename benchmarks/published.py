"""Reproduces the bicubic rows that super-resolution papers print: `python benchmarks/published.py DATA`.

DATA holds `set5` and `set14`, lossless. Each image is cropped to a multiple of the scale, downscaled and upscaled as
MATLAB's `imresize(..., "bicubic")` does, and scored by psnr-y-studio and ssim-y-studio with border = scale, in the
orders of resizing, rounding and converting that scripts have, and with gray images by either convention. Writes
results/published.md and .json; exits with 1 where SRCNN's rows don't come out to every digit.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from steps import RESULTS, environment, heading

import mdiqa_metric
from mdiqa_metric.ops.color import STUDIO

Array = NDArray[np.float64]
Scores = tuple[float, float]  # PSNR, SSIM

PAPERS = ("SRCNN", "VDSR")
SOURCES = (
    "SRCNN: Dong et al., TPAMI 2016; its SSIM on Set14 is quoted from memory, unverified.",
    "VDSR: Kim et al., CVPR 2016, and the many that copy its row. Where the two differ on Set14 is not explained.",
)
# Bicubic as each paper prints it, by set and scale.
PUBLISHED = {
    "Set5 x2": (("33.66", ".9299"), ("33.66", ".9299")),
    "Set5 x3": (("30.39", ".8682"), ("30.39", ".8682")),
    "Set5 x4": (("28.42", ".8104"), ("28.42", ".8104")),
    "Set14 x2": (("30.23", ".8687"), ("30.24", ".8688")),
    "Set14 x3": (("27.54", ".7736"), ("27.55", ".7742")),
    "Set14 x4": (("26.00", ".7019"), ("26.00", ".7027")),
}
# The one file of Set14 with one channel, in its original form (github.com/yulunzhang/RCAN/issues/96). `man` is gray in
# three channels. WebP files always have three channels and cannot tell.
ONE_CHANNEL = {"bridge"}


class Pipeline(NamedTuple):
    """The order in which a script resizes, rounds and converts."""

    words: str
    resize_y: bool  # the Y channel, and not RGB
    round_small: bool  # the downscaled image to 8 bits
    round_y: bool  # Y to 8 bits, as rgb2ycbcr of uint8 does


PIPELINES = {
    "Y": Pipeline("Y of 8 bits, resized in floating point, rounded at the end", True, False, True),
    "Y, 8 bits": Pipeline("the same, the small image rounded too", True, True, True),
    "RGB": Pipeline("RGB, rounded after each resize; Y unrounded, as our metric takes it", False, True, False),
    "RGB, Y of 8 bits": Pipeline("the same, Y rounded", False, True, True),
}
CONVENTIONS = {
    "by channels": "a file of one channel as it is, others by luma",
    "`gray_as_is=true`": "any gray image as it is",
    "`gray_as_is=false`": "luma always",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    facts = environment(torch.device("cpu"))
    found = {
        key: {way: score_set(data / key.split()[0].lower(), int(key[-1]), PIPELINES[way]) for way in PIPELINES}
        for key in PUBLISHED
    }
    lines, missed = report(facts, found)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "published.json").write_text(json.dumps({"environment": facts, "scores": found}, indent=1) + "\n")
    (RESULTS / "published.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if missed:
        print(f"SRCNN'S ROW IS NOT MET: {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


# MATLAB's imresize ---------------------------------------------------------------------------------------------------


def cubic(x: Array) -> Array:
    """The kernel of Keys (IEEE TASSP 1981) with a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights(length: int, resized: int, scale: float) -> Array:
    """The matrix (resized, length) that resizes one axis: the kernel widened by 1 / scale to shrink, ends mirrored."""
    stretch = max(1 / scale, 1)
    centers = (np.arange(resized) + 0.5) / scale - 0.5
    taps = np.floor(centers - 2 * stretch).astype(int)[:, None] + np.arange(int(np.ceil(4 * stretch)) + 2)
    values = cubic((centers[:, None] - taps) / stretch)
    values /= values.sum(1, keepdims=True)
    taps %= 2 * length
    matrix = np.zeros((resized, length))
    np.add.at(matrix, (np.arange(resized)[:, None], np.minimum(taps, 2 * length - 1 - taps)), values)
    return matrix


def resize(image: Array, height: int, width: int) -> Array:
    """`imresize(image, scale, "bicubic")` of (H, W) or (H, W, 3), in floating point."""
    rows = weights(image.shape[0], height, height / image.shape[0])
    columns = weights(image.shape[1], width, width / image.shape[1])
    return np.einsum("ih,hw...,jw->ij...", rows, image, columns, optimize=True)


def round_8bit(image: Array) -> Array:
    """Rounds as MATLAB's uint8 does: clipped, halves up."""
    return np.floor(image.clip(0, 255) + 0.5)


# Scoring -------------------------------------------------------------------------------------------------------------


def score_set(folder: Path, scale: int, pipeline: Pipeline) -> dict[str, dict[str, Scores]]:
    """The scores of each image by luma and, for a gray one, of its channel as it is."""
    scores = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB")).astype(np.float64)
        height, width = (side - side % scale for side in image.shape[:2])
        image = image[:height, :width]
        scores[path.stem] = {"luma": score(image, scale, pipeline, as_is=False)}
        if is_gray(image):
            scores[path.stem]["as is"] = score(image, scale, pipeline, as_is=True)
    return scores


def score(photo: Array, scale: int, pipeline: Pipeline, as_is: bool) -> Scores:
    """PSNR and SSIM of the downscaled and upscaled image against the original."""
    reference = luma_8bit(photo, as_is) if pipeline.resize_y else photo
    height, width = reference.shape[:2]
    small = resize(reference, height // scale, width // scale)
    image = round_8bit(resize(round_8bit(small) if pipeline.round_small else small, height, width))
    if pipeline.round_y and not pipeline.resize_y:
        image, reference = luma_8bit(image, as_is), luma_8bit(reference, as_is)
    # The metrics must take a Y channel that is already computed as it is.
    psnr, ssim = (
        metric(to_tensor(image), to_tensor(reference)).item() for metric in metrics(scale, as_is or pipeline.round_y)
    )
    return psnr, ssim


@cache
def metrics(scale: int, as_is: bool) -> tuple[mdiqa_metric.Metric, mdiqa_metric.Metric]:
    options = f"border={scale},gray_as_is={str(as_is).lower()}"
    return mdiqa_metric.create(f"psnr-y-studio:{options}"), mdiqa_metric.create(f"ssim-y-studio:{options}")


def luma_8bit(image: Array, as_is: bool) -> Array:
    """The first channel of `rgb2ycbcr` in uint8 or, for a gray image if `as_is`, its one channel."""
    return image[..., 0] if as_is and is_gray(image) else round_8bit(16 + image @ np.array(STUDIO) / 255)


def is_gray(image: Array) -> bool:
    return bool((image == image[..., :1]).all())


def to_tensor(image: Array) -> torch.Tensor:
    """The image as a tensor (1, 3, H, W) in [0, 1], like `read_image`."""
    channels = np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3))
    return torch.from_numpy(channels.astype(np.float32) / 255).permute(2, 0, 1)[None]


# Report --------------------------------------------------------------------------------------------------------------


def mean(scores: dict[str, dict[str, Scores]], convention: str) -> Scores:
    """Means over the images of a set, with gray ones by that convention."""
    as_is = {
        "by channels": ONE_CHANNEL,
        "`gray_as_is=true`": {name for name, ways in scores.items() if "as is" in ways},
        "`gray_as_is=false`": set(),
    }[convention]
    psnr, ssim = np.mean([ways["as is" if name in as_is else "luma"] for name, ways in scores.items()], 0)
    return float(psnr), float(ssim)


def report(facts: dict[str, Any], found: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The lines, and the sets and scales at which SRCNN's row is not reproduced."""
    sides = "PSNR in dB and SSIM, means over a set, by `psnr-y-studio` and `ssim-y-studio` with border = scale."
    lines, missed = heading("Published bicubic rows", facts, sides), []
    lines += [
        *("## Which gray images", ""),
        "In the order “Y” below. Set5 has no gray image. Set14 has `bridge`, a file of one channel, and `man`,",
        "gray with three channels, which `gray_as_is=true` also takes as it is.",
        *("", *(f"* {name}: {words}." for name, words in CONVENTIONS.items()), *(f"* {line}" for line in SOURCES), ""),
        f"| | {' | '.join(f'{paper} prints' for paper in PAPERS)} | {' | '.join(CONVENTIONS)} | by channels gives |",
        f"|---{'|---:' * len(PAPERS)}{'|---:' * len(CONVENTIONS)}|---|",
    ]
    for key, rows in PUBLISHED.items():
        scores = found[key]["Y"]
        ours = mean(scores, "by channels")
        met = [paper for paper, row in zip(PAPERS, rows, strict=True) if matches(row, ours)]
        if "SRCNN" not in met:
            missed.append(key)
        cells = [*(" / ".join(row) for row in rows), *(cell(mean(scores, kind)) for kind in CONVENTIONS)]
        lines.append(f"| {key} | {' | '.join(cells)} | {' and '.join(met) or 'neither'} |")
    lines += [
        *("", "## In which order", "", "With gray images by channels.", ""),
        *(f"* {name}: {pipeline.words}." for name, pipeline in PIPELINES.items()),
        *("", f"| | {' | '.join(PIPELINES)} |", f"|---{'|---:' * len(PIPELINES)}|"),
    ]
    for key, ways in found.items():
        cells = [cell(mean(ways[way], "by channels")) for way in PIPELINES]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    for index, paper in enumerate(PAPERS):
        counts = [
            sum(matches(rows[index], mean(found[key][way], "by channels")) for key, rows in PUBLISHED.items())
            for way in PIPELINES
        ]
        lines.append(f"| rows of {paper} | {' | '.join(f'{count} of {len(PUBLISHED)}' for count in counts)} |")
    lines += ["", "## Gray images one by one", "", "| | order | as it is | luma | |", "|---|---|---:|---:|---:|"]
    for key, ways in found.items():
        for way in ("Y", "RGB"):
            for name, both in ways[way].items():
                if "as is" in both:
                    gap = both["luma"][0] - both["as is"][0]
                    lines.append(
                        f"| {name} x{key.rpartition('x')[2]} | {way} | {cell(both['as is'])} | {cell(both['luma'])} | "
                        f"{gap:+.3f} dB |"
                    )
    return lines, missed


def matches(printed: tuple[str, str], ours: Scores) -> bool:
    """Whether ours rounds to every digit printed."""
    return (f"{ours[0]:.2f}", f"{ours[1]:.4f}".lstrip("0")) == printed


def cell(scores: Scores) -> str:
    return f"{scores[0]:.4f} / {scores[1]:.4f}".replace(" 0.", " .")


if __name__ == "__main__":
    sys.exit(main())
