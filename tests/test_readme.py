"""README's blocks run as they stand, one after the other, in a folder that holds what its text says the user has."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mdiqa_metric import cli
from mdiqa_metric.data.converters import CONVERTERS
from mdiqa_metric.registry import manifest
from tests.rows import content, filled, photograph
from tests.test_converters import KONIQ
from tests.test_mdiqa import folder as official  # noqa: F401  (fixture: MDIQA's eight files with stand-in parameters)
from tests.test_weights import row_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (README[: block.start(2)].count("\n"), block[1], block[2])
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
]
# What a block may take from the network: weight files, and the golden file that has stand-in parameters for each.
DOWNLOADS = {"torchvision-vgg16": "lpips-vgg", "topiq-nr": "topiq-nr"}


@pytest.fixture
def user(tmp_path, monkeypatch, official):  # noqa: F811
    """The folder of somebody who has two folders of photographs, MDIQA's files, KonIQ-10k and a network."""
    monkeypatch.chdir(tmp_path)
    for index in range(8):
        clean = photograph(160, 128)[0, :, 8 * index : 8 * index + 64, :72]
        noisy = clean + 0.02 * index * torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
        save(clean, f"originals/{index}.png")
        save(noisy, f"restored/{index}.png")
        save(noisy, f"koniq10k/512x384/{index}.jpg")
        save(noisy, f"koniq10k/1024x768/{index}.jpg")
    save(photograph(64, 72)[0], "in/000/1.png")
    save(0.9 * photograph(64, 72)[0], "out/000/1_x4.png")
    ratings = [f"{index}.jpg,0,0,0,0.5,0.5,100,{90 - 9 * index},0.5,test" for index in range(8)]
    Path("koniq10k/koniq10k_distributions_sets.csv").write_text("\n".join([KONIQ, *ratings]))
    monkeypatch.setitem(CONVERTERS, "koniq10k", dataclasses.replace(CONVERTERS["koniq10k"], images=len(ratings)))
    Path("mdiqa").symlink_to(official)
    for key, stem in DOWNLOADS.items():
        row, data = manifest()["files"][key], content(stem)
        torch.save(
            filled(data["backbone"]["keys"] if "backbone" in data else data["checkpoint"], data), row["filename"]
        )
        monkeypatch.setitem(manifest()["files"], key, row | row_of(tmp_path / row["filename"]))


def save(image, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    values = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    Image.fromarray(values.numpy()).save(path)


def test_every_block_runs_after_those_above_it(user):
    assert {language for _, language, _ in BLOCKS} == {"python", "sh"}
    names = {"__name__": "readme"}
    for line, language, block in BLOCKS:
        if language == "python":
            # A traceback shows the line of README.md.
            exec(compile("\n" * line + block, ROOT / "README.md", "exec"), names)
        else:
            for command in block.splitlines():
                run(shlex.split(command, comments=True))
    assert Path("scores.csv").stat().st_size > 0
    assert Path("koniq.html").stat().st_size > 0


def run(words):
    """Runs a command line of this package in this process; of others, checks that what they name is there."""
    program, *arguments = words
    if program == "mdiqa-metric":
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, f"{words}: {result.output}"
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    else:
        assert words == ["pip", "install", "mdiqa_metric"]


def test_every_extra_that_the_text_installs_exists():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"pip install '?mdiqa_metric\[(\w+)\]", README)
    assert extras
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
