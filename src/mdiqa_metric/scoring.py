"""Picture files through metrics: one row of scores a picture, what they amount to, and files of them."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from .io import ImageError, list_images, pair_by_stem, read_image
from .metric import Metric
from .weights import canonical, manifest, metric_class

Row = dict[str, Any]
Pair = tuple[Path, Path | None]


def choose_metrics(names: Sequence[str], reference: str | None) -> list[str]:
    """The full names of the metrics to score with; stlpips-alex where none is named and there is a reference.

    Raises:
        ValueError: an unknown name, or metrics and reference that do not go together.
    """
    if not names and reference is None:
        raise ValueError("Name a --metric of `mdiqa-metric list`, or give a --reference for the default, stlpips-alex.")
    chosen = list(dict.fromkeys(map(canonical, names or ["stlpips-alex"])))
    comparing = [name for name in chosen if metric_class(manifest()["metrics"][name]["class"]).full_reference]
    if comparing and reference is None:
        raise ValueError(f"A reference is needed for {', '.join(comparing)}: give --reference FOLDER or FILE.")
    if reference is not None and not comparing:
        raise ValueError(f"No reference is needed for {', '.join(chosen)}: leave --reference out.")
    return chosen


def check_device(name: str) -> None:
    """Raises ValueError where tensors cannot be made, and read, on a device of that name."""
    try:
        torch.ones(1, device=name).item()
    except Exception as error:
        here = ["cpu", *(kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available())]
        raise ValueError(f"The device {name} cannot be used here: this machine has {' and '.join(here)}.") from error


def pair_images(images: Sequence[str], reference: str | None) -> list[Pair]:
    """The pictures that folders, patterns and files stand for, each with its reference.

    `reference` is a folder or a pattern, paired by file name, or one file for all; None pairs each with None.

    Raises:
        ImageError: nothing is found, or names do not match.
    """
    files = list_images(images)
    if reference is None:
        return [(file, None) for file in files]
    references = list_images(reference)
    if references == [Path(reference)]:
        if not references[0].exists():
            raise ImageError(f"There is no reference {reference}: check the path.")
        return [(file, references[0]) for file in files]
    return [*pair_by_stem(files, references)]


def score_images(metrics: Mapping[str, Metric], pairs: Iterable[Pair], device: str = "cpu") -> Iterator[Row]:
    """A row for each picture as it is scored, alone and at its own size: {"image", "reference", one a metric, "error"}.

    A score that cannot be had is None, and `error` says why; it is None where all is well.
    """

    def read(path: Path) -> Tensor:
        return read_image(path).to(device)

    read_reference = functools.lru_cache(maxsize=1)(read)
    for image, reference in pairs:
        scores: dict[str, float] = {}
        reasons = []
        try:
            picture, against = read(image), read_reference(reference) if reference else None
        except Exception as error:  # one picture must not end the run, whatever is wrong with it
            yield score_row(image, reference, metrics, error=_line(error))
            continue
        for name, metric in metrics.items():
            try:
                with torch.inference_mode():
                    score = metric(picture, against if metric.full_reference else None).item()
                if not math.isfinite(score):
                    raise ValueError(f"{name} gave {score}.")
                scores[name] = score
            except Exception as error:
                reasons.append(_line(error))
        yield score_row(image, reference, metrics, scores, " ".join(reasons))


def score_row(
    image: Path, reference: Path | None, names: Iterable[str], scores: Mapping[str, float] = {}, error: str = ""
) -> Row:
    """One row as `score_images` makes them; a name that is not in `scores` has None."""
    files = {"image": image, "reference": reference} if reference else {"image": image}
    # A file name that is no Unicode could neither be printed nor written.
    printable = {role: str(path).encode(errors="backslashreplace").decode() for role, path in files.items()}
    return {**printable, **{name: scores.get(name) for name in names}, "error": error or None}


def summarize(metrics: Mapping[str, Metric], rows: Sequence[Row]) -> dict[str, Row]:
    """For each metric its direction and fingerprint, and n, mean, population std, min and max of the scores it gave."""
    summary = {}
    statistic: dict[str, Any] = {"mean": statistics.fmean, "std": statistics.pstdev, "min": min, "max": max}
    for name, metric in metrics.items():
        scores = [row[name] for row in rows if row[name] is not None]
        facts = {"lower_is_better": metric.lower_is_better, "fingerprint": metric.fingerprint(), "n": len(scores)}
        summary[name] = facts | {key: compute(scores) if scores else None for key, compute in statistic.items()}
    return summary


def check_destination(path: Path) -> None:
    """Raises ValueError where `write_scores` could not write there, so that it is known before an hour of scoring."""
    if path.suffix not in _WRITERS:
        raise ValueError(f"Scores are written to {', '.join(_WRITERS)}, got {path}: choose one of these suffixes.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} in: make it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: choose another place.")


def write_scores(path: Path, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    """Writes .csv or .jsonl (the rows) or .json (rows and summary), whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[path.suffix](file, rows, summary)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    writer = csv.DictWriter(file, ["image", *summary, "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    json.dump({"metrics": summary, "images": rows}, file, indent=2, ensure_ascii=False, allow_nan=False)
    file.write("\n")


def _write_jsonl(file: TextIO, rows: Sequence[Row], summary: Mapping[str, Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".jsonl": _write_jsonl}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
