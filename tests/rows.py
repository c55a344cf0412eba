"""The one table of metrics that every property test runs over, and how to build each without a download."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mdiqa_metric
from mdiqa_metric.registry import manifest, metric_class
from tests.golden import golden

GOLDEN = Path(__file__).with_name("golden")


@dataclass(frozen=True)
class Row:
    """A metric under test.

    Attributes:
        name: what `create` takes.
        goldens: the stems of its golden files; the first also fills its weights in property tests.
        amp_rtol: how far bf16 or fp16 autocast may move a score, relative to it.
        near_zero: how far beside that, absolutely, where a stand-in score lies near 0 by chance.
        options: for `create`, beside the name.
        trainable: whether a `Loss` takes it.
        needs_trained_weights: whether only trained parameters put images in an order, as stand-ins do not.
        detached: a part that its authors keep out of the gradient, as a path from the metric.
        same_class: names of the same class and options with other files, which compute the same function.
        overrides: attributes that property tests set, to see the same code on less work.
        wrapper: the class that wraps the metric of the golden file, for a metric that `create` does not know.
        clamps: whether the implementation behind the golden file clamps its input, so that black and white have no
            gradient there (as of PyTorch 2.14) where ours has.
    """

    name: str
    goldens: tuple[str, ...]
    amp_rtol: float = 0.0
    near_zero: float = 1e-6
    options: tuple[tuple[str, Any], ...] = ()
    trainable: bool = True
    needs_trained_weights: bool = False
    detached: str = ""
    same_class: tuple[str, ...] = ()
    overrides: tuple[tuple[str, Any], ...] = ()
    wrapper: str = ""
    clamps: bool = False


ROWS = (
    Row("psnr", ("psnr",)),
    Row("psnr-y-full", ("psnr-y",)),
    Row("psnr-y-studio", ("psnr-y-studio",), options=(("border", 4),)),
    Row("ssim-y-full", ("ssim-y-full",)),
    Row("ssim-y-full-downsample", ("ssim-y-full-downsample",)),
    Row("ssim-y-studio", ("ssim-y-studio",), options=(("border", 4),)),
    Row("ssim-rgb", ("ssim-rgb-full",)),
    Row("ssim-matlab", ("ssim-matlab",), trainable=False),
    Row("ssim-y-pyiqa", ("ssim-y",), trainable=False),
    Row("ssim-y-downsample-pyiqa", ("ssim-y-downsample",), trainable=False),
    Row("ssim-rgb-pyiqa", ("ssim-rgb",), trainable=False),
    Row("ms-ssim-y-full", ("ms-ssim-y-full",)),
    Row("ms-ssim-rgb", ("ms-ssim-rgb",)),
    Row("ms-ssim-matlab", ("ms-ssim-matlab",), trainable=False),
    Row("ms-ssim-y-pyiqa", ("ms_ssim",), trainable=False),
    Row("gmsd", ("gmsd-unrounded",)),
    Row("gmsd-matlab", ("gmsd-matlab",), trainable=False),
    Row("gmsd-pyiqa", ("gmsd",), trainable=False),
    Row("ms-gmsd", ("ms_gmsd",)),
    Row("mdsi", ("mdsi",)),
    Row("psnr-hvs-m", ("psnr_hvs_m",)),
    Row("psnr-hvs", ("psnr-hvs",)),
    Row("dss", ("dss",)),
    Row("ssimulacra2", ("ssimulacra2",)),
    Row("flip", ("flip",), clamps=True),
    Row("iw-ssim", ("iw_ssim",)),
    Row("vif", ("vif-unrounded",)),
    Row("vif-matlab", ("vif-matlab",), trainable=False),
    Row("vif-p", ("vif-p",)),
    Row("sr-sim", ("srsim",)),
    Row("haarpsi", ("haarpsi",)),
    Row("fsim", ("fsim",)),
    Row("fsim-y", ("fsim-y",)),
    Row("vsi", ("vsi",)),
    Row("adm", ("adm-unrounded",)),
    Row("adm-aim", ("adm-aim",)),
    Row("adm-vmaf", ("adm",), trainable=False),
    Row("nlpd", ("nlpd",)),
    Row("piqe", ("piqe-matlab",), trainable=False),
    Row("piqe-pyiqa", ("piqe",), trainable=False),
    Row("niqe", ("niqe-standin",), amp_rtol=0.01, trainable=False),
    Row("niqe-gray", ("niqe-gray",), amp_rtol=0.01, trainable=False),
    Row("brisque", ("brisque-standin",), amp_rtol=0.01, trainable=False),
    Row("brisque-gray", ("brisque-gray",), amp_rtol=0.01, trainable=False),
    Row("ilniqe", ("ilniqe",), amp_rtol=0.004, trainable=False),
    Row("nrqm", ("nrqm",), amp_rtol=0.05, trainable=False),
    Row("pi", ("pi",), amp_rtol=0.02, trainable=False),
    Row("wadiqam-nr", ("wadiqam-nr",), amp_rtol=0.02, near_zero=0.005),
    Row("wadiqam-fr", ("wadiqam-fr",), amp_rtol=0.02, needs_trained_weights=True),
    Row(
        "ahiq",
        ("ahiq-single-224",),
        amp_rtol=0.05,
        options=(("convention", "pyiqa"), ("crops", 1)),
        needs_trained_weights=True,
        overrides=(("side", 64), ("min_size", 64)),
    ),
    Row("iqt-pipal", ("iqt-pipal-single-192",), amp_rtol=0.05, options=(("crops", 1),), needs_trained_weights=True),
    Row("iqt", ("iqt-single-256", "iqt-crops20"), options=(("crops", 1),)),
    Row("cw-ssim", ("cw-ssim-unrounded",)),
    Row("cw-ssim-pyiqa", ("cw_ssim",), trainable=False),
    Row("cnniqa", ("cnniqa",), amp_rtol=0.02),
    Row("cnniqa-live", ("cnniqa-unrounded",), amp_rtol=0.02),
    Row("cnniqa-live-8bit", ("cnniqa-original",), amp_rtol=0.02, trainable=False),
    Row("pieapp", ("pieapp",), amp_rtol=0.02, needs_trained_weights=True),
    Row("lpips-alex", ("lpips-alex", "lpips-alex-standin"), amp_rtol=0.02),
    Row("lpips-vgg", ("lpips-vgg", "lpips-vgg-standin"), amp_rtol=0.02),
    Row("lpips-vgg-3dgs", ("lpips-vgg-3dgs-standin",), amp_rtol=0.02),
    Row("lpips-squeeze", ("lpips-squeeze", "lpips-squeeze-standin"), amp_rtol=0.02),
    Row("lpips-alex-v0.0", ("lpips-alex-v0.0",), amp_rtol=0.02),
    Row("lpips-vgg-v0.0", ("lpips-vgg-v0.0",), amp_rtol=0.02),
    Row("lpips-squeeze-v0.0", ("lpips-squeeze-v0.0",), amp_rtol=0.02),
    Row("stlpips-alex", ("stlpips-alex",), amp_rtol=0.02),
    Row("stlpips-vgg", ("stlpips-vgg",), amp_rtol=0.02),
    Row("dists", ("dists", "dists-standin"), amp_rtol=0.02),
    Row("milo", ("milo",), amp_rtol=0.02),
    Row("topiq-nr", ("topiq-nr",), amp_rtol=0.02, same_class=("topiq-nr-spaq",)),
    Row("topiq-nr-flive", ("topiq-nr-flive",), amp_rtol=0.02, near_zero=0.015, overrides=(("side", 96),)),
    Row("topiq-fr", ("topiq-fr",), amp_rtol=0.02, needs_trained_weights=True, same_class=("topiq-fr-pipal",)),
    Row("topiq-iaa", ("topiq-iaa",), amp_rtol=0.02),
    Row("clipiqa", ("clipiqa-paper",), amp_rtol=0.02),
    Row("clipiqa-pyiqa", ("clipiqa",), amp_rtol=0.02),
    Row("clipiqa+", ("clipiqa-plus",), amp_rtol=0.02),
    Row("arniqa-koniq", ("arniqa-authors",), amp_rtol=0.02),
    Row("arniqa-kadid", ("arniqa-kadid",), amp_rtol=0.02),
    Row("arniqa-koniq-pyiqa", ("arniqa-koniq",), amp_rtol=0.02),
    Row("dbcnn", ("dbcnn",), amp_rtol=0.02, same_class=("dbcnn-clive", "dbcnn-tid2013")),
    Row(
        "tres", ("tres-crops4", "tres"), amp_rtol=0.02, options=(("crops", 4),), overrides=(("side", 64), ("crops", 1))
    ),
    # The smaller one first, of which every property is tested.
    Row("nima-vgg16", ("nima-vgg16-ava",), amp_rtol=0.02, overrides=(("side", 64),)),
    Row("nima", ("nima-inception_resnet_v2-ava",), amp_rtol=0.02),
    Row("mdiqa-lite", ("mdiqa-lite",), amp_rtol=0.02),
    Row("mdiqa-lite-mean", ("mdiqa-lite",), amp_rtol=0.02, wrapper="DimensionMean"),
    Row("mdiqa-lite-distance", ("mdiqa-lite",), amp_rtol=0.02, wrapper="DimensionDistance"),
    Row("mdiqa", ("mdiqa",), amp_rtol=0.02, detached="fusion.meaning"),
    Row("mdiqa-mean", ("mdiqa",), amp_rtol=0.02, wrapper="DimensionMean"),
    Row("mdiqa-distance", ("mdiqa",), amp_rtol=0.02, detached="model.instance_weights", wrapper="DimensionDistance"),
)


def encodes(row: Row) -> bool:
    """Whether the metric compares a backbone's maps, so that its reference can be encoded."""
    return class_of(row).features is not mdiqa_metric.Metric.features


def first_of_each_class(rows: Iterable[Row]) -> list[Row]:
    """One row a class: what holds for the code of one name holds for that of the others."""
    found: dict[Any, Row] = {}
    for row in rows:
        found.setdefault(class_of(row), row)
    return [*found.values()]


def content(stem: str, folder: Path = GOLDEN) -> dict[str, Any]:
    """The golden file of that stem."""
    return json.loads((folder / f"{stem}.json").read_text())


# Stand-ins A that a golden file uses as A A' + 0.01 in float64.
COVARIANCES = ("cov_prisparam", "templateModel.cov")


def filled(keys: dict[str, list[int]], data: dict[str, Any], part: str = "") -> dict[str, Tensor]:
    """The stand-in parameters that a golden file was made with; `part` is in front of their names there."""
    state = {}
    for key, shape in keys.items():
        name = part + key
        value = golden.fill(name, tuple(shape))
        value = np.abs(value) if name in data.get("abs", ()) else value
        if name in COVARIANCES:
            value = value.astype(np.float64) @ value.T.astype(np.float64) + 0.01 * np.eye(*shape)
        value = np.full(shape, data["values"][name], np.float32) if name in data.get("values", ()) else value
        state[key] = torch.from_numpy(np.asarray(value * np.float32(data.get("scale", {}).get(name, 1.0)), value.dtype))
    return state


def published_forests(data: dict[str, Any]) -> dict[str, Any]:
    """The forests of a golden file as its authors' file holds them: by place, among fields that nobody reads."""
    fields = ("lDau", "rDau", "nodestatus", "nrnodes", "upper", "avnode", "mbest")
    forests = [
        {name: torch.tensor(forest.get(name, [0]), dtype=torch.float64) for name in fields}
        for forest in data["forests"]
    ]
    return {"model": {"linear": torch.tensor(data["linear"], dtype=torch.float64), "rf": forests}}


# What MDIQA's golden file calls the parts.
PARTS = {"technology": "technical", "aesthetic": "aesthetic", "fusion": "fusion"}


# Options of golden files that differ from their row's.
GOLDEN_OPTIONS: dict[str, dict[str, Any]] = {"iqt-crops20": {"crops": 20}, "tres": {"crops": 50}}
# Of golden files that take minutes, the cases that tests read; `--golden DIR` reads all.
GOLDEN_CASES = {"tres": slice(1, 2), "tres-crops4": slice(2)}
# AHIQ's parts, and what its golden file calls their backbones.
BACKBONES = {"cnn": "resnet50", "vit": "vit"}


def build(name: str, data: dict[str, Any], **options: Any) -> mdiqa_metric.Metric:
    """The metric with the parameters of a golden file: the shipped ones where it used those, stand-ins elsewhere."""
    if "fill_names" in data:
        by_part = {PARTS[part]: filled(keys, data, f"{part}.") for part, keys in data["checkpoint"].items()}
        return mdiqa_metric.create(name, weights=by_part, **options)
    parts: dict[str, Any] = {}
    if "resnet50" in data.get("backbone", ()):
        parts |= {part: filled(data["backbone"][name]["keys"], data) for part, name in BACKBONES.items()}
    elif "backbone" in data:
        parts["backbone"] = filled(data["backbone"]["keys"], data)
    if "forests" in data:
        parts["forests"] = published_forests(data)
    stand_ins = {key: shape for key, shape in data["checkpoint"].items() if key not in data.get("kept", ())}
    if stand_ins and not data.get("real"):
        parts["pristine" if "forests" in parts else "heads" if parts else ""] = filled(stand_ins, data)
    if "backbone" in parts and not data["checkpoint"]:  # the rest is computed from it
        parts = parts["backbone"]
    return mdiqa_metric.create(name, weights=parts or "pretrained", **options)


def row_of(name: str) -> Row:
    """The row of that name."""
    return next(row for row in ROWS if row.name == name)


def class_of(row: Row) -> type[mdiqa_metric.Metric]:
    """The metric's class, without making one."""
    return getattr(mdiqa_metric, row.wrapper) if row.wrapper else metric_class(manifest()["metrics"][row.name]["class"])


# What is tested once a class: a metric's contract, and that of a loss.
METRICS = first_of_each_class(ROWS)
TRAINABLE = first_of_each_class(row for row in ROWS if row.trainable)


def group_of(row: Row) -> str:
    """What tests share a worker: those of a row, and of the rows that wrap its metric."""
    return row.goldens[0] if row.goldens[0] in ("mdiqa", "mdiqa-lite") else row.name


_built: dict[Row, mdiqa_metric.Metric] = {}


def metric_of(row: Row) -> mdiqa_metric.Metric:
    """A metric of that row, kept until one of another group is asked for; tests that change it take a deepcopy."""
    if row not in _built:
        if any(group_of(other) != group_of(row) for other in _built):
            _built.clear()
        _built[row] = _build_row(row)
    return _built[row]


def _build_row(row: Row) -> mdiqa_metric.Metric:
    if row.wrapper:
        model = metric_of(next(other for other in ROWS if not other.wrapper and other.goldens == row.goldens))
        return getattr(mdiqa_metric, row.wrapper)(model)
    metric = build(row.name, content(row.goldens[0]), **dict(row.options))
    for name, value in row.overrides:
        setattr(metric, name, value)
    return metric


def hold_detached(row: Row, metric: mdiqa_metric.Metric, image: Tensor) -> None:
    """Has the part that is kept out of the gradient give what it gives for that image, whatever image comes."""
    if row.detached:
        *path, name = row.detached.split(".")
        owner = operator.attrgetter(".".join(path))(metric) if path else metric
        held = getattr(owner, name)(image)
        setattr(owner, name, lambda *_: held)


@cache
def photograph(height: int, width: int) -> Tensor:
    """A real photograph (1, 3, height, width): NASA's portrait of Eileen Collins, public domain, from scikit-image."""
    from skimage.data import astronaut

    image = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    return image[..., 16 : 16 + height, 150 : 150 + width].contiguous()


def pair_of(row: Row, count: int = 1, least: tuple[int, int] = (40, 48)) -> tuple[Tensor, Tensor | None]:
    """Noisy photographs (count, 3, H, W) at a small size that the metric takes, and their reference or None."""
    metric = metric_of(row)
    height, width = max(least[0], metric.min_size + 3), max(least[1], metric.min_size + 6)
    clean = torch.cat([photograph(height, width).roll(16 * index, -1) for index in range(count)])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    image = (clean + 0.1 * noise).clamp(0, 1)
    return image, clean if metric.full_reference else None
