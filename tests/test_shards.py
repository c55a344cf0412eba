"""Shards through Ray Data, by the program under examples/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

import mdiqa_metric
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.evaluation import evaluate

pytest.importorskip("ray", reason="Ray is the extra [ray]")
PROGRAM = Path(__file__).parents[1] / "examples" / "score_shards.py"


def test_shards_score_as_files_do(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    original = random.integers(0, 200, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(original).save(tmp_path / "original.png")
    rows = []
    for index in range(12):
        noisy = original + random.integers(0, 2 + 4 * index, original.shape, dtype=np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{index}.png")
        rows.append({"image": f"{index}.png", "reference": "original.png", "mos": 12.0 - index})
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:99])
    table = pandas.DataFrame(rows)
    (tmp_path / "shards").mkdir()
    for shard, part in table.groupby(table.index // 5):
        held = {role: [(tmp_path / name).read_bytes() for name in part[role]] for role in ("image", "reference")}
        part.assign(name=part["image"], **held).to_parquet(tmp_path / f"shards/{shard}.parquet")

    names = ["psnr", "ssim-rgb"]
    command = [sys.executable, PROGRAM, tmp_path / "shards", tmp_path / "scores", "--metric", *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr

    metrics = {name: mdiqa_metric.create(name) for name in names}
    results = evaluate(metrics, QualityDataset(table, root=tmp_path))
    scores = pandas.read_parquet(tmp_path / "scores").set_index("name")
    assert sorted(scores) == ["error", "mos", "psnr", "ssim-rgb"]
    assert len(scores) == 12
    for image in results["images"]:
        row = scores.loc[image["image"]]
        assert row["mos"] == image["mos"]
        assert [None if np.isnan(row[name]) else row[name] for name in names] == [image["scores"][n] for n in names]
        assert bool(row["error"]) == bool(image["errors"]) == (image["image"] == "7.png")
    assert "What was given as bytes is damaged or cut short" in scores.loc["7.png", "error"]
    for name in names:
        numbers = results["metrics"][name]["agreement"]
        line = f"{name}: 11 of 12 images scored, SRCC {numbers['srcc']:.4f}, PLCC {numbers['plcc']:.4f}"
        assert line in done.stdout.splitlines()
