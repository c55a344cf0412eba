"""How far our metrics agree with human opinions: `python benchmarks/accuracy.py DATA [--work FOLDER]`.

DATA is a folder with clive/table.csv and rebuild.py, which makes a part of LIVE and of TID2013 in the work folder.
Every metric runs that needs no download: those without weights and those with embedded ones. It writes
results/accuracy.md: correlations with 95% bootstrap intervals, by distortion too, tests between metrics on the same
images, and first one table of all metrics with what a score costs. A run that was stopped goes on where it was, and
torchrun shares it among processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from steps import RESULTS, environment, heading

import mdiqa_metric
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.data.tables import read_table, split_by_content
from mdiqa_metric.evaluation import evaluate
from mdiqa_metric.evaluation.trained_images import describe
from mdiqa_metric.registry import manifest
from mdiqa_metric.train.mdiqa_lite import Recipe
from mdiqa_metric.train.mdiqa_lite_data import FRACTIONS

# The name of each set and what to know about it.
SETS = {
    "LIVE, rebuilt": "465 images: JPEG, Gaussian blur and white noise of release 2 (60 % of it); mdiqa-lite was "
    "trained on four fifths of them",
    "TID2013, rebuilt": "300 images: blur, JPEG, mean shift, contrast change and noise of 12 scenes (a tenth of it), "
    "which are crops of Kodak's images; mdiqa-lite was trained on nine of these, uncropped",
    "CLIVE, held out": "186 photographs, a fifth of the shared subset, on which mdiqa-lite was not trained, but its "
    "seed was chosen",
}
# What costs are relative to, and the size of the image and the rounds that they are measured with.
UNIT, SIZE, ROUNDS = "ssim-y-full", (384, 512), 5
COLUMNS = {"SRCC": "srcc", "PLCC": "plcc", "PLCC after logistic 4": "plcc_logistic4", "KRCC": "krcc"}


def images_of(name: str, data: Path, work: Path) -> QualityDataset:
    """The rated images of a set; of CLIVE only those that MDIQA-lite's training holds out."""
    if name.startswith("CLIVE"):
        table = split_by_content(read_table(data / "clive" / "table.csv"), FRACTIONS, Recipe().split_seed)
        return QualityDataset(table, "val", root=data / "clive")
    return QualityDataset(work / ("live" if name.startswith("LIVE") else "tid2013") / "table.csv")


def runnable(full_reference: bool) -> Iterator[str]:
    """Metrics whose weights, if any, are embedded."""
    tables = manifest()
    for name in mdiqa_metric.list_metrics(full_reference):
        places = {tables["files"][key]["where"] for key in tables["metrics"][name].get("weights", {}).values()}
        if places <= {"embedded"}:
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/mdiqa-accuracy"), help="for images and scores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    facts = environment(torch.device(options.device))
    if not (options.work / "tid2013" / "table.csv").is_file():
        subprocess.run([sys.executable, str(options.data / "rebuild.py"), str(options.work)], check=True)
    found: dict[str, Any] = {}
    for name in SETS:
        dataset = images_of(name, options.data, options.work)
        for full_reference in (True, False):
            metrics = {key: mdiqa_metric.create(key) for key in runnable(full_reference)}
            if metrics and (dataset.full_reference or not full_reference):
                kind = "full-reference" if full_reference else "no-reference"
                title = f"{name}, {kind}"
                store = options.work / "scores" / title
                found[title] = evaluate(
                    metrics, dataset, store=store, device=options.device, progress=report_progress(title), compare=True
                )
    if int(os.environ.get("RANK", 0)):
        return
    (options.out / "accuracy.md").write_text(report(facts, found, costs(options.device)))


def costs(device: str) -> dict[str, float]:
    """How long each metric takes to score an image, over how long `UNIT` takes: medians, interleaved."""
    metrics = {name: mdiqa_metric.create(name).to(device) for kind in (True, False) for name in runnable(kind)}
    generator = torch.Generator().manual_seed(0)
    image, reference = (torch.rand(1, 3, *SIZE, generator=generator).to(device) for _ in range(2))
    times: dict[str, list[float]] = {name: [] for name in metrics}
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for name, metric in metrics.items():
                started = time.perf_counter()
                metric(image, *([reference] if metric.full_reference else [])).item()
                if turn:  # the first round warms up
                    times[name].append(time.perf_counter() - started)
    unit = statistics.median(times[UNIT])
    return {name: statistics.median(taken) / unit for name, taken in times.items()}


def report_progress(name: str) -> Any:
    def report_count(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"{name}: {done} of {total}", flush=True)

    return report_count


def report(facts: dict[str, Any], found: dict[str, Any], cost: dict[str, float]) -> str:
    lines = heading("Agreement with human opinions", facts, "All metrics that need no download.")
    lines += [
        "Signs are set so that higher is better: 1 is perfect, and negative is worse than no metric. In brackets,",
        "95 % percentile bootstrap intervals over images, 1000 resamples. `mdiqa-metric evaluate` gives the same.",
    ]
    lines += in_short(found, cost)
    for name, results in found.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{SETS[name.rpartition(', ')[0]]}.",
            "",
            f"| metric | n | {' | '.join(COLUMNS)} |",
        ]
        lines += ["|---" * (len(COLUMNS) + 2) + "|"]
        order = sorted(results["metrics"].items(), key=lambda item: -(item[1]["agreement"]["srcc"] or -2))
        for metric, row in order:
            agreement = row["agreement"]
            cells = [_cell(agreement, key) for key in COLUMNS.values()]
            seen = f" ({words})" if (words := describe(agreement.get("seen", {}))) else ""
            lines.append(f"| {metric} | {agreement['n']} of {agreement['images']}{seen} | {' | '.join(cells)} |")
        kinds = next(iter(results["metrics"].values()))["groups"].get("distortion", {})
        if kinds:
            lines += ["", f"| SRCC of | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
            for metric, row in order:
                groups = row["groups"]["distortion"]
                lines.append(f"| {metric} | {' | '.join(_cell(groups[kind], 'srcc') for kind in kinds)} |")
        lines += _indistinguishable(results["comparisons"], [metric for metric, _ in order])
    return "\n".join(lines) + "\n"


def in_short(found: dict[str, Any], cost: dict[str, float]) -> list[str]:
    """A row for each metric: its SRCC on each set, and its cost; full-reference metrics first, the best at the top."""
    lines = [
        "",
        "## In short",
        "",
        f"SRCC; the cost is the time to score an image of {SIZE[1]} x {SIZE[0]} pixels over that of `{UNIT}`.",
        "MDIQA-lite was trained on images of the first two sets and its seed chosen on the third; BRISQUE was trained",
        "on the whole of LIVE.",
        "",
        f"| metric | {' | '.join(SETS)} | cost |",
        "|---" * (len(SETS) + 2) + "|",
    ]
    rows: dict[str, dict[str, float]] = {}
    for title, results in found.items():
        for metric, row in results["metrics"].items():
            rows.setdefault(metric, {})[title.rpartition(", ")[0]] = row["agreement"]["srcc"] or 0.0
    kinds = mdiqa_metric.list_metrics(full_reference=True)
    for metric, values in sorted(
        rows.items(), key=lambda item: (item[0] not in kinds, -statistics.fmean(item[1].values()))
    ):
        cells = [f"{values[name]:.3f}" if name in values else "" for name in SETS]
        lines.append(f"| {metric} | {' | '.join(cells)} | {cost[metric]:.1f} |")
    return lines


def _indistinguishable(comparisons: list[dict[str, Any]], order: list[str]) -> list[str]:
    """The metrics from which the first two cannot be distinguished."""
    lines = [""]
    for metric in order[:2]:
        same = [
            other
            for row in comparisons
            for one, other in ((row["a"], row["b"]), (row["b"], row["a"]))
            if one == metric and row["srcc_difference_p"] is not None and row["srcc_difference_p"] > 0.05
        ]
        verdict = f"does not differ from {', '.join(same)}" if same else "differs from every other metric"
        lines.append(f"By the paired bootstrap at 5 %, uncorrected, {metric} {verdict}.")
    return lines if comparisons else []


def _cell(agreement: dict[str, Any], key: str) -> str:
    if agreement[key] is None:
        return "none"
    interval = agreement.get(f"{key}_interval")
    return f"{agreement[key]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


if __name__ == "__main__":
    main()
