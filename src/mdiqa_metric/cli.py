"""The command line: `mdiqa-metric score | list | weights`. The only place that prints.

Results go to stdout, as tables on a terminal and as tab-separated lines in a pipe; progress, failures and errors go to
stderr. Exit codes: 0 done, 1 something failed, 2 asked wrongly, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SHOWN = 24  # pictures that a terminal lists one by one; a pipe and --out get all
WRAPPED = ("image", "weights", "licence", "sha256")  # the columns that give way where a terminal is narrow

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
weights_app = typer.Typer(no_args_is_help=True, help="List, fetch and verify weight files, and print their cards.")
app.add_typer(weights_app, name="weights")
stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)

Images = Annotated[list[str], typer.Argument(metavar="IMAGES", help="Pictures, folders, patterns: 'out/**/*.png'.")]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of `mdiqa-metric list`; may be repeated.")]
Reference = Annotated[str | None, typer.Option(metavar="PATH", help="A folder, paired by file name; or one picture.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write scores to this .csv, .json or .jsonl.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, ...")]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Metrics, or files of `weights list`.")]
All = Annotated[bool, typer.Option("--all", help="Every file there is.")]


def _version(asked: bool) -> None:
    if asked:
        from . import __version__

        print(f"mdiqa_metric {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Image-quality metrics that are honest measures and good losses."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mdiqa_metric").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="PIL")  # what matters of them comes as an ImageError


@app.command()
def score(
    images: Images, metric: Metrics = None, reference: Reference = None, out: Out = None, device: Device = "cpu"
) -> None:
    """Score pictures, each alone at its own size.

    With a reference the default metric is stlpips-alex.

    A picture that cannot be scored is listed with its reason and makes the exit code 1; the others go on.

    std is the population's.
    """
    from . import scoring
    from .weights import create

    with _errors():
        names = scoring.choose_metrics(metric or [], reference)
        scoring.check_device(device)
        if out:
            scoring.check_destination(out)
        pairs = scoring.pair_images(images, reference)
        metrics = {name: create(name).to(device) for name in names}
    piped = not stdout.file.isatty()
    if piped:
        _print(stdout, [["image", *metrics]])
    rows = []
    with suppress(KeyboardInterrupt), _progress(len(pairs)) as advance:
        for row in scoring.score_images(metrics, pairs, device):
            rows.append(row)
            if piped:
                scores = ("nan" if row[name] is None else f"{row[name]:.7g}" for name in names)
                _print(stdout, [[row["image"], *scores]])
            if row["error"]:
                _say(row["error"] if row["image"] in row["error"] else f"{row['image']}: {row['error']}")
            advance()
    left = pairs[len(rows) :]
    rows += [scoring.score_row(*pair, names, error="interrupted before it was scored") for pair in left]
    summary = scoring.summarize(metrics, rows)
    if out:
        with _errors():
            scoring.write_scores(out, rows, summary)
    if not piped:
        _show_images(rows, names)
    _show_summary(stderr if piped else stdout, summary)
    if failed := sum(row["error"] is not None for row in rows):
        _say(f"{failed} of {len(rows)} not scored{': interrupted' if left else ''}.")
    raise typer.Exit(130 if left else min(failed, 1))


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Every fact, for programs.")] = False) -> None:
    """List the metrics: kind, direction, range, whether it can be a loss, weights, licence and size."""
    from .weights import list_metrics

    facts = [_facts(name) for name in list_metrics()]
    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    rows = [
        [
            fact["name"],
            "FR" if fact["full_reference"] else "NR",
            _better(fact),
            _range(*fact["score_range"]),
            "yes" if fact["differentiable"] else "no",
            " + ".join(fact["sources"]) or "none",
            " + ".join(fact["licences"]) + _terms(fact),
            fact["size"],
        ]
        for fact in facts
    ]
    _show(stdout, ["metric", "kind", "better", "range", "loss", "weights", "licence", "size"], rows)


@weights_app.command("list")
def weights_list() -> None:
    """List the weight files: source, size, licence, whether they are on this disk, and hash."""
    from .files import size_of

    rows = [
        [key, row["where"], size_of(row), row["licence"] + _terms(row), _state(key), _hash(row)]
        for key, row in _files().items()
    ]
    _show(stdout, ["file", "source", "size", "licence", "on this disk", "sha256"], rows)


@weights_app.command()
def fetch(names: Names = None, everything: All = False) -> None:
    """Download the weights that are not here yet, verify them, and print where they lie."""
    from .weights import WeightsError, locate

    if bool(names) == everything:
        _fail("Name metrics or files to fetch, or pass --all.", 2)
    failed = False
    for key in _keys(names or []):
        try:
            _print(stdout, [[key, locate(key)]])
        except WeightsError as error:
            failed = True
            _say(str(error))
    raise typer.Exit(int(failed))


@weights_app.command()
def verify(names: Names = None) -> None:
    """Hash the weights that are on this disk (all without a name); exit with 1 where one is not as published."""
    states = {key: _state(key) for key in _keys(names or [])}
    _show(stdout, ["file", "on this disk"], list(states.items()))
    raise typer.Exit(int("damaged" in states.values()))


@weights_app.command()
def card(names: Annotated[list[str], typer.Argument(metavar="NAMES", help="Metrics or files.")]) -> None:
    """Print the cards of weights: what they are, where they come from and what their licence asks."""
    from .weights import locate

    for key in _keys(names):
        row = _files()[key]
        text = f"# {key}\n\n" + "".join(f"* {fact}: {value}\n" for fact, value in row.items())
        if row["where"] == "embedded":
            with _errors():
                page = Path(str(locate(key))).with_suffix(".md")
            text = page.read_text(encoding="utf-8") if page.is_file() else text
        stdout.print(Markdown(text)) if stdout.file.isatty() else print(text)


def _files() -> Mapping[str, Any]:
    from .weights import manifest

    return manifest().get("files", {})


def _keys(names: Sequence[str]) -> list[str]:
    """The weight files that names of files and metrics stand for; all without a name."""
    from .weights import canonical, manifest

    keys: dict[str, None] = {}
    with _errors():
        for name in names or _files():
            parts = {"": name} if name in _files() else manifest()["metrics"][canonical(name)].get("weights", {})
            keys |= dict.fromkeys(parts.values())
    return list(keys)


def _facts(name: str) -> dict[str, Any]:
    """What `list` says of a metric, which is built on the meta device, where it costs no memory."""
    import torch

    from .files import size_of
    from .weights import manifest, metric_class

    row = manifest()["metrics"][name]
    with torch.device("meta"):
        metric = metric_class(row["class"])(**row.get("options", {}))
    parts = row.get("weights", {})
    files = [_files()[key] for key in dict.fromkeys(parts.values())]
    sizes = [file.get("size", math.nan) for file in files]
    return {
        "name": name,
        "full_reference": metric.full_reference,
        "lower_is_better": metric.lower_is_better,
        "score_range": [bound if math.isfinite(bound) else None for bound in metric.score_range],
        "differentiable": metric.differentiable,
        "min_size": metric.min_size,
        "weights": parts,
        "sources": list(dict.fromkeys(file["where"] for file in files)),
        "licences": list(dict.fromkeys(file["licence"] for file in files)),
        "commercial": all(file.get("commercial", True) for file in files),
        "size": size_of({"size": sum(sizes)} if math.isfinite(sum(sizes)) else {}) if files else "",
    }


def _state(key: str) -> str:
    from .weights import WeightsError, locate

    try:
        return "verified" if locate(key, fetch=False) else "no"
    except WeightsError as error:
        _say(str(error))
        return "damaged"


def _hash(row: Mapping[str, Any]) -> str:
    known = row.get("sha256") or row.get("sha256_prefix", "unknown")
    return known[:12] + (" (unconfirmed)" if row.get("unconfirmed") else "")


def _better(fact: Mapping[str, Any]) -> str:
    return "lower" if fact["lower_is_better"] else "higher"


def _range(lowest: float | None, highest: float | None) -> str:
    return f"{'-inf' if lowest is None else f'{lowest:g}'}..{'inf' if highest is None else f'{highest:g}'}"


def _terms(fact: Mapping[str, Any]) -> str:
    return "" if fact.get("commercial", True) else " (non-commercial)"


def _digits(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _show_images(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    shown = [[row["image"], *(_digits(row[name]) for name in names)] for row in rows[:SHOWN]]
    _show(stdout, ["image", *names], shown, words=1)
    if len(rows) > SHOWN:
        stdout.print(f"and {len(rows) - SHOWN} more, which --out or a pipe gets", style="dim")
    stdout.print()


def _show_summary(console: Console, summary: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("mean", "std", "min", "max")
    rows = [[name, _better(row), *(_digits(row[key]) for key in columns), row["n"]] for name, row in summary.items()]
    _show(console, ["metric", "better", *columns, "n"], rows, words=2)


def _show(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], words: int | None = None) -> None:
    """A table on a terminal, tab-separated lines elsewhere; after the first `words` columns come numbers."""
    if not console.file.isatty():
        return _print(console, [columns, *rows])
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        justify: Any = "right" if words and index >= words else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in WRAPPED)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # as markup, a file name's brackets would vanish
    console.print(table)


def _print(console: Console, rows: Iterable[Sequence[Any]]) -> None:
    for row in rows:
        cells = (str(cell).replace("\t", "\\t").replace("\n", "\\n") for cell in row)
        print(*cells, sep="\t", file=console.file, flush=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; yields what moves it on by one."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.file.isatty()) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors meant for the user become one line and an exit code: 2 where they asked wrongly, 1 where it went wrong."""
    from .weights import WeightsError

    try:
        yield
    except (ValueError, TypeError) as error:
        _fail(str(error), 2)
    except (WeightsError, OSError) as error:
        _fail(str(error), 1)


def _fail(text: str, code: int) -> NoReturn:
    _say(text)
    raise typer.Exit(code)


def _say(text: str) -> None:
    stderr.print(Text(text, style="red"), soft_wrap=True)
