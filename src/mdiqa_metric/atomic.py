"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces it on success; an error leaves what was there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> with atomic_write(path) as partial:
        ...     _ = partial.write_text("image,psnr")
        >>> path.read_text()
        'image,psnr'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as .json, atomically.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        dump_json(file, content)


def dump_json(file: TextIO, content: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON to an open file."""
    json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
    file.write("\n")
