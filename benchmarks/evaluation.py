"""Seconds that an evaluation takes after the scoring: `OMP_NUM_THREADS=1 python benchmarks/evaluation.py`.

30 metrics on 10,125 images, the size of KADID-10k, with its 25 distortions, 5 levels and 81 scenes. Scores are made
up, and lie in a store as a finished run leaves it, so that nothing is scored. It writes results/evaluation.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from steps import RESULTS, environment, heading

import mdiqa_metric
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.evaluation import evaluate
from mdiqa_metric.evaluation.scoring import file_stamp

METRICS, DISTORTIONS, LEVELS, SCENES = 30, 25, 5, 81


def rated_images(folder: Path, scenes: int) -> QualityDataset:
    """Empty files with made-up opinions, which fall with the level of distortion."""
    random, rows = np.random.default_rng(0), []
    for scene in range(scenes):
        for distortion in range(DISTORTIONS):
            for level in range(LEVELS):
                name = f"{scene}-{distortion}-{level}.png"
                (folder / name).touch()
                mos = 1 - level / LEVELS + random.normal(0, 0.2)
                groups = {"content": f"I{scene}", "distortion": f"D{distortion}", "level": level}
                rows.append({"image": name, "mos": mos, **groups})
    return QualityDataset(pandas.DataFrame(rows), root=folder)


def store_scores(store: Path, metrics: dict[str, Any], dataset: QualityDataset) -> None:
    """What a finished run of these metrics leaves, with scores that agree with the opinions more or less."""
    random, mos = np.random.default_rng(1), dataset.table["mos"].to_numpy()
    scores = {name: mos + random.normal(0, 0.1 + index / 30, len(mos)) for index, name in enumerate(metrics)}
    identity = importlib.import_module("mdiqa_metric.evaluation.evaluate")._identity(metrics, dataset)
    store.mkdir()
    with (store / "scores-0.jsonl").open("w") as file:
        file.write(json.dumps(identity) + "\n")
        for index in range(len(dataset)):
            values = {name: float(row[index]) for name, row in scores.items()}
            stamp = [*file_stamp(dataset.path(index))]
            row = {"index": index, "files": [stamp], "values": values, "dimensions": {}, "errors": {}, "seen": {}}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES, help="fewer for a quick look, which writes nothing")
    options = parser.parse_args()
    facts = environment(torch.device("cpu"))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = rated_images(folder, options.scenes)
        lite = mdiqa_metric.create("mdiqa-lite")  # any metric without a reference
        metrics = {f"metric {index}": lite for index in range(METRICS)}
        store_scores(folder / "store", metrics, dataset)
        for compare, label in ((False, "agreement of each"), (True, f"and all {METRICS * (METRICS - 1) // 2} pairs")):
            start, used = time.perf_counter(), time.process_time()
            results = evaluate(metrics, dataset, store=folder / "store", compare=compare)
            rows.append((label, time.perf_counter() - start, time.process_time() - used))
            print(f"{label}: {rows[-1][1]:.1f} s, {rows[-1][2]:.1f} s of CPU", flush=True)
            assert all(row["agreement"]["n"] == len(dataset) for row in results["metrics"].values())
    if options.scenes == SCENES:
        lines = heading("Evaluation after scoring", facts, f"{METRICS} metrics, {len(dataset)} images, stored scores.")
        lines += ["| what | seconds | seconds of CPU |", "|---|---|---|"]
        lines += [f"| {label} | {seconds:.0f} | {cpu:.0f} |" for label, seconds, cpu in rows]
        (RESULTS / "evaluation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
