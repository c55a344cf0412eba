"""Scores kept where a kill cannot reach them.

A store is a folder with one file a process: its first line says what is scored, then comes a line an image, written at
once, with the stamps of its files. What has no newline is no line, and what has other stamps by now is not done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .distributed import Processes
from .scoring import Row


class StoreError(ValueError):
    """A store cannot be gone on from; the text says what differs and the mend."""


def load_completed(
    store: Any, identity: Row, stamps: Callable[[int], list[list[int] | None]], processes: Processes
) -> dict[int, Row]:
    """The images that are done, the same in every process; an error of one is raised in all.

    Args:
        store: the folder, or None.
        identity: what its first lines must say.
        stamps: the stamps of an image's files as they are now.
        processes: those that share the work.
    """
    kept: list[Row] = []
    trouble = None
    try:
        kept = _read_store(Path(store), identity) if store is not None else []
    except StoreError as error:
        trouble = error
    # After a change an image may have rows in several files: the one of its files as they are is right, wherever.
    rows = {row["index"]: row for row in kept if row["files"] == stamps(row["index"])}
    found = processes.gather((trouble, {row["index"] for row in kept}, {*rows}))
    for trouble, _, _ in found:
        if trouble:
            raise trouble
    if any(written != found[0][1] for _, written, _ in found):
        raise StoreError(f"The processes find different scores in {store}: give a folder that all of them see.")
    done = set.intersection(*(unchanged for _, _, unchanged in found))
    return {index: rows[index] for index in sorted(done)}


def _read_store(folder: Path, identity: Row) -> list[Row]:
    """The rows of all images that every metric scored, checked."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise StoreError(
                    f"Line {number + 1} of {path} is damaged. Delete the line to score its image again, or {folder} "
                    "to score all."
                ) from error
            if number == 0:
                _check_identity(folder, row, identity)
            elif not row["errors"]:
                rows.append(row)
    return rows


def _check_identity(folder: Path, then: Row, now: Row) -> None:
    if then.get("store") != now["store"]:
        raise StoreError(
            f"{folder} was begun by another version of mdiqa_metric, which kept scores in another form (without the "
            "sizes and times of the image files, nothing tells which have changed). Delete the folder to score all "
            "anew, or choose another place."
        )
    differing = [key for key in then | now if then.get(key, "none") != now.get(key, "none")]
    if differing:
        lines = "; ".join(f"{key} was {then.get(key, 'none')}, is {now.get(key, 'none')}" for key in differing)
        raise StoreError(
            f"{folder} holds scores of another evaluation ({lines}). Ask for the same one to go on with it, delete the "
            "folder to begin anew, or choose another place."
        )


@contextmanager
def open_log(store: Any, identity: Row, process: int) -> Iterator[Callable[[Row], None]]:
    """Yields a function that appends a row to the store, after the last complete line."""
    if store is None:
        yield lambda row: None
        return
    path = Path(store) / f"scores-{process}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    end = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
    with path.open("ab") as file:
        file.truncate(end)

        def keep(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=True, allow_nan=False).encode() + b"\n")
            file.flush()

        if end == 0:
            keep(identity)
        yield keep
