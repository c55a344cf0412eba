"""`mdiqa-metric dataset`: converts a data set as released to the table that the other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .choices import check_destination
from .printing import errors, say, show, stdout

app = typer.Typer(no_args_is_help=True, help="Make tables of data sets as their authors release them.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of `dataset list`.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that its archives unpack to.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="A .csv or .parquet table; DIR/table.csv by default.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Draw train (80%) and test by scene, for want of a split.")]


@app.command("list")
def list_() -> None:
    """List the data sets that `convert` reads: rated images, published scale from worst to best, terms and paper."""
    from ..data.converters import CONVERTERS

    rows = [
        [name, facts.images, "{:g}..{:g}".format(*facts.scale) if facts.scale else "open", facts.terms, facts.source]
        for name, facts in CONVERTERS.items()
    ]
    show(stdout, ["name", "images", "scale", "terms", "source"], rows)


@app.command()
def convert(name: Name, folder: Folder, out: Out = None, seed: Seed = None) -> None:
    """Write the table of a data set. Missing, duplicate or unexpected files are listed, and make the exit code 1.

    mos is in [0, 1], higher is better; raw is the published number.
    """
    from ..data.converters import convert as read
    from ..data.tables import SUFFIXES, write_table

    path = out or folder / "table.csv"
    with errors():
        check_destination(path, "Tables", SUFFIXES)
        table, problems = read(name, folder, seed)
        write_table(table, path, folder)
    for problem in problems:
        say(problem)
    splits = table["split"].value_counts().items() if "split" in table else ()
    show(stdout, ["table", "images", "splits"], [[path, len(table), " ".join(f"{key}:{n}" for key, n in splits)]])
    raise typer.Exit(int(bool(problems)))
