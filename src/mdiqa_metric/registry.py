"""From a name to a loaded metric: the manifest, and which weights fill which part."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import logging
import numbers
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

from .checkpoints import files
from .checkpoints.download import first_line
from .checkpoints.files import WeightsError as WeightsError
from .checkpoints.hub import CONFIG, WEIGHTS, HubMixin
from .checkpoints.states import cpu_float32, load
from .checkpoints.states import read_state as read_state
from .metric import Metric

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Source = Mapping[str, Any] | str | os.PathLike[str]

_log = logging.getLogger("mdiqa_metric")


class Spec(NamedTuple):
    """A metric by `NAME`, `NAME:OPTION=VALUE,OPTION=VALUE`, `NAME=WEIGHTS` or `NAME:OPTION=VALUE,weights=WEIGHTS`.

    Attributes:
        name: the manifest's own.
        options: for the metric's class, parsed to what it takes.
        weights: a file or folder, or None where none is named.
    """

    name: str
    options: dict[str, Any]
    weights: str | None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """The spec that a text stands for.

        Raises:
            ValueError: an unknown name, or an option that is no pair or not of its type.
            TypeError: an option that the metric does not take.
        """
        name, separator, rest = text, "", ""
        if found := re.search("[:=]", text) if isinstance(text, str) else None:
            name, separator, rest = text[: found.start()], found[0], text[found.end() :]
        name = canonical(name)
        if separator == "=":
            return cls(name, {}, _require_path(name, rest))
        options, weights = {}, None
        while rest:
            option, equals, value = rest.partition("=")
            option = option.strip()
            if not equals or not option:
                raise ValueError(f"{name} takes options as {name}:OPTION=VALUE,OPTION=VALUE, got {text!r}.")
            if option == "weights":  # a path may hold a comma, so it comes last
                weights, rest = _require_path(name, value), ""
            elif option in options:
                raise TypeError(f"{name} gets {option} twice in {text!r}: leave one out.")
            else:
                options[option], _, rest = value.partition(",")
        row = manifest()["metrics"][name]
        kind = metric_class(row["class"])
        _check_options(name, kind, row.get("options", {}), options)
        types = _types(kind)
        return cls(
            name, {key: _parse_option(name, key, value, types.get(key)) for key, value in options.items()}, weights
        )

    @property
    def metric_class(self) -> type[Metric]:
        """The class of the metric, imported now."""
        return metric_class(manifest()["metrics"][self.name]["class"])

    def __str__(self) -> str:
        options = [f"{key}={value}" for key, value in self.options.items()]
        if self.weights is None:
            return self.name + (f":{','.join(options)}" if options else "")
        return (
            f"{self.name}:{','.join([*options, f'weights={self.weights}'])}"
            if options
            else f"{self.name}={self.weights}"
        )


def create(name: str, *, weights: Source | None = "pretrained", **options: Any) -> Metric:
    """The metric of that name, loaded, in eval mode and frozen, on the CPU in float32.

    Args:
        name: one of `list_metrics()`, or an alias of it ("ssim"); options and weights may follow, as on the command
            line: "psnr-y-studio:border=4", "mdiqa=FOLDER" (see `Spec`).
        weights: "pretrained" takes the files that the manifest names, fetching what is not embedded or cached;
            a state dict or a file (.safetensors, .pth, .npz, .mat), in our key layout or the published one, stands for
            all of them; a dict of those by part (`{"backbone": ..., "heads": ...}`) for the parts it names, the rest
            being pretrained; a folder is one that `save_pretrained` wrote, or holds the authors' files. Floats of
            another width are converted. None builds the untrained architecture and touches neither disk nor network.
        options: what the class takes beyond the manifest's own, as `create("psnr-y-studio", border=4)`; a `border` is
            taken by every metric with a reference.

    Example:
        >>> create("psnr-y-studio:border=4").crop
        '4 px a side'

    Raises:
        ValueError: unknown name (the nearest are listed), weights for a metric that has none, or an unknown part.
        TypeError: an option that the class does not take or the name has already set, or that is given twice.
        WeightsError: a file is missing, unreachable, damaged, or not of this metric.
    """
    spec = Spec.parse(name)
    if twice := spec.options.keys() & options.keys():
        raise TypeError(f"{name} sets {', '.join(sorted(twice))}, which is given once more: leave one out.")
    if spec.weights is not None:
        if not _is_pretrained(weights):
            raise TypeError(f"{name} names weights, and others are given too: leave one out.")
        weights = spec.weights
    name, options = spec.name, spec.options | options
    row = manifest()["metrics"][name]
    kind = metric_class(row["class"])
    fixed, parts = row.get("options", {}), row.get("weights", {})
    _check_options(name, kind, fixed, options)
    types = _types(kind)
    options = {key: _checked(name, key, value, types.get(key)) for key, value in options.items()}
    if not parts and not (weights is None or _is_pretrained(weights)):
        raise ValueError(f"{name} has no weights, got some: leave `weights` out.")
    border = None if "border" in inspect.signature(kind).parameters else options.pop("border", None)
    with cpu_float32():
        if isinstance(weights, str | os.PathLike) and not _is_pretrained(weights) and Path(weights).is_dir():
            metric = _from_folder(name, kind, Path(weights), fixed | options)
        else:
            metric = kind(**fixed, **options)
            metric.name = name
            if parts and weights is not None:
                load(metric, _collect(metric, parts, weights), parts)
            else:
                metric.accept_untrained()
        metric.name = name
    if border is not None:
        metric.cut_border(border)
    return metric


def list_metrics(full_reference: bool | None = None, offline: bool = False) -> list[str]:
    """All names that `create` takes, sorted.

    Args:
        full_reference: only full-reference (True) or no-reference (False) ones.
        offline: only those that need no download here: without weights, embedded, or with files that are here already.

    Example:
        >>> "mdiqa-lite" in list_metrics(full_reference=False, offline=True)
        True
    """
    return sorted(
        name
        for name, row in manifest()["metrics"].items()
        if full_reference is None or metric_class(row["class"]).full_reference == full_reference
        if not (offline and files_to_fetch(name))
    )


def files_to_fetch(name: str) -> list[str]:
    """The weight files of a metric that are not on this machine, by their keys in the manifest.

    Example:
        >>> files_to_fetch("mdiqa-lite")
        []
    """
    keys = dict.fromkeys(manifest()["metrics"][canonical(name)].get("weights", {}).values())
    return [key for key in keys if not _is_here(key)]


def _is_here(key: str) -> bool:
    try:
        return locate(key, fetch=False) is not None
    except WeightsError:  # a file of another package is not installed, or what is here is damaged
        return False


@functools.cache
def manifest() -> dict[str, dict[str, Any]]:
    """The tables of `manifest.toml`: aliases, metrics and files."""
    return tomllib.loads(Path(__file__).with_name("manifest.toml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    """Resolves an alias, or raises ValueError with the closest names."""
    if not isinstance(name, str):
        raise ValueError(f"There is no metric {name!r}: a name is a text, as 'psnr'.")
    tables = manifest()
    name = tables["aliases"].get(name, name)
    if name not in tables["metrics"]:
        near = difflib.get_close_matches(str(name).lower(), [*tables["metrics"], *tables["aliases"]], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(list_metrics())}."
        raise ValueError(f"There is no metric {name!r}: {hint}")
    return name


def metric_class(path: str) -> type[Metric]:
    """Imports the class that a manifest row names as `module.Class`."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"mdiqa_metric.metrics.{module}"), name)


@functools.cache
def metric_classes() -> dict[str, str]:
    """From the class name to `module.Class`, for every class in the manifest."""
    return {row["class"].rpartition(".")[2]: row["class"] for row in manifest()["metrics"].values()}


def locate(key: str, *, fetch: bool = True) -> Path | None:
    """The verified local file of the manifest's row `key`; see `files.locate`."""
    return files.locate(key, manifest()["files"][key], fetch=fetch)


def _from_folder(name: str, kind: Any, folder: Path, options: dict[str, Any]) -> Metric:
    """The metric in a folder written by `save_pretrained`, or holding the authors' original files."""
    if (folder / CONFIG).is_file() and issubclass(kind, HubMixin):
        return kind.from_pretrained(folder, **options)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    try:
        states, found = kind.from_published_files(names, lambda file: read_state(folder / file))
    except TypeError as error:
        holds = f"a folder that save_pretrained wrote, with {CONFIG} and {WEIGHTS}"
        takes = f"a file, or {holds}" if issubclass(kind, HubMixin) else "a file"
        raise WeightsError(f"There is no weight file {folder}, which is a folder: {name} takes {takes}.") from error
    except ValueError as error:
        raise WeightsError(f"{folder} does not hold the files of {name}: {error}") from error
    metric: Metric = kind(**found | options)
    metric.name = name
    state: dict[str, Any] = {}
    for part, content in states.items():
        try:
            state |= _our_keys(kind, part, content)
        except KeyError as error:
            raise WeightsError(f"{part}, read from {folder}, lacks {error}: fetch its files again.") from error
    load(metric, state, states)
    return metric


def _require_path(name: str, path: str) -> str:
    if not path:
        raise ValueError(f"{name} takes a file or folder of weights as {name}=PATH, got none behind the sign.")
    return path


def _types(kind: type[Metric]) -> dict[str, Any]:
    return {"border": int} | get_type_hints(kind.__init__)


def _checked(name: str, option: str, value: Any, kind: Any) -> Any:
    """Checks an option's value against the types in the class's signature; the class itself checks names."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not {bool, int, float} & {*kinds} or (value is None and type(None) in kinds):
        return value
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif int in kinds and isinstance(value, numbers.Integral):
        return int(value)
    elif float in kinds and isinstance(value, numbers.Real):
        return float(value)
    raise ValueError(f"{name} takes {option} as {_describe_types(kinds)}, got {value!r}.")


def _describe_types(kinds: tuple[Any, ...]) -> str:
    words = ["true", "false"] if bool in kinds else []
    words += ["none"] if type(None) in kinds else []
    return " or ".join(words + [f"a{'n' * (kind is int)} {kind.__name__}" for kind in kinds if kind in (int, float)])


def _parse_option(name: str, option: str, text: str, kind: Any) -> Any:
    """Parses an option's value into one of the types in the class's signature."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    words: dict[str, Any] = {"true": True, "false": False} if bool in kinds else {}
    words |= {"none": None} if type(None) in kinds else {}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        if number in kinds:
            with suppress(ValueError):
                return number(text)
    if not {bool, int, float} & {*kinds}:
        return text
    raise ValueError(f"{name} takes {option} as {_describe_types(kinds)}, got {text!r}.")


def _is_pretrained(weights: Any) -> bool:
    return isinstance(weights, str) and weights == "pretrained"


def _check_options(name: str, kind: type[Metric], fixed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    takes = [option for option in inspect.signature(kind).parameters if option not in fixed]
    takes += ["border"] if kind.full_reference and "border" not in takes else []
    if unknown := ", ".join(option for option in options if option not in takes):
        listed = f"it takes {', '.join(takes)}" if takes else "it takes none"
        own = f" and sets {', '.join(f'{key}={value!r}' for key, value in fixed.items())} itself" if fixed else ""
        raise TypeError(f"{name} takes no option {unknown}: {listed}{own}.")


def _collect(metric: Metric, parts: Mapping[str, str], weights: Any) -> dict[str, Any]:
    """A state dict in our layout, from the manifest's files and the weights that the caller gave in their place."""
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
            state |= _our_keys(type(metric), part, content)
        except Exception as error:
            raise WeightsError(
                f"{_describe_source(source)} is not in a layout of {metric.name}'s {part or 'weights'}: "
                f"{type(error).__name__}: {error}."
            ) from error
    try:
        return metric.complete_state(state)
    except Exception as error:
        raise WeightsError(
            f"These weights are not {metric.name}'s: {type(error).__name__}: {first_line(error)}."
        ) from error


def _our_keys(kind: type[Metric], part: str, content: Any) -> dict[str, Any]:
    """The state dict of a part in the metric's own keys."""
    layer = kind.from_published(part, content)
    return {f"{part}.{key}" if part else str(key): value for key, value in layer.items()}


def _is_by_part(weights: Any, parts: Mapping[str, str]) -> bool:
    return isinstance(weights, Mapping) and (
        any(part in parts or part == "" for part in weights)
        or any(isinstance(source, str | os.PathLike) for source in weights.values())
    )


def _pretrained(key: str) -> Path:
    path = locate(key)
    assert path is not None
    row = manifest()["files"][key]
    _log_license(key, row["license"], row.get("commercial", True))
    return path


def _describe_source(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"The given {type(source).__name__}"


@functools.cache
def _log_license(key: str, license: str, commercial: bool) -> None:
    if not commercial:
        _log.warning("The weights %s are under %s, which forbids commercial use.", key, license)
