"""Reading weight files, and loading a state dict into a metric strictly."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..metric import Metric
from .caffe import read_caffemodel
from .download import first_line
from .files import WeightsError


def read_state(path: str | os.PathLike[str], allow: Iterable[str] = ()) -> Any:
    """The content of a weight file: a state dict, or the container its authors put around it. Runs no pickled code.

    Args:
        path: a .safetensors, .npz, .mat or .caffemodel file; any other suffix is read as what `torch.save` writes.
        allow: classes and functions ("module.name", as the pickle spells it) that it needs besides tensors.

    Raises:
        WeightsError: the file does not exist, cannot be read, or would run code.
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

            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _tensors(arrays)
        if path.suffix == ".mat":
            from scipy.io import loadmat

            # MATLAB stores doubles that happen to be whole in the smallest integer type; mat_dtype undoes that.
            arrays = loadmat(path, mat_dtype=True)
            return {key: _matlab_content(value) for key, value in arrays.items() if not key.startswith("__")}
        if path.suffix == ".caffemodel":
            return read_caffemodel(path)
        with _allow_globals(allow):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise WeightsError(f"Reading {path} needs {error.name}: pip install {error.name}.") from error
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (foreign := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise WeightsError(
                f"{path} holds {foreign[1]} beside tensors, and unpickling it could run code: refused. "
                "Save its tensors alone, best as .safetensors."
            ) from error
        # What torch adds to this error is advice to unpickle it all the same.
        reason = "" if isinstance(error, pickle.UnpicklingError) else f": {first_line(error)}"
        raise WeightsError(f"{path} is no readable {path.suffix or 'weight'} file{reason}.") from error


@contextmanager
def cpu_float32() -> Iterator[None]:
    """Networks built inside are on the CPU, in float32 and trainable, whatever the process's defaults are.

    The default dtype and the random state are restored afterwards.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def load(metric: Metric, state: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Copies a state dict into a metric; keys, shapes and kinds of dtype must match exactly.

    Raises:
        WeightsError: it does not fit; the message lists what is missing, foreign and wrong, and names the `parts`.
    """
    wanted = metric.state_dict()
    missing, foreign = [key for key in wanted if key not in state], [key for key in state if key not in wanted]
    faults = [fault for key in wanted if key in state and (fault := _fault(key, state[key], wanted[key]))]
    complaints = [f"{len(missing)} missing ({_few(missing)})"] if missing else []
    complaints += [f"{len(foreign)} foreign ({_few(foreign)})"] if foreign else []
    complaints += [_few(faults)] if faults else []
    if complaints:
        by_part = ", ".join(f'"{part}": ...' for part in parts if part)
        raise WeightsError(
            f"These weights are not {metric.name}'s: of its {len(wanted)} tensors, {'; '.join(complaints)}. "
            f"Give its own file{f', or by part as {{{by_part}}}' if by_part else ''}."
        )
    metric.load_state_dict(state, strict=True)


def _fault(key: str, value: Any, wanted: Tensor) -> str:
    if not isinstance(value, Tensor):
        return f"{key} is a {type(value).__name__}, no tensor"
    if value.shape != wanted.shape and wanted.numel():  # an empty tensor takes the shape of the file
        return f"{key} is {tuple(value.shape)}, not {tuple(wanted.shape)}"
    if value.is_floating_point() != wanted.is_floating_point():
        return f"{key} is {value.dtype}, not {wanted.dtype}"
    return f"{key} holds NaN" if value.isnan().any() else ""


def _few(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    native = {key: arrays[key].astype(arrays[key].dtype.newbyteorder("="), copy=False) for key in arrays}
    return {key: torch.from_numpy(array) for key, array in native.items()}


def _matlab_content(value: Any) -> Any:
    """A tensor of numbers; a list of a cell array, column by column; a dict of a struct's fields, in their order."""
    if value.dtype.names:
        records = [{name: _matlab_content(record[name]) for name in value.dtype.names} for record in value.ravel("F")]
        return records[0] if len(records) == 1 else records
    if value.dtype == object:
        return [_matlab_content(item) for item in value.ravel("F")]
    return value.tolist() if value.dtype.kind in "US" else _tensors({"": value})[""]


def _allow_globals(names: Iterable[str]) -> Any:
    """A context in which pickles may use those names; what the caller had allowed before stays allowed after."""
    pairs = [(_named(name), name) for name in names]
    known = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([pair for pair in pairs if pair not in known])


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module.replace("numpy.core.", "numpy._core.")), name)
