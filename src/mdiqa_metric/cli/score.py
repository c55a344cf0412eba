"""`mdiqa-metric score`: pictures through metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .printing import SHOWN, better, digits, errors, print_lines, progress, say, show, stderr, stdout

Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="Pictures, folders, patterns: 'out/**/*.png'.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of `mdiqa-metric list`; may be repeated.")]
Reference = Annotated[str | None, typer.Option(metavar="PATH", help="A folder, paired by file name; or one picture.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write scores to this .csv, .json or .jsonl.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, ...")]


def score(
    images: Images, metric: Metrics = None, reference: Reference = None, out: Out = None, device: Device = "cpu"
) -> None:
    """Score pictures, each alone at its own size.

    The default metric is mdiqa-lite, with a reference stlpips-alex.

    A picture that cannot be scored is listed with its reason and makes the exit code 1; the others go on.

    std is the population's.
    """
    from .. import scoring
    from ..weights import create

    with errors():
        names = scoring.choose_metrics(metric or [], reference)
        scoring.check_device(device)
        if out:
            scoring.check_destination(out, "Scores", scoring.WRITERS)
        pairs = scoring.pair_images(images, reference)
        metrics = {name: create(name).to(device) for name in names}
    piped = not stdout.file.isatty()
    if piped:
        print_lines(stdout, [["image", *metrics]])
    rows = []
    with suppress(KeyboardInterrupt), progress() as move:
        move(0, len(pairs))
        for row in scoring.score_images(metrics, pairs, device):
            rows.append(row)
            if piped:
                scores = ("nan" if row[name] is None else f"{row[name]:.7g}" for name in names)
                print_lines(stdout, [[row["image"], *scores]])
            if row["error"]:
                say(row["error"] if row["image"] in row["error"] else f"{row['image']}: {row['error']}")
            move(len(rows), len(pairs))
    left = pairs[len(rows) :]
    rows += [scoring.score_row(*pair, names, error="interrupted before it was scored") for pair in left]
    summary = scoring.summarize(metrics, rows)
    if out:
        with errors():
            scoring.write_scores(out, rows, summary)
    if not piped:
        _show_images(rows, names)
    _show_summary(stderr if piped else stdout, summary)
    if failed := sum(row["error"] is not None for row in rows):
        say(f"{failed} of {len(rows)} not scored{': interrupted' if left else ''}.")
    raise typer.Exit(130 if left else min(failed, 1))


def _show_images(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    shown = [[row["image"], *(digits(row[name]) for name in names)] for row in rows[:SHOWN]]
    show(stdout, ["image", *names], shown, words=1)
    if len(rows) > SHOWN:
        stdout.print(f"and {len(rows) - SHOWN} more, which --out or a pipe gets", style="dim")
    stdout.print()


def _show_summary(console: Console, summary: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("mean", "std", "min", "max")
    rows = [[name, better(row), *(digits(row[key]) for key in columns), row["n"]] for name, row in summary.items()]
    show(console, ["metric", "better", *columns, "n"], rows, words=2)
