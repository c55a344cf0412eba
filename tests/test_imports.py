"""The house's import order, and what `import mdiqa_metric` may cost."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mdiqa_metric"

# A module imports only what stands before it.
ORDER = (
    *("atomic", "ops", "layers", "backbones", "extras", "checks", "frozen", "metric", "download", "files", "states"),
    *("official", "sharing", "dimensions", "metrics", "loss", "weights", "trained", "pairing", "io", "scoring"),
    *("tables", "data", "converters", "correlations", "logistic", "agreement", "distributed", "resume_log"),
    *("evaluate", "report", "train", "cli"),
)


def places():
    """Each module as (file, its place in the house)."""
    return [
        (path, path.relative_to(SOURCE).with_suffix("").parts)
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    ]


def imported(path, parts):
    """The modules of this package that a file imports anywhere, as tuples of names below the package."""
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1]
                targets = [base + module] if module else [(*base, alias.name) for alias in node.names]
            elif module[:1] == ("mdiqa_metric",):
                targets = [module[1:]] if module[1:] else [(alias.name,) for alias in node.names]
            else:
                targets = []
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            targets = [name[1:] for name in names if name[0] == "mdiqa_metric"]
        else:
            targets = []
        yield from (target for target in targets if target and target != ("__version__",))


@pytest.mark.parametrize(
    ("path", "parts"), places(), ids=lambda value: "/".join(value) if isinstance(value, tuple) else ""
)
def test_a_module_imports_only_what_stands_before_it(path, parts):
    assert parts[0] in ORDER, f"give {parts[0]} its place in ORDER and in the architecture"
    for target in imported(path, parts):
        rank, own = ORDER.index(target[0]), ORDER.index(parts[0])
        inside = target[0] == parts[0] and len(parts) > 1 and parts[0] != "metrics"
        assert rank < own or inside, f"{'.'.join(parts)} imports {'.'.join(target)}"


def test_importing_costs_torch_and_nothing_else():
    """Neither the package nor a metric without weights loads torchvision, timm, open_clip, the Hub, Pillow, typer..."""
    code = """
import json, sys, torch
torch.ones(1)
before = {name.partition(".")[0] for name in sys.modules}
import mdiqa_metric
mdiqa_metric.Loss(mdiqa_metric.create("psnr")), mdiqa_metric.list_metrics(), dir(mdiqa_metric)
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["mdiqa_metric"]
