"""The command line as people and pipes use it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import mdiqa_metric
from mdiqa_metric import cli, list_metrics, registry
from mdiqa_metric.cli.choices import choose_metrics
from mdiqa_metric.cli.metrics import spread
from mdiqa_metric.cli.printing import SHOWN
from mdiqa_metric.data.images import read_image
from mdiqa_metric.evaluation import scoring

# A shell starts its background jobs, continuous integration's perhaps, with interrupts ignored, and that is inherited.
PROGRAM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mdiqa_metric.cli import app; app(prog_name='mdiqa-metric')",
]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with three restored images under "out" and their originals under "in"."""
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


def test_a_pipe_gets_one_line_per_image(photos: Path) -> None:
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
    Path("out/2.bmp").write_bytes(b"no image")
    os.rename("in/10.png", "in/10[red].png")  # markup to rich
    os.rename("out/10.bmp", "out/10[red].bmp")
    near, far = pty.openpty()
    process = start("score", "out", "--reference", "in", "--metric", "psnr", stdout=far, stderr=far)
    os.close(far)
    text = told(near)
    assert process.wait(120) == 1
    assert "scoring" in text
    assert "━" in text
    assert "out/2.bmp is no image" in text
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

    monkeypatch.setattr(cli.score, "stdout", Console(file=Terminal(), highlight=False))
    cli.score._show_images([{"image": f"{index}.png", "psnr": 30.0} for index in range(SHOWN + 3)], ["psnr"])
    text = cli.score.stdout.file.getvalue()
    assert f"{SHOWN - 1}.png" in text
    assert f"{SHOWN}.png" not in text
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


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_name_that_the_encoding_lacks_is_escaped(
    photos: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    os.rename("out/2.bmp", "out/日本.bmp")
    os.rename("in/2.png", "in/日本.png")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    process = start("score", "out", "--reference", "in", "--metric", "psnr", "--out", "s.csv", stdout=-1, stderr=-1)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [line.split(b"\t")[0] for line in output.splitlines()[1:]] == [
        b"out/1.bmp",
        b"out/10.bmp",
        rb"out/\u65e5\u672c.bmp",
    ]
    assert "out/日本.bmp" in Path("s.csv").read_text(encoding="utf-8")


def test_a_reader_that_leaves_costs_no_scores(photos: Path) -> None:
    near, far = os.pipe()
    os.close(near)
    for streams in ({"stdout": far, "stderr": -1}, {"stdout": far, "stderr": far}):
        process = start("score", "out", "--reference", "in", "--metric", "psnr", "--out", "s.csv", **streams)
        errors = process.communicate(timeout=120)[1] or b""
        assert process.returncode == 0
        assert b"Traceback" not in errors
        assert len(Path("s.csv").read_text().splitlines()) == 4
        Path("s.csv").unlink()
    process = start("score", "out", "--reference", "in", "--metric", "psnr", stdout=far, stderr=-1)
    assert b"mean" not in process.communicate(timeout=120)[1]  # nobody would get the scores
    assert process.returncode == 1
    os.close(far)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full disk at hand")
@pytest.mark.parametrize(
    "command", ["score out --reference in --metric psnr --out s.csv", "list", "dataset list", "weights list"]
)
def test_a_full_disk_under_stdout_is_said_and_costs_no_scores(photos: Path, command: str) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*command.split(), stdout=full, stderr=-1)
        errors = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1
    assert "What was to be printed is lost: No space left on device." in errors
    assert "Traceback" not in errors
    assert "score" not in command or len(Path("s.csv").read_text().splitlines()) == 4


def test_a_closed_stdout_costs_no_scores(photos: Path) -> None:
    code = "import os; os.close(1); os.execv(os.sys.executable, [os.sys.executable, '-c', *os.sys.argv[1:]])"
    command = [sys.executable, "-c", code, PROGRAM[2], "score", "out/1.bmp", "--reference", "in/1.png"]
    done = subprocess.run([*command, "--metric", "psnr", "--out", "s.csv"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Path("s.csv").exists()


def test_scores_that_cannot_be_written_are_still_shown(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setitem(scoring.WRITERS, ".csv", fail)
    shown: list[Any] = []
    monkeypatch.setattr(cli.score, "_show_summary", lambda console, summary: shown.append(summary["psnr"]["n"]))
    run("score", "out", "--metric", "psnr", "--reference", "in", "--out", "s.csv", code=1)
    assert shown == [3]


def test_names_with_more_than_their_references_pair_by_option(photos: Path) -> None:
    for index in (1, 2, 10):
        os.rename(f"out/{index}.bmp", f"out/{index}_x4.bmp")
    command = ("score", "out", "--reference", "in", "--metric", "psnr")
    assert "pass --suffix _x4" in run(*command, code=2).stderr
    result = run(*command, "--suffix", "_x4")
    assert [row[0] for row in table(result.stdout)] == ["out/1_x4.bmp", "out/2_x4.bmp", "out/10_x4.bmp"]
    assert "no --suffix" in run("score", "out", "--metric", "mdiqa-lite", "--suffix", "_x4", code=2).stderr
    assert "no --suffix" in run(*command[:3], "in/1.png", "--metric", "psnr", "--suffix", "_x4", code=2).stderr


def test_clips_pair_by_path_and_have_a_mean_each(photos: Path) -> None:
    for clip, index in (("000", 1), ("000", 2), ("001", 10)):
        for folder, suffix in (("out", "bmp"), ("in", "png")):
            Path(folder, clip).mkdir(exist_ok=True)
            os.rename(f"{folder}/{index}.{suffix}", f"{folder}/{clip}/{index % 9:08d}.{suffix}")
    command = ("score", "out", "--reference", "in", "--metric", "psnr")
    assert "pass --recursive" in run(*command, code=2).stderr
    result = run(*command, "--recursive", "--out", "s.json")
    scores = {row[0]: float(row[1]) for row in table(result.stdout)}
    assert list(scores) == ["out/000/00000001.bmp", "out/000/00000002.bmp", "out/001/00000001.bmp"]
    first = np.mean([scores["out/000/00000001.bmp"], scores["out/000/00000002.bmp"]])
    assert [line.split("\t") for line in result.stderr.splitlines()[2:]] == [
        ["mean of folder", "psnr"],
        ["out/000", f"{first:.4f}"],
        ["out/001", f"{scores['out/001/00000001.bmp']:.4f}"],
    ]
    folders = json.loads(Path("s.json").read_text())["folders"]
    assert folders["out/000"]["psnr"] == {"n": 2, "mean": pytest.approx(first)}
    assert folders["out/001"]["psnr"]["n"] == 1


def test_files_that_are_left_out_are_named(photos: Path) -> None:
    Image.open("out/2.bmp").convert("RGB").save("out/2.jfif", "JPEG")
    Path("out/2.bmp").unlink()
    Path("out/photo.heic").touch()
    Path("in/Thumbs.db").touch()
    result = run("score", "out", "--reference", "in", "--metric", "psnr")
    assert [row[0] for row in table(result.stdout)] == ["out/1.bmp", "out/2.jfif", "out/10.bmp"]
    assert "Left out, as their suffixes are no image's: photo.heic, Thumbs.db (2)." in result.stderr


def test_one_bad_image_does_not_end_the_run(photos: Path) -> None:
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
    assert "There is no image gone.png" in result.stderr
    assert "3 of 4 not scored." in result.stderr
    with open("s.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["image", "psnr", "error"]
    assert float(written[0]["psnr"]) == pytest.approx(expected("psnr", 1))
    assert written[0]["error"] == ""
    assert [row["psnr"] for row in written[1:]] == ["", "", ""]
    assert "empty" in written[1]["error"]


def test_a_image_that_one_metric_refuses_keeps_its_other_scores(photos: Path) -> None:
    command = ("score", "out/1.bmp", "--reference", "in/1.png", "--metric", "psnr", "--metric", "ms-ssim-rgb")
    run(*command, "--out", "s.jsonl", code=1)  # MS-SSIM takes no image this small
    row = json.loads(Path("s.jsonl").read_text())
    assert row["psnr"] == pytest.approx(expected("psnr", 1))
    assert row["ms-ssim-rgb"] is None
    assert "ms-ssim-rgb takes images from" in row["error"]


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
    monkeypatch.setitem(scoring.WRITERS, ".csv", fail)
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
        "empty match": (["*.gif", "--metric", "psnr", "--reference", "in"], "The pattern *.gif holds no image"),
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


def test_the_defaults_are_embedded(photos: Path) -> None:
    assert choose_metrics([], "in", offline=True) == ["lpips-alex"]
    assert choose_metrics([], None, offline=True) == ["mdiqa-lite"]


def test_all_and_offline(photos: Path) -> None:
    pack = list_metrics(offline=True)
    assert {"psnr", "lpips-alex", "milo", "mdiqa-lite"} <= {*pack}
    assert not {"lpips-squeeze", "topiq-nr", "mdiqa"} & {*pack}
    assert [row["name"] for row in json.loads(run("list", "--offline", "--json").stdout)] == pack
    assert choose_metrics(["all"], "in", offline=True) == pack
    assert choose_metrics(["all"], None, offline=True) == list_metrics(False, offline=True)
    assert choose_metrics(["all"], "in") == list_metrics()
    with pytest.raises(ValueError, match="A download is needed for lpips-squeeze: leave --offline out"):
        choose_metrics(["psnr", "lpips-squeeze"], "in", offline=True)


def test_a_reference_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="No reference is needed for mdiqa-lite"):
        choose_metrics(["mdiqa-lite"], "in")
    assert choose_metrics(["mdiqa-lite", "psnr"], "in") == ["mdiqa-lite", "psnr"]


def test_weights_that_cannot_be_had_are_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise registry.WeightsError("w.pth (1 MB) could not be fetched.")

    monkeypatch.setattr(registry, "create", fail)
    result = run("score", "out", "--metric", "psnr", "--reference", "in", code=1)
    assert result.stderr == "w.pth (1 MB) could not be fetched.\n"


@pytest.fixture
def rated(photos: Path) -> Path:
    """A table of six rated images, each beside its original, in the working folder."""
    random = np.random.default_rng(0)
    rows = ["image,reference,mos,distortion,split"]
    for index in range(10):
        noisy = np.asarray(Image.open("in/1.png")) + random.integers(0, 2 + 5 * index, (48, 32, 3), dtype=np.uint8)
        Image.fromarray(noisy).save(f"out/rated{index}.png")
        rows.append(f"rated{index}.png,../in/1.png,{9 - index},{'even' if index % 2 else 'odd'},{'test' * (index > 3)}")
    Path("out/table.csv").write_text("\n".join(rows))
    return Path("out/table.csv")


@pytest.mark.parametrize(
    "metrics",
    [("--metric", "psnr", "ssim-rgb"), ("--metric", "psnr", "--metric", "ssim-rgb"), ("ssim", "--metric=psnr")],
)
def test_evaluate_prints_a_line_an_agreement(rated: Path, metrics: tuple[str, ...]) -> None:
    result = run("evaluate", *metrics, "--dataset", rated)
    header, *lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert header[:7] == ["metric", "group", "n", "images", "srcc", "srcc_low", "srcc_high"]
    assert header[-2:] == ["trained_on", "chosen_on"]
    assert {*lines[0][-2:]} == {"-"}  # nothing trained it
    second = "ssim-y-full" if "ssim" in metrics else "ssim-rgb"
    assert [line[:4] for line in lines] == [
        ["psnr", "all", "10", "10"],
        [second, "all", "10", "10"],
        *([name, f"distortion {label}", "5", "5"] for name in ("psnr", second) for label in ("odd", "even")),
    ]
    assert lines[0][4] == "1.0000"  # the more noise, the lower its mos
    assert all(len(line) == len(header) for line in lines)
    comparison = [line.split("\t") for line in result.stderr.splitlines() if line.startswith("psnr\t")]
    assert comparison[0][:3] == ["psnr", second, "10"]


def test_evaluate_says_what_trained_a_metric_beside_its_agreement(rated: Path) -> None:
    for index in range(10):  # larger, for MDIQA-lite
        path = f"out/rated{index}.png"
        Image.open(path).resize((96, 80)).save(path)
    code = """
import numpy, sys
from mdiqa_metric.evaluation import trained_images as trained
from mdiqa_metric.cli import app
from mdiqa_metric.data.images import read_image
hashes = numpy.array([trained.image_hash(read_image("out/rated9.png"))])
module = sys.modules["mdiqa_metric.evaluation.evaluate"]
module.trained_images = lambda metric: trained.TrainedImages({"trained on": hashes})
app()
"""
    command = [sys.executable, "-c", code, "evaluate", "--metric", "mdiqa-lite", "--dataset", str(rated)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    header, line = (text.split("\t") for text in done.stdout.splitlines()[:2])
    facts = dict(zip(header, line, strict=True))
    assert int(facts["trained_on"]) >= 1
    assert facts["chosen_on"] == "0"
    near, far = pty.openpty()
    process = subprocess.Popen(command, stdout=far, stderr=far, env=os.environ | {"COLUMNS": "120"})
    os.close(far)
    text = told(near)
    assert process.wait(120) == 0
    line = re.search(r"^mdiqa-lite .*", re.sub(r"\x1b\[[0-9;]*m", "", text), re.M)
    assert re.search(rf"\] .* trained on {facts['trained_on']}\b", line[0]), "in the line of its agreement"


def test_evaluate_tests_pairs_of_many_metrics_on_request(rated: Path) -> None:
    names = ["psnr", "psnr-y-full", "psnr-y-studio", "ssim-rgb", "ssim-y-full", "ssim-y-studio", "ssim-matlab"]
    command = ("evaluate", "--dataset", rated, "--metric", *names)
    assert run(*command).stderr == "The 21 pairs of 7 metrics are not tested: --compare tests them.\n"
    assert run(*command, "--no-compare").stderr == ""
    pairs = [line.split("\t") for line in run(*command, "--compare").stderr.splitlines()]
    assert len(pairs) == 22


def test_evaluate_writes_results_and_a_report(rated: Path) -> None:
    run("evaluate", "--metric", "psnr", "--dataset", rated, "--split", "test", "--out", "r.json", "--report", "r.html")
    results = json.loads(Path("r.json").read_text())
    assert results["dataset"]["table"] == "out/table.csv"
    assert results["dataset"]["split"] == "test"
    assert results["metrics"]["psnr"]["agreement"]["n"] == len(results["images"]) == 6
    want = mdiqa_metric.create("psnr")(read_image("out/rated4.png"), read_image("in/1.png")).item()
    assert results["images"][0]["scores"] == {"psnr": want}
    assert "rated4.png" in Path("r.html").read_text()
    assert sorted(path.name for path in rated.parent.parent.iterdir()) == ["in", "out", "r.html", "r.json"]


@pytest.fixture
def images_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that this process reads from here on, references among them."""
    names: list[str] = []
    read = scoring.read_image
    monkeypatch.setattr(scoring, "read_image", lambda path: names.append(Path(path).name) or read(path))
    return names


def test_evaluate_lists_what_failed_and_scores_only_that_again(rated: Path, images_read: list[str]) -> None:
    good = Path("out/rated5.png").read_bytes()
    Path("out/rated5.png").write_bytes(good[:200])
    command = ("evaluate", "--metric", "psnr", "--dataset", rated, "--out", "r.json")
    result = run(*command, code=1)
    assert "out/rated5.png is damaged" in result.stderr
    assert "1 of 10 not scored by every metric. The scores of the others are kept in r.json.scores" in result.stderr
    assert result.stdout.splitlines()[1].split("\t")[:4] == ["psnr", "all", "9", "10"]
    written = Path("r.json.scores/scores-0.jsonl").read_bytes()
    Path("out/rated5.png").write_bytes(good)
    images_read.clear()
    result = run(*command)
    assert [name for name in images_read if name.startswith("rated")] == ["rated5.png"]
    assert result.stdout.splitlines()[1].split("\t")[:4] == ["psnr", "all", "10", "10"]
    assert written.count(b"\n") == 11
    assert not Path("r.json.scores").exists()


def test_evaluate_interrupted_goes_on(rated: Path, images_read: list[str]) -> None:
    good = Path("out/rated3.png").read_bytes()
    Path("out/rated3.png").unlink()
    os.mkfifo("out/rated3.png")  # reading it waits for ever
    command = ("evaluate", "--metric", "psnr", "--dataset", str(rated), "--out", "r.json")
    process = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    store = Path("r.json.scores/scores-0.jsonl")
    limit = time.monotonic() + 120
    while not store.exists() or store.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == b""
    assert errors.decode() == (
        "Interrupted. What was scored is kept in r.json.scores: the same command goes on from there.\n"
    )
    Path("out/rated3.png").unlink()
    Path("out/rated3.png").write_bytes(good)
    run(*command)
    assert not {f"rated{index}.png" for index in range(3)} & {*images_read}
    assert all(image["scores"]["psnr"] for image in json.loads(Path("r.json").read_text())["images"])


def test_evaluate_shares_the_work_of_torchrun(rated: Path) -> None:
    command = ("evaluate", "--metric", "psnr", "ssim-rgb", "--dataset", str(rated))
    alone = run(*command, "--out", "alone.json")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *PROGRAM, *command, "--out", "two.json"], capture_output=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert Path("two.json").read_bytes() == Path("alone.json").read_bytes()
    assert done.stdout.decode() == alone.stdout


def test_evaluate_shows_a_bar_with_speed(rated: Path) -> None:
    near, far = pty.openpty()
    process = start("evaluate", "--metric", "psnr", "--dataset", str(rated), stdout=far, stderr=far)
    os.close(far)
    text = told(near)
    assert process.wait(120) == 0
    assert "10/10" in text
    assert "images/s" in text
    after = text[text.rindex("\x1b[?25h") :]
    assert re.search(r"psnr +10 +1\.0000 +\[1\.000, 1\.000\]", re.sub(r"\x1b\[[0-9;]*m", "", after))
    assert "distortion odd" in after
    assert "\t" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        "unknown metric": (["--metric", "psnrr", "--dataset", "out/table.csv"], "did you mean psnr"),
        "no table": (["--metric", "psnr", "--dataset", "none.csv"], "There is no table none.csv"),
        "no such split": (["--metric", "psnr", "--dataset", "out/table.csv", "--split", "val"], "no rows of the split"),
        "no references": (["--metric", "psnr", "--dataset", "plain.csv"], "psnr compares with references"),
        "results as .csv": (["--metric", "psnr", "--dataset", "out/table.csv", "--out", "r.csv"], "written to .json"),
        "report as .pdf": (["--metric", "psnr", "--dataset", "out/table.csv", "--report", "r.pdf"], "written to .html"),
        "device": (["--metric", "psnr", "--dataset", "out/table.csv", "--device", "abacus"], "The device abacus"),
    }.values(),
)
def test_evaluating_wrongly_is_told_before_scoring(rated: Path, arguments: list[str], words: str) -> None:
    Path("plain.csv").write_text("image,mos\nin/1.png,1\n")
    result = run("evaluate", *arguments, code=2)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_evaluate_needs_a_metric_and_a_table(rated: Path) -> None:
    assert "--metric" in run("evaluate", "--dataset", rated, code=2).stderr
    assert "--dataset" in run("evaluate", "--metric", "psnr", code=2).stderr


def test_another_evaluation_in_the_same_place_is_refused(rated: Path) -> None:
    Path("out/rated5.png").write_bytes(b"")
    command = ("evaluate", "--dataset", rated, "--out", "r.json")
    run(*command, "--metric", "psnr", code=1)
    result = run(*command, "--metric", "ssim-rgb", code=2)
    assert "r.json.scores holds scores of another evaluation (metric psnr was psnr" in result.stderr
    assert "is none; metric ssim-rgb was none" in result.stderr


@pytest.fixture
def kadid(photos: Path) -> Path:
    """KADID-10k as released, cut down to three scenes."""
    (photos / "kadid/images").mkdir(parents=True)
    rows = ["dist_img,ref_img,dmos,var"]
    for scene in ("I01", "I02", "I03"):
        Image.new("RGB", (8, 8)).save(f"kadid/images/{scene}.png")
        for level in (1, 2):
            Image.new("RGB", (8, 8), "red").save(f"kadid/images/{scene}_01_0{level}.png")
            rows.append(f"{scene}_01_0{level}.png,{scene}.png,{5 - level},0.5")
    Path("kadid/dmos.csv").write_text("\n".join(rows))
    return Path("kadid")


def test_a_data_set_becomes_a_table(kadid: Path) -> None:
    result = run("dataset", "convert", "kadid10k", kadid, code=1)
    assert "10125" in result.stderr  # images are published
    assert table(result.stdout) == [["kadid/table.csv", "6", ""]]
    result = run("dataset", "convert", "kadid10k", kadid, "--out", "k.csv", "--seed", 1, code=1)
    assert table(result.stdout) == [["k.csv", "6", "train:4 test:2"]]
    run("evaluate", "--metric", "psnr", "--dataset", "k.csv", "--split", "test")
    assert "did you mean kadid10k" in run("dataset", "convert", "kadid", kadid, code=2).stderr
    assert "written to .csv, .parquet" in run("dataset", "convert", "kadid10k", kadid, "--out", "k.xls", code=2).stderr
    assert "no folder nowhere" in run("dataset", "convert", "kadid10k", "nowhere", code=2).stderr


def test_every_data_set_is_listed() -> None:
    from mdiqa_metric.data.converters import CONVERTERS

    lines = table(run("dataset", "list").stdout)
    assert [line[0] for line in lines] == list(CONVERTERS)
    assert next(line[1:3] for line in lines if line[0] == "live") == ["779", "100..0"]


def test_version_and_help() -> None:
    assert run("--version").stdout == f"mdiqa_metric {mdiqa_metric.__version__}\n"
    dataset = (["dataset"], ["dataset", "list"], ["dataset", "convert"])
    for command in ([], ["score"], ["evaluate"], ["list"], *dataset, ["weights"], ["weights", "fetch"]):
        assert "Usage" in run(*command, "--help").output


def test_list_names_every_metric() -> None:
    header, *lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert header == ["metric", "kind", "better", "range", "loss", "weights", "license", "size"]
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
    row = {"where": "torchvision", "tag": "VGG16_Weights.IMAGENET1K_V1", "license": "BSD-3-Clause", "sha256": digest}
    tables = {
        "aliases": {},
        "metrics": {"heavy": {"class": "psnr.PSNR", "weights": {"backbone": "backbone", "heads": "heads"}}},
        "files": {
            "backbone": {**row, "filename": "backbone.pth", "size": 2_000_000, "unconfirmed": True},
            "heads": {**row, "filename": "heads.pth", "size": 500_000, "license": "CC-BY-NC-4.0", "commercial": False},
        },
    }
    monkeypatch.setattr(registry, "manifest", lambda: tables)
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
    (files / "backbone.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    assert table(run("weights", "list").stdout) == [
        ["backbone", "torchvision", "2.0 MB", "BSD-3-Clause", "verified", f"{digest} (unconfirmed)"],
        ["heads", "torchvision", "0.5 MB", "CC-BY-NC-4.0 (non-commercial)", "no", digest],
    ]


def test_weights_verify_finds_damage(files: Path) -> None:
    (files / "backbone.pth").write_bytes(b"weights")
    assert table(run("weights", "verify").stdout) == [["backbone", "verified"], ["heads", "no"]]
    (files / "heads.pth").write_bytes(b"weighty")
    result = run("weights", "verify", "heavy", code=1)
    assert table(result.stdout) == [["backbone", "verified"], ["heads", "damaged"]]
    assert "heads.pth is not heads" in result.stderr
    assert table(run("weights", "verify", "backbone").stdout) == [["backbone", "verified"]]
    assert "There is no metric 'thunk'" in run("weights", "verify", "thunk", code=2).stderr


def test_weights_fetch_prints_where_they_lie(files: Path) -> None:
    (files / "backbone.pth").write_bytes(b"weights")
    assert run("weights", "fetch", "backbone").stdout == f"backbone\t{files / 'backbone.pth'}\n"
    result = run("weights", "fetch", "--all", code=1)
    assert result.stdout == f"backbone\t{files / 'backbone.pth'}\n"
    assert "heads (heads.pth, 0.5 MB)" in result.stderr
    assert "offline" in result.stderr
    assert "pass --all" in run("weights", "fetch", code=2).stderr


def test_weights_card_prints_the_facts(files: Path) -> None:
    text = run("weights", "card", "heavy").stdout
    assert "# backbone" in text
    assert "* license: CC-BY-NC-4.0" in text


def test_embedded_weights_have_a_card() -> None:
    for key, row in registry.manifest().get("files", {}).items():
        if row["where"] == "embedded":
            path = registry.locate(key)
            assert path is not None
            assert run("weights", "card", key).stdout.strip() == path.with_suffix(".md").read_text().strip()


def test_metrics_that_follow_one_are_metrics_in_score_too(photos: Path) -> None:
    lines = run("score", "out", "--reference", "in", "--metric", "psnr", "ssim-rgb:border=2", "--out", "s.csv").stdout
    assert lines.splitlines()[0] == "image\tpsnr\tssim-rgb:border=2"
    assert lines == run("score", "--metric=psnr", "ssim-rgb:border=2", "out", "--reference", "in").stdout
    assert "did you mean ssim" in run("score", "out", "--reference", "in", "--metric", "psnr", "SSIM", code=2).stderr
    run("score", "out", "--reference", "in", "--metric", "psnr", "psnr:border=4", "--out", "s.json")
    content = json.loads(Path("s.json").read_text())
    assert "crop 4 px a side" in content["metrics"]["psnr:border=4"]["fingerprint"]
    assert "crop none" in content["metrics"]["psnr"]["fingerprint"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("a.png --metric psnr b.png", "a.png --metric psnr b.png"),
        ("--metric psnr ssim -- lpips", "--metric psnr --metric ssim -- lpips"),
        ("--metric psnr --device cpu ssim", "--metric psnr --device cpu ssim"),
        ("--metric psnr x/ssim 'out/*.png'", "--metric psnr x/ssim 'out/*.png'"),
        ("--metric mdiqa=w/x lpips-alex-v0.0 dists", "--metric mdiqa=w/x --metric lpips-alex-v0.0 --metric dists"),
    ],
)
def test_words_behind_a_metric_are_metrics_but_for_files(given: str, taken: str) -> None:
    assert spread(shlex.split(given)) == shlex.split(taken)
