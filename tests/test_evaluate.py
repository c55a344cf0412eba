"""Evaluation as it goes on a real disk: killed, torn, shared among processes, and over images that fail."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import mdiqa_metric
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.evaluation import evaluate
from mdiqa_metric.evaluation.agreement import agreement, compare
from mdiqa_metric.evaluation.resume_log import StoreError

PICTURES = 12
FEW = {"resamples": 40}


class Energy(mdiqa_metric.Metric):
    """The energy of an image's gradient, which leaves a line in a file for each call."""

    full_reference, lower_is_better, score_range = False, False, (0.0, math.inf)

    def __init__(self, calls: Path, stuck: int | None = None, gain: float = 1.0) -> None:
        super().__init__()
        self.calls, self.stuck, self.gain = calls, stuck, gain

    def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
        number = round(image[0, 0, 0, 0].item() * 255)  # images carry theirs in their first sample
        with self.calls.open("a") as file:
            file.write(f"{number}\n")
        if number == self.stuck:
            time.sleep(600)
        return self.gain * image.diff(dim=-1).square().mean((1, 2, 3))

    def extra_repr(self) -> str:
        return f"gain={self.gain}"


class Distance(Energy):
    """Lower is better, and half of the images are refused."""

    lower_is_better = True

    def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
        if round(image[0, 0, 0, 0].item() * 255) % 2:
            raise RuntimeError("no odd images,\nplease")
        return -super().score(image, None)


class Sides(mdiqa_metric.MultiDimensional):
    """Two dimensions, of which the tables here know one."""

    score_range, dimension_names = (0.0, 1.0), ("brightness", "warmth")

    def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
        return self.dimension_scores(image, self.active).mean(1)

    def dimension_scores(self, image: torch.Tensor, wanted: tuple[int, ...]) -> torch.Tensor:
        means = image.mean((2, 3))
        return torch.stack([means.mean(1), means[:, 0] - means[:, 2]], 1)[:, list(wanted)]

    def dimension_features(self, image: torch.Tensor, wanted: tuple[int, ...]) -> torch.Tensor:
        raise NotImplementedError

    def instance_weights(self, image: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def make_table(folder: Path, count: int = PICTURES, **columns: Any) -> Path:
    """Images that differ in contrast and brightness, and a table of them."""
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for index in range(count):
        samples = random.integers(0, 20 + 15 * index, (24, 20, 3), dtype=np.uint8)
        samples[0, 0] = index
        Image.fromarray(samples).save(folder / f"{index}.png")
    mos = np.arange(count) + random.normal(size=count)
    table = pandas.DataFrame({"image": [f"{index}.png" for index in range(count)], "mos": mos, **columns})
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return make_table(tmp_path / "set")


@pytest.fixture
def whole(tmp_path: Path, table: Path) -> dict[str, Any]:
    """What one undisturbed run gives."""
    return evaluate(Energy(tmp_path / "whole"), QualityDataset(table), **FEW)


def test_scores_and_agreement_are_those_of_the_metric(tmp_path: Path, table: Path, whole: dict[str, Any]) -> None:
    metric, dataset = Energy(tmp_path / "calls"), QualityDataset(table)
    scores = [metric(dataset[index]["image"][None]).item() for index in range(PICTURES)]
    mos = pandas.read_csv(table)["mos"].tolist()
    assert [image["scores"] for image in whole["images"]] == [{"energy": score} for score in scores]
    assert [image["mos"] for image in whole["images"]] == mos
    assert [image["image"] for image in whole["images"]] == [f"{index}.png" for index in range(PICTURES)]
    facts = whole["metrics"]["energy"]
    assert facts["agreement"] == {"images": PICTURES, **agreement(scores, mos, resamples=40)}
    assert facts["agreement"]["srcc"] > 0.9
    assert facts["fingerprint"] == metric.fingerprint()
    assert (facts["scored"], facts["failed"]) == (PICTURES, 0)
    assert whole["dataset"]["images"] == PICTURES
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def start(tmp_path: Path, table: Path, stuck: int) -> subprocess.Popen[bytes]:
    """A process that evaluates, and waits for ever in the image `stuck`."""
    code = """
import sys
from pathlib import Path
from tests.test_evaluate import Energy, QualityDataset, evaluate
calls, stuck, table, store = sys.argv[1:]
evaluate(Energy(Path(calls), int(stuck)), QualityDataset(table), store=store)
"""
    arguments = (tmp_path / "calls", str(stuck), table, tmp_path / "store")
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=Path(__file__).parents[1])


def test_a_killed_run_is_gone_on_with(tmp_path: Path, table: Path, whole: dict[str, Any]) -> None:
    process = start(tmp_path, table, stuck=5)
    limit = time.monotonic() + 120
    while lines(tmp_path / "calls")[-1:] != ["5"]:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    told = []
    results = evaluate(
        Energy(tmp_path / "calls"),
        QualityDataset(table),
        store=tmp_path / "store",
        progress=lambda done, total: told.append((done, total)),
        **FEW,
    )
    assert lines(tmp_path / "calls") == [*"012345", *map(str, range(5, PICTURES))]  # it died in 5
    assert told == [(done, PICTURES) for done in range(5, PICTURES + 1)]
    assert json.dumps(results) == json.dumps(whole)


@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0, 1.5, 3.01, 4.99, 5.0])
def test_a_torn_line_is_dropped(tmp_path: Path, table: Path, whole: dict[str, Any], kept: float) -> None:
    """The file is cut after so many lines, the first of which says what is scored."""
    evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)
    [file] = (tmp_path / "store").iterdir()
    written = file.read_bytes().splitlines(keepends=True)
    part, full = math.modf(kept)
    file.write_bytes(b"".join(written[: int(full)]) + written[int(full)][: int(part * len(written[int(full)]))])
    (tmp_path / "calls").unlink()
    results = evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)
    assert lines(tmp_path / "calls") == [str(index) for index in range(max(0, int(full) - 1), PICTURES)]
    assert file.read_bytes().splitlines(keepends=True) == written
    assert json.dumps(results) == json.dumps(whole)


def test_a_finished_store_scores_nothing_again(tmp_path: Path, table: Path, whole: dict[str, Any]) -> None:
    for _ in range(2):
        results = evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)
        assert json.dumps(results) == json.dumps(whole)
    assert len(lines(tmp_path / "calls")) == PICTURES


def test_files_that_changed_are_scored_again(tmp_path: Path) -> None:
    names = ["a.png" if index % 2 else "b.png" for index in range(PICTURES)]
    for name in ("a.png", "b.png"):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.new("RGB", (20, 24)).save(tmp_path / "set" / name)
    dataset = QualityDataset(make_table(tmp_path / "set", reference=names))
    metrics = {"psnr": mdiqa_metric.create("psnr"), "energy": Energy(tmp_path / "calls")}

    def gone_on() -> tuple[str, list[str]]:
        """What the resumed run gives, and which images it scored."""
        (tmp_path / "calls").unlink(missing_ok=True)
        results = evaluate(metrics, dataset, store=tmp_path / "store", **FEW)
        return json.dumps(results), lines(tmp_path / "calls")

    def fresh() -> str:
        plain = {"psnr": metrics["psnr"], "energy": Energy(tmp_path / "fresh")}
        return json.dumps(evaluate(plain, dataset, **FEW))

    before, scored = gone_on()
    assert len(scored) == PICTURES
    for index in (3, 8):  # size and time change
        pixels = np.asarray(Image.open(dataset.path(index))).copy()
        pixels[1:] = 255 - pixels[1:]
        Image.fromarray(pixels).save(dataset.path(index))
    after, scored = gone_on()
    assert scored == ["3", "8"]
    assert after == fresh() != before
    assert gone_on() == (after, [])
    reference = tmp_path / "set" / "a.png"
    Image.new("RGB", (20, 24), "white").save(reference)
    changed, scored = gone_on()
    assert scored == ["1", "3", "5", "7", "9", "11"]
    assert changed == fresh() != after
    # The time alone, as an image without compression keeps its size; and a time that was set back, as copying does.
    times = os.stat(dataset.path(5))
    os.utime(dataset.path(5), ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with dataset.path(6).open("ab") as file:
        times = os.stat(file.fileno())
        file.write(b"more behind the image")
    os.utime(dataset.path(6), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert gone_on() == (changed, ["5", "6"])
    # A metric that asks for no reference does not mind one.
    alone = {"energy": metrics["energy"]}
    evaluate(alone, dataset, store=tmp_path / "alone", **FEW)
    Image.new("RGB", (20, 24), "gray").save(reference)
    (tmp_path / "calls").unlink()
    evaluate(alone, dataset, store=tmp_path / "alone", **FEW)
    assert lines(tmp_path / "calls") == []


def test_a_reference_that_changes_meanwhile_is_read_again(tmp_path: Path) -> None:
    table = make_table(tmp_path / "set", reference="0.png")
    dataset = QualityDataset(table)

    class Changing(Energy):
        full_reference = True

        def score(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
            if round(image[0, 0, 0, 0].item() * 255) == 5:
                Image.new("RGB", (20, 24), "white").save(dataset.path(0))
            return reference.mean((1, 2, 3))

    results = evaluate(Changing(tmp_path / "calls"), dataset, **FEW)
    scores = [image["scores"]["changing"] for image in results["images"]]
    assert len({*scores[:6]}) == 1
    assert scores[6:] == [1.0] * (PICTURES - 6)


def test_a_store_of_an_earlier_form_is_refused(tmp_path: Path, table: Path) -> None:
    evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)
    [file] = (tmp_path / "store").iterdir()
    header, *rows = map(json.loads, file.read_text().splitlines())
    del header["store"]
    for row in rows:
        del row["files"]
    file.write_text("".join(json.dumps(row) + "\n" for row in (header, *rows)))
    with pytest.raises(StoreError, match=r"begun by another version .* Delete the folder to score all anew, or choose"):
        evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)


def test_another_evaluation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(tmp_path / "set", split=["train", "test"] * (PICTURES // 2))
    metric, store = Energy(tmp_path / "calls"), tmp_path / "store"
    train = QualityDataset(table, split="train")
    evaluate(metric, train, store=store, **FEW)
    calls = lines(tmp_path / "calls")
    mend = "delete the folder to begin anew, or choose another place"
    with pytest.raises(StoreError, match=f"split was train, is test.*{mend}"):
        evaluate(metric, QualityDataset(table, split="test"), store=store, **FEW)
    with pytest.raises(StoreError, match=r"metric energy was .*gain=1\.0.*, is .*gain=2\.0"):
        evaluate(Energy(tmp_path / "calls", gain=2.0), train, store=store, **FEW)
    with pytest.raises(StoreError, match="metric other was none, is energy"):
        evaluate({"energy": metric, "other": metric}, train, store=store, **FEW)
    changed = train.table.assign(mos=train.table["mos"] + 1)
    with pytest.raises(StoreError, match=r"evaluation \(table was [0-9a-f]{64}, is [0-9a-f]{64}\)"):
        evaluate(metric, QualityDataset(changed, split="train", root=train.root), store=store, **FEW)
    monkeypatch.setattr(mdiqa_metric, "__version__", "9.9")
    with pytest.raises(StoreError, match=r"version was .*, is 9\.9"):
        evaluate(metric, train, store=store, **FEW)
    assert lines(tmp_path / "calls") == calls


def test_a_damaged_store_is_refused(tmp_path: Path, table: Path) -> None:
    evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)
    [file] = (tmp_path / "store").iterdir()
    file.write_bytes(file.read_bytes().replace(b"{", b"\0", 3))
    with pytest.raises(StoreError, match=r"Line 1 of .*scores-0\.jsonl is damaged\. Delete"):
        evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=tmp_path / "store", **FEW)


def test_failures_are_listed_and_end_nothing(tmp_path: Path, table: Path) -> None:
    (table.parent / "4.png").write_bytes(b"no image")
    metrics = {"energy": Energy(tmp_path / "calls"), "distance": Distance(tmp_path / "more")}
    results = evaluate(metrics, QualityDataset(table), store=tmp_path / "store", **FEW)
    by_name = {image["image"]: image for image in results["images"]}
    assert len(by_name) == PICTURES
    assert by_name["4.png"]["scores"] == {"energy": None, "distance": None}
    assert "4.png is no image" in by_name["4.png"]["errors"]["energy"]
    assert by_name["4.png"]["errors"]["energy"] == by_name["4.png"]["errors"]["distance"]
    assert by_name["5.png"]["scores"]["energy"] > 0
    assert by_name["5.png"]["errors"] == {"distance": "no odd images, please"}
    assert by_name["6.png"]["errors"] == {}
    facts = results["metrics"]
    assert [facts[name]["scored"] for name in metrics] == [11, 5]
    assert [facts[name]["failed"] for name in metrics] == [1, 7]
    assert (facts["energy"]["agreement"]["n"], facts["energy"]["agreement"]["images"]) == (11, PICTURES)
    assert (facts["distance"]["agreement"]["n"], facts["distance"]["agreement"]["images"]) == (5, PICTURES)
    both = [by_name[f"{index}.png"] for index in (0, 2, 6, 8, 10)]
    energy, distance = ([image["scores"][name] for image in both] for name in metrics)
    opposite, mos = [-score for score in distance], [image["mos"] for image in both]
    want = compare(energy, opposite, mos, resamples=40)
    assert results["comparisons"] == [{"a": "energy", "b": "distance", **want}]
    # What failed is tried again; what every metric scored is not.
    samples = np.full((24, 20, 3), 4, np.uint8)
    Image.fromarray(samples).save(table.parent / "4.png")
    for name in ("calls", "more"):
        (tmp_path / name).unlink()
    mended = evaluate(metrics, QualityDataset(table), store=tmp_path / "store", **FEW)
    assert lines(tmp_path / "calls") == ["1", "3", "4", "5", "7", "9", "11"]
    assert lines(tmp_path / "more") == ["4"]
    assert mended["metrics"]["energy"]["scored"] == PICTURES


def test_a_metric_that_fails_everywhere_has_no_numbers(tmp_path: Path, table: Path) -> None:
    class Broken(Energy):
        def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
            return super().score(image, None) * math.nan

    metrics = {"broken": Broken(tmp_path / "calls"), "energy": Energy(tmp_path / "calls")}
    results = evaluate(metrics, QualityDataset(table), **FEW)
    broken = results["metrics"]["broken"]
    assert (broken["scored"], broken["failed"], broken["agreement"]["n"]) == (0, PICTURES, 0)
    assert broken["agreement"]["srcc"] is None
    assert broken["agreement"]["reasons"]["srcc"]
    assert results["images"][0]["errors"] == {"broken": "broken gave nan."}
    assert results["metrics"]["energy"]["agreement"]["n"] == PICTURES
    assert results["comparisons"][0]["n"] == 0
    json.dumps(results, allow_nan=False)


def test_pairs_of_many_metrics_are_compared_on_request(tmp_path: Path, table: Path) -> None:
    (table.parent / "4.png").write_bytes(b"no image")
    kinds = [Energy, Distance] * 4
    metrics = {f"m{index}": kind(tmp_path / "calls") for index, kind in enumerate(kinds)}
    few = {name: metrics[name] for name in ("m0", "m1", "m2", "m3", "m4", "m5")}

    def compared(metrics: dict[str, Energy], **options: Any) -> list[dict[str, Any]]:
        return evaluate(metrics, QualityDataset(table), store=tmp_path / str(len(metrics)), **options, **FEW)[
            "comparisons"
        ]

    assert compared(metrics) == compared(few, compare=False) == []
    assert len(compared(few)) == 15
    found = compared(metrics, compare=True)
    assert [(row["a"], row["b"]) for row in found] == [*combinations(metrics, 2)]
    assert {row["n"] for row in found} == {11, 5}
    # Measured together or on fewer images than each has, they are as two alone.
    pair = {name: metrics[name] for name in ("m2", "m5")}
    assert compared(pair) == [row for row in found if (row["a"], row["b"]) == ("m2", "m5")]


def test_lower_is_better_agrees_as_well(tmp_path: Path, table: Path) -> None:
    class Opposite(Energy):
        lower_is_better = True

        def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
            return -super().score(image, None)

    metrics = {"energy": Energy(tmp_path / "calls"), "opposite": Opposite(tmp_path / "calls")}
    results = evaluate(metrics, QualityDataset(table), **FEW)
    assert results["metrics"]["opposite"]["lower_is_better"] is True
    assert results["metrics"]["opposite"]["agreement"] == results["metrics"]["energy"]["agreement"]
    assert results["images"][3]["scores"]["opposite"] == -results["images"][3]["scores"]["energy"]


def test_groups_have_their_own_agreement(tmp_path: Path) -> None:
    table = make_table(
        tmp_path / "set",
        distortion=["blur"] * 5 + ["noise"] * 5 + ["fog", ""],
        level=[1.0, 2.5] * 5 + [3.0, math.nan],
        content=["one"] * 8 + ["two"] * 4,  # one group is large enough, so there are no rows
    )
    results = evaluate(Energy(tmp_path / "calls"), QualityDataset(table), **FEW)
    groups = results["metrics"]["energy"]["groups"]
    assert {column: list(rows) for column, rows in groups.items()} == {
        "distortion": ["blur", "noise"],
        "level": ["1", "2.5"],
    }
    images = results["images"]
    noise = [(image["scores"]["energy"], image["mos"]) for image in images if image["distortion"] == "noise"]
    whole = {"images": 5, **agreement(*zip(*noise, strict=True), resamples=40)}
    without = {"plcc_interval", "krcc_interval", *(key for key in whole if "logistic" in key)}
    row = groups["distortion"]["noise"]
    assert set(whole) - set(row) == without
    assert {**row, "reasons": ...} == {**{key: whole[key] for key in set(whole) - without}, "reasons": ...}
    assert set(row["reasons"]) == {"srcc_interval"}  # too few images
    assert results["dataset"]["small_groups"] == {"distortion": {"fog": 1}, "level": {"3": 1}}
    assert images[11]["level"] is None


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_group_may_be_called_none(tmp_path: Path, suffix: str) -> None:
    columns = {"distortion": ["None"] * 6 + ["blur"] * 6, "content": ["NA", "1e5"] * 6, "level": [1.0, 0.1234567] * 6}
    table = make_table(tmp_path / "set", **columns)
    pandas.read_csv(table, keep_default_na=False, dtype={"content": str}).to_parquet(table.with_suffix(".parquet"))
    results = evaluate(Energy(tmp_path / "calls"), QualityDataset(table.with_suffix(suffix)), **FEW)
    assert {column: list(rows) for column, rows in results["metrics"]["energy"]["groups"].items()} == {
        "distortion": ["None", "blur"],
        "level": ["1", "0.1234567"],
        "content": ["NA", "1e5"],
    }


def test_dimensions_are_held_against_attributes_of_their_name(tmp_path: Path) -> None:
    wish = np.random.default_rng(1).random(PICTURES)
    table = make_table(tmp_path / "set", brightness=wish, sharpness=wish)
    results = evaluate(Sides(), QualityDataset(table), store=tmp_path / "store", **FEW)
    dataset = QualityDataset(table)
    bright = [dataset[index]["image"].mean((1, 2)).mean().item() for index in range(PICTURES)]
    assert results["images"][2]["dimensions"] == {"sides": {"brightness": bright[2]}}
    want = {"images": PICTURES, **agreement(bright, pandas.read_csv(table)["brightness"], resamples=40)}
    assert results["metrics"]["sides"]["dimensions"] == {"brightness": want}
    again = evaluate(Sides(), QualityDataset(table), store=tmp_path / "store", **FEW)
    assert json.dumps(again) == json.dumps(results)


def test_references_are_compared_with(tmp_path: Path) -> None:
    table = make_table(tmp_path / "set", reference="0.png", raw=np.arange(PICTURES))
    dataset = QualityDataset(table)
    metrics = {"psnr": mdiqa_metric.create("psnr"), "energy": Energy(tmp_path / "calls")}
    results = evaluate(metrics, dataset, **FEW)
    item = dataset[3]
    assert results["images"][3] == {
        "image": "3.png",
        "reference": "0.png",
        "mos": pandas.read_csv(table)["mos"][3],
        "raw": 3.0,
        "scores": {
            "psnr": metrics["psnr"](item["image"][None], item["reference"][None]).item(),
            "energy": metrics["energy"](item["image"][None]).item(),
        },
        "errors": {},
    }


def test_references_must_be_there(table: Path) -> None:
    with pytest.raises(
        ValueError, match=r"psnr compares with references, and the table has no column `reference`: add"
    ):
        evaluate(mdiqa_metric.create("psnr"), QualityDataset(table))
    with pytest.raises(ValueError, match="There is no metric"):
        evaluate({}, QualityDataset(table))


def evaluate_together(rank: int, port: int, folder: Path, table: Path, store: Path) -> None:
    """What each of two processes runs, started as torchrun does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    told: list[tuple[int, int]] = []
    metric = Energy(folder / f"calls-{rank}")
    results = evaluate(metric, QualityDataset(table), store=store, progress=lambda *counts: told.append(counts), **FEW)
    (folder / f"results-{rank}").write_text(json.dumps(results))
    (folder / f"told-{rank}").write_text(json.dumps(told))
    with pytest.raises(StoreError, match=r"metric energy was .*gain=1\.0.*, is .*gain=2\.0"):
        evaluate(Energy(metric.calls, gain=2.0), QualityDataset(table), store=store, **FEW)
    with pytest.raises(StoreError, match="The processes find different scores"):
        evaluate(metric, QualityDataset(table), store=folder / "empty" if rank else store, **FEW)
    torch.distributed.destroy_process_group()


def in_two(folder: Path, table: Path, store: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    torch.multiprocessing.spawn(evaluate_together, args=(port, folder, table, store), nprocs=2)


def test_two_processes_give_what_one_gives(tmp_path: Path, table: Path, whole: dict[str, Any]) -> None:
    in_two(tmp_path / "run", table, tmp_path / "store")
    for rank in range(2):
        assert (tmp_path / f"run/results-{rank}").read_text() == json.dumps(whole)
        assert lines(tmp_path / f"run/calls-{rank}") == [str(index) for index in range(rank, PICTURES, 2)]
    assert json.loads((tmp_path / "run/told-0").read_text()) == [[done, PICTURES] for done in range(0, PICTURES + 1, 2)]
    assert json.loads((tmp_path / "run/told-1").read_text()) == []


def test_another_number_of_processes_goes_on(tmp_path: Path, table: Path, whole: dict[str, Any]) -> None:
    store = tmp_path / "store"
    evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=store, **FEW)
    first = store / "scores-0.jsonl"
    cut = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(cut[:6]) + cut[6][:9])  # five images, and a torn one
    in_two(tmp_path / "run", table, store)
    called = [lines(tmp_path / f"run/calls-{rank}") for rank in range(2)]
    assert called == [["5", "7", "9", "11"], ["6", "8", "10"]]
    assert (tmp_path / "run/results-0").read_text() == json.dumps(whole)
    # Images that changed meanwhile, in a row of either file, are shared anew; the old rows stay behind.
    for index in (0, 6):
        os.utime(table.parent / f"{index}.png", ns=(1, 1))
    in_two(tmp_path / "more", table, store)
    assert [lines(tmp_path / f"more/calls-{rank}") for rank in range(2)] == [["0"], ["6"]]
    assert (tmp_path / "more/results-0").read_text() == json.dumps(whole)
    # And back to one, after a kill that left the second file torn.
    second = store / "scores-1.jsonl"
    second.write_bytes(second.read_bytes()[:-3])
    (tmp_path / "calls").unlink()
    assert json.dumps(evaluate(Energy(tmp_path / "calls"), QualityDataset(table), store=store, **FEW)) == json.dumps(
        whole
    )
    assert lines(tmp_path / "calls") == ["6"]
