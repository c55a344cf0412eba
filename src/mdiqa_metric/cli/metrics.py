"""Parsing of `--metric A B` as `--metric A --metric B`, each with its options and weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

HELP = "Of `mdiqa-metric list`, as psnr, psnr-y-studio:border=4 or mdiqa=FOLDER; several may follow."


class MetricsCommand(TyperCommand):
    """A command whose option `--metric` accepts several metrics."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments after `spread`."""
        return super().parse_args(ctx, spread(args))


def spread(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--metric` inserted before each further metric; file names are left alone.

    >>> spread(["out", "--metric", "psnr", "ssim:border=4", "--out", "s.csv"])
    ['out', '--metric', 'psnr', '--metric', 'ssim:border=4', '--out', 's.csv']
    """
    found: list[str] = []
    following = False  # whether the word before was a metric
    for index, word in enumerate(arguments):
        if word == "--":
            return [*found, *arguments[index:]]
        if following and _is_metric(word):
            found.append("--metric")
        found.append(word)
        after_option = index > 0 and arguments[index - 1] == "--metric"
        following = after_option or word.startswith("--metric=") or (following and found[-2] == "--metric")
    return found


def _is_metric(word: str) -> bool:
    """Whether a word looks like a metric, known or not, rather than an option, a file, a folder or a pattern."""
    from ..data.pairing import SUFFIXES

    name = re.fullmatch(r"(\w[\w.-]*)([:=].*)?", word)
    if not name or Path(word).exists():
        return False
    return bool(name[2]) or Path(word).suffix.lower() not in SUFFIXES
