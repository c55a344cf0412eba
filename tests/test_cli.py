"""The command line as people and pipes use it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import mdiqa_metric
from mdiqa_metric import cli, scoring, weights
from mdiqa_metric.io import read_image

# A shell starts its background jobs, continuous integration's perhaps, with interrupts ignored, and that is inherited.
PROGRAM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mdiqa_metric.cli import app; app(prog_name='mdiqa-metric')",
]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with three restored pictures under "out" and their originals under "in"."""
    random = np.random.default_rng(0)
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    for index in (1, 2, 10):
        original = random.integers(0, 200, (48, 32, 3), dtype=np.uint8)
        Image.fromarray(original).save(tmp_path / f"in/{index}.png")
        Image.fromarray(original + np.uint8(index)).save(tmp_path / f"out/{index}.bmp")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def start(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")}
    environment |= {"COLUMNS": "100", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*PROGRAM, *arguments], env=environment, **streams)


def told(descriptor: int) -> str:
    """What a terminal was sent until its other end closed."""
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # how Linux says that nobody holds the other end
        pass
    os.close(descriptor)
    return b"".join(parts).decode()


def expected(metric: str, index: int) -> float:
    return mdiqa_metric.create(metric)(read_image(f"out/{index}.bmp"), read_image(f"in/{index}.png")).item()


def test_a_pipe_gets_a_line_a_picture(photos: Path) -> None:
    process = start("score", "out", "--reference", "in", "--metric", "psnr", "--metric", "psnr-y", stdout=-1, stderr=-1)
    output, errors = (text.decode() for text in process.communicate(timeout=120))
    assert process.returncode == 0, errors
    header, *lines = [line.split("\t") for line in output.splitlines()]
    assert header == ["image", "psnr", "psnr-y-full"]
    assert [line[0] for line in lines] == ["out/1.bmp", "out/2.bmp", "out/10.bmp"]
    for line, index in zip(lines, (1, 2, 10), strict=True):
        assert float(line[1]) == pytest.approx(expected("psnr", index), rel=1e-6)
        assert float(line[2]) == pytest.approx(expected("psnr-y", index), rel=1e-6)
    header, *table = [line.split("\t") for line in errors.splitlines()]
    assert header == ["metric", "better", "mean", "std", "min", "max", "n"]
    assert [line[:2] for line in table] == [["psnr", "higher"], ["psnr-y-full", "higher"]]
    scores = [float(line[1]) for line in lines]
    assert [float(cell) for cell in table[0][2:6]] == pytest.approx(
        [np.mean(scores), np.std(scores), min(scores), max(scores)], abs=1e-4
    )
    assert table[0][6] == "3"
    assert "\x1b" not in output + errors


def test_a_terminal_gets_a_bar_and_tables(photos: Path) -> None:
    Path("out/2.bmp").write_bytes(b"no picture")
    os.rename("in/10.png", "in/10[red].png")  # markup to rich
    os.rename("out/10.bmp", "out/10[red].bmp")
    near, far = pty.openpty()
    process = start("score", "out", "--reference", "in", "--metric", "psnr", stdout=far, stderr=far)
    os.close(far)
    text = told(near)
    assert process.wait(120) == 1
    assert "scoring" in text
    assert "━" in text
    assert "out/2.bmp is no picture" in text
    after = text[text.rindex("\x1b[?25h") :]  # where the bar gives the cursor back
    assert "scoring" not in after
    assert "out/10[red].bmp" in after
    assert "better" in after
    assert "higher" in after
    assert "1 of 3 not scored." in after
    assert "\t" not in text


def test_a_bar_and_a_pipe_keep_apart(photos: Path) -> None:
    near, far = pty.openpty()
    command = ("score", "out", "--reference", "in", "--metric", "psnr", "--out", "s.csv")
    process = start(*command, stdout=subprocess.PIPE, stderr=far)
    os.close(far)
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(told(near)))
    reader.start()
    output = process.communicate(timeout=120)[0].decode()
    reader.join()
    assert process.returncode == 0
    assert [line.count("\t") for line in output.splitlines()] == [1, 1, 1, 1]
    assert "\x1b" not in output
    assert "scoring" in errors[0]
    assert "better" in errors[0]


def test_a_terminal_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(cli, "stdout", Console(file=Terminal(), highlight=False))
    cli._show_images([{"image": f"{index}.png", "psnr": 30.0} for index in range(cli.SHOWN + 3)], ["psnr"])
    text = cli.stdout.file.getvalue()
    assert f"{cli.SHOWN - 1}.png" in text
    assert f"{cli.SHOWN}.png" not in text
    assert "and 3 more" in text


def test_an_interrupt_keeps_what_was_scored(photos: Path) -> None:
    os.mkfifo("slow.png")  # reading it waits for ever
    Path("s.json").write_text("old")
    command = ("score", "out/1.bmp", "slow.png", "out/2.bmp", "--reference", "in/1.png", "--metric", "psnr")
    process = start(*command, "--out", "s.json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"image\tpsnr\n"
    assert process.stdout.readline().startswith(b"out/1.bmp\t")
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "2 of 3 not scored: interrupted." in errors
    rows = json.loads(Path("s.json").read_text())["images"]
    assert rows[0]["psnr"] == pytest.approx(expected("psnr", 1))
    assert [row["error"] for row in rows] == [None, *["interrupted before it was scored"] * 2]


def test_a_reader_that_leaves_is_no_traceback(photos: Path) -> None:
    process = start("score", "out", "--reference", "in", "--metric", "psnr", stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait(120)
    assert "Traceback" not in errors


def test_one_bad_picture_does_not_end_the_run(photos: Path) -> None:
    Path("out/2.bmp").write_bytes(b"")
    Image.new("RGB", (5, 5)).save("out/10.bmp")
    result = run("score", "out", "gone.png", "--metric", "psnr", "--reference", "in/1.png", "--out", "s.csv", code=1)
    rows = [line.split("\t") for line in result.stdout.splitlines()[1:]]
    assert [(row[0], math.isnan(float(row[1]))) for row in rows] == [
        ("out/1.bmp", False),
        ("out/2.bmp", True),
        ("out/10.bmp", True),
        ("gone.png", True),
    ]
    assert "out/2.bmp is empty" in result.stderr
    assert "out/10.bmp: psnr takes an image and a reference of one shape" in result.stderr
    assert "There is no picture gone.png" in result.stderr
    assert "3 of 4 not scored." in result.stderr
    with open("s.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["image", "psnr", "error"]
    assert float(written[0]["psnr"]) == pytest.approx(expected("psnr", 1))
    assert written[0]["error"] == ""
    assert [row["psnr"] for row in written[1:]] == ["", "", ""]
    assert "empty" in written[1]["error"]


def test_a_picture_that_one_metric_refuses_keeps_its_other_scores(photos: Path) -> None:
    command = ("score", "out/1.bmp", "--reference", "in/1.png", "--metric", "psnr", "--metric", "ms-ssim-rgb")
    run(*command, "--out", "s.jsonl", code=1)  # MS-SSIM takes no picture this small
    row = json.loads(Path("s.jsonl").read_text())
    assert row["psnr"] == pytest.approx(expected("psnr", 1))
    assert row["ms-ssim-rgb"] is None
    assert "ms-ssim-rgb takes pictures from" in row["error"]


def test_scores_that_are_no_numbers_are_failures(photos: Path) -> None:
    class Broken(mdiqa_metric.Metric):
        full_reference, lower_is_better, score_range = False, True, (0.0, 1.0)

        def score(self, image: torch.Tensor, reference: None) -> torch.Tensor:
            return image.mean((1, 2, 3)) * math.nan

    [row] = scoring.score_images({"broken": Broken()}, [(Path("out/1.bmp"), None)])
    assert row == {"image": "out/1.bmp", "broken": None, "error": "broken gave nan."}


def test_json_has_scores_summary_and_fingerprints(photos: Path) -> None:
    run("score", "out", "--metric", "psnr", "--reference", "in/*.png", "--out", "s.json")
    content = json.loads(Path("s.json").read_text())
    facts = content["metrics"]["psnr"]
    assert facts["fingerprint"] == mdiqa_metric.create("psnr").fingerprint()
    assert facts["lower_is_better"] is False
    assert facts["n"] == 3
    scores = [row["psnr"] for row in content["images"]]
    assert facts["mean"] == pytest.approx(np.mean(scores))
    assert facts["std"] == pytest.approx(np.std(scores))
    assert content["images"][2] == {
        "image": "out/10.bmp",
        "reference": "in/10.png",
        "psnr": pytest.approx(expected("psnr", 10)),
        "error": None,
    }


def test_jsonl_is_an_object_a_line(photos: Path) -> None:
    run("score", "out", "--metric", "psnr", "--reference", "in", "--out", "s.jsonl")
    rows = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["out/1.bmp", "out/2.bmp", "out/10.bmp"]


def test_nothing_half_written_is_left(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("No space left on device")

    Path("s.csv").write_text("old")
    monkeypatch.setitem(scoring._WRITERS, ".csv", fail)
    result = run("score", "out", "--metric", "psnr", "--reference", "in", "--out", "s.csv", code=1)
    assert "No space left" in result.stderr
    assert Path("s.csv").read_text() == "old"
    assert sorted(path.name for path in photos.iterdir()) == ["in", "out", "s.csv"]


@pytest.mark.parametrize("name", ["caf\udce9.png", "tab\tand\nline.png", "für.png"])
def test_odd_file_names_are_scored_and_written(photos: Path, name: str) -> None:
    os.rename("out/1.bmp", name)
    for out in ("s.csv", "s.json", "s.jsonl"):
        result = run("score", name, "--metric", "psnr", "--reference", "in/1.png", "--out", out)
        assert [line.count("\t") for line in result.stdout.splitlines()] == [1, 1]
        assert Path(out).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        "nothing to compare with": (["out", "--metric", "psnr"], "A reference is needed for psnr"),
        "no metric at all": (["out"], "Name a --metric"),
        "unknown metric": (["out", "--metric", "psnrr"], "did you mean psnr"),
        "unknown suffix": (["out", "--metric", "psnr", "--reference", "in", "--out", "s.xls"], ".csv, .json, .jsonl"),
        "no such folder": (
            ["out", "--metric", "psnr", "--reference", "in", "--out", "x/s.csv"],
            "There is no folder x",
        ),
        "a folder as file": (["out", "--metric", "psnr", "--reference", "in", "--out", "d.csv"], "cannot be written"),
        "unknown device": (
            ["out", "--metric", "psnr", "--reference", "in", "--device", "abacus"],
            "The device abacus cannot be used here: this machine has cpu",
        ),
        "device without values": (
            ["out", "--metric", "psnr", "--reference", "in", "--device", "meta"],
            "The device meta",
        ),
        "empty match": (["*.gif", "--metric", "psnr", "--reference", "in"], "The pattern *.gif holds no picture"),
        "unpaired": (["out/1.bmp", "--metric", "psnr", "--reference", "in"], "References without an image: in/2.png"),
        "missing reference": (["out", "--metric", "psnr", "--reference", "on"], "There is no reference on"),
    }.values(),
)
def test_asking_wrongly_is_told_before_scoring(photos: Path, arguments: list[str], words: str) -> None:
    Path("d.csv").mkdir()
    result = run("score", *arguments, code=2)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_unknown_options_are_refused(photos: Path) -> None:
    assert "No such option" in run("score", "out", "--metrik", "psnr", code=2).stderr


def test_the_default_with_a_reference_is_stlpips(photos: Path) -> None:
    assert scoring.choose_metrics([], "in") == ["stlpips-alex"]


def test_a_reference_that_nobody_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdiqa_metric.metric.Metric, "full_reference", False, raising=False)
    monkeypatch.setattr(scoring, "metric_class", lambda path: mdiqa_metric.metric.Metric)
    with pytest.raises(ValueError, match="No reference is needed for psnr"):
        scoring.choose_metrics(["psnr"], "in")
    assert scoring.choose_metrics(["psnr"], None) == ["psnr"]


def test_weights_that_cannot_be_had_are_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise weights.WeightsError("w.pth (1 MB) could not be fetched.")

    monkeypatch.setattr(weights, "create", fail)
    result = run("score", "out", "--metric", "psnr", "--reference", "in", code=1)
    assert result.stderr == "w.pth (1 MB) could not be fetched.\n"


def test_version_and_help() -> None:
    assert run("--version").stdout == f"mdiqa_metric {mdiqa_metric.__version__}\n"
    for command in ([], ["score"], ["list"], ["weights"], ["weights", "fetch"]):
        assert "Usage" in run(*command, "--help").output


def test_list_names_every_metric() -> None:
    header, *lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert header == ["metric", "kind", "better", "range", "loss", "weights", "licence", "size"]
    assert [line[0] for line in lines] == mdiqa_metric.list_metrics()
    assert next(line for line in lines if line[0] == "psnr") == ["psnr", "FR", "higher", "0..80", "yes", "none", "", ""]
    facts = {fact["name"]: fact for fact in json.loads(run("list", "--json").stdout)}
    assert list(facts) == mdiqa_metric.list_metrics()
    assert facts["psnr"]["score_range"] == [0, 80]
    assert facts["psnr"]["differentiable"] is True


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest with one metric of two weight files, and the folder where those would lie."""
    from huggingface_hub import constants

    digest = hashlib.sha256(b"weights").hexdigest()
    row = {"where": "torchvision", "tag": "VGG16_Weights.IMAGENET1K_V1", "licence": "BSD-3-Clause", "sha256": digest}
    tables = {
        "aliases": {},
        "metrics": {"heavy": {"class": "psnr.PSNR", "weights": {"trunk": "trunk", "heads": "heads"}}},
        "files": {
            "trunk": {**row, "filename": "trunk.pth", "size": 2_000_000, "unconfirmed": True},
            "heads": {**row, "filename": "heads.pth", "size": 500_000, "licence": "CC-BY-NC-4.0", "commercial": False},
        },
    }
    monkeypatch.setattr(weights, "manifest", lambda: tables)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # nothing is asked of the network
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def table(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()[1:]]


def test_list_marks_what_forbids_commerce(files: Path) -> None:
    [line] = table(run("list").stdout)
    assert line[5:] == ["torchvision", "BSD-3-Clause + CC-BY-NC-4.0 (non-commercial)", "2.5 MB"]


def test_weights_list_says_what_is_here(files: Path) -> None:
    (files / "trunk.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    assert table(run("weights", "list").stdout) == [
        ["trunk", "torchvision", "2.0 MB", "BSD-3-Clause", "verified", f"{digest} (unconfirmed)"],
        ["heads", "torchvision", "0.5 MB", "CC-BY-NC-4.0 (non-commercial)", "no", digest],
    ]


def test_weights_verify_finds_damage(files: Path) -> None:
    (files / "trunk.pth").write_bytes(b"weights")
    assert table(run("weights", "verify").stdout) == [["trunk", "verified"], ["heads", "no"]]
    (files / "heads.pth").write_bytes(b"weighty")
    result = run("weights", "verify", "heavy", code=1)
    assert table(result.stdout) == [["trunk", "verified"], ["heads", "damaged"]]
    assert "heads.pth is not heads" in result.stderr
    assert table(run("weights", "verify", "trunk").stdout) == [["trunk", "verified"]]
    assert "There is no metric 'thunk'" in run("weights", "verify", "thunk", code=2).stderr


def test_weights_fetch_prints_where_they_lie(files: Path) -> None:
    (files / "trunk.pth").write_bytes(b"weights")
    assert run("weights", "fetch", "trunk").stdout == f"trunk\t{files / 'trunk.pth'}\n"
    result = run("weights", "fetch", "--all", code=1)
    assert result.stdout == f"trunk\t{files / 'trunk.pth'}\n"
    assert "heads (heads.pth, 0.5 MB)" in result.stderr
    assert "offline" in result.stderr
    assert "pass --all" in run("weights", "fetch", code=2).stderr


def test_weights_card_prints_the_facts(files: Path) -> None:
    text = run("weights", "card", "heavy").stdout
    assert "# trunk" in text
    assert "* licence: CC-BY-NC-4.0" in text


def test_embedded_weights_have_a_card() -> None:
    for key, row in weights.manifest().get("files", {}).items():
        if row["where"] == "embedded":
            path = weights.locate(key)
            assert path is not None
            assert run("weights", "card", key).stdout.strip() == path.with_suffix(".md").read_text().strip()
