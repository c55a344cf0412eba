"""Options and settings that hold for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", type=Path, help="run the golden tests over the files of this folder")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # several workers share the cores


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)  # a test sees the same numbers whatever ran before it


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has a row's tests run one after the other, on one worker, so that its network is built once and then dropped."""
    from tests.rows import Row, group_of

    groups: dict[str, int] = {}
    places: dict[str, int] = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if isinstance(row := parameters.get("row"), Row):
            item.add_marker(pytest.mark.xdist_group(group_of(row)))
        mark = item.get_closest_marker("xdist_group")
        places[item.nodeid] = groups.setdefault(mark.args[0], len(groups)) if mark else -1
    items.sort(key=lambda item: places[item.nodeid])
