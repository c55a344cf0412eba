"""Options and settings that hold for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", type=Path, help="run the golden tests over the files of this folder")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # several workers share the cores
