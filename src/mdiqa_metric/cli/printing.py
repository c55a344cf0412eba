"""Printing of tables, progress and errors, for all commands."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SHOWN = 24  # lines that a terminal gets of a long list; a pipe and --out get all
WRAPPED = (
    "image",
    "weights",
    "license",
    "sha256",
    "group",
    "terms",
    "source",
    "table",
)  # the columns that give way where a terminal is narrow

stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)


class _Stream:
    """stdout or stderr whose errors do not end a run, since results may still have to be written to a file.

    A character that the encoding lacks is escaped. After an error (a closed pipe, a full disk), which is kept in
    `lost`, further output is discarded.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        if not self.lost:
            self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            self._try(self._stream.flush)

    def _try(self, action: Callable[..., Any], *arguments: str) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.lost = error
            with suppress(OSError):  # what is buffered would fail again when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Prints through `_Stream` within; exits with 1 if output was lost for another reason than a closed pipe."""
    before = sys.stdout, sys.stderr
    streams = [_Stream(stream or io.StringIO()) for stream in before]  # None where the shell closed it: >&-
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        streams[0].flush()
        lost = streams[0].lost
        spoiled = lost is not None and lost.errno != errno.EPIPE
        if lost and spoiled:
            say(f"What was to be printed is lost: {lost.strerror}.")
        sys.stdout, sys.stderr = before
        if spoiled:
            raise typer.Exit(1)


def is_lost(console: Console) -> bool:
    """Whether output is discarded after an error."""
    return getattr(console.file, "lost", None) is not None


def show(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    words: int | None = None,
    wrapped: Collection[str] = WRAPPED,
) -> None:
    """Prints a table on a terminal, tab-separated lines elsewhere; columns after the first `words` are numbers."""
    if not console.file.isatty():
        return print_lines(console, [columns, *rows])
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        justify: Any = "right" if words and index >= words else "left"
        table.add_column(column.replace("_", "\n"), justify=justify, overflow="fold", no_wrap=column not in wrapped)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # as markup, a file name's brackets would vanish
    console.print(table)


def print_lines(console: Console, rows: Iterable[Sequence[Any]]) -> None:
    """Prints one tab-separated line per row and flushes."""
    for row in rows:
        cells = (str(cell).replace("\t", "\\t").replace("\n", "\\n") for cell in row)
        print(*cells, sep="\t", file=console.file, flush=True)


class Speed(ProgressColumn):
    """Recent speed in images per second."""

    def render(self, task: Task) -> Text:
        """The speed, or "" if there is none yet."""
        return Text(f"{task.speed:.3g} images/s" if task.speed else "")


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on a terminal, nothing elsewhere; yields a function of the images done and their total."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.file.isatty())

    def move(done: int, total: int) -> None:
        if not bar.tasks:  # what was done before is no speed of now
            bar.add_task("", total=total, completed=done)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield move
    finally:
        bar.stop()


@contextmanager
def errors() -> Iterator[None]:
    """Turns errors meant for the user into one line and an exit code: 2 for wrong usage, 1 for a failure."""
    from ..checkpoints.files import WeightsError

    try:
        yield
    except (ValueError, TypeError) as error:
        fail(str(error), 2)
    except (WeightsError, ImportError, OSError) as error:
        fail(str(error), 1)


def fail(text: str, code: int) -> NoReturn:
    """Prints the reason to stderr and exits."""
    say(text)
    raise typer.Exit(code)


def say(text: str) -> None:
    """Prints a red line to stderr."""
    stderr.print(Text(text, style="red"), soft_wrap=True)


def better(fact: Mapping[str, Any]) -> str:
    """The direction of a score, "lower" or "higher"."""
    return "lower" if fact["lower_is_better"] else "higher"


def digits(score: float | None) -> str:
    """A score with four digits, "-" for None."""
    return "-" if score is None else f"{score:.4f}"
