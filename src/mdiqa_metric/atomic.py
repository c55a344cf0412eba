"""Atomic writing of files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which replaces `path` on success; an error leaves `path` unchanged.

    Raises:
        OSError: the folder cannot be written to.

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
    """Writes an object as an indented .json file, atomically.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot represent.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "facts.json"
        >>> write_json(path, {"n": 2})
        >>> json.loads(path.read_text())
        {'n': 2}
    """
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        dump_json(file, content)


def dump_json(file: TextIO, content: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON to an open text file.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot represent.

    Example:
        >>> import sys
        >>> dump_json(sys.stdout, {"n": 2})
        {
          "n": 2
        }
    """
    json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
    file.write("\n")
