"""The one table of metrics that every property test runs over, and how to build each without a download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mdiqa_metric
from tests.golden import golden

GOLDEN = Path(__file__).with_name("golden")


@dataclass(frozen=True)
class Row:
    """A metric under test.

    Attributes:
        name: what `create` takes.
        goldens: the stems of its golden files; the first also fills its weights in property tests.
        half: how far bf16 or fp16 autocast may move a score, relative to it.
        options: for `create`, beside the name.
    """

    name: str
    goldens: tuple[str, ...]
    half: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()


ROWS = (
    Row("psnr", ("psnr",)),
    Row("psnr-y-full", ("psnr-y",)),
    Row("psnr-y-studio", ("psnr-y-studio",), options=(("border", 4),)),
    Row("ssim-y-full", ("ssim-y-full",)),
    Row("ssim-y-full-downsample", ("ssim-y-full-downsample",)),
    Row("ssim-y-studio", ("ssim-y-studio",), options=(("border", 4),)),
    Row("ssim-rgb", ("ssim-rgb-full",)),
    Row("ssim-matlab", ("ssim-matlab",)),
    Row("ssim-y-pyiqa", ("ssim-y",)),
    Row("ssim-y-downsample-pyiqa", ("ssim-y-downsample",)),
    Row("ssim-rgb-pyiqa", ("ssim-rgb",)),
    Row("ms-ssim-y-full", ("ms-ssim-y-full",)),
    Row("ms-ssim-rgb", ("ms-ssim-rgb",)),
    Row("ms-ssim-matlab", ("ms-ssim-matlab",)),
    Row("ms-ssim-y-pyiqa", ("ms_ssim",)),
    Row("lpips-alex", ("lpips-alex", "lpips-alex-standin"), half=0.02),
    Row("lpips-vgg", ("lpips-vgg", "lpips-vgg-standin"), half=0.02),
    Row("lpips-squeeze", ("lpips-squeeze", "lpips-squeeze-standin"), half=0.02),
    Row("lpips-alex-v0.0", ("lpips-alex-v0.0",), half=0.02),
    Row("lpips-vgg-v0.0", ("lpips-vgg-v0.0",), half=0.02),
    Row("lpips-squeeze-v0.0", ("lpips-squeeze-v0.0",), half=0.02),
    Row("stlpips-alex", ("stlpips-alex",), half=0.02),
    Row("stlpips-vgg", ("stlpips-vgg",), half=0.02),
    Row("dists", ("dists", "dists-standin"), half=0.02),
)


def content(stem: str, folder: Path = GOLDEN) -> dict[str, Any]:
    """The golden file of that stem."""
    return json.loads((folder / f"{stem}.json").read_text())


def filled(keys: dict[str, list[int]], data: dict[str, Any]) -> dict[str, Tensor]:
    """The stand-in parameters that a golden file was made with."""
    state = {}
    for key, shape in keys.items():
        value = golden.fill(key, tuple(shape))
        value = np.abs(value) if key in data.get("abs", ()) else value
        state[key] = torch.from_numpy(value * np.float32(data.get("scale", {}).get(key, 1.0)))
    return state


def build(name: str, data: dict[str, Any], **options: Any) -> mdiqa_metric.Metric:
    """The metric with the parameters of a golden file: the shipped ones where it used those, stand-ins elsewhere."""
    parts: dict[str, Any] = {}
    if "backbone" in data:
        parts["trunk"] = filled(data["backbone"]["keys"], data)
    stand_ins = {key: shape for key, shape in data["checkpoint"].items() if key not in data.get("kept", ())}
    if stand_ins and not data.get("real"):
        parts["heads" if parts else ""] = filled(stand_ins, data)
    return mdiqa_metric.create(name, weights=parts or "pretrained", **options)


@cache
def _shared(row: Row) -> mdiqa_metric.Metric:
    return build(row.name, content(row.goldens[0]), **dict(row.options))


def metric_of(row: Row) -> mdiqa_metric.Metric:
    """A metric of that row; tests that change it take a deepcopy."""
    return _shared(row)


@cache
def photograph(height: int, width: int) -> Tensor:
    """A real photograph (1, 3, height, width): NASA's portrait of Eileen Collins, public domain, from scikit-image."""
    from skimage.data import astronaut

    picture = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    return picture[..., 16 : 16 + height, 150 : 150 + width].contiguous()


def pair_of(row: Row, count: int = 1) -> tuple[Tensor, Tensor | None]:
    """Noisy photographs (count, 3, H, W) at a small size that the metric takes, and their reference or None."""
    metric = metric_of(row)
    height, width = max(72, metric.min_size + 3), max(88, metric.min_size + 6)
    clean = torch.cat([photograph(height, width).roll(16 * index, -1) for index in range(count)])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    image = (clean + 0.1 * noise).clamp(0, 1)
    return image, clean if metric.full_reference else None
