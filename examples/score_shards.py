"""Scores a data set in Parquet shards that does not fit one machine's disk, with Ray Data on one machine or many.

    python examples/score_shards.py s3://bucket/shards s3://bucket/scores --metric topiq-nr --actors 16 --gpus 1

Each row of a shard is an image: `image` holds the bytes of its file, `reference` those of its reference for
full-reference metrics, and all other columns (`name`, `mos`) are copied to the scores. These are Parquet as well, with
one column per metric and the reason for a missing score in `error`. Rows are streamed; no machine holds them all.

Ray starts on this machine, or joins the cluster at RAY_ADDRESS. pip install 'mdiqa_metric[ray]'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import ray
import ray.data

import mdiqa_metric
from mdiqa_metric.evaluation.agreement import agreement
from mdiqa_metric.evaluation.scoring import score_files


class Scorer:
    """The actor: loads the metrics once and scores batch after batch."""

    def __init__(self, names: Sequence[str], device: str) -> None:
        self.metrics = {name: mdiqa_metric.create(name).to(device) for name in names}
        self.device = device

    def __call__(self, batch: Any) -> Any:
        """Returns the data frame with scores in place of the images."""
        references = batch["reference"] if any(m.full_reference for m in self.metrics.values()) else [None] * len(batch)
        images = zip(batch["image"], references, strict=True)
        scores = list(score_files(self.metrics, images, self.device))
        columns = {name: [row.values.get(name, float("nan")) for row in scores] for name in self.metrics}
        errors = [" ".join(dict.fromkeys(row.errors.values())) for row in scores]
        return batch.drop(columns=["image", "reference"], errors="ignore").assign(**columns, error=errors)


def score_shards(
    shards: str, out: str, names: Sequence[str], actors: int = 1, gpus: float = 0, batch: int = 16
) -> ray.data.Dataset:
    """Writes the scores of all shards to `out` and returns them as a dataset.

    Raises:
        ValueError: the actors would occupy all cores of the cluster and leave none to read the shards.
    """
    ray.init(ignore_reinit_error=True)
    cores = int(ray.cluster_resources()["CPU"])
    if not gpus and actors >= cores:
        raise ValueError(
            f"Each actor takes a core and reading needs one, got {actors} actors for {cores} cores: ask for fewer."
        )
    images = ray.data.read_parquet(shards)
    images.map_batches(
        Scorer,
        fn_constructor_args=(list(names), "cuda" if gpus else "cpu"),
        batch_format="pandas",
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
    ).write_parquet(out)
    return ray.data.read_parquet(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="a folder or bucket of .parquet files")
    parser.add_argument("out", help="where to write the scores")
    parser.add_argument("--metric", nargs="+", required=True, help="names from `mdiqa-metric list`")
    parser.add_argument("--actors", type=int, default=1, help="how many copies of the metrics run in parallel")
    parser.add_argument("--gpus", type=float, default=0, help="per actor; with 0.5 two share one GPU")
    options = parser.parse_args()
    scores = score_shards(options.shards, options.out, options.metric, options.actors, options.gpus).to_pandas()
    for name in options.metric:
        scored = scores[scores[name].notna()]
        line = f"{name}: {len(scored)} of {len(scores)} images scored"
        if "mos" in scores:
            sign = -1 if mdiqa_metric.create(name, weights=None).lower_is_better else 1
            numbers = agreement(sign * scored[name], scored["mos"])
            line += ", SRCC {srcc:.4f}, PLCC {plcc:.4f}".format(**numbers) if numbers["srcc"] is not None else ""
        print(line)


if __name__ == "__main__":
    main()
