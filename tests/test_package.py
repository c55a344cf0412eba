"""The wheel carries what it needs and works outside the checkout."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mdiqa_metric.registry import manifest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mdiqa_metric"
EMBEDDED = [row["filename"] for row in manifest().get("files", {}).values() if row["where"] == "embedded"]


def run(*command, **options):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A folder with the installed wheel, and how to run Python on it from elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"PYTHONPATH": str(folder), "HF_HOME": str(folder / "no-cache"), "HF_HUB_OFFLINE": "1"}
    return folder, {"cwd": tmp_path_factory.mktemp("elsewhere"), "env": environment}


def test_the_wheel_holds_weights_cards_licenses_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"mdiqa_metric", information}
    licenses = {path.name: path for path in [ROOT / "LICENSE", *(ROOT / "weights").glob("LICENSE-*")]}
    expected = {
        "mdiqa_metric/evaluation/report.html",
        "mdiqa_metric/manifest.toml",
        "mdiqa_metric/py.typed",
        f"{information}/entry_points.txt",
    }
    expected |= {f"mdiqa_metric/_weights/{name}" for name in EMBEDDED}
    expected |= {f"mdiqa_metric/_weights/{Path(name).with_suffix('.md')}" for name in EMBEDDED}
    expected |= {f"{information}/licenses/{path.relative_to(ROOT)}" for path in licenses.values()}
    assert EMBEDDED
    assert not expected - names


def test_the_installed_wheel_scores_outside_the_checkout(installed):
    folder, elsewhere = installed
    code = """
import torch, mdiqa_metric
metric = mdiqa_metric.create("stlpips-alex")
image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
scores = metric(image, image.flip(3))
assert scores.shape == (2,) and (scores > 0).all(), scores
print(mdiqa_metric.__file__)
"""
    assert Path(run("-c", code, **elsewhere).strip()) == folder / "mdiqa_metric" / "__init__.py"


def test_the_command_line_of_the_installed_wheel(installed):
    folder, elsewhere = installed
    program = folder / "bin" / "mdiqa-metric"
    assert "stlpips-alex" in run(program, "list", **elsewhere)
    assert "verified" in run(program, "weights", "verify", "stlpips-alex", **elsewhere)


@pytest.mark.parametrize(
    "path", [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")], ids=str
)
def test_examples_in_docstrings_run(path):
    name = ".".join(("mdiqa_metric", *path.relative_to(SOURCE).with_suffix("").parts))
    found = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert found.attempted > 0
    assert found.failed == 0
