"""Metrics over a data set: a score for every image, kept as it is made, and how far the scores agree with people."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import QualityDataset
from ..metric import Metric
from ..multidimensional import MultiDimensional
from .agreement import CORRELATIONS, Measured, difference, measure
from .distributed import Processes
from .resume_log import StoreError as StoreError
from .resume_log import load_completed, open_log
from .scoring import Row, file_stamp, score_files
from .trained_images import KINDS, trained_images

GROUPS = ("distortion", "level", "content")
FEWEST = 5  # images of a group that has a row
COMPARED = 6  # metrics of which each two are compared unless asked otherwise: more make too many pairs to read
STORE = 2  # the form of a store; another one is not gone on from


def evaluate(
    metrics: Metric | Mapping[str, Metric],
    dataset: QualityDataset,
    *,
    store: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    compare: bool | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores every image of a data set, each alone at its own size, and says how far the scores agree with `mos`.

    Under torchrun or `accelerate launch` each process scores a share of the images and all return the same results.

    Args:
        metrics: one, or several by name; they are moved to the device and put in eval mode.
        dataset: the images and what people say of them; its transform, if any, is for training and not applied.
        store: a folder that keeps each score as it is made. The same call goes on from there after it was stopped or
            killed at any instant: images that every metric has scored are not scored again, failures are tried again,
            and so are images whose file, or reference, has another size or time of change by then. Several processes
            need one that all of them see.
        device: where to score; "cuda" gives each process a GPU of its own.
        progress: called with the images done and all there are, at the start and after each. With several processes
            the main one calls it, and takes the others to be as far as itself.
        compare: whether each two metrics are compared; None does it for up to 6 metrics (15 pairs).
        resamples, seed: of the bootstrap intervals; see `agreement`.

    Returns:
        A dict that JSON can hold. Scores stand as the metric gives them; agreement is that of the scores oriented so
        that higher is better, over the `n` of so many `images` that have one.

        * "dataset": {"table", "split", "images", "root", "sha256", "small_groups"}: where the table and the
          images lie, the hash of the rows as CSV, and the sizes of groups too small (below 5) for a row here.
        * "metrics": by name, {"fingerprint", "lower_is_better", "scored", "failed", "agreement"}; "groups", by
          distortion, level and content where those have two groups of 5 or more: the correlations, an interval for
          `srcc` and no curves, for which a group has few images; and "dimensions", where a `MultiDimensional` has
          dimensions by the names of the table's attributes, each with its attribute. Where it is known what trained the
          metric's weights (`trained`), each of these has "seen": of how many of its `n` images they were "trained on"
          or "chosen on".
        * "comparisons": {"a", "b"} and what `agreement.compare` says of them, for each two metrics that were to be
          compared, on what both scored.
        * "images": {"image", "reference", "mos", "raw", groups as far as there, "scores", "errors", "dimensions",
          "seen"}.

    Raises:
        ValueError: a metric compares with references and there are none, or no metric is given.
        StoreError: the store was begun with another table, split, metric or version, or the processes do not share it.
        ImportError: there are several processes and no accelerate.
    """
    metrics = {metrics.name: metrics} if isinstance(metrics, Metric) else dict(metrics)
    check_references(metrics, dataset)
    processes = Processes(device)
    metrics = {name: metric.to(processes.device).eval() for name, metric in metrics.items()}
    dimensions = {
        name: [dimension for dimension in metric.dimension_names if dimension in dataset.attributes]
        for name, metric in metrics.items()
        if isinstance(metric, MultiDimensional)
    }
    lists = {name: known for name, metric in metrics.items() if (known := trained_images(metric))}
    identity = _identity(metrics, dataset)
    against = any(metric.full_reference for metric in metrics.values())

    def files(index: int) -> tuple[Path, Path | None]:
        return dataset.path(index), dataset.path(index, "reference") if against else None

    def stamps(index: int) -> list[list[int] | None]:
        return [stamp and [*stamp] for stamp in map(file_stamp, filter(None, files(index)))]

    rows = load_completed(store, identity, stamps, processes)
    left = [index for index in range(len(dataset)) if index not in rows]
    mine = left[processes.index :: processes.count]
    stamped: dict[int, Any] = {}

    def images() -> Iterator[tuple[Path, Path | None]]:
        for index in mine:
            stamped[index] = stamps(index)  # before it is read: what changes meanwhile is scored again
            yield files(index)

    report_progress = progress if progress and processes.index == 0 else lambda done, total: None
    report_progress(len(rows), len(dataset))
    scored: dict[int, Row] = {}
    with open_log(store, identity, processes.index) as keep:
        scoring = score_files(metrics, images(), processes.device, dimensions, lists)
        for index, scores in zip(mine, scoring, strict=True):
            scored[index] = {"index": index, "files": stamped[index], **scores._asdict()}
            keep(scored[index])
            report_progress(min(len(rows) + len(scored) * processes.count, len(dataset)), len(dataset))
    for share in processes.gather(scored):
        rows |= share
    results = None
    if processes.index == 0:
        done = [rows[index] for index in sorted(rows)]
        compared = len(metrics) <= COMPARED if compare is None else compare
        sampling = {"resamples": resamples, "seed": seed}
        results = _results(metrics, dimensions, {*lists}, dataset, identity["table"], done, compared, sampling)
    return processes.gather(results)[0]


def check_references(metrics: Mapping[str, Metric | type[Metric]], dataset: QualityDataset) -> None:
    """Raises ValueError where a metric compares with references that the data set has not, or there is no metric."""
    if not metrics:
        raise ValueError("There is no metric to evaluate: name one or more.")
    comparing = [name for name, metric in metrics.items() if metric.full_reference]
    if comparing and not dataset.full_reference:
        raise ValueError(
            f"{', '.join(comparing)} compares with references, and the table has no column `reference`: add one with "
            "a path an image, or choose metrics that need none (kind NR of `mdiqa-metric list`)."
        )


def _identity(metrics: Mapping[str, Metric], dataset: QualityDataset) -> Row:
    from .. import __version__

    fingerprints = {f"metric {name}": metric.fingerprint() for name, metric in metrics.items()}
    digest = hashlib.sha256(dataset.table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    return {"store": STORE, "version": __version__, "split": dataset.split, "table": digest, **fingerprints}


# What the scores amount to.


def _results(
    metrics: Mapping[str, Metric],
    dimensions: Mapping[str, Sequence[str]],
    listed: Set[str],
    dataset: QualityDataset,
    digest: str,
    rows: Sequence[Row],
    compared: bool,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    table = dataset.table
    mos = table["mos"].to_numpy()
    groups, small = _groups(table)
    oriented = {
        name: np.array([row["values"].get(name, np.nan) for row in rows]) * (-1 if metric.lower_is_better else 1)
        for name, metric in metrics.items()
    }

    seen = {name: np.array([row["seen"].get(name, "") for row in rows]) for name in listed}

    def agree(name: str, numbers: Mapping[str, Any], among: Any) -> dict[str, Any]:
        agreed = {"images": int(among.sum()), **numbers}
        if name in seen:
            kinds = seen[name][among & np.isfinite(oriented[name])]
            agreed["seen"] = {kind: int((kinds == kind).sum()) for kind in KINDS}
        return agreed

    everything = np.ones(len(mos), np.bool_)
    whole = _measure(oriented, mos, sampling)
    by_metric: dict[str, dict[str, Any]] = {}
    for name, metric in metrics.items():
        by_metric[name] = {
            "fingerprint": metric.fingerprint(),
            "lower_is_better": metric.lower_is_better,
            "scored": int(np.isfinite(oriented[name]).sum()),
            "failed": int(np.isnan(oriented[name]).sum()),
            "agreement": agree(name, whole[name].agreement(), everything),
            "groups": {column: {} for column in groups},
        }
        if wanted := dimensions.get(name):
            parts = [row["dimensions"].get(name, {}) for row in rows]
            by_metric[name]["dimensions"] = {}
            for dimension in wanted:
                scores = {name: np.array([part.get(dimension, np.nan) for part in parts])}
                of_these = _measure(scores, table[dimension].to_numpy(), sampling)
                by_metric[name]["dimensions"][dimension] = agree(name, of_these[name].agreement(), everything)
    for column, members in groups.items():
        for label, among in members.items():
            scores = {name: scores[among] for name, scores in oriented.items()}
            for name, measured in _measure(scores, mos[among], sampling, ("srcc",)).items():
                by_metric[name]["groups"][column][label] = agree(name, measured.correlation(), among)
    return {
        "dataset": {
            "table": dataset.source,
            "split": dataset.split,
            "images": len(dataset),
            "root": str(dataset.root),
            "sha256": digest,
            "small_groups": small,
        },
        "metrics": by_metric,
        "comparisons": _comparisons(oriented, mos, whole, sampling) if compared else [],
        "images": _images(metrics, table, rows),
    }


def _measure(
    scores: Mapping[str, Any], mos: Any, sampling: Mapping[str, Any], correlations: Sequence[str] = CORRELATIONS
) -> dict[str, Measured]:
    """Each metric on the images that it scored; those that scored the same ones together."""
    there = {name: np.isfinite(values) for name, values in scores.items()}
    alike: dict[bytes, list[str]] = {}
    for name, scored in there.items():
        alike.setdefault(scored.tobytes(), []).append(name)
    measured: dict[str, Measured] = {}
    for names in alike.values():
        scored = there[names[0]]
        found = measure([scores[name][scored] for name in names], mos[scored], correlations, **sampling)
        measured |= dict(zip(names, found, strict=True))
    return measured


def _comparisons(
    scores: Mapping[str, Any], mos: Any, whole: Mapping[str, Measured], sampling: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Each two metrics on the images that both scored: as measured before where these are all that each did."""
    there = {name: np.isfinite(values) for name, values in scores.items()}
    pairs = [*combinations(scores, 2)]
    alike: dict[bytes, list[tuple[str, str]]] = {}
    for a, b in pairs:
        alike.setdefault((there[a] & there[b]).tobytes(), []).append((a, b))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for some in alike.values():
        both = there[some[0][0]] & there[some[0][1]]
        measured = {name: whole[name] for pair in some for name in pair if (there[name] == both).all()}
        rest = [name for name in dict.fromkeys(name for pair in some for name in pair) if name not in measured]
        again = measure([scores[name][both] for name in rest], mos[both], ("srcc",), **sampling)
        measured |= dict(zip(rest, again, strict=True))
        found |= {(a, b): difference(measured[a], measured[b]) for a, b in some}
    return [{"a": a, "b": b, **found[a, b]} for a, b in pairs]


def _groups(table: Any) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, int]]]:
    """By column and label, which images are in each group; and the number in each that is too small."""
    groups: dict[str, dict[str, Any]] = {}
    small: dict[str, dict[str, int]] = {}
    for column in (column for column in GROUPS if column in table):
        labels = table[column].map(_label, na_action="ignore").fillna("").to_numpy(str)
        counts = Counter(labels[labels != ""].tolist())
        large = [label for label, count in counts.items() if count >= FEWEST]
        if len(large) >= 2:
            groups[column] = {label: labels == label for label in large}
            if rest := {label: count for label, count in counts.items() if count < FEWEST}:
                small[column] = rest
    return groups, small


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _images(metrics: Mapping[str, Metric], table: Any, rows: Sequence[Row]) -> list[Row]:
    columns = [name for name in ("image", "reference", "mos", "raw", *GROUPS) if name in table]
    images = []
    known = table[columns].astype(object).where(table[columns].notna(), None)
    for facts, row in zip(known.to_dict("records"), rows, strict=True):
        scores = {name: row["values"].get(name) for name in metrics}
        more = {key: row[key] for key in ("dimensions", "seen") if row[key]}
        images.append({**facts, "scores": scores, "errors": row["errors"], **more})
    return images
