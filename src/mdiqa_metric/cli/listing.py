"""`mdiqa-metric list`: the metrics and their facts."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from .choices import Offline
from .printing import better, show, stdout
from .weights import terms, weight_files


def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Every fact, for programs.")] = False, offline: Offline = False
) -> None:
    """List the metrics: kind, direction, range, whether it can be a loss, weights, license and size."""
    from ..registry import list_metrics

    facts = [facts_of(name) for name in list_metrics(offline=offline)]
    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    rows = [
        [
            fact["name"],
            "FR" if fact["full_reference"] else "NR",
            better(fact),
            _range(*fact["score_range"]),
            "yes" if fact["differentiable"] else "no",
            " + ".join(fact["sources"]) or "none",
            " + ".join(fact["licenses"]) + terms(fact),
            fact["size"],
        ]
        for fact in facts
    ]
    show(stdout, ["metric", "kind", "better", "range", "loss", "weights", "license", "size"], rows)


def facts_of(name: str) -> dict[str, Any]:
    """The facts that `list` prints of a metric, from its class and options, without building a network."""
    from ..checkpoints.files import size_of
    from ..registry import manifest, metric_class

    row = manifest()["metrics"][name]
    kind = metric_class(row["class"])
    stated = kind.facts(**row.get("options", {}))
    parts = row.get("weights", {})
    files = [weight_files()[key] for key in dict.fromkeys(parts.values())]
    sizes = [file.get("size", math.nan) for file in files]
    return {
        "name": name,
        "full_reference": kind.full_reference,
        "lower_is_better": kind.lower_is_better,
        "score_range": [bound if math.isfinite(bound) else None for bound in stated["score_range"]],
        "differentiable": stated["differentiable"],
        "min_size": stated["min_size"],
        "weights": parts,
        "sources": list(dict.fromkeys(file["where"] for file in files)),
        "licenses": list(dict.fromkeys(file["license"] for file in files)),
        "commercial": all(file.get("commercial", True) for file in files),
        "size": size_of({"size": sum(sizes)} if math.isfinite(sum(sizes)) else {}) if files else "",
    }


def _range(lowest: float | None, highest: float | None) -> str:
    return f"{'-inf' if lowest is None else f'{lowest:g}'}..{'inf' if highest is None else f'{highest:g}'}"
