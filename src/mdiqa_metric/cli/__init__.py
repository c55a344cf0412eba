"""The command line: `mdiqa-metric score | evaluate | list | dataset | train | weights`. The only place that prints.

Results go to stdout, as tables on a terminal and as tab-separated lines in a pipe; progress, failures and errors go to
stderr. Exit codes: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import warnings
from typing import Annotated

import typer

from . import dataset, evaluate, listing, score, train, weights
from .metrics import MetricsCommand
from .printing import safe_streams

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command(cls=MetricsCommand)(score.score)
app.command(cls=MetricsCommand)(evaluate.evaluate)
app.command("list")(listing.list_)
app.add_typer(dataset.app, name="dataset")
app.add_typer(train.app, name="train")
app.add_typer(weights.app, name="weights")


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        with safe_streams():
            print(f"mdiqa_metric {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Image-quality metrics that are good losses."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mdiqa_metric").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="PIL")  # a relevant one is raised as an ImageError
    context.with_resource(safe_streams())
