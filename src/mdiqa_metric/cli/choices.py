"""Checks of a command's options before anything is scored, and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, ...")]
Offline = Annotated[bool, typer.Option("--offline", help="Only metrics that need no download.")]


def choose_metrics(names: Sequence[str], reference: str | None, offline: bool = False) -> list[str]:
    """The metrics to score with, each in the form of `Spec`; by default mdiqa-lite, or lpips-alex with a reference.

    "all" stands for every metric that can be had: without a reference, every no-reference one.

    Raises:
        ValueError, TypeError: an unknown name or option, metrics and reference that do not go together, or, if
            `offline`, one whose weights are not here.
    """
    from ..registry import Spec, files_to_fetch, list_metrics

    default = "mdiqa-lite" if reference is None else "lpips-alex"
    names = names or [default]
    if "all" in names:
        names = list_metrics(None if reference else False, offline=offline)
    specs = {str(spec): spec for spec in map(Spec.parse, names)}
    if offline and (absent := [name for name, spec in specs.items() if not spec.weights and files_to_fetch(spec.name)]):
        raise ValueError(f"A download is needed for {', '.join(absent)}: leave --offline out.")
    comparing = [name for name, spec in specs.items() if spec.metric_class.full_reference]
    if comparing and reference is None:
        raise ValueError(f"A reference is needed for {', '.join(comparing)}: give --reference FOLDER or FILE.")
    if reference is not None and not comparing:
        raise ValueError(f"No reference is needed for {', '.join(specs)}: leave --reference out.")
    return [*specs]


def check_device(name: str) -> None:
    """Raises ValueError if a tensor cannot be created on the device of that name and read back."""
    import torch

    try:
        torch.ones(1, device=name).item()
    except Exception as error:
        here = ["cpu", *(kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available())]
        raise ValueError(f"The device {name} cannot be used here: this machine has {' and '.join(here)}.") from error


def pair_images(
    images: Sequence[str], reference: str | None, *, suffix: str = "", recursive: bool = False
) -> list[tuple[Path, Path | None]]:
    """The images of folders, patterns and files, each with its reference.

    Args:
        images: as in `pairing.list_images`.
        reference: a folder or a pattern, paired by name, or one file for all; None pairs each with None.
        suffix: what the images' names have beyond the references', as in `pairing.pair_by_stem`.
        recursive: search folders in depth and pair by the path below them.

    Raises:
        ImageError: nothing is found, or names do not match.
        ValueError: a suffix where nothing is paired by name.
    """
    from ..data.pairing import ImageError, list_images, pair_files

    one_for_all = reference is not None and list_images(reference, recursive=recursive) == [Path(reference)]
    if suffix and (reference is None or one_for_all):
        raise ValueError("A suffix pairs images with references by name: give --reference FOLDER, or no --suffix.")
    if reference is not None and not one_for_all:
        return [*pair_files(images, reference, suffix=suffix, recursive=recursive)]
    if reference is not None and not Path(reference).exists():
        raise ImageError(f"There is no reference {reference}: check the path.")
    against = None if reference is None else Path(reference)
    return [(file, against) for file in list_images(images, recursive=recursive)]


def check_destination(path: Path, what: str, suffixes: Collection[str]) -> None:
    """Raises ValueError if a file cannot be written there, before an hour of scoring rather than after."""
    if path.suffix not in suffixes:
        raise ValueError(f"{what} are written to {', '.join(suffixes)}, got {path}: choose such a suffix.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} in: make it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: choose another place.")
