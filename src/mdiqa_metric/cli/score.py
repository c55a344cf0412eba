"""`mdiqa-metric score`: scores of images by metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .choices import Device, Offline, check_destination, check_device, choose_metrics, pair_images
from .metrics import HELP
from .printing import SHOWN, better, digits, errors, is_lost, print_lines, progress, say, show, stderr, stdout

# Metrics that a row of a terminal has room for, and images where there are more.
MANY = 6

Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="Images, folders, patterns: 'out/**/*.png'.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAME", help=HELP)]
Reference = Annotated[str | None, typer.Option(metavar="PATH", help="A folder, paired by file name; or one image.")]
Suffix = Annotated[str, typer.Option(metavar="TEXT", help="What images' names have beyond the references': _x4.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Search folders in depth, pair by the path below them.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write scores to this .csv, .json or .jsonl.")]


def score(
    images: Images,
    metric: Metrics = None,
    reference: Reference = None,
    suffix: Suffix = "",
    recursive: Recursive = False,
    out: Out = None,
    device: Device = "cpu",
    offline: Offline = False,
) -> None:
    """Score images, each alone at its own size.

    The default metric is mdiqa-lite, with a reference lpips-alex; --metric all takes every one.

    An image that cannot be scored is listed with its reason and makes the exit code 1; the others go on.

    std is the population's. Images in several folders have a mean for each.

    Names with more than a suffix: --suffix 'sr_{stem}_x4'.
    """
    from ..data.pairing import left_out
    from ..evaluation import scoring
    from ..registry import create

    with errors():
        names = choose_metrics(metric or [], reference, offline)
        check_device(device)
        if out:
            check_destination(out, "Scores", scoring.WRITERS)
        pairs = pair_images(images, reference, suffix=suffix, recursive=recursive)
        if others := left_out([*images, *([reference] if reference else [])], recursive=recursive):
            shown = ", ".join(path.name for path in others[:5]) + (", ..." if len(others) > 5 else "")
            say(f"Left out, as their suffixes are no image's: {shown} ({len(others)}).")
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
                if is_lost(stdout) and not out:
                    raise typer.Exit(1)  # nobody would get the scores
            if row["error"]:
                say(row["error"] if row["image"] in row["error"] else f"{row['image']}: {row['error']}")
            move(len(rows), len(pairs))
    left = pairs[len(rows) :]
    rows += [scoring.score_row(*pair, names, error="interrupted before it was scored") for pair in left]
    summary = scoring.summarize(metrics, rows)
    try:
        if out:
            with errors():
                scoring.write_scores(out, rows, summary)
    finally:  # where the file cannot be written, the terminal still gets them
        if not piped:
            _show_images(rows, names)
        _show_summary(stderr if piped else stdout, summary)
        _show_folders(stderr if piped else stdout, scoring.folder_means(names, rows))
    if failed := sum(row["error"] is not None for row in rows):
        say(f"{failed} of {len(rows)} not scored{': interrupted' if left else ''}.")
    raise typer.Exit(130 if left else min(failed, 1))


def _show_images(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    if len(names) > MANY:  # a row for each metric, a column for each image
        shown = rows[:MANY]
        table = [[name, *(digits(row[name]) for row in shown)] for name in names]
        show(stdout, ["metric", *(Path(row["image"]).name for row in shown)], table, words=1)
        if left := len(rows) - len(shown):
            stdout.print(f"and {left} more images, which --out or a pipe gets", style="dim")
        stdout.print()
        return
    _show_some(stdout, ["image", *names], [[row["image"], *(digits(row[name]) for name in names)] for row in rows])
    stdout.print()


def _show_summary(console: Console, summary: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("mean", "std", "min", "max")
    rows = [[name, better(row), *(digits(row[key]) for key in columns), row["n"]] for name, row in summary.items()]
    show(console, ["metric", "better", *columns, "n"], rows, words=2)


def _show_folders(console: Console, means: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    if len(means) < 2:
        return
    rows = [[folder or ".", *(digits(row["mean"]) for row in of.values())] for folder, of in means.items()]
    _show_some(console, ["mean of folder", *next(iter(means.values()))], rows)


def _show_some(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints all rows to a pipe, the first ones to a terminal."""
    shown = rows[:SHOWN] if console.file.isatty() else rows
    show(console, columns, shown, words=1)
    if len(rows) > len(shown):
        console.print(f"and {len(rows) - len(shown)} more, which --out or a pipe gets", style="dim")
