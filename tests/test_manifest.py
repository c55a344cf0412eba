"""The manifest agrees with itself, with the classes and with the files in weights/."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

from mdiqa_metric import Metric, WeightsError
from mdiqa_metric.registry import locate, manifest, metric_class

ROOT = Path(__file__).parents[1]
METRICS, FILES = manifest()["metrics"], manifest().get("files", {})

# What each kind of file row must say beside the facts that all have.
PLACES = {
    "embedded": {"filename"},
    "hub": {"repo", "revision", "filename"},
    "torchvision": {"tag", "filename"},
    "package": {"package", "version", "filename"},
    "by-hand": {"filename", "page", "loader"},
}
FACTS = {"where", "license", "origin", "trained_by"}
OPTIONAL = {"sha256", "sha256_prefix", "size", "size_text", "commercial", "unconfirmed", "allow", "trained_images"}

each_metric = pytest.mark.parametrize("name", METRICS)
each_file = pytest.mark.parametrize("key", FILES)


def test_aliases_lead_to_metrics():
    aliases = manifest()["aliases"]
    assert set(aliases.values()) <= METRICS.keys()
    assert not aliases.keys() & METRICS.keys()


@each_metric
def test_metric_row(name):
    row = METRICS[name]
    assert {"class", "about"} <= row.keys() <= {"class", "about", "options", "weights"}
    assert row["about"]
    assert "|" not in row["about"], "it stands in a table"
    kind = metric_class(row["class"])
    assert issubclass(kind, Metric)
    inspect.signature(kind).bind(**row.get("options", {}))
    assert re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name)


@each_metric
def test_parts_are_the_submodules_that_hold_weights(name):
    row = METRICS[name]
    with torch.device("meta"):
        state = metric_class(row["class"])(**row.get("options", {})).state_dict()
    parts = row.get("weights", {})
    holders = {key.partition(".")[0] for key in state}
    assert parts.keys() == holders or (parts.keys() == {""} and holders)
    assert set(parts.values()) <= FILES.keys()


def test_every_metric_file_has_a_row_and_every_weight_file_a_metric():
    modules = {path.stem for path in (ROOT / "src" / "mdiqa_metric" / "metrics").glob("[!_]*")}
    assert modules == {row["class"].partition(".")[0] for row in METRICS.values()}
    assert {key for row in METRICS.values() for key in row.get("weights", {}).values()} == FILES.keys()


@each_file
def test_file_row(key):
    row = FILES[key]
    needed = FACTS | PLACES[row["where"]]
    assert needed <= row.keys() <= needed | OPTIONAL
    assert all(row[fact] for fact in needed)
    assert ("sha256" in row) + ("sha256_prefix" in row) == (row["where"] != "by-hand")
    assert re.fullmatch(r"[0-9a-f]{64}", row.get("sha256", "0" * 64))
    assert re.fullmatch(r"[0-9a-f]{8,63}", row.get("sha256_prefix", "0" * 8))
    assert ("size" in row) != ("size_text" in row)
    assert isinstance(row.get("size", 1), int)
    assert re.fullmatch(r"[0-9a-f]{40}", row.get("revision", "0" * 40)), "a branch or tag can move"
    if named := re.search(r"-([0-9a-f]{8})\.[a-z]+$", row["filename"]):
        assert (row.get("sha256") or row["sha256_prefix"]).startswith(named[1])


def test_weights_that_come_by_hand_say_from_where():
    with pytest.raises(WeightsError, match=r"is not here\. Download by hand from https://.*, then mdiqa_metric\."):
        locate("mdiqa")


@each_file
def test_file_of_torchvision_is_what_it_publishes(key):
    if FILES[key]["where"] == "torchvision":
        from torchvision.models import get_weight

        assert get_weight(FILES[key]["tag"]).url.rpartition("/")[2] == FILES[key]["filename"]


@each_file
def test_file_that_is_here_has_its_hash_and_size(key):
    row = FILES[key]
    path = locate(key, fetch=False) if row["where"] in ("embedded", "package") else None
    if path:
        assert path.stat().st_size == row["size"]
    assert path or row["where"] != "embedded"


@each_file
def test_embedded_file_has_a_card_with_its_origin_and_license(key):
    if FILES[key]["where"] == "embedded":
        card = (ROOT / "weights" / FILES[key]["filename"]).with_suffix(".md").read_text(encoding="utf-8")
        assert FILES[key]["license"] in card
        assert FILES[key]["sha256"] in card


def test_nothing_else_lies_in_weights():
    files = {row["filename"] for row in FILES.values() if row["where"] == "embedded"}
    files |= {row["trained_images"] for row in FILES.values() if "trained_images" in row}
    known = files | {str(Path(name).with_suffix(".md")) for name in files}
    found = {path.name for path in (ROOT / "weights").iterdir() if path.is_file()}
    assert {name for name in found - known if not name.startswith("LICENSE-")} <= {"convert.py", "README.md"}
