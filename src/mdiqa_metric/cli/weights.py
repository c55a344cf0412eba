"""`mdiqa-metric weights`: lists, fetches and verifies weight files, and shows their cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from .printing import errors, fail, print_lines, say, show, stdout

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify weight files, and print their cards.")

Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Metrics, or files of `weights list`.")]
All = Annotated[bool, typer.Option("--all", help="Every file there is.")]


@app.command("list")
def weights_list() -> None:
    """List the weight files: source, size, license, whether they are on this disk, and hash."""
    from ..checkpoints.files import size_of

    rows = [
        [key, row["where"], size_of(row), row["license"] + terms(row), _state(key), _hash(row)]
        for key, row in weight_files().items()
    ]
    show(stdout, ["file", "source", "size", "license", "on this disk", "sha256"], rows)


@app.command()
def fetch(names: Names = None, everything: All = False) -> None:
    """Download the weights that are not here yet, verify them, and print their paths."""
    from ..checkpoints.files import WeightsError
    from ..registry import locate

    if bool(names) == everything:
        fail("Name metrics or files to fetch, or pass --all.", 2)
    failed = False
    for key in _keys(names or []):
        try:
            print_lines(stdout, [[key, locate(key)]])
        except WeightsError as error:
            failed = True
            say(str(error))
    raise typer.Exit(int(failed))


@app.command()
def verify(names: Names = None) -> None:
    """Hash the weights that are on this disk (all without a name); exit with 1 if one is not as published."""
    states = {key: _state(key) for key in _keys(names or [])}
    show(stdout, ["file", "on this disk"], list(states.items()))
    raise typer.Exit(int("damaged" in states.values()))


@app.command()
def card(names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Metrics or files.")]) -> None:
    """Print the cards of weights: what they are, where they come from and what their license asks."""
    from ..registry import locate

    for key in _keys(names):
        row = weight_files()[key]
        text = f"# {key}\n\n" + "".join(f"* {fact}: {value}\n" for fact, value in row.items())
        if row["where"] == "embedded":
            with errors():
                page = Path(str(locate(key))).with_suffix(".md")
            text = page.read_text(encoding="utf-8") if page.is_file() else text
        stdout.print(Markdown(text)) if stdout.file.isatty() else print(text)


def weight_files() -> Mapping[str, Any]:
    """The manifest's rows of files."""
    from ..registry import manifest

    return manifest().get("files", {})


def _keys(names: Sequence[str]) -> list[str]:
    """The weight files that names of files and metrics stand for; all without a name."""
    from ..registry import canonical, manifest

    keys: dict[str, None] = {}
    with errors():
        for name in names or weight_files():
            parts = {"": name} if name in weight_files() else manifest()["metrics"][canonical(name)].get("weights", {})
            keys |= dict.fromkeys(parts.values())
    return list(keys)


def _state(key: str) -> str:
    from ..checkpoints.files import WeightsError
    from ..registry import locate

    try:
        return "verified" if locate(key, fetch=False) else "no"
    except WeightsError as error:
        say(str(error))
        return "damaged"


def _hash(row: Mapping[str, Any]) -> str:
    known = row.get("sha256") or row.get("sha256_prefix", "unknown")
    return known[:12] + (" (unconfirmed)" if row.get("unconfirmed") else "")


def terms(fact: Mapping[str, Any]) -> str:
    """What to add to a license that forbids commerce."""
    return "" if fact.get("commercial", True) else " (non-commercial)"
