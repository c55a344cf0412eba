"""Image files through metrics: one row of scores an image, what they amount to, and files of them."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from ..atomic import atomic_write, dump_json
from ..data.images import read_image
from ..metric import Metric
from .trained_images import TrainedImages, image_hash

Row = dict[str, Any]
Pair = tuple[Path, Path | None]
ImageFile = str | os.PathLike[str] | bytes


class Scores(NamedTuple):
    """What the metrics say of one image.

    Attributes:
        values: the scores, by metric.
        dimensions: the scores of the dimensions that were asked for, by metric and dimension.
        errors: why a metric has no score, in one line; every metric is in `values` or here.
        seen: by metric, how the image is known to have had a part in its weights, one of `trained.KINDS`.
    """

    values: dict[str, float]
    dimensions: dict[str, dict[str, float]]
    errors: dict[str, str]
    seen: dict[str, str]


def score_files(
    metrics: Mapping[str, Metric],
    images: Iterable[tuple[ImageFile, ImageFile | None]],
    device: str | torch.device = "cpu",
    dimensions: Mapping[str, Sequence[str]] = {},
    lists: Mapping[str, TrainedImages] = {},
) -> Iterator[Scores]:
    """The scores of each image as it is scored, alone and at its own size; whatever is wrong with one is in them.

    Args:
        metrics: by name, on `device`.
        images: files or their bytes, each with its reference or None.
        device: where to score.
        dimensions: for metrics that have them, the dimensions to score too, at the cost of a second pass.
        lists: for metrics that have one, the images that they were trained on.
    """

    def read(photo: Any) -> Tensor:
        return read_image(photo).to(device)

    def read_stamped(reference: Any, stamp: Any) -> Tensor:
        return read(reference)

    read_reference: Any = functools.lru_cache(maxsize=1)(read_stamped)
    for image, reference in images:
        scores = Scores({}, {}, {}, {})
        try:
            photo = read(image)
            against = None if reference is None else read_reference(reference, file_stamp(reference))
        except Exception as error:  # one image must not end the run, whatever is wrong with it
            yield scores._replace(errors=dict.fromkeys(metrics, _line(error)))
            continue
        if lists:
            found = image_hash(photo)
            scores.seen.update({name: kind for name, known in lists.items() if (kind := known.kind_of(found))})
        for name, metric in metrics.items():
            try:
                with torch.inference_mode():
                    value = _finite(name, metric(photo, against if metric.full_reference else None).item())
                    if wanted := dimensions.get(name):
                        scores.dimensions[name] = _score_dimensions(name, metric, photo, wanted)
                scores.values[name] = value
            except Exception as error:
                scores.errors[name] = _line(error)
        yield scores


def file_stamp(file: ImageFile) -> tuple[int, int, int] | None:
    """The size of a file and when it and its entry were last changed, in nanoseconds: another is another image.

    Copying tools keep the time of the file (`cp -p`, `rsync -a`), and none the time of its entry.
    """
    try:
        status = None if isinstance(file, bytes) else os.stat(file)
    except OSError:  # reading it will tell
        return None
    return status and (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def score_images(metrics: Mapping[str, Metric], pairs: Sequence[Pair], device: str = "cpu") -> Iterator[Row]:
    """A row for each image as it is scored, alone and at its own size: {"image", "reference", one a metric, "error"}.

    A score that cannot be had is None, and `error` says why; it is None where all is well.
    """
    for pair, scores in zip(pairs, score_files(metrics, pairs, device), strict=True):
        yield score_row(*pair, metrics, scores.values, " ".join(dict.fromkeys(scores.errors.values())))


def score_row(
    image: Path, reference: Path | None, names: Iterable[str], scores: Mapping[str, float] = {}, error: str = ""
) -> Row:
    """One row as `score_images` makes them; a name that is not in `scores` has None."""
    files = {"image": image, "reference": reference} if reference else {"image": image}
    known = {role: printable(path) for role, path in files.items()}
    return {**known, **{name: scores.get(name) for name in names}, "error": error or None}


def printable(text: object) -> str:
    """Text that can be printed and written, as a file name that is no Unicode could not."""
    return str(text).encode(errors="backslashreplace").decode()


def summarize(metrics: Mapping[str, Metric], rows: Sequence[Row]) -> dict[str, Row]:
    """For each metric its direction and fingerprint, and n, mean, population std, min and max of the scores it gave."""
    summary = {}
    statistic: dict[str, Any] = {"mean": statistics.fmean, "std": statistics.pstdev, "min": min, "max": max}
    for name, metric in metrics.items():
        scores = [row[name] for row in rows if row[name] is not None]
        facts = {"lower_is_better": metric.lower_is_better, "fingerprint": metric.fingerprint(), "n": len(scores)}
        summary[name] = facts | {key: compute(scores) if scores else None for key, compute in statistic.items()}
    return summary


def folder_means(names: Iterable[str], rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """For each folder that images lie in, in their order, and each metric there: n and mean of the scores it gave."""
    folders: dict[str, list[Row]] = {}
    for row in rows:
        folders.setdefault(os.path.dirname(row["image"]), []).append(row)
    means: dict[str, dict[str, Row]] = {}
    for folder, inside in folders.items():
        means[folder] = {}
        for name in names:
            scores = [row[name] for row in inside if row[name] is not None]
            means[folder][name] = {"n": len(scores), "mean": statistics.fmean(scores) if scores else None}
    return means


def write_scores(path: Path, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    """Writes .csv or .jsonl (the rows) or .json (rows, summary and means by folder), whole or not at all."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        WRITERS[path.suffix](file, rows, summary)


def _write_csv(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    writer = csv.DictWriter(file, ["image", *summary, "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    dump_json(file, {"metrics": summary, "folders": folder_means([*summary], rows), "images": rows})


def _write_jsonl(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


WRITERS = {".csv": _write_csv, ".json": _write_json, ".jsonl": _write_jsonl}


def _score_dimensions(name: str, metric: Any, image: Tensor, wanted: Sequence[str]) -> dict[str, float]:
    """The wanted dimensions of a `MultiDimensional` metric."""
    found = dict(zip(metric.dimension_names, metric.dimensions(image)[0].tolist(), strict=True))
    return {dimension: _finite(f"{dimension} of {name}", found[dimension]) for dimension in wanted}


def _finite(name: str, score: float) -> float:
    if not math.isfinite(score):
        raise ValueError(f"{name} gave {score}.")
    return score


def _line(error: Exception) -> str:
    return " ".join(printable(error).split()) or type(error).__name__
