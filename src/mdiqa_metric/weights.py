"""Names become loaded metrics: the manifest, and which files and given weights fill which part."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import files
from .files import WeightsError as WeightsError
from .metric import Metric
from .states import load
from .states import read_state as read_state

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Source = Mapping[str, Any] | str | os.PathLike[str]

_log = logging.getLogger("mdiqa_metric")


def create(name: str, *, weights: Source | None = "pretrained", **options: Any) -> Metric:
    """The metric of that name, loaded, in eval mode and frozen.

    Args:
        name: one of `list_metrics()`, or an alias of it ("ssim").
        weights: "pretrained" takes the files that the manifest names, fetching what is not embedded or cached;
            a state dict or a file (.safetensors, .pth, .npz, .mat), in our key layout or the published one, stands for
            all of them; a dict of those by part (`{"trunk": ..., "heads": ...}`) for the parts it names, the rest being
            pretrained. Floats of another width are converted. None builds the untrained architecture and touches
            neither disk nor network.
        options: what the class takes beyond the manifest's own, as `create("psnr-y-studio", border=4)`.

    Raises:
        ValueError: unknown name (the nearest are listed), weights for a metric that has none, or an unknown part.
        TypeError: an option that the class does not take or the name has already set.
        WeightsError: a file is missing, unreachable, damaged, or not of this metric.
    """
    name = canonical(name)
    row = manifest()["metrics"][name]
    kind = metric_class(row["class"])
    fixed, parts = row.get("options", {}), row.get("weights", {})
    _check_options(name, kind, fixed, options)
    if not parts and not (weights is None or _is_pretrained(weights)):
        raise ValueError(f"{name} has no weights, got some: leave `weights` out.")
    # An untrained network draws its values without moving the caller's seed, and can be trained with afterwards.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        metric = kind(**fixed, **options)
        metric.name = name
        if parts and weights is not None:
            load(metric, _collect(metric, parts, weights), parts)
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
        near = difflib.get_close_matches(str(name), [*tables["metrics"], *tables["aliases"]], n=3)
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
    """The file of the manifest's row `key` on this disk, verified; see `files.locate`."""
    return files.locate(key, manifest()["files"][key], fetch=fetch)


def _is_pretrained(weights: Any) -> bool:
    return isinstance(weights, str) and weights == "pretrained"


def _check_options(name: str, kind: type[Metric], fixed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    takes = [option for option in inspect.signature(kind).parameters if option not in fixed]
    if unknown := ", ".join(option for option in options if option not in takes):
        listed = f"it takes {', '.join(takes)}" if takes else "it takes none"
        own = f" and sets {', '.join(f'{key}={value!r}' for key, value in fixed.items())} itself" if fixed else ""
        raise TypeError(f"{name} takes no option {unknown}: {listed}{own}.")


def _collect(metric: Metric, parts: Mapping[str, str], weights: Any) -> dict[str, Any]:
    """A state dict in our layout out of the manifest's files and what the caller gave in their place."""
    rows = manifest()["files"]
    allow = {name for key in parts.values() for name in rows[key].get("allow", ())}
    given = {} if _is_pretrained(weights) else weights if _is_by_part(weights, parts) else {"": weights}
    if unknown := given.keys() - parts.keys() - ({""} if len(given) == 1 else set()):
        raise ValueError(
            f"{metric.name} has no part {', '.join(sorted(map(repr, unknown)))}: "
            f"it takes {' and '.join(map(repr, parts))}, or one file for all."
        )
    state: dict[str, Any] = {}
    for part in given if "" in given else parts:
        source = given[part] if part in given else _pretrained(parts[part])
        content = read_state(source, allow) if isinstance(source, str | os.PathLike) else source
        try:
            layer = metric.from_published(part, content)
            state |= {f"{part}.{key}" if part else str(key): value for key, value in layer.items()}
        except Exception as error:
            raise WeightsError(
                f"{_called(source)} is not in a layout of {metric.name}'s {part or 'weights'}: "
                f"{type(error).__name__}: {error}."
            ) from error
    return state


def _is_by_part(weights: Any, parts: Mapping[str, str]) -> bool:
    return isinstance(weights, Mapping) and (
        any(part in parts or part == "" for part in weights)
        or any(isinstance(source, str | os.PathLike) for source in weights.values())
    )


def _pretrained(key: str) -> Path:
    path = locate(key)
    assert path is not None
    row = manifest()["files"][key]
    _say_licence(key, row["licence"], row.get("commercial", True))
    return path


def _called(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"The given {type(source).__name__}"


@functools.cache
def _say_licence(key: str, licence: str, commercial: bool) -> None:
    if not commercial:
        _log.warning("The weights %s are under %s, which forbids commercial use.", key, licence)
